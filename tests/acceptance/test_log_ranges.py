"""A version made of a bounded range of the log lives like any other: it serves, is replaced, comes back, and goes."""

from __future__ import annotations

from datetime import timedelta

import pytest

from tests.acceptance.conftest import BOTH_WAYS
from tests.acceptance.orders import JOB, Orders, Table, stored
from tests.acceptance.test_life_cycle import caught_up, fetchval, has_state, once_level
from tests.support.eventually import eventually
from turnout.client import Client
from turnout.errors import FailedPrecondition
from turnout.log_range import LogRange, PartitionOffset
from turnout.results import RunState, VersionState

pytestmark = BOTH_WAYS


async def _so_far(orders: Orders) -> LogRange:
    ends = await orders.topics.end_offsets(orders.topic)
    return LogRange(end_offsets=tuple(PartitionOffset(orders.topic, n, end) for n, end in ends.items()))


async def _completed(client: Client, version: int, table: Table) -> None:
    async def check() -> bool:
        run = await client.get_run(JOB, version)
        assert run.state is RunState.COMPLETED, f"{run.state}: {run.status_message}"
        assert (run.lag, run.progress) == (0, 1.0)
        return True

    await eventually(check, 60)
    assert await stored(client, version) == table


async def test_the_story_of_a_bounded_version(client: Client, orders: Orders, postgres: str) -> None:
    await orders.produce(2_000)
    first, then = await _so_far(orders), orders.table(1)
    applied = await client.apply(orders.code(1), log_range=first)
    assert (applied.created, applied.version.number, applied.version.log_range) == (True, 1, first)
    await client.start_run(JOB, 1)
    await orders.produce(1_000)
    await _completed(client, 1, then)

    # The same file is another version with another range, or none, and itself again with the same one.
    for log_range, number, created in (
        (await _so_far(orders), 2, True),
        (None, 3, True),
        (first, 1, False),
        (None, 3, False),
    ):
        again = await client.apply(orders.code(1), log_range=log_range)
        assert (again.version.number, again.created) == (number, created)

    # It serves reads: routed, by key, by scan, through the SQL view.
    await client.cut_over(JOB, 1)
    read = await client.get(JOB, {"user": "user-1"}, unit="anybody")
    assert (read.version, dict(read.row or {})) == (1, then["user-1"])
    assert sum(position.next_offset for position in read.applied_positions) == 2_000
    assert {str(one.row["user"]) async for one in client.scan(JOB) if one.row} == then.keys()

    async def in_view() -> bool:
        return await fetchval(postgres, "select sum(orders) from serving.order_totals") == 2_000

    await eventually(in_view)

    # One that goes further takes its place; back to it there is no way but by name, or by rollback, which says so.
    await client.start_run(JOB, 3)
    await caught_up(client, 3)
    await once_level(lambda: client.cut_over(JOB, 3))
    with pytest.raises(FailedPrecondition) as refused:
        await client.cut_over(JOB, 1)
    assert {violation.type for violation in refused.value.violations} == {"catch-up"}
    assert "Version 1 never catches up: its range ends (" in refused.value.violations[0].description
    change = await client.roll_back(JOB)
    assert change.route.active_version == 1
    assert any("bounded range of the log: its table stays as it is" in warning for warning in change.warnings)
    assert await stored(client, 1) == then
    await once_level(lambda: client.cut_over(JOB, 3))

    # A retirement that is taken back leaves it as it was; another one drops it.
    await client.retire(JOB, 1, retain_for=timedelta(hours=1), forgo_rollback=True)
    await eventually(lambda: has_state(client, 1, VersionState.RETIRED), 60)
    await client.unretire(JOB, 1)
    await eventually(lambda: has_state(client, 1, VersionState.REGISTERED), 60)
    await _completed(client, 1, then)
    await client.retire(JOB, 1, retain_for=timedelta(0), forgo_rollback=True)
    await eventually(lambda: has_state(client, 1, VersionState.DROPPED), 60)
    assert await fetchval(postgres, "select to_regclass('serving.order_totals__v1')") is None
    assert await stored(client, 3) == orders.table(1)
