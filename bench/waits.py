"""How long processes had something to do and no core to do it on, as Linux tells it."""

from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple


class Cores(NamedTuple):
    """Of all threads of some processes. Seconds."""

    ran_s: float
    waited_s: float  # could have run, and no core was free

    def since(self, before: "Cores") -> "Cores":
        """What was added."""
        return Cores(self.ran_s - before.ran_s, self.waited_s - before.waited_s)


def cores(pids: Iterable[int]) -> Cores:
    """Up to now, of the threads that are alive. OSError when a process is gone."""
    lines = [
        (thread / "schedstat").read_text(encoding="ascii").split()
        for pid in pids
        for thread in Path(f"/proc/{pid}/task").iterdir()
    ]
    return Cores(sum(int(ran) for ran, _, _ in lines) / 1e9, sum(int(waited) for _, waited, _ in lines) / 1e9)
