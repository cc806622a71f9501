"""Values of PostgreSQL, as the driver gives them, as the contract's: one way for reads and for comparisons."""

from collections.abc import Callable
from datetime import UTC, date, datetime, timedelta
from decimal import Decimal
from typing import Any, Final

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from turnout.kinds import Kind
from turnout.query.v1.query_pb2 import Value

DAY_ZERO: Final = date(1970, 1, 1).toordinal()
EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)
_MICROSECOND: Final = timedelta(microseconds=1)


def timestamp(value: datetime) -> Timestamp:
    """An instant as the contract's timestamp, to the microsecond."""
    seconds, rest = divmod(micros(value), 1_000_000)
    return Timestamp(seconds=seconds, nanos=rest * 1000)


def seconds_of(duration: Duration) -> float:
    """A duration of the contract in seconds, also one that is longer than a timedelta holds."""
    return float(duration.seconds) + duration.nanos / 1e9


def micros(value: datetime) -> int:
    """An instant as microseconds since 1970-01-01T00:00:00Z."""
    if value.tzinfo is None:  # the driver's form of PostgreSQL's infinity: the first or last instant that Python has
        value = value.replace(tzinfo=UTC)
    return (value - EPOCH) // _MICROSECOND


def days(value: date) -> int:
    """A date as days since 1970-01-01."""
    return value.toordinal() - DAY_ZERO


def plain(value: Decimal) -> str:
    """A number in decimal notation."""
    return f"{value:f}"


VALUE_FIELDS: Final[dict[Kind, tuple[str, Callable[[Any], Any] | None]]] = {
    Kind.INT64: ("int64_value", None),
    Kind.DOUBLE: ("double_value", None),
    Kind.BOOL: ("bool_value", None),
    Kind.STRING: ("string_value", None),
    Kind.BYTES: ("bytes_value", None),
    Kind.DATE: ("date_days", days),
    Kind.TIMESTAMP: ("timestamp_value", timestamp),
    Kind.DECIMAL: ("decimal_value", plain),
    Kind.UUID: ("uuid_value", str),
    Kind.JSON: ("json_value", None),
    Kind.OTHER: ("string_value", None),
}
"""The field of a value of each kind, and what makes its content of a value that is not None; None = it is that."""


def value_of(kind: Kind, value: Any) -> Value:
    """One value as the contract's; None is null."""
    if value is None:
        return Value()
    name, convert = VALUE_FIELDS[kind]
    return Value(**{name: value if convert is None else convert(value)})
