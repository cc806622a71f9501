"""Values of one column as the contract's `Column`, and back: many values at once, without an object for each. Pure.

A column is packed as PostgreSQL itself can write it (reading/statements.py asks for that), so that a front passes on
what it has read without taking it apart.
"""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final, NamedTuple
from uuid import UUID

from turnout.errors import FailedPrecondition
from turnout.kind_values import DAY_ZERO, EPOCH, days, micros, plain
from turnout.kinds import Kind
from turnout.query.v1.query_pb2 import Column

Convert = Callable[[Any], Any] | None

FIELDS: Final[dict[Kind, str]] = {
    Kind.INT64: "int64_values",
    Kind.DOUBLE: "double_values",
    Kind.BOOL: "bool_values",
    Kind.STRING: "string_values",
    Kind.BYTES: "bytes_values",
    Kind.DATE: "date_days",
    Kind.TIMESTAMP: "timestamp_micros",
    Kind.DECIMAL: "decimal_values",
    Kind.UUID: "uuid_values",
    Kind.JSON: "json_values",
    Kind.OTHER: "string_values",
}
"""The field of `Column` for values of each kind."""


class Packed(NamedTuple):
    """Values of one column. nulls: a byte a row, 1 where the value is null; empty = none is."""

    data: bytes
    nulls: bytes = b""


# --- how elements lie in a field ------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Layout:
    """What a field is made of. zero: what stands for null.

    pack: struct.error or ValueError for elements that do not fit. unpack: ValueError for bytes that are no such field.
    taken: the elements at these places, still packed.
    """

    zero: Any
    pack: Callable[[Sequence[Any]], bytes]
    unpack: Callable[[bytes], Sequence[Any]]
    rows: Callable[[bytes], int]
    taken: Callable[[bytes, Sequence[int]], bytes]


def _fixed(code: str, zero: Any) -> Layout:
    width = struct.calcsize(f">{code}")

    def unpack(raw: bytes) -> Sequence[Any]:
        rows, rest = divmod(len(raw), width)
        if rest:
            raise ValueError(f"{len(raw)} bytes came, and each value takes {width}")
        return struct.unpack(f">{rows}{code}", raw)

    return Layout(
        zero,
        lambda values: struct.pack(f">{len(values)}{code}", *values),
        unpack,
        lambda raw: len(raw) // width,
        lambda raw, places: b"".join([raw[width * place : width * (place + 1)] for place in places]),
    )


def _pack_texts(values: Sequence[str]) -> bytes:
    if not values:
        return b""
    raw = ("\0".join(values) + "\0").encode()
    if raw.count(0) != len(values):
        raise ValueError("a text holds a zero character")
    return raw


def _unpack_texts(raw: bytes) -> Sequence[str]:
    if not raw:
        return ()
    if raw[-1]:
        raise ValueError("no zero byte follows the last text")
    return raw[:-1].decode().split("\0")


def _taken_texts(raw: bytes, places: Sequence[int]) -> bytes:
    texts = raw.split(b"\0")
    return b"".join([texts[place] + b"\0" for place in places])


_TEXTS: Final = Layout("", _pack_texts, _unpack_texts, lambda raw: raw.count(0), _taken_texts)
_LENGTH: Final = struct.Struct(">I")


def _pack_blobs(values: Sequence[bytes]) -> bytes:
    return b"".join([part for value in values for part in (_LENGTH.pack(len(value)), value)])


def _unpack_blobs(raw: bytes) -> Sequence[bytes]:
    return [raw[begin:end] for begin, end in _blobs(raw)]


def _blobs(raw: bytes) -> Iterator[tuple[int, int]]:
    """Where each value begins and ends."""
    at = 0
    while at < len(raw):
        begin = at + _LENGTH.size
        at = begin + (_LENGTH.unpack_from(raw, at)[0] if begin <= len(raw) else 0)
        if at > len(raw) or begin > len(raw):
            raise ValueError("it ends within a value")
        yield begin, at


def _taken_blobs(raw: bytes, places: Sequence[int]) -> bytes:
    blobs = [*_blobs(raw)]
    return b"".join([raw[blobs[place][0] - _LENGTH.size : blobs[place][1]] for place in places])


LAYOUTS: Final[dict[str, Layout]] = {
    "int64_values": _fixed("q", 0),
    "double_values": _fixed("d", 0.0),
    "bool_values": _fixed("?", False),
    "string_values": _TEXTS,
    "bytes_values": Layout(b"", _pack_blobs, _unpack_blobs, lambda raw: sum(1 for _ in _blobs(raw)), _taken_blobs),
    "date_days": _fixed("i", 0),
    "timestamp_micros": _fixed("q", 0),
    "decimal_values": _TEXTS,
    "uuid_values": _TEXTS,
    "json_values": _TEXTS,
}
"""The layout of each field of `Column`."""


# --- elements of values, and back -----------------------------------------------------------------------------------

_DAYS_MAX: Final = 2**31 - 1  # of infinity, and one less below zero of -infinity
_MICROS_MAX: Final = 2**63 - 1


