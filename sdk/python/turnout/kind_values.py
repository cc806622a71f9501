"""Values of PostgreSQL, as the driver gives them, as the contract's: one way for reads and for comparisons."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from typing import Any, Final

from google.protobuf.timestamp_pb2 import Timestamp

from turnout.kinds import Kind
from turnout.query.v1.query_pb2 import Value

DAY_ZERO: Final = date(1970, 1, 1).toordinal()
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)


def timestamp(value: datetime) -> Timestamp:
    """An instant as the contract's timestamp, to the microsecond."""
    if value.tzinfo is None:  # the driver's form of PostgreSQL's infinity: the first or last instant that Python has
        value = value.replace(tzinfo=UTC)
    micros = (value - EPOCH) // timedelta(microseconds=1)
    return Timestamp(seconds=micros // 1_000_000, nanos=micros % 1_000_000 * 1000)


_WRITERS: Final[dict[Kind, Callable[[Any], Value]]] = {
    Kind.INT64: lambda value: Value(int64_value=value),
    Kind.DOUBLE: lambda value: Value(double_value=value),
    Kind.BOOL: lambda value: Value(bool_value=value),
    Kind.STRING: lambda value: Value(string_value=value),
    Kind.BYTES: lambda value: Value(bytes_value=value),
    Kind.DATE: lambda value: Value(date_days=value.toordinal() - DAY_ZERO),
    Kind.TIMESTAMP: lambda value: Value(timestamp_value=timestamp(value)),
    Kind.DECIMAL: lambda value: Value(decimal_value=f"{value:f}"),
    Kind.UUID: lambda value: Value(uuid_value=str(value)),
    Kind.JSON: lambda value: Value(json_value=value),
    Kind.OTHER: lambda value: Value(string_value=value),
}


def writer(kind: Kind) -> Callable[[Any], Value]:
    """Makes values of the contract out of values of that kind, which are not None: null is an unset `Value()`."""
    return _WRITERS[kind]


def value_of(kind: Kind, value: Any) -> Value:
    """One value as the contract's; None is null."""
    return Value() if value is None else _WRITERS[kind](value)
