"""Values between the contract and Python: keys inwards, checked against the columns' types, and rows outwards. Pure."""

import re
from collections.abc import Callable, Sequence
from datetime import date, datetime, timedelta
from decimal import Decimal
from typing import Any, Protocol
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from turnout.column_values import FIELDS, LAYOUTS, rows_of
from turnout.errors import InvalidInput
from turnout.kind_values import DAY_ZERO, EPOCH, VALUE_FIELDS
from turnout.kinds import Kind
from turnout.query.v1 import query_pb2
from turnout.reading.columns import Column, Table

_DECIMAL = re.compile(r"[+-]?([0-9]+(\.[0-9]*)?|\.[0-9]+)", re.ASCII)
_DECIMAL_CHARACTERS_MAX = 20_000  # PostgreSQL's own limits are 131072 digits before and 16383 after the point
_SHOWN_CHARACTERS_MAX = 60


# --- keys, inwards --------------------------------------------------------------------------------------------------


def key_of(table: Table, key: query_pb2.Key) -> tuple[Any, ...]:
    """The key as Python values in the order of the table's key.

    InvalidInput (INVALID_KEY) names the column, its type, and what came.
    """
    values = table.in_key_order(key.columns, key.values)
    return tuple(_key_value(table, column, value) for column, value in zip(table.key, values, strict=True))


class Keys(Protocol):
    """The keys of a read, in whatever form they came."""

    def __len__(self) -> int:
        """How many."""

    def of(self, table: Table) -> Sequence[tuple[Any, ...]]:
        """Each key as Python values in the order of the table's key. InvalidInput (INVALID_KEY)."""

    def by_column(self, table: Table) -> Sequence[Sequence[Any]]:
        """The same by column: the values of each column of the table's key."""


def transposed(table: Table, keys: Sequence[tuple[Any, ...]]) -> Sequence[Sequence[Any]]:
    """Keys by column."""
    return list(zip(*keys, strict=True)) or [()] * len(table.key)


class MessageKeys:
    """Keys that came as messages; read once for all tables that have the same key."""

    def __init__(self, messages: Sequence[query_pb2.Key]) -> None:
        self._messages = messages
        self._key: tuple[Column, ...] = ()
        self._values: list[tuple[Any, ...]] = []

    def __len__(self) -> int:
        return len(self._messages)

    def of(self, table: Table) -> list[tuple[Any, ...]]:
        """Each key as `key_of` gives it. InvalidInput."""
        if self._key != table.key:
            self._values = [key_of(table, message) for message in self._messages]
            self._key = table.key
        return self._values

    def by_column(self, table: Table) -> Sequence[Sequence[Any]]:
        """The same by column. InvalidInput."""
        return transposed(table, self.of(table))


def _key_value(table: Table, column: Column, value: query_pb2.Value) -> Any:
    came = value.WhichOneof("kind")
    if came is None:
        raise _refused(table, column, "null came, and a key is never null")
    raw = getattr(value, came)
    if came != VALUE_FIELDS[column.kind][0]:
        raise _refused(table, column, f"{came} {_shown(raw)} came")
    try:
        return _READ[column.kind](raw)
    except ValueError as error:
        raise _refused(table, column, f"{_shown(raw)} came: {error}") from None


def _refused(table: Table, column: Column, what: str) -> InvalidInput:
    return InvalidInput(
        "INVALID_KEY",
        f"Key column {column.name} of {table.version} is {column.postgres} and takes {column.kind.value}; {what}.",
        metadata={"column": column.name, "type": column.postgres},
    )


def _shown(raw: object) -> str:
    if isinstance(raw, Timestamp):
        return f"{raw.seconds}.{raw.nanos:09d} s since 1970"
    text = repr(raw)
    return text if len(text) <= _SHOWN_CHARACTERS_MAX else f"{text[:_SHOWN_CHARACTERS_MAX]}..."


def _as_it_is(raw: Any) -> Any:
    return raw


def _text(raw: str) -> str:
    if "\0" in raw:
        raise ValueError("PostgreSQL stores no text with a zero character")
    return raw


def _date(raw: int) -> date:
    try:
        return date.fromordinal(DAY_ZERO + raw)
    except (ValueError, OverflowError):
        raise ValueError("it lies outside of the years 1 to 9999") from None