def _micros(value: datetime) -> int:
    if value.tzinfo is None:  # the driver's form of infinity: the first or last instant that Python has
        return _MICROS_MAX if value.year > 1 else -_MICROS_MAX - 1
    return micros(value)


_ELEMENTS: Final[dict[Kind, Convert]] = {
    Kind.DATE: days,
    Kind.TIMESTAMP: _micros,
    Kind.DECIMAL: plain,
    Kind.UUID: str,
}
"""What makes elements of the driver's values; of other kinds they are those."""


def _date(raw: int) -> date:
    try:
        return date.fromordinal(DAY_ZERO + raw)
    except (ValueError, OverflowError):
        if raw == _DAYS_MAX:
            return date.max
        if raw == -_DAYS_MAX - 1:
            return date.min
        raise OverflowError(f"day {raw} since 1970-01-01 lies outside of the years 1 to 9999") from None


def _driver_instant(raw: int) -> datetime:
    try:
        return EPOCH + timedelta(0, 0, raw)
    except OverflowError:
        if raw == _MICROS_MAX:
            return datetime.max  # noqa: DTZ901 - the driver's form, which an instant of the calendar does not have
        if raw == -_MICROS_MAX - 1:
            return datetime.min  # noqa: DTZ901
        raise OverflowError(f"{raw} µs since 1970-01-01 lie outside of the years 1 to 9999") from None


def _instant(raw: int) -> datetime:
    value = _driver_instant(raw)
    return value if value.tzinfo is not None else value.replace(tzinfo=UTC)


_DRIVER_VALUES: Final[dict[Kind, Convert]] = {
    Kind.DATE: _date,
    Kind.TIMESTAMP: _driver_instant,
    Kind.DECIMAL: Decimal,
    Kind.UUID: UUID,
}

_VALUES: Final[dict[str, Convert]] = {
    "date_days": _date,
    "timestamp_micros": _instant,
    "decimal_values": Decimal,
    "uuid_values": UUID,
    "json_values": json.loads,
}


def packed(kind: Kind, values: Sequence[Any]) -> Packed:
    """Values as PostgreSQL's driver gives them, None for null. struct.error or ValueError for what does not fit."""
    layout, convert = LAYOUTS[FIELDS[kind]], _ELEMENTS.get(kind)
    nulls = b""
    if None in values:
        nulls = bytes([value is None for value in values])
        values = [layout.zero if value is None else value if convert is None else convert(value) for value in values]
    elif convert is not None:
        values = [convert(value) for value in values]
    return Packed(layout.pack(values), nulls)


def taken(kind: Kind, column: Packed, places: Sequence[int]) -> Packed:
    """The rows at these places, still packed."""
    nulls = bytes([column.nulls[place] for place in places]) if column.nulls else b""
    return Packed(LAYOUTS[FIELDS[kind]].taken(column.data, places), nulls)


def driver_values(kind: Kind, column: Packed) -> Sequence[Any]:
    """What was packed, as the driver gives it."""
    return _converted(LAYOUTS[FIELDS[kind]].unpack(column.data), column.nulls, _DRIVER_VALUES.get(kind))


def message_of(kind: Kind, column: Packed) -> Column:
    """A packed column as a message."""
    return Column(nulls=column.nulls, **{FIELDS[kind]: column.data})


def column_of(kind: Kind, values: Sequence[Any]) -> Column:
    """Values as PostgreSQL's driver gives them as a message. Raises as `packed` does."""
    return message_of(kind, packed(kind, values))


def rows_of(column: Column) -> int:
    """How many rows a column has. ValueError for one that is none."""
    field = column.WhichOneof("values")
    return 0 if field is None else LAYOUTS[field].rows(getattr(column, field))


def values_of(column: Column) -> Sequence[Any]:
    """A column as Python's values, None for null. OverflowError for a date or time that Python does not have."""
    field = column.WhichOneof("values")
    if field is None:
        return ()
    return _converted(LAYOUTS[field].unpack(getattr(column, field)), column.nulls, _VALUES.get(field))


UNREADABLE: Final = (OverflowError, RecursionError, ValueError)
"""What a value raises that PostgreSQL holds and Python does not, such as a day of the year 26000 or JSON too deep."""


def unreadable(column: str, error: Exception) -> FailedPrecondition:
    """What to tell of a column, one of whose values is UNREADABLE."""
    return FailedPrecondition(
        "VALUE_UNREADABLE",
        f"Column {column} holds a value that cannot be read here: {error}. Ask for other rows or read this by SQL, and "
        f"mend the job and replay it as a new version.",
        metadata={"column": column},
    )


def _converted(elements: Sequence[Any], nulls: bytes, convert: Convert) -> Sequence[Any]:
    if not nulls:
        return elements if convert is None else [convert(one) for one in elements]
    if convert is None:
        return [None if null else one for null, one in zip(nulls, elements, strict=True)]
    return [None if null else convert(one) for null, one in zip(nulls, elements, strict=True)]
