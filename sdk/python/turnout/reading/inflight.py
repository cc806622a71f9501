"""Which reads are in flight under which epoch, so that a front can say when an earlier route is drained. Pure.

Everything happens on the event loop between two awaits, so there is no lock: `read` counts up in the same step in which
the caller looked at the routing table, and counts down in a `finally`.
"""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager


class InFlight:
    """Counts reads by job and epoch, and calls back once all reads begun under an earlier epoch have ended."""

    def __init__(self) -> None:
        self._reads: dict[str, Counter[int]] = {}
        self._waiting: dict[str, list[tuple[int, Callable[[], None]]]] = {}

    @contextmanager
    def read(self, job: str, epoch: int) -> Iterator[None]:
        """A read under the job's route of that epoch, from now until the block is left in whatever way."""
        reads = self._reads.setdefault(job, Counter())
        reads[epoch] += 1
        try:
            yield
        finally:
            reads[epoch] -= 1
            if not reads[epoch]:
                del reads[epoch]
                if not reads:
                    self._reads.pop(job, None)
                self._tell(job)

    def count(self, job: str, before_epoch: int) -> int:
        """Reads in flight that began under an epoch before that one."""
        return sum(number for epoch, number in self._reads.get(job, {}).items() if epoch < before_epoch)

    def when_drained(self, job: str, epoch: int, tell: Callable[[], None]) -> None:
        """Call `tell` once no read of the job begun before `epoch` is in flight: at once if that is so already."""
        self._waiting.setdefault(job, []).append((epoch, tell))
        self._tell(job)

    def forget_waiting(self) -> None:
        """Call nobody any more: whoever waited is gone."""
        self._waiting.clear()

    def _tell(self, job: str) -> None:
        waiting = self._waiting.get(job)
        if not waiting:
            return
        drained = [(epoch, tell) for epoch, tell in waiting if not self.count(job, epoch)]
        left = [one for one in waiting if one not in drained]
        if left:
            self._waiting[job] = left
        else:
            del self._waiting[job]
        for _, tell in drained:
            tell()
