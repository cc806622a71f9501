"""A share as people write it, in files and on the command line, in per cent: 5%, 12.5 %, 100."""

from __future__ import annotations

import enum
import re
from decimal import Decimal
from typing import Final

WHOLE: Final = 10_000
"""Basis points of all."""
_DECIMALS_MAX: Final = 2
_SHARE: Final = re.compile(r"([0-9]+(?:\.[0-9]+)?)\s*(%?)", re.ASCII)


class ShareError(ValueError):
    """A text that says no share. Its text says why, and what to write; it ends with a full stop."""


class Sign(enum.Enum):
    """Where the per cent sign must stand."""

    ALWAYS = "always"  # a number alone could be a part of one as well
    BELOW_ONE = "below one"  # only a number below one could be meant so
    NOWHERE = "nowhere"  # what else is said leaves no doubt


def basis_points(text: str, sign: Sign = Sign.BELOW_ONE) -> int:
    """The share that a text says, 0 to WHOLE: per cent, by hundredths. ShareError."""
    match = _SHARE.fullmatch(text.strip())
    if match is None or (sign is Sign.ALWAYS and not match[2]):
        with_sign = " with its sign" if sign is Sign.ALWAYS else ""
        raise ShareError(f"{text!r} is no share: write per cent{with_sign}, such as 10%.")
    decimals = len(match[1].partition(".")[2].rstrip("0"))
    if decimals > _DECIMALS_MAX + 2:  # be it meant as a part of one; what follows computes exactly
        raise _too_fine(text)
    number = Decimal(match[1])
    if sign is Sign.BELOW_ONE and 0 < number < 1 and not match[2]:
        raise ShareError(f"{text!r} may be meant as a part of one: write {_plain(100 * number)}% or {_plain(number)}%.")
    if number > 100:
        raise ShareError(f"{text!r} is too much: a share is at most 100%.")
    if decimals > _DECIMALS_MAX:
        raise _too_fine(text)
    return int(100 * number)


def _too_fine(text: str) -> ShareError:
    return ShareError(f"{text!r} is too fine: shares go by 0.01%.")


def _plain(number: Decimal) -> str:
    return f"{number:f}".rstrip("0").rstrip(".") if "." in f"{number:f}" else f"{number:f}"
