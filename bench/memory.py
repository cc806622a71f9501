"""What a process takes of memory, as Linux tells it."""

import re
from pathlib import Path


def resident_mib(pid: int | str, *, peak: bool = False) -> float:
    """Resident memory in MiB, now or at its peak; of this process by the id "self". OSError when it is gone."""
    field = "VmHWM" if peak else "VmRSS"
    found = re.search(rf"{field}:\s+(\d+) kB", Path(f"/proc/{pid}/status").read_text(encoding="utf-8"))
    if found is None:
        raise ProcessLookupError(f"process {pid} has ended and has no memory any more")
    return int(found[1]) / 1024
