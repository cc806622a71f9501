"""How long, as people write it, in files and on the command line: 90s, 1h30m, 500 ms, 7d."""

from __future__ import annotations

import math
import re
from datetime import timedelta
from typing import Final

MAX: Final = timedelta(days=3660)
_UNIT_S: Final = {"ms": 0.001, "s": 1.0, "m": 60.0, "h": 3600.0, "d": 86400.0, "w": 604800.0}
_PART: Final = r"(\d+(?:\.\d+)?)\s*(ms|[smhdw])"
_PARTS: Final = re.compile(_PART, re.ASCII)
_WHOLE: Final = re.compile(rf"(?:{_PART}\s*)+", re.ASCII)
_NUMBER: Final = re.compile(r"\d+(?:\.\d+)?", re.ASCII)


class DurationError(ValueError):
    """A text that says no duration. Its text says why, and what to write; it ends with a full stop."""


def parse(text: str) -> timedelta:
    """The duration that a text says: numbers, each with its unit, of which none is left out. DurationError."""
    said = text.strip()
    if not _WHOLE.fullmatch(said):
        meant = f" ({said}s?)" if _NUMBER.fullmatch(said) else ""
        raise DurationError(
            f"{text!r} is no duration{meant}: write a number and ms, s, m, h, d or w, such as 30s or 1h30m."
        )
    seconds = math.fsum(float(number) * _UNIT_S[unit] for number, unit in _PARTS.findall(said))
    if seconds > MAX.total_seconds():
        raise DurationError(f"{text!r} is longer than ten years.")
    return timedelta(seconds=seconds)
