"""Lengths of time in words. Pure."""

from datetime import timedelta


def span(seconds: float) -> str:
    """A length of time as a person says it: "0.4 s", "90 s", "12 min", "5 h", "23 days"."""
    if seconds < 10:
        return f"{seconds:.1f} s"
    if seconds < 120:
        return f"{seconds:.0f} s"
    whole = timedelta(seconds=seconds)
    if whole < timedelta(hours=2):
        return f"{seconds / 60:.0f} min"
    if whole < timedelta(days=2):
        return f"{seconds / 3600:.0f} h"
    return f"{whole.days:,} days"
