"""Every type of value, out of a row and back in as a key."""

from __future__ import annotations

import datetime as dt
import json
from decimal import Decimal
from typing import Any
from uuid import UUID

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.integration.query.fronts import FrontProcess, Serving, key, plain, refused
from turnout.client.batches import reads_of
from turnout.client.values import from_row
from turnout.column_values import column_of
from turnout.kind_values import VALUE_FIELDS
from turnout.kinds import Kind
from turnout.names import VersionId
from turnout.query.v1 import query_pb2 as pb
from turnout.reading.columns import Column, Table
from turnout.reading.values import MessageKeys

Value = pb.Value
UTC = dt.UTC
INSTANT = dt.datetime(2013, 12, 31, 23, 59, 59, 999_999, tzinfo=UTC)


def stamp(value: dt.datetime) -> Timestamp:
    made = Timestamp()
    made.FromDatetime(value)
    return made


KEYS: list[tuple[str, Any, pb.Value]] = [
    ("smallint", -32768, Value(int64_value=-32768)),
    ("integer", 2**31 - 1, Value(int64_value=2**31 - 1)),
    ("bigint", 0, Value(int64_value=0)),
    ("bigint", -(2**63), Value(int64_value=-(2**63))),
    ("bigint", 2**63 - 1, Value(int64_value=2**63 - 1)),
    ("boolean", False, Value(bool_value=False)),
    ("boolean", True, Value(bool_value=True)),
    ('text collate "C"', "", Value(string_value="")),
    ('text collate "C"', "Zürich ✈ \t\n' \" \\", Value(string_value="Zürich ✈ \t\n' \" \\")),
    ("character varying(9)", "text", Value(string_value="text")),
    ("bytea", b"", Value(bytes_value=b"")),
    ("bytea", b"\x00\xff\\", Value(bytes_value=b"\x00\xff\\")),
    ("date", dt.date(1970, 1, 1), Value(date_days=0)),
    ("date", dt.date(1969, 12, 31), Value(date_days=-1)),
    ("date", dt.date(1, 1, 1), Value(date_days=-719162)),
    ("date", dt.date(9999, 12, 30), Value(date_days=2932895)),
    ("timestamptz", INSTANT, Value(timestamp_value=stamp(INSTANT))),
    (
        "timestamptz",
        dt.datetime(1969, 12, 31, 23, 59, 59, 1, tzinfo=UTC),
        Value(timestamp_value=Timestamp(seconds=-1, nanos=1000)),
    ),
    ("timestamptz", dt.datetime(1, 1, 1, tzinfo=UTC), Value(timestamp_value=Timestamp(seconds=-62135596800))),
    ("numeric", Decimal("-12.50"), Value(decimal_value="-12.50")),
    ("numeric", Decimal("0"), Value(decimal_value="0")),
    ("numeric", Decimal("1e30"), Value(decimal_value="1" + "0" * 30)),
    ("numeric", Decimal("1e-20"), Value(decimal_value="0." + "0" * 19 + "1")),
    ("uuid", UUID(int=2**127 + 5), Value(uuid_value="80000000-0000-0000-0000-000000000005")),
    ("double precision", -0.1, Value(double_value=-0.1)),
]


@pytest.mark.parametrize(("kind", "stored", "value"), KEYS, ids=lambda one: repr(one)[:30])
async def test_key_out_and_in(front: FrontProcess, serving: Serving, kind: str, stored: Any, value: pb.Value) -> None:
    await serving.sql(f"create table serving.j__v1 (k {kind} primary key, other {kind})")
    await serving.connection.execute("insert into serving.j__v1 values ($1, $1)", stored)
    (row,) = [row for page in (await front.scan(version=1)).pages for row in page.rows]
    assert list(row.values) == [value, value]
    assert (await front.get(value, version=1)).row == row
    batch = await front.batch(key(value), key(value), version=1)
    assert [result.row for result in batch.results] == [row, row]
    assert await by_column(front, value) == [from_row(["k", "other"], row)]


async def by_column(front: FrontProcess, value: pb.Value) -> list[Any]:
    """The rows of a key that was asked for by column, as a client sees them."""
    kind = next(kind for kind, (field, _) in VALUE_FIELDS.items() if field == value.WhichOneof("kind"))
    (asked,) = MessageKeys([key(value)]).by_column(table_of(kind))
    request = pb.BatchGetRequest(job="jobs/j", version=1, key_columns=[column_of(kind, asked)])
    answer = await front.query.BatchGet(request, timeout=10)
    return [read.row for read in reads_of(answer, "j", 1, b"")]


