"""A scan as rows, by column, and as an Arrow stream: the same content."""

from __future__ import annotations

import io
from typing import Any

import grpc
import pyarrow as pa
import pytest

from tests.integration.query.fronts import FrontProcess, Serving, plain, refused
from turnout.column_values import rows_of, values_of
from turnout.query.v1 import query_pb2 as pb

COLUMNS = """k bigint primary key, d double precision, b boolean, s text, x bytea, day date, t timestamptz, n numeric,
u uuid, j jsonb, i interval"""
NOTHING = ", null" * 10
ROW = """, 0.5, true, 'ä', '\\x00ff', '1969-12-31', '2013-07-01 12:00:00.000001+00', -2.50,
'123e4567-e89b-12d3-a456-426614174000', '{"a": 1}', '1 day'"""
ROWS = 2_500


@pytest.fixture
async def scanned(serving: Serving, front: FrontProcess) -> FrontProcess:
    """Version 1 of the job j: every other row has nulls in all columns but its key."""
    await serving.sql(f"create table serving.j__v1 ({COLUMNS})")
    await serving.sql(f"insert into serving.j__v1 select k{ROW} from generate_series(0, {ROWS - 1}, 2) k")
    await serving.sql(f"insert into serving.j__v1 select k{NOTHING} from generate_series(1, {ROWS - 1}, 2) k")
    await serving.position(1, 10)
    return front


async def messages(front: FrontProcess, form: Any, limit: int = ROWS + 1, version: int = 1) -> list[pb.ScanResponse]:
    request = pb.ScanRequest(job="jobs/j", version=version, limit=limit, format=form)
    found = [message async for message in front.query.Scan(request, timeout=30)]
    assert [message.HasField("served") for message in found] == [True] + [False] * (len(found) - 1)
    assert [bool(message.token) for message in found] == [True] + [False] * (len(found) - 1)
    return found


async def test_by_column(scanned: FrontProcess) -> None:
    rows = [plain(row) for message in await messages(scanned, pb.ScanRequest.ROWS) for row in message.rows]
    assert len(rows) == ROWS
    at = 0
    for message in await messages(scanned, pb.ScanRequest.COLUMNS):
        assert not message.rows
        size = rows_of(message.columns[0])
        for place in range(5):  # what a row has as it is
            assert list(values_of(message.columns[place])) == [row[place] for row in rows[at : at + size]]
        for place in range(5, len(message.columns)):
            assert values_of(message.columns[place])[0] == values_of(message.columns[place])[2]
        at += size
    assert at == ROWS


async def test_as_an_arrow_stream(scanned: FrontProcess) -> None:
    raw = b"".join(message.arrow for message in await messages(scanned, pb.ScanRequest.ARROW))
    table = pa.ipc.open_stream(io.BytesIO(raw)).read_all()
    assert table.num_rows == ROWS
    assert table.column("k").to_pylist() == list(range(ROWS))
    first, second = table.slice(0, 2).to_pylist()
    assert {name: value for name, value in second.items() if value is not None} == {"k": 1}
    assert (first["d"], first["b"], first["s"], first["x"], first["n"]) == (0.5, True, "ä", b"\x00\xff", "-2.50")
    assert (first["u"], first["j"], first["i"]) == ("123e4567-e89b-12d3-a456-426614174000", '{"a": 1}', "1 day")
    assert (first["day"].isoformat(), first["t"].isoformat()) == ("1969-12-31", "2013-07-01T12:00:00.000001+00:00")


@pytest.mark.parametrize("form", [pb.ScanRequest.ROWS, pb.ScanRequest.COLUMNS, pb.ScanRequest.ARROW])
async def test_a_table_without_rows(front: FrontProcess, serving: Serving, form: Any) -> None:
    await serving.sql(f"create table serving.j__v1 ({COLUMNS})")
    (*_, last) = found = await messages(front, form)
    assert not last.rows
    if form == pb.ScanRequest.ARROW:
        raw = b"".join(message.arrow for message in found)
        assert pa.ipc.open_stream(io.BytesIO(raw)).read_all().num_rows == 0


async def test_large_rows_come_in_messages_that_any_client_takes(front: FrontProcess, serving: Serving) -> None:
    await serving.sql("create table serving.j__v1 (k bigint primary key, s text)")
    await serving.sql("insert into serving.j__v1 select k, repeat('x', 20000) from generate_series(1, 300) k")
    for form in (pb.ScanRequest.COLUMNS, pb.ScanRequest.ARROW):
        found = await messages(front, form)
        assert max(message.ByteSize() for message in found) < 2 * 1024 * 1024
        assert len(found) > 5


async def test_a_form_that_is_none(scanned: FrontProcess) -> None:
    code, reason, _ = await refused(messages(scanned, 77))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_FORMAT")
