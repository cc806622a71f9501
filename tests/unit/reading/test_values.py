"""Values both ways: what goes out comes in again, and what does not fit is named."""

import dataclasses
import re
import uuid
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from turnout.column_values import column_of
from turnout.errors import InvalidInput
from turnout.kinds import Kind
from turnout.names import VersionId
from turnout.query.v1 import query_pb2 as pb
from turnout.reading.columns import Column, Table
from turnout.reading.values import ColumnKeys, key_of, row_writer

POSTGRES = {
    Kind.INT64: "bigint",
    Kind.DOUBLE: "double precision",
    Kind.BOOL: "boolean",
    Kind.STRING: "text",
    Kind.BYTES: "bytea",
    Kind.DATE: "date",
    Kind.TIMESTAMP: "timestamp with time zone",
    Kind.DECIMAL: "numeric",
    Kind.UUID: "uuid",
}
VALUES: dict[Kind, st.SearchStrategy[Any]] = {
    Kind.INT64: st.integers(-(2**63), 2**63 - 1),
    Kind.DOUBLE: st.floats(allow_nan=False),
    Kind.BOOL: st.booleans(),
    Kind.STRING: st.text(st.characters(blacklist_characters="\0", codec="utf-8")),
    Kind.BYTES: st.binary(),
    Kind.DATE: st.dates(),
    Kind.TIMESTAMP: st.datetimes(timezones=st.just(UTC)),
    Kind.DECIMAL: st.decimals(allow_nan=False, allow_infinity=False, places=6),
    Kind.UUID: st.uuids(),
}


def one_column(kind: Kind) -> Table:
    column = Column("k", kind, POSTGRES[kind])
    return Table(VersionId("j", 1), "j__v1", 1, (column,), (column,), False, "reader", "owner")


@pytest.mark.parametrize("kind", list(VALUES))
@given(data=st.data())
def test_out_and_in_again(kind: Kind, data: st.DataObject) -> None:
    table = one_column(kind)
    value = data.draw(VALUES[kind])
    row = written(table, value)
    assert key_of(table, pb.Key(values=row.values)) == (value,)
    assert type(key_of(table, pb.Key(values=row.values))[0]) is type(value)


def test_null_is_an_unset_value() -> None:
    (value,) = written(one_column(Kind.INT64), None).values
    assert value.WhichOneof("kind") is None


def written(table: Table, *values: object) -> pb.Row:
    row = pb.Row()
    row_writer(table.columns)(row, values)
    return row


