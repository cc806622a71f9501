"""Python values on the wire and back."""

from __future__ import annotations

import enum
import math
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.client.values import from_row, from_value, to_key, to_value
from turnout.errors import InvalidInput
from turnout.query.v1 import query_pb2

_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
)
_VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**63 - 1),
    st.floats(allow_nan=False),
    st.text(),
    st.binary(),
    st.dates(),
    st.datetimes(timezones=st.just(UTC)),
    st.decimals(allow_nan=False),
    st.uuids(),
    st.lists(_JSON),
    st.dictionaries(st.text(), _JSON),
)


@given(_VALUES)
def test_a_value_comes_back_with_its_type(value: object) -> None:
    wire = query_pb2.Value.FromString(to_value(value).SerializeToString())
    back = from_value(wire)
    assert type(back) is type(value)
    assert back == value


class Colour(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


@pytest.mark.parametrize(
    ("value", "kind", "text"),
    [
        (True, "bool_value", "True"),  # not an int
        (1, "int64_value", "1"),
        (date(1969, 12, 31), "date_days", "-1"),
        (Decimal("1E+3"), "decimal_value", "1000"),
        (UUID(int=1), "uuid_value", "00000000-0000-0000-0000-000000000001"),
        (Colour.RED, "string_value", "red"),
        (Level.HIGH, "string_value", "HIGH"),
        ({"a": ["é"]}, "json_value", '{"a": ["é"]}'),
    ],
)
def test_its_form_on_the_wire(value: object, kind: str, text: str) -> None:
    wire = to_value(value)
    assert wire.WhichOneof("kind") == kind
    assert str(getattr(wire, kind)) == text


def test_a_time_of_another_zone_is_the_same_instant() -> None:
    there = datetime(2026, 1, 2, 3, 4, 5, 678901, tzinfo=timezone(timedelta(hours=5, minutes=30)))
    back = from_value(to_value(there))
    assert back == there
    assert isinstance(back, datetime)
    assert back.tzinfo is UTC


def test_not_a_number_comes_back() -> None:
    back = from_value(to_value(math.nan))
    assert isinstance(back, float)
    assert math.isnan(back)


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (2**63, "64 bits"),
        (datetime(2026, 1, 1), "tzinfo=UTC"),  # noqa: DTZ001  # that is the point
        (object(), "no column holds"),
        ("\ud800", r"'\\ud800' is no text"),
        ({"a": math.nan}, "JSON"),
        ([object()], "JSON"),
        ({1, 2}, "no column holds"),
    ],
)
def test_what_no_column_holds_is_refused(value: object, words: str) -> None:
    with pytest.raises(InvalidInput, match=words):
        to_value(value)


@pytest.mark.parametrize(
    ("key", "columns", "values"),
    [
        ({"carrier": "UA", "month": date(2013, 1, 1)}, ["carrier", "month"], ["UA", date(2013, 1, 1)]),
        (("UA", 1), [], ["UA", 1]),
        (["UA", 1], [], ["UA", 1]),
        ("UA", [], ["UA"]),
        (b"UA", [], [b"UA"]),
        (7, [], [7]),
        (Colour.BLUE, [], ["blue"]),
    ],
)
def test_a_key_by_name_by_order_or_alone(key: Any, columns: list[str], values: list[object]) -> None:
    wire = to_key(key)
    assert list(wire.columns) == columns
    assert [from_value(value) for value in wire.values] == values


def test_a_row_is_a_mapping_in_the_tables_order() -> None:
    row = query_pb2.Row(values=[to_value("UA"), to_value(None)])
    assert list(from_row(["carrier", "delay"], row).items()) == [("carrier", "UA"), ("delay", None)]
