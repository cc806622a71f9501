"""A process that lets everything else on the machine go first. It cannot be taken back without rights."""

import contextlib
import os
from pathlib import Path
from typing import Final

# About a tenth of the weight of the others. Lower ones would starve on a machine that is busy with other things, with
# leases to renew and a transaction open.
NICE: Final = 10


def step_back() -> None:
    """From now on compute mostly what nobody else wants to.

    Linux weighs sessions before it weighs their processes, where its autogroups are on: a process that leads a session
    of its own, as a worker does, must step back as a group too, or its own priority means nothing outside of it.
    """
    os.nice(NICE)
    if os.getsid(0) == os.getpid():
        with contextlib.suppress(OSError):  # no Linux, or no autogroups
            Path("/proc/self/autogroup").write_text(str(NICE), encoding="ascii")
