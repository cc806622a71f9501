"""The one error of the local stack."""

from __future__ import annotations

import re
from pathlib import Path

_TELLING = re.compile(r"FATAL|PANIC|ERROR|error:|cannot start")
_SAID_CHARACTERS_MAX = 300


class LocalStackError(Exception):
    """The local stack cannot do what was asked. The message is one line: what happened, why, what to do next.

    Messages never carry a password or a connection string.
    """


def part_failure(part: str, what: str, written: str, log: Path) -> LocalStackError:
    """The error for a part that ended by itself: the most telling line that it wrote, and where the rest is."""
    lines = [line.strip() for line in written.splitlines() if line.strip()]
    if any("No space left on device" in line for line in lines):
        return LocalStackError(f"{part} {what}: the disk is full; free some space and start again (log: {log})")
    telling = [line for line in lines if _TELLING.search(line)] or lines
    said = f": {telling[-1][:_SAID_CHARACTERS_MAX]}" if telling else ""
    return LocalStackError(f"{part} {what}{said} (log: {log})")
