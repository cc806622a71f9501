"""A process that lets everything else on the machine go first. It cannot be taken back without rights."""

import contextlib
import os
from pathlib import Path
from typing import Final

# About a tenth of the weight of the others. Lower ones would starve on a machine that is busy with other things, with
# leases to renew and a transaction open.
NICE: Final = 10

_THREADS: Final = Path("/proc/self/task")


def step_back() -> None:
    """From now on compute mostly what nobody else wants to.

    Linux weighs sessions before it weighs what runs in them, where its autogroups are on: a process that leads a
    session of its own, as a worker does, must step back as a group too, or its own priority means nothing outside of
    it. And it weighs threads, not processes: each one that is there already has to step back itself.
    """
    os.nice(NICE)  # the threads that this one begins later, too
    with contextlib.suppress(OSError):  # no Linux
        for thread in _THREADS.iterdir():
            with contextlib.suppress(ProcessLookupError):  # it has ended
                _step_back(int(thread.name))
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # no Linux, or no autogroups
            Path("/proc/self/autogroup").write_text(str(NICE), encoding="ascii")


def _step_back(thread: int) -> None:
    os.setpriority(os.PRIO_PROCESS, thread, max(NICE, os.getpriority(os.PRIO_PROCESS, thread)))
    # A batch thread never interrupts one that runs, and is interrupted by others that wake up.
    os.sched_setscheduler(thread, os.SCHED_BATCH, os.sched_param(0))