def _timestamp(raw: Timestamp) -> datetime:
    if not 0 <= raw.nanos < 1_000_000_000:
        raise ValueError("its nanoseconds are not 0 to 999999999")
    if raw.nanos % 1000:
        raise ValueError("it is finer than microseconds")
    try:
        return EPOCH + timedelta(seconds=raw.seconds, microseconds=raw.nanos // 1000)
    except OverflowError:
        raise ValueError("it lies outside of the years 1 to 9999") from None


def _decimal(raw: str) -> Decimal:
    if not _DECIMAL.fullmatch(raw) or len(raw) > _DECIMAL_CHARACTERS_MAX:
        raise ValueError("it is not a number in decimal notation, such as -12.50")
    return Decimal(raw)


def _uuid(raw: str) -> UUID:
    try:
        return UUID(raw)
    except ValueError:
        raise ValueError("it is not a UUID such as 123e4567-e89b-12d3-a456-426614174000") from None


_READ: dict[Kind, Callable[[Any], Any]] = {
    Kind.INT64: _as_it_is,
    Kind.DOUBLE: _as_it_is,
    Kind.BOOL: _as_it_is,
    Kind.STRING: _text,
    Kind.BYTES: _as_it_is,
    Kind.DATE: _date,
    Kind.TIMESTAMP: _timestamp,
    Kind.DECIMAL: _decimal,
    Kind.UUID: _uuid,
}


def _instant(raw: int) -> datetime:
    try:
        return EPOCH + timedelta(microseconds=raw)
    except OverflowError:
        raise ValueError("it lies outside of the years 1 to 9999") from None


_READ_COLUMN: dict[Kind, Callable[[Any], Any]] = {  # elements of other kinds are the values
    Kind.DATE: _date,
    Kind.TIMESTAMP: _instant,
    Kind.DECIMAL: _decimal,
    Kind.UUID: _uuid,
}


class ColumnKeys:
    """Keys that came by column; read once for all tables that have the same key.

    names: of the columns; empty = they are in the order of the table's key.
    """

    def __init__(self, columns: Sequence[query_pb2.Column], names: Sequence[str] = ()) -> None:
        self._columns = columns
        self._names = names
        self._key: tuple[Column, ...] = ()
        self._values: list[Sequence[Any]] = []
        try:
            self._count = max(map(rows_of, columns), default=0)
        except ValueError as error:
            raise InvalidInput("INVALID_KEY", f"A column of the keys cannot be read: {error}.") from None

    def __len__(self) -> int:
        return self._count

    def of(self, table: Table) -> list[tuple[Any, ...]]:
        """Each key as Python values. InvalidInput (INVALID_KEY)."""
        return list(zip(*self.by_column(table), strict=True))

    def by_column(self, table: Table) -> Sequence[Sequence[Any]]:
        """The values of each column of the table's key. InvalidInput (INVALID_KEY)."""
        if self._key != table.key:
            columns = table.in_key_order(self._names, list(self._columns))
            self._values = [self._of(table, column, sent) for column, sent in zip(table.key, columns, strict=True)]
            self._key = table.key
        return self._values

    def _of(self, table: Table, column: Column, sent: query_pb2.Column) -> Sequence[Any]:
        if any(sent.nulls):
            raise _refused(table, column, "null came, and a key is never null")
        came, field = sent.WhichOneof("values"), FIELDS[column.kind]
        if came not in (None, field):
            raise _refused(table, column, f"{came} came")
        read = _READ_COLUMN.get(column.kind)
        try:
            raw = LAYOUTS[field].unpack(getattr(sent, field))
            values = raw if read is None else [read(one) for one in raw]
        except ValueError as error:
            raise _refused(table, column, str(error)) from None
        if len(values) != self._count:
            raise _refused(table, column, f"{len(values)} values came, and another column has {self._count}")
        return values


# --- rows, outwards -------------------------------------------------------------------------------------------------


def row_writer(columns: Sequence[Column]) -> Callable[[query_pb2.Row, Sequence[Any]], None]:
    """Writes values in the order of `columns` into a row of the contract, which is empty."""
    fields = [VALUE_FIELDS[column.kind] for column in columns]

    def write(row: query_pb2.Row, values: Sequence[Any]) -> None:
        add = row.values.add
        for (name, convert), value in zip(fields, values, strict=True):
            if value is None:
                add()
            else:
                add(**{name: value if convert is None else convert(value)})

    return write
