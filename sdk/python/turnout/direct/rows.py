"""Values of PostgreSQL, as the driver gives them, as results. Pure."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from datetime import UTC, datetime
from typing import Any

from turnout.column_values import UNREADABLE, unreadable
from turnout.kinds import Kind
from turnout.reading.columns import Table


def _aware(value: datetime) -> datetime:
    # The driver's form of PostgreSQL's infinity has no time zone: the first or last instant that Python has.
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


# All other kinds are what a client gets from a front, as the driver gives them.
_CONVERTED: dict[Kind, Callable[[Any], object]] = {Kind.JSON: json.loads, Kind.TIMESTAMP: _aware}


class Shape:
    """How rows of one table become mappings from the column's name to its value."""

    __slots__ = ("_converted", "_names", "table")

    def __init__(self, table: Table) -> None:
        self.table = table
        self._names = table.column_names
        self._converted = tuple(
            (column.name, _CONVERTED[column.kind]) for column in table.columns if column.kind in _CONVERTED
        )

    def row(self, values: Sequence[Any]) -> dict[str, object]:
        """One row, in the table's order. FailedPrecondition (VALUE_UNREADABLE)."""
        row = dict(zip(self._names, values, strict=True))
        for name, convert in self._converted:
            if row[name] is not None:
                try:
                    row[name] = convert(row[name])
                except UNREADABLE as error:
                    raise unreadable(name, error) from None
        return row
