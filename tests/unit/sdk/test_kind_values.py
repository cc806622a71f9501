"""Values of PostgreSQL as the contract carries them."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from turnout.kind_values import timestamp, value_of
from turnout.kinds import Kind, kind_of
from turnout.query.v1.query_pb2 import Value


@pytest.mark.parametrize(
    ("postgres", "value", "field", "carried"),
    [
        ("boolean", True, "bool_value", True),
        ("bigint", 7, "int64_value", 7),
        ("smallint", 7, "int64_value", 7),
        ("double precision", 0.5, "double_value", 0.5),
        ("text", "x", "string_value", "x"),
        ("bytea", b"\x00", "bytes_value", b"\x00"),
        ("date", date(1970, 1, 11), "date_days", 10),
        ("numeric", Decimal("1E+3"), "decimal_value", "1000"),
        ("uuid", UUID(int=1), "uuid_value", "00000000-0000-0000-0000-000000000001"),
        ("jsonb", '{"a": 1}', "json_value", '{"a": 1}'),
        ("interval", "1 day", "string_value", "1 day"),
        ("integer[]", "{1,2}", "string_value", "{1,2}"),
    ],
)
def test_a_value_goes_by_the_type_of_its_column(postgres: str, value: Any, field: str, carried: Any) -> None:
    message = value_of(kind_of(postgres), value)
    assert message.WhichOneof("kind") == field
    assert getattr(message, field) == carried


@pytest.mark.parametrize("kind", list(Kind))
def test_null_is_an_unset_value(kind: Kind) -> None:
    assert value_of(kind, None) == Value()


def test_only_what_the_driver_would_change_is_selected_as_text() -> None:
    assert {kind for kind in Kind if kind.selected_as_text} == {Kind.JSON, Kind.OTHER}


def test_times_to_the_microsecond() -> None:
    assert timestamp(datetime(1970, 1, 1, 0, 0, 1, 500, UTC)).nanos == 500_000
    before = timestamp(datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC))
    assert (before.seconds, before.nanos) == (-1, 999_999_000)