@pytest.mark.parametrize("kind", POSTGRES)
@given(data=st.data())
def test_keys_by_column_are_the_keys_one_by_one(kind: Kind, data: st.DataObject) -> None:
    table = one_column(kind)
    values = data.draw(st.lists(VALUES[kind], min_size=1, max_size=5))
    keys = ColumnKeys([column_of(kind, values)])
    assert len(keys) == len(values)
    assert keys.of(table) == [(value,) for value in values]
    assert [type(key[0]) for key in keys.of(table)] == [type(value) for value in values]


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (column_of(Kind.STRING, ["1"]), "string_values came"),
        (column_of(Kind.INT64, [1, None]), "a key is never null"),
        (pb.Column(int64_values=bytes(9)), "9 bytes came, and each value takes 8"),
        (pb.Column(bytes_values=bytes(3)), "ends within a value"),
    ],
)
def test_a_key_column_that_does_not_fit_is_refused(column: pb.Column, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        ColumnKeys([column]).of(one_column(Kind.INT64))


def test_key_columns_are_as_many_as_the_key_has_and_equally_long() -> None:
    with pytest.raises(InvalidInput, match=re.escape("needs 1 value(s), and 2 came")):
        ColumnKeys([column_of(Kind.INT64, [1])] * 2).of(one_column(Kind.INT64))
    two = dataclasses.replace(one_column(Kind.INT64), key=one_column(Kind.INT64).key * 2)
    with pytest.raises(InvalidInput, match="1 values came, and another column has 2"):
        ColumnKeys([column_of(Kind.INT64, [1, 2]), column_of(Kind.INT64, [1])]).of(two)


SAMPLES = {
    "int64_value": pb.Value(int64_value=1),
    "double_value": pb.Value(double_value=1.0),
    "bool_value": pb.Value(bool_value=True),
    "string_value": pb.Value(string_value="1"),
    "bytes_value": pb.Value(bytes_value=b"1"),
    "date_days": pb.Value(date_days=1),
    "timestamp_value": pb.Value(timestamp_value=Timestamp(seconds=1)),
    "decimal_value": pb.Value(decimal_value="1"),
    "uuid_value": pb.Value(uuid_value=str(uuid.UUID(int=1))),
    "json_value": pb.Value(json_value="1"),
}


@pytest.mark.parametrize("kind", list(VALUES))
@pytest.mark.parametrize("field", SAMPLES)
def test_only_the_columns_own_type_is_taken(kind: Kind, field: str) -> None:
    table = one_column(kind)
    key = pb.Key(values=[SAMPLES[field]])
    if field in kind.value:
        key_of(table, key)
        return
    with pytest.raises(InvalidInput) as caught:
        key_of(table, key)
    message = caught.value.message
    assert f"Key column k of j v1 is {POSTGRES[kind]} and takes {kind.value}; {field} " in message
    assert caught.value.metadata == {"column": "k", "type": POSTGRES[kind]}


@pytest.mark.parametrize(
    ("kind", "value", "told"),
    [
        (Kind.INT64, pb.Value(), "null came, and a key is never null"),
        (Kind.STRING, pb.Value(string_value="a\0b"), "zero character"),
        (Kind.DATE, pb.Value(date_days=2**31 - 1), "outside of the years"),
        (Kind.DATE, pb.Value(date_days=-(2**31)), "outside of the years"),
        (Kind.TIMESTAMP, pb.Value(timestamp_value=Timestamp(seconds=1, nanos=1)), "finer than microseconds"),
        (Kind.TIMESTAMP, pb.Value(timestamp_value=Timestamp(seconds=1, nanos=-1000)), "nanoseconds are not"),
        (Kind.TIMESTAMP, pb.Value(timestamp_value=Timestamp(seconds=2**62)), "outside of the years"),
        (Kind.DECIMAL, pb.Value(decimal_value="1e5"), "decimal notation"),
        (Kind.DECIMAL, pb.Value(decimal_value="NaN"), "decimal notation"),
        (Kind.DECIMAL, pb.Value(decimal_value=""), "decimal notation"),
        (Kind.DECIMAL, pb.Value(decimal_value="١"), "decimal notation"),
        (Kind.DECIMAL, pb.Value(decimal_value="1" * 30_000), "decimal notation"),
        (Kind.UUID, pb.Value(uuid_value="x"), "it is not a UUID"),
    ],
)
def test_values_that_no_row_can_have(kind: Kind, value: pb.Value, told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as caught:
        key_of(one_column(kind), pb.Key(values=[value]))
    assert len(caught.value.message) < 400, "what came is shown, but not all of it"


def test_equal_values_in_other_spellings_are_equal_keys() -> None:
    spelled = [key_of(one_column(Kind.DECIMAL), pb.Key(values=[pb.Value(decimal_value=t)])) for t in ("2.5", "+2.50")]
    assert spelled[0] == spelled[1] == (Decimal("2.5"),)
    upper = pb.Value(uuid_value="ABCDEF00-0000-0000-0000-000000000000")
    assert key_of(one_column(Kind.UUID), pb.Key(values=[upper])) == (uuid.UUID(upper.uuid_value),)


def test_infinite_times_are_the_ends_of_the_calendar() -> None:
    (value,) = written(one_column(Kind.TIMESTAMP), datetime.max).values  # noqa: DTZ901 - the driver's form of infinity
    assert value.timestamp_value.ToDatetime().year == date.max.year
