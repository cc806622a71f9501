"""A switcher with time for a machine that is busy: what a test waits for decides how it goes, not who is slow."""

from __future__ import annotations

import functools
import pkgutil
from typing import Any

from services.switcher.barrier import Limits

LEASE_S = 10.0
"""Of readers: a front that stands still for a moment stays one that is asked."""

PATIENCE: dict[str, Any] = {
    "services.switcher.app.Limits": functools.partial(Limits, prepare_s=15.0),
    "services.switcher.replayer_client._RUN_TIMEOUT_S": 10.0,
}
"""What the modules of the switcher find instead of their own, by name."""


def take() -> None:
    """For the process that this runs in, as long as it lives."""
    for name, value in PATIENCE.items():
        module, _, attribute = name.rpartition(".")
        setattr(pkgutil.resolve_name(module), attribute, value)
