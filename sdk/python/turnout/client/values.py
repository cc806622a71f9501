"""Python values <-> typed values of the contract.

query.v1.Value    Python                       query.v1.Value    Python
unset             None                         bytes             bytes
int64             int                          date_days         date
double            float                        timestamp         datetime, aware; back in UTC
bool              bool                         decimal           Decimal
string            str, Enum (as stored)        uuid              UUID
                                               json              list, dict
"""

from __future__ import annotations

import enum
import json
from collections.abc import Callable, Mapping, Sequence
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import TypeAlias
from uuid import UUID

from google.protobuf.timestamp_pb2 import Timestamp

from turnout.column_values import UNREADABLE, unreadable
from turnout.errors import InvalidInput
from turnout.job.columns import enum_texts
from turnout.query.v1 import query_pb2

KeyValue: TypeAlias = int | bool | str | bytes | date | Decimal | UUID | enum.Enum
Key: TypeAlias = Mapping[str, KeyValue] | Sequence[KeyValue] | KeyValue

_EPOCH = date(1970, 1, 1)
_INT64_MAX = 2**63 - 1


def to_value(value: object) -> query_pb2.Value:
    """The typed value. InvalidInput for a type or a number that no column holds."""
    if value is None:
        return query_pb2.Value()
    if isinstance(value, enum.Enum):
        return _text(enum_texts(type(value))[value])
    for kind, convert in _TO_VALUE.items():  # bool before int and datetime before date: each is a subclass
        if isinstance(value, kind):
            return convert(value)
    raise InvalidInput("INVALID_VALUE", f"{value!r} is a {type(value).__name__}, which no column holds.")


def from_value(value: query_pb2.Value) -> object:
    """The Python value. OverflowError for a date or time that PostgreSQL holds and Python does not."""
    kind = value.WhichOneof("kind")
    return None if kind is None else _FROM_VALUE[kind](value)


def to_key(key: Key) -> query_pb2.Key:
    """A row's key: a mapping by column, a sequence in the order of the table's key, or the one value of a short key."""
    if isinstance(key, Mapping):
        return query_pb2.Key(columns=list(key), values=[to_value(value) for value in key.values()])
    if isinstance(key, Sequence) and not isinstance(key, str | bytes):
        return query_pb2.Key(values=[to_value(value) for value in key])
    return query_pb2.Key(values=[to_value(key)])


def from_row(columns: Sequence[str], row: query_pb2.Row) -> dict[str, object]:
    """A row by column name, in the table's order. FailedPrecondition (VALUE_UNREADABLE)."""
    found: dict[str, object] = {}
    for name, value in zip(columns, row.values, strict=True):
        try:
            found[name] = from_value(value)
        except UNREADABLE as error:
            raise unreadable(name, error) from None
    return found


def check_text(reason: str, text: str) -> str:
    """The text. InvalidInput (the reason) where it holds half of a surrogate pair, which nothing stores."""
    try:
        text.encode()
    except UnicodeEncodeError:
        raise InvalidInput(
            reason, f"{text!r} is no text: it holds half of a surrogate pair; mend or replace it."
        ) from None
    return text


def _text(value: str) -> query_pb2.Value:
    return query_pb2.Value(string_value=check_text("INVALID_VALUE", value))


def _int(value: int) -> query_pb2.Value:
    if not -_INT64_MAX - 1 <= value <= _INT64_MAX:
        raise InvalidInput("INVALID_VALUE", f"{value} does not fit into 64 bits, and so into no int column.")
    return query_pb2.Value(int64_value=value)


def _timestamp(value: datetime) -> query_pb2.Value:
    if value.tzinfo is None:
        raise InvalidInput("INVALID_VALUE", f"{value!r} has no time zone; add tzinfo=UTC.")
    stamp = Timestamp()
    stamp.FromDatetime(value)
    return query_pb2.Value(timestamp_value=stamp)


def _json(value: object) -> query_pb2.Value:
    try:
        return query_pb2.Value(json_value=json.dumps(value, ensure_ascii=False, allow_nan=False))
    except (TypeError, ValueError) as error:
        raise InvalidInput("INVALID_VALUE", f"{value!r} cannot be written as JSON: {error}.") from None


_TO_VALUE: dict[type, Callable[..., query_pb2.Value]] = {
    bool: lambda value: query_pb2.Value(bool_value=value),
    int: _int,
    float: lambda value: query_pb2.Value(double_value=value),
    str: _text,
    bytes: lambda value: query_pb2.Value(bytes_value=value),
    datetime: _timestamp,
    date: lambda value: query_pb2.Value(date_days=(value - _EPOCH).days),
    Decimal: lambda value: query_pb2.Value(decimal_value=format(value, "f")),
    UUID: lambda value: query_pb2.Value(uuid_value=str(value)),
    list: _json,
    dict: _json,
}

_FROM_VALUE: dict[str, Callable[[query_pb2.Value], object]] = {
    "int64_value": lambda value: value.int64_value,
    "double_value": lambda value: value.double_value,
    "bool_value": lambda value: value.bool_value,
    "string_value": lambda value: value.string_value,
    "bytes_value": lambda value: value.bytes_value,
    "date_days": lambda value: _EPOCH + timedelta(days=value.date_days),
    "timestamp_value": lambda value: value.timestamp_value.ToDatetime(tzinfo=UTC),
    "decimal_value": lambda value: Decimal(value.decimal_value),
    "uuid_value": lambda value: UUID(value.uuid_value),
    "json_value": lambda value: json.loads(value.json_value),
}
