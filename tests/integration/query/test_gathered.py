"""Reads of several callers that share a statement, on a real table."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from decimal import Decimal
from typing import Any

import asyncpg
import grpc
import pytest

from tests.integration.query.fronts import FrontProcess, Serving, i, key, plain, refused, s
from tests.integration.query.switcher import ScriptedSwitcher, route
from tests.support.eventually import eventually
from turnout.column_values import column_of, values_of
from turnout.kinds import Kind
from turnout.query.v1 import query_pb2 as pb
from turnout.reading.gathering import RUNNING_MAX

ROWS = 200


@pytest.fixture
async def routed(serving: Serving, switcher: ScriptedSwitcher, make_front: Any) -> FrontProcess:
    """Version 1 of the job j, with rows that name themselves; the front learns the route with its first snapshot."""
    await serving.numbers(1, {n: f"row {n}" for n in range(ROWS)}, offset=10)
    switcher.commit("p1", route("j", 1, active=1))
    front: FrontProcess = await make_front()
    return front


@pytest.fixture
async def locked(postgres: str, routed: FrontProcess) -> AsyncIterator[Any]:
    """The table is locked against everybody until the transaction is rolled back."""
    connection = await asyncpg.connect(postgres)
    await routed.get(i(1))
    transaction = connection.transaction()
    await transaction.start()
    await connection.execute("lock table serving.j__v1 in access exclusive mode")
    yield transaction
    await connection.close()


async def waiting(serving: Serving) -> int:
    """Statements that wait for a lock."""
    found: int = await serving.connection.fetchval(
        "select count(*) from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
    )
    return found


async def test_each_caller_gets_its_own_row(routed: FrontProcess) -> None:
    answers = await asyncio.gather(*(routed.get(i(n % (ROWS + 20))) for n in range(500)))
    for n, answer in enumerate(answers):
        asked = n % (ROWS + 20)
        assert (plain(answer.row) if answer.HasField("row") else None) == (
            [asked, f"row {asked}"] if asked < ROWS else None
        )
        assert [p.next_offset for p in answer.served.applied_positions] == [10]


async def test_callers_leave_alone_and_statements_are_few(routed: FrontProcess, locked: Any, serving: Serving) -> None:
    reads = [asyncio.ensure_future(routed.get(i(n))) for n in range(100)]

    async def two_wait() -> bool:
        return await waiting(serving) >= 2  # the first one's, and one for all that came while that was under way

    await eventually(two_wait)
    request = pb.GetRequest(job="jobs/j", key=key(i(3)))
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await routed.query.Get(request, timeout=0.2)
    late = (
        grpc.StatusCode.DEADLINE_EXCEEDED,
        grpc.StatusCode.UNAVAILABLE,
    )  # whose clock is first, its caller's or ours
    assert caught.value.code() in late
    for read in reads[:50]:
        read.cancel()
    assert await waiting(serving) <= RUNNING_MAX
    await locked.rollback()
    answers = await asyncio.gather(*reads[50:])
    assert [plain(answer.row) for answer in answers] == [[n, f"row {n}"] for n in range(50, 100)]


async def test_a_key_of_another_type_is_its_callers_fault_alone(routed: FrontProcess) -> None:
    good = [routed.get(i(n)) for n in range(20)]
    bad = [refused(routed.get(s("x"))) for _ in range(5)]
    answers, refusals = await asyncio.gather(asyncio.gather(*good), asyncio.gather(*bad))
    assert [plain(answer.row)[0] for answer in answers] == list(range(20))
    assert {refusal[1] for refusal in refusals} == {"INVALID_KEY"}


async def test_a_table_that_moves_under_a_crowd(routed: FrontProcess, serving: Serving) -> None:
    reads = [asyncio.ensure_future(routed.get(i(1))) for _ in range(50)]
    await asyncio.sleep(0)
    # At once: between the statements there is no table, and then no row, which readers are told.
    await serving.sql(
        "drop table serving.j__v1; "
        "create table serving.j__v1 (id bigint primary key, title text, name text); "
        "insert into serving.j__v1 values (1, 'new', 'one')"
    )
    for answer in await asyncio.gather(*reads):
        assert plain(answer.row) in ([1, "row 1"], [1, "new", "one"])
    assert plain((await routed.get(i(1))).row) == [1, "new", "one"]


# --- by column ---


def in_order(block: pb.BatchGetBlock) -> list[tuple[Any, ...] | None]:
    """The row of each key of a block."""
    rows = list(zip(*map(values_of, block.columns), strict=True))
    return [rows[place - 1] if place else None for place in block.rows]


async def test_a_batch_by_column(routed: FrontProcess) -> None:
    request = pb.BatchGetRequest(job="jobs/j", key_columns=[column_of(Kind.INT64, [5, 999, 7, 5])])
    answer = await routed.query.BatchGet(request, timeout=10)
    (block,) = answer.blocks
    assert not answer.results
    assert not block.key_indexes
    assert in_order(block) == [(5, "row 5"), None, (7, "row 7"), (5, "row 5")]
    assert answer.served[block.served_index].version == 1


async def test_a_batch_by_column_without_any_row(routed: FrontProcess) -> None:
    request = pb.BatchGetRequest(job="jobs/j", key_columns=[column_of(Kind.INT64, [998, 999])])
    (block,) = (await routed.query.BatchGet(request, timeout=10)).blocks
    assert (list(block.rows), list(block.columns)) == ([0, 0], [])


async def test_a_batch_by_column_of_a_split_tells_which_version_answered_which_key(
    routed: FrontProcess, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    await serving.numbers(2, {n: f"new {n}" for n in range(ROWS)}, offset=20)
    switcher.commit("p2", route("j", 2, active=1, share={1: 0.5, 2: 0.5}))

    async def adopted() -> bool:
        return "SERVING" in switcher.said("p2")

    await eventually(adopted)
    asked = list(range(ROWS))
    by_column = await routed.query.BatchGet(
        pb.BatchGetRequest(job="jobs/j", key_columns=[column_of(Kind.INT64, asked)]), timeout=10
    )
    one_by_one = await routed.batch(*(key(i(n)) for n in asked))
    seen = {}
    for block in by_column.blocks:
        version = by_column.served[block.served_index].version
        for place, row in zip(block.key_indexes, in_order(block), strict=True):
            assert row is not None
            seen[place] = (version, row[1])
    assert seen == {
        place: (one_by_one.served[result.served_index].version, plain(result.row)[1])
        for place, result in enumerate(one_by_one.results)
    }
    assert {version for version, _ in seen.values()} == {1, 2}


async def test_keys_come_in_one_form(routed: FrontProcess) -> None:
    request = pb.BatchGetRequest(job="jobs/j", keys=[key(i(1))], key_columns=[column_of(Kind.INT64, [1])])
    assert (await refused(routed.query.BatchGet(request, timeout=10)))[1] == "KEYS_TWICE"


async def test_a_key_of_two_columns_by_column(routed: FrontProcess, serving: Serving) -> None:
    await serving.sql("create table serving.j__v3 (a bigint, b numeric, n bigint, primary key (a, b))")
    await serving.sql("insert into serving.j__v3 values (1, 2.50, 10), (1, 3, null)")
    columns = [column_of(Kind.INT64, [1, 1, 2]), column_of(Kind.DECIMAL, [Decimal("2.5"), Decimal("3.0"), Decimal(3)])]
    answer = await routed.query.BatchGet(pb.BatchGetRequest(job="jobs/j", version=3, key_columns=columns), timeout=10)
    (block,) = answer.blocks
    assert in_order(block) == [(1, Decimal("2.50"), 10), (1, Decimal(3), None), None]
