"""Worker processes, found in /proc; on a system without it there are none to be found."""

from __future__ import annotations

import contextlib
from pathlib import Path

_WORKER = b"services.replayer.engine"


def children_of(pid: int | None) -> list[int]:
    """The processes that one has started and that are not reaped yet."""
    found: list[int] = []
    for file in Path(f"/proc/{pid}/task").glob("*/children"):
        with contextlib.suppress(OSError):
            found += map(int, file.read_text().split())
    return found


def worker_pids(parent: int | None) -> list[int]:
    """The workers among them, sorted. Reads a few files only: nothing may hold up what runs beside it."""
    found = []
    for pid in children_of(parent):
        with contextlib.suppress(OSError):
            if _WORKER in Path(f"/proc/{pid}/cmdline").read_bytes():
                found.append(pid)
    return sorted(found)


def stat_of(pid: int) -> list[str]:
    """The fields of /proc/PID/stat from the third on: state, parent, ..., start time (19). OSError when it is gone."""
    return Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
