"""A retirement goes on wherever a service is killed, ends DROPPED, and the version that serves notices nothing."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import timedelta

import asyncpg
import pytest

from tests.acceptance.orders import JOB, Orders, stored
from tests.acceptance.test_life_cycle import (
    caught_up,
    fetchval,
    has_state,
    holds_reference,
    once_level,
    serve_version_1,
)
from tests.support.eventually import eventually
from tests.support.processes import ServiceProcesses
from turnout.client import Client
from turnout.results import Retirement, RetirementStep, RunState, VersionState
from turnout.schema import table_name

pytestmark = pytest.mark.parametrize("product", ["four processes"], indirect=True)

TABLE = f"serving.{table_name(JOB, 1)}"
RETAIN_FOR = timedelta(seconds=12)  # long enough to be seen, short enough to wait for


async def replace_version_1(client: Client, orders: Orders) -> None:
    """Version 2 serves, version 1 is its way back."""
    await serve_version_1(client, orders)
    await client.apply(orders.code(2))
    await client.start_run(JOB, 2)
    await caught_up(client, 2)
    await once_level(lambda: client.cut_over(JOB, 2))


async def at_step(client: Client, step: RetirementStep, words: str) -> Retirement:
    """The retirement of version 1, once it is at the step and says that it waits for that."""

    async def reached() -> Retirement:
        version = await client.get_version(JOB, 1)
        assert version.retirement is not None, version.state
        assert version.retirement.step is step, version.retirement
        assert words in version.retirement.waiting_for, version.retirement
        return version.retirement

    return await eventually(reached, 60)


@asynccontextmanager
async def read_by_a_session(postgres: str) -> AsyncIterator[None]:
    """A person's transaction that has read version 1's table, so that it cannot be dropped."""
    session = await asyncpg.connect(postgres)
    try:
        await session.execute("begin")
        await session.execute(f"select from {TABLE} limit 1")
        yield
    finally:
        await session.close()


async def restart(product: ServiceProcesses, service: str) -> None:
    await product.kill(service)
    await product.start(service)


async def ends_dropped(client: Client, orders: Orders, postgres: str) -> None:
    """Version 1 leaves nothing behind; version 2 serves, follows the log, and is whole."""
    await eventually(lambda: has_state(client, 1, VersionState.DROPPED), 60)
    assert await fetchval(postgres, f"select to_regclass('{TABLE}')") is None
    assert await fetchval(postgres, "select count(*) from serving.positions where version like '%/versions/1'") == 0
    await orders.produce(500)
    await holds_reference(client, 2, orders)
    await caught_up(client, 2)
    assert (await client.get_version(JOB, 2)).state is VersionState.REGISTERED
    assert (await client.route(JOB)).active_version == 2

    async def reads() -> bool:
        read = await client.get(JOB, {"user": "user-1"})
        return (read.version, dict(read.row or {})) == (2, orders.table(2)["user-1"])

    await eventually(reads)
    assert await stored(client, 2) == orders.table(2)


@pytest.mark.long
async def test_the_registry_killed_at_every_step(
    client: Client, orders: Orders, product: ServiceProcesses, postgres: str
) -> None:
    """What a step needs is away or held back, so that the kill comes while the step waits."""
    await replace_version_1(client, orders)

    await product.kill("switcher")
    await client.retire(JOB, 1, retain_for=RETAIN_FOR, forgo_rollback=True)
    await at_step(client, RetirementStep.RELEASE, "switcher")
    await restart(product, "registry")
    await at_step(client, RetirementStep.RELEASE, "switcher")

    await product.kill("replayer")
    await product.start("switcher")
    await at_step(client, RetirementStep.STOP_RUN, "replayer")
    await restart(product, "registry")
    await at_step(client, RetirementStep.STOP_RUN, "replayer")

    async with read_by_a_session(postgres):
        await product.start("replayer")
        retained = await at_step(client, RetirementStep.RETAIN, "retention")
        await restart(product, "registry")
        assert (await client.get_run(JOB, 1)).state is RunState.STOPPED

        dropping = await at_step(client, RetirementStep.DROP, "locked by")
        assert dropping.drop_time == retained.drop_time
        await restart(product, "registry")
        await at_step(client, RetirementStep.DROP, "locked by")
    await ends_dropped(client, orders, postgres)


async def test_the_registry_killed_while_it_takes_a_retirement_back(
    client: Client, orders: Orders, product: ServiceProcesses
) -> None:
    await replace_version_1(client, orders)
    await client.retire(JOB, 1, retain_for=timedelta(hours=1), forgo_rollback=True)
    await at_step(client, RetirementStep.RETAIN, "retention")
    await orders.produce(500)
    await product.kill("replayer")
    await client.unretire(JOB, 1)
    await at_step(client, RetirementStep.REINSTATE, "replayer")
    await restart(product, "registry")
    await product.start("replayer")
    await eventually(lambda: has_state(client, 1, VersionState.REGISTERED), 60)
    await holds_reference(client, 1, orders)
    assert (await client.roll_back(JOB)).route.active_version == 1


async def test_the_switcher_killed_before_the_drop(
    client: Client, orders: Orders, product: ServiceProcesses, postgres: str
) -> None:
    await replace_version_1(client, orders)
    await client.retire(JOB, 1, retain_for=timedelta(seconds=12), forgo_rollback=True)
    await at_step(client, RetirementStep.RETAIN, "retention")
    await product.kill("switcher")
    await at_step(client, RetirementStep.RETAIN, "switcher")
    assert await fetchval(postgres, f"select to_regclass('{TABLE}')") is not None, "dropped without the switcher's word"
    await product.start("switcher")
    await ends_dropped(client, orders, postgres)


async def test_the_replayer_killed_at_the_drop(
    client: Client, orders: Orders, product: ServiceProcesses, postgres: str
) -> None:
    await replace_version_1(client, orders)
    async with read_by_a_session(postgres):
        await client.retire(JOB, 1, retain_for=timedelta(0), forgo_rollback=True)
        await at_step(client, RetirementStep.DROP, "locked by")
        await product.kill("replayer")
    await at_step(client, RetirementStep.DROP, "replayer")
    await product.start("replayer")
    await ends_dropped(client, orders, postgres)