def table_of(kind: Kind) -> Table:
    """A table with one column, the key, of that kind."""
    column = Column("k", kind, "")
    return Table(VersionId("j", 1), "j__v1", 1, (column,), (column,), False, "reader", "owner")


ROWS: list[tuple[str, str, Any]] = [
    ("jsonb", """'{"b": [1, null, 2.50], "a": "é"}'""", '{"a": "é", "b": [1, null, 2.50]}'),
    ("jsonb", "'null'", "null"),
    ("json", """'{"b":1,  "a":2}'""", '{"b":1,  "a":2}'),
    ("jsonb", "'12345678901234567890.000000000000000001'", "12345678901234567890.000000000000000001"),
    ("double precision", "'infinity'", float("inf")),
    ("real", "0.5", 0.5),
    ("numeric", "'NaN'", "NaN"),
    ("numeric", "'-Infinity'", "-Infinity"),
    ("numeric(6,2)", "1.5", "1.50"),
    ("interval", "'1 day 2 hours'", "1 day 02:00:00"),
    ("integer[]", "array[1, 2]", "{1,2}"),
    ("timestamp", "'2013-01-01 00:00:00'", "2013-01-01 00:00:00"),
    ("date", "'infinity'", 2932896),
    ("date", "'-infinity'", -719162),
]


@pytest.mark.parametrize(("kind", "sql", "expected"), ROWS, ids=[f"{kind} {sql}" for kind, sql, _ in ROWS])
async def test_values_that_are_no_key(
    front: FrontProcess, serving: Serving, kind: str, sql: str, expected: Any
) -> None:
    await serving.sql(f"create table serving.j__v1 (k bigint primary key, value {kind}, nothing {kind})")
    await serving.sql(f"insert into serving.j__v1 values (1, {sql}, null)")
    row = plain((await front.get(Value(int64_value=1), version=1)).row)
    assert row == [1, expected, None]
    if kind.startswith("json"):
        json.loads(row[1])
    (result,) = (await front.batch(key(Value(int64_value=1)), version=1)).results
    assert plain(result.row) == row
    assert (await front.scan(version=1)).rows == [row]
    shown = from_row(["k", "value", "nothing"], result.row)
    (packed,) = await by_column(front, Value(int64_value=1))
    assert packed == shown or (shown["value"] != shown["value"] and repr(packed) == repr(shown))  # a NaN


@pytest.mark.parametrize(
    ("sql", "expected"), [("infinity", INSTANT.replace(year=9999)), ("-infinity", dt.datetime(1, 1, 1, tzinfo=UTC))]
)
async def test_infinite_times_are_the_ends_of_the_calendar(
    front: FrontProcess, serving: Serving, sql: str, expected: dt.datetime
) -> None:
    await serving.sql("create table serving.j__v1 (k bigint primary key, value timestamptz)")
    await serving.sql(f"insert into serving.j__v1 values (1, '{sql}')")
    row = {"k": 1, "value": expected}
    answer = await front.get(Value(int64_value=1), version=1)
    assert from_row(["k", "value"], answer.row) == row
    assert await by_column(front, Value(int64_value=1)) == [row]


async def test_a_column_without_an_order(front: FrontProcess, serving: Serving) -> None:
    await serving.sql("create table serving.j__v1 (k bigint primary key, place point)")
    code, reason, message = await refused(front.scan("place", version=1))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "COLUMN_WITHOUT_ORDER")
    assert "place (point)" in message


async def test_positions_carry_the_event_time(front: FrontProcess, serving: Serving) -> None:
    await serving.numbers(1, {1: "one"})
    await serving.position(1, 5, partition=3, event_time=INSTANT)
    await serving.position(1, 7, partition=1, topic="a")
    positions = (await front.get(Value(int64_value=1), version=1)).served.applied_positions
    assert [(p.topic, p.partition, p.next_offset, p.HasField("event_time")) for p in positions] == [
        ("a", 1, 7, False),
        ("t", 0, 0, False),
        ("t", 3, 5, True),
    ]
    assert positions[2].event_time == stamp(INSTANT)


@pytest.mark.parametrize("missing", ["id bigint", "id jsonb primary key", "id bigint, _k bigint primary key"])
async def test_a_table_that_cannot_be_read_by_key(front: FrontProcess, serving: Serving, missing: str) -> None:
    await serving.sql(f"create table serving.j__v1 ({missing})")
    code, reason, _ = await refused(front.get(Value(int64_value=1), version=1))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TABLE_UNREADABLE")
