"""The whole life cycle through the SDK: replay, cutover, a new version, traffic, rollback, retirement."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from datetime import timedelta
from functools import partial

import asyncpg
import pytest

from tests.acceptance.conftest import BOTH_WAYS
from tests.acceptance.orders import JOB, USERS, Orders, stored
from tests.support.eventually import eventually
from turnout.client import Client
from turnout.errors import FailedPrecondition, NotFound
from turnout.results import Command, RetirementStep, RouteChange, Run, RunState, VersionState

pytestmark = BOTH_WAYS


async def caught_up(client: Client, version: int) -> Run:
    """The run, once it tails without lag and every gate passes."""

    async def check() -> Run:
        run = await client.get_run(JOB, version)
        assert run.state is RunState.TAILING, f"{run.state}: {run.status_message}"
        assert run.lag == 0
        check = await client.check_gates(JOB, version)
        assert check.passed, check.gates
        return run

    return await eventually(check, 60)


async def once_level(change: Callable[[], Awaitable[RouteChange]]) -> RouteChange:
    """The answer to a change of a version that was level a moment ago: on a busy machine it may be behind once more."""

    async def attempt() -> RouteChange:
        try:
            return await change()
        except FailedPrecondition as error:
            if {violation.type for violation in error.violations} != {"catch-up"}:
                raise
            raise AssertionError(str(error)) from None

    return await eventually(attempt, 60)


async def holds_reference(client: Client, version: int, orders: Orders, within_s: float = 60) -> None:
    """Waits until the version's table is what the log says."""

    async def check() -> bool:
        assert await stored(client, version) == orders.table(version)
        return True

    await eventually(check, within_s)


async def serve_version_1(client: Client, orders: Orders) -> None:
    await orders.produce(5_000)
    await client.apply(orders.code(1))
    await client.start_run(JOB, 1)
    await caught_up(client, 1)
    await once_level(lambda: client.cut_over(JOB, 1))


async def test_the_whole_story(client: Client, orders: Orders, postgres: str) -> None:
    await serve_version_1(client, orders)
    assert await stored(client, 1) == orders.table(1)

    # The same code again is the same version.
    again = await client.apply(orders.code(1))
    assert (again.created, again.version.number) == (False, 1)

    # Version 2 beside it, while records go on arriving.
    applied = await client.apply(orders.code(2), expected_number=2)
    assert (applied.created, applied.version.number) == (True, 2)
    await client.start_run(JOB, 2, workers=2)
    await orders.produce(1_000)
    await caught_up(client, 2)
    await caught_up(client, 1)
    assert await stored(client, 1) == orders.table(1)
    assert await stored(client, 2) == orders.table(2)

    # Nobody reads it yet, unless it is named.
    read = await client.get(JOB, {"user": "user-1"})
    assert (read.version, dict(read.row or {})) == (1, orders.table(1)["user-1"])
    read = await client.get(JOB, {"user": "user-1"}, version=2)
    assert (read.version, dict(read.row or {})) == (2, orders.table(2)["user-1"])

    comparison = await client.compare(JOB, 1, 2)
    changed = [u for u, row in orders.table(2).items() if row["cents"] != orders.table(1)[u]["cents"]]
    assert (comparison.exact, comparison.rows_changed) == (True, len(changed))
    assert comparison.columns_added == ("refunds",)

    # A share of the units, each of which stays where it is.
    change = await once_level(lambda: client.set_traffic(JOB, {1: 7_500, 2: 2_500}))
    assert dict(change.route.weights) == {1: 7_500, 2: 2_500}
    sides = [await versions_read(client) for _ in range(2)]
    assert sides[0] == sides[1]
    assert 0.15 < sum(version == 2 for version in sides[0].values()) / USERS < 0.35
    await once_level(lambda: client.set_traffic(JOB, {1: 5_000, 2: 5_000}))
    wider = await versions_read(client)
    assert all(wider[unit] == 2 for unit, version in sides[0].items() if version == 2), "who was moved stays moved"

    # All, back, and all again; the SQL view follows each time.
    for command, active in (("cut", 2), ("back", 1), ("cut", 2)):
        change = await (once_level(lambda: client.cut_over(JOB, 2)) if command == "cut" else client.roll_back(JOB))
        assert change.route.active_version == active
        assert change.adoptions
        assert not change.fronts_not_counted
        if command == "cut":
            assert set((await versions_read(client)).values()) == {2}
        await eventually(partial(view_shows, postgres, active))
    history = [change.command async for change in client.route_changes(JOB)]
    assert history == [
        Command.CUT_OVER, Command.ROLL_BACK, Command.CUT_OVER, Command.SET_TRAFFIC, Command.SET_TRAFFIC,
        Command.CUT_OVER,
    ]  # fmt: skip

    # The way back must be given up by name; then the table goes, and nobody notices.
    with pytest.raises(FailedPrecondition) as refused:
        await client.retire(JOB, 1)
    assert refused.value.reason == "ROLLBACK_WINDOW"
    with pytest.raises(FailedPrecondition) as refused:
        await client.retire(JOB, 2)
    assert refused.value.reason == "VERSION_IN_USE"
    await client.retire(JOB, 1, retain_for=timedelta(seconds=1), forgo_rollback=True)
    await eventually(lambda: has_state(client, 1, VersionState.DROPPED), 60)
    assert await fetchval(postgres, "select to_regclass('serving.order_totals__v1')") is None
    assert await fetchval(postgres, "select count(*) from serving.positions where version like '%/versions/1'") == 0
    with pytest.raises((FailedPrecondition, NotFound)):
        await client.get(JOB, {"user": "user-1"}, version=1)
    with pytest.raises(FailedPrecondition):
        await client.roll_back(JOB)
    assert await stored(client, 2) == orders.table(2)


