"""Did you mean?"""

from __future__ import annotations

from collections.abc import Iterable
from difflib import get_close_matches


def did_you_mean(wrong: str, known: Iterable[str]) -> str:
    """The end of a sentence about a wrong name: "; did you mean carrier-punctuality?", or "." when nothing is near."""
    near = get_close_matches(wrong.lower(), sorted(known), n=1, cutoff=0.6)
    return f"; did you mean {near[0]}?" if near else "."
