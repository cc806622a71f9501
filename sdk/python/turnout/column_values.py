"""Values of one column as the contract's `Column`, and back: many values at once, without an object for each."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final
from uuid import UUID

from turnout.kind_values import DAY_ZERO, EPOCH, days, micros, plain
from turnout.kinds import Kind
from turnout.query.v1.query_pb2 import Column

Convert = Callable[[Any], Any] | None

# The list of each kind, what stands for null in it, and what makes its elements of values; None = they are those.
_LISTS: Final[dict[Kind, tuple[str, Any, Convert]]] = {
    Kind.INT64: ("int64_values", 0, None),
    Kind.DOUBLE: ("double_values", 0.0, None),
    Kind.BOOL: ("bool_values", False, None),
    Kind.STRING: ("string_values", "", None),
    Kind.BYTES: ("bytes_values", b"", None),
    Kind.DATE: ("date_days", date(1970, 1, 1), days),
    Kind.TIMESTAMP: ("timestamp_micros", EPOCH, micros),
    Kind.DECIMAL: ("decimal_values", Decimal(0), plain),
    Kind.UUID: ("uuid_values", UUID(int=0), str),
    Kind.JSON: ("json_values", "", None),
    Kind.OTHER: ("string_values", "", None),
}


def _date(raw: int) -> date:
    return date.fromordinal(DAY_ZERO + raw)


def _instant(raw: int) -> datetime:
    return EPOCH + timedelta(microseconds=raw)


# What makes Python's values of a list's elements.
_VALUES: Final[dict[str, Convert]] = {
    "date_days": _date,
    "timestamp_micros": _instant,
    "decimal_values": Decimal,
    "uuid_values": UUID,
    "json_values": json.loads,
}


def column_of(kind: Kind, values: Sequence[Any]) -> Column:
    """Values as PostgreSQL's driver gives them, None for null, as a column."""
    name, zero, convert = _LISTS[kind]
    if convert is None:
        with contextlib.suppress(TypeError):  # a null among them, which to look for would take longer than all the rest
            return Column(**{name: values})
    nulls = [row for row, value in enumerate(values) if value is None]
    if nulls:
        values = [zero if value is None else value for value in values]
    return Column(nulls=nulls, **{name: values if convert is None else [convert(value) for value in values]})


def rows_of(column: Column) -> int:
    """How many rows a column has."""
    return max((len(values) for field, values in column.ListFields() if field.name != "nulls"), default=0)


def raw_values(kind: Kind, column: Column) -> Sequence[Any]:
    """The elements of the list of that kind. ValueError when another list came."""
    name, _, _ = _LISTS[kind]
    came = [field.name for field, _ in column.ListFields() if field.name != "nulls"]
    if any(one != name for one in came):
        raise ValueError(f"{' and '.join(came)} came")
    return list(getattr(column, name))


def values_of(column: Column) -> list[Any]:
    """A column as Python's values, None for null. OverflowError for a date or time that Python does not have."""
    for field, elements in column.ListFields():
        if field.name == "nulls":
            continue
        convert = _VALUES.get(field.name)
        if not column.nulls:
            return list(elements) if convert is None else [convert(one) for one in elements]
        values = list(elements)
        nulls = set(column.nulls)
        return [
            None if row in nulls else value if convert is None else convert(value) for row, value in enumerate(values)
        ]
    return []