async def test_a_retirement_can_be_taken_back(client: Client, orders: Orders) -> None:
    await serve_version_1(client, orders)
    await client.apply(orders.code(2))
    await client.start_run(JOB, 2)
    await caught_up(client, 2)
    await once_level(lambda: client.cut_over(JOB, 2))
    await client.retire(JOB, 1, retain_for=timedelta(hours=1), forgo_rollback=True)

    async def retained() -> bool:
        version = await client.get_version(JOB, 1)
        return version.retirement is not None and version.retirement.step is RetirementStep.RETAIN

    await eventually(retained, 60)
    assert (await client.get_run(JOB, 1)).state is RunState.STOPPED
    await orders.produce(500)
    await client.unretire(JOB, 1)
    await eventually(lambda: has_state(client, 1, VersionState.REGISTERED), 60)
    await caught_up(client, 1)
    assert await stored(client, 1) == orders.table(1)

    async def refused_by_the_schema_alone() -> bool:  # on a busy machine it may be behind for a moment
        with pytest.raises(FailedPrecondition) as refused:
            await client.cut_over(JOB, 1)
        assert [violation.type for violation in refused.value.violations] == ["schema"], "v1 lacks the column of v2"
        return True

    await eventually(refused_by_the_schema_alone, 60)

    change = await once_level(lambda: client.cut_over(JOB, 1, override_gates=["schema"]))
    assert change.route.active_version == 1
    assert [gate.gate for gate in change.gates if gate.overridden] == ["schema"]


async def test_readers_see_no_failure_while_routes_change(client: Client, orders: Orders) -> None:
    await serve_version_1(client, orders)
    await client.apply(orders.code(2))
    await client.start_run(JOB, 2)
    await caught_up(client, 2)
    await caught_up(client, 1)
    expected = {version: orders.table(version) for version in (1, 2)}
    reads = 0
    stopping = False

    async def read(reader: int) -> None:
        nonlocal reads
        number = reader
        while not stopping:
            user = f"user-{number % USERS}"
            answer = await client.get(JOB, {"user": user}, unit=f"unit-{number}")
            assert dict(answer.row or {}) == expected[answer.version][user]
            reads += 1
            number += 4

    readers = [asyncio.create_task(read(number)) for number in range(4)]
    for _ in range(10):
        await once_level(lambda: client.cut_over(JOB, 2))
        await client.roll_back(JOB)
    stopping = True
    await asyncio.gather(*readers)
    assert reads > 0


async def versions_read(client: Client) -> dict[str, int]:
    """Which version answers each of the units."""
    return {f"unit-{n}": (await client.get(JOB, {"user": "user-1"}, unit=f"unit-{n}")).version for n in range(USERS)}


async def has_state(client: Client, number: int, state: VersionState) -> bool:
    version = await client.get_version(JOB, number)
    waiting = version.retirement.waiting_for if version.retirement else ""
    assert version.state is state, f"{version.state}, waiting for {waiting!r}"
    return True


async def view_shows(postgres: str, active: int) -> bool:
    columns = await fetchval(
        postgres,
        "select array_agg(column_name::text order by ordinal_position) from information_schema.columns "
        "where table_schema = 'serving' and table_name = 'order_totals'",
    )
    expected = ["user", "orders", "cents", "largest"] + (["refunds"] if active == 2 else [])
    assert columns == expected
    return True


async def fetchval(postgres: str, statement: str) -> object:
    connection = await asyncpg.connect(postgres)
    try:
        return await connection.fetchval(statement)
    finally:
        await connection.close()
