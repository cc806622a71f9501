"""The budget of copies, a limit a line."""

from __future__ import annotations

from rich.console import RenderableType

from turnout.cli.output import facts
from turnout.cli.quantities import count, rate, size
from turnout.results import Capacity


def capacity_view(capacity: Capacity) -> RenderableType:
    """The limits, each beside what is used of it."""
    return facts(
        [
            ("copies", _copies(capacity)),
            ("rows", f"{rate(capacity.rows_per_s)}{_most(capacity.rows_per_s_max, '/s')}"),
            ("storage", _storage(capacity)),
            ("reads", _reads(capacity)),
        ]
    )


def _copies(capacity: Capacity) -> str:
    waiting = f", {count(capacity.queued)} queued" if capacity.queued else ""
    return f"{count(capacity.copies)}{_most(capacity.copies_max)}{waiting}"


def _most(limit: int | None, unit: str = "") -> str:
    return ", no limit" if limit is None else f" of at most {count(limit)}{unit}"


def _storage(capacity: Capacity) -> str:
    limit = ", no limit" if capacity.storage_bytes_max is None else f" of at most {size(capacity.storage_bytes_max)}"
    expected = capacity.storage_bytes_expected
    coming = f", {size(expected)} more expected of copies under way" if expected else ""
    return f"{size(capacity.storage_bytes)}{limit}{coming}"


def _reads(capacity: Capacity) -> str:
    if capacity.read_p99_ratio_max is None:
        return "copies never slow down for them"
    return f"copies slow down when their p99 is {capacity.read_p99_ratio_max:g} times its quiet value"
