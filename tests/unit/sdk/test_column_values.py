"""Values of one column, there and back."""

import struct
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from turnout.column_values import column_of, driver_values, packed, rows_of, taken, values_of
from turnout.kinds import Kind
from turnout.query.v1.query_pb2 import Column

VALUES: dict[Kind, list[Any]] = {
    Kind.INT64: [1, -(2**63), 2**63 - 1],
    Kind.DOUBLE: [0.5, float("inf"), -0.0],
    Kind.BOOL: [True, False],
    Kind.STRING: ["", "ä"],
    Kind.BYTES: [b"", b"\x00\xff"],
    Kind.DATE: [date(1, 1, 1), date(1970, 1, 2), date(9999, 12, 31)],
    Kind.TIMESTAMP: [datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), datetime(9999, 12, 31, tzinfo=UTC)],
    Kind.DECIMAL: [Decimal("1E+3"), Decimal("-0.50")],
    Kind.UUID: [UUID(int=1)],
}


@pytest.mark.parametrize(("kind", "values"), VALUES.items())
def test_there_and_back(kind: Kind, values: list[Any]) -> None:
    for sent in (values, [None, *values, None], [None]):
        column = column_of(kind, sent)
        assert rows_of(column) == len(sent)
        for back in (values_of(column), driver_values(kind, packed(kind, sent))):
            assert list(back) == sent
            assert [type(one) for one in back] == [type(one) for one in sent]


@pytest.mark.parametrize(("kind", "values"), VALUES.items())
def test_rows_are_taken_as_they_are_packed(kind: Kind, values: list[Any]) -> None:
    for sent in (values, [None, *values, None]):
        column = packed(kind, sent)
        for places in ([], [0], [*range(len(sent))], [len(sent) - 1, 0]):
            assert list(driver_values(kind, taken(kind, column, places))) == [sent[place] for place in places]


def test_json_comes_back_as_what_it_says() -> None:
    column = column_of(Kind.JSON, ['{"a": [1]}', None])
    assert values_of(column) == [{"a": [1]}, None]
    assert driver_values(Kind.JSON, packed(Kind.JSON, ['{"a": [1]}', None])) == ['{"a": [1]}', None]


def test_what_the_contract_has_no_type_for_is_text() -> None:
    assert values_of(column_of(Kind.OTHER, ["{1,2}", None])) == ["{1,2}", None]


def test_infinite_times_are_the_drivers_own_on_its_side() -> None:
    ends = [datetime.max, datetime.min]  # noqa: DTZ901 - the driver's form of infinities
    column = packed(Kind.TIMESTAMP, ends)
    assert driver_values(Kind.TIMESTAMP, column) == ends
    assert values_of(column_of(Kind.TIMESTAMP, ends)) == [one.replace(tzinfo=UTC) for one in ends]


def test_nothing_is_nothing() -> None:
    for kind in Kind:
        assert rows_of(column_of(kind, [])) == 0
        assert list(values_of(column_of(kind, []))) == []
    assert list(values_of(Column())) == []


def test_a_column_is_laid_out_as_the_contract_says() -> None:
    assert column_of(Kind.INT64, [1, None, -1]) == Column(
        nulls=b"\0\1\0", int64_values=bytes(7) + b"\1" + bytes(8) + b"\xff" * 8
    )
    assert column_of(Kind.DOUBLE, [-2.0]) == Column(double_values=b"\xc0" + bytes(7))
    assert column_of(Kind.BOOL, [True, False]) == Column(bool_values=b"\1\0")
    assert column_of(Kind.STRING, ["", "ä"]) == Column(string_values="\0ä\0".encode())
    assert column_of(Kind.BYTES, [b"ab", b""]) == Column(bytes_values=b"\0\0\0\2ab" + bytes(4))
    assert column_of(Kind.DATE, [date(1969, 12, 31)]) == Column(date_days=b"\xff" * 4)
    assert column_of(Kind.TIMESTAMP, [datetime(1970, 1, 1, 0, 0, 1, tzinfo=UTC)]) == Column(
        timestamp_micros=(10**6).to_bytes(8)
    )


@pytest.mark.parametrize(("kind", "value"), [(Kind.INT64, 2**63), (Kind.STRING, "a\0b"), (Kind.STRING, "\ud800")])
def test_what_no_column_holds_is_refused(kind: Kind, value: Any) -> None:
    with pytest.raises((struct.error, ValueError)):
        column_of(kind, [value])


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (Column(int64_values=bytes(9)), "9 bytes came, and each value takes 8"),
        (Column(string_values=b"a"), "no zero byte"),
        (Column(string_values=b"\xff\0"), "utf-8"),
        (Column(bytes_values=b"\0\0"), "ends within"),
        (Column(bytes_values=b"\0\0\0\2a"), "ends within"),
    ],
)
def test_bytes_that_are_no_column_are_refused(column: Column, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        values_of(column)
