"""A session's reads never go back, through fronts and in direct mode, whatever is done to the route meanwhile."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest

from tests.acceptance.orders import JOB, USERS, Orders
from tests.acceptance.test_life_cycle import caught_up, serve_version_1
from tests.support.eventually import eventually
from tests.support.processes import ServiceProcesses
from turnout.client import Client, Direct
from turnout.results import Read

pytestmark = pytest.mark.parametrize("product", ["four processes"], indirect=True)


@asynccontextmanager
async def direct(product: ServiceProcesses, postgres: str) -> AsyncIterator[Client]:
    targets = {name: product.target(name) for name in ("registry", "switcher")}
    async with Client(targets=targets, direct=Direct(postgres)) as client:
        yield client


class Reader:
    """Reads rows of one unit for as long as it is told to, and looks whether it was ever led back."""

    def __init__(self, client: Client, unit: str) -> None:
        self._session = client.session(unit=unit)
        self._seen: dict[tuple[str, int], int] = {}
        self._epoch = 0
        self.versions: list[int] = []

    async def run(self, until: asyncio.Event) -> None:
        number = 0
        while not until.is_set():
            number += 1
            self._look(await self._session.get(JOB, f"user-{number % USERS}", timeout_s=20))
            batch = await self._session.batch_get(JOB, [f"user-{n}" for n in range(5)], timeout_s=20)
            self._look(batch.reads[0])

    def _look(self, read: Read) -> None:
        assert read.epoch >= self._epoch
        self._epoch = read.epoch
        for position in read.applied_positions:
            place = (position.topic, position.partition)
            assert position.next_offset >= self._seen.get(place, 0), read
            self._seen[place] = position.next_offset
        self.versions.append(read.version)


async def test_sessions_through_cutover_split_and_rollback(
    client: Client, product: ServiceProcesses, orders: Orders, postgres: str
) -> None:
    await serve_version_1(client, orders)
    await client.apply(orders.code(2))
    await client.start_run(JOB, 2)
    await caught_up(client, 2)
    done = asyncio.Event()
    async with direct(product, postgres) as without_front:
        readers = [Reader(one, f"unit-{n}") for one in (client, without_front) for n in range(4)]
        reading = [asyncio.create_task(reader.run(done)) for reader in readers]
        try:
            await eventually(lambda: all_read(readers, 1))
            for turn in range(3):
                await orders.produce(500)
                await client.set_traffic(JOB, {1: 5_000, 2: 5_000}, override_gates=["catch-up"])
                await orders.produce(500)
                change = await client.cut_over(JOB, 2, override_gates=["catch-up"])
                assert len(change.adoptions) == 2
                assert not change.fronts_not_counted
                await orders.produce(500)
                await eventually(lambda: all_read(readers, 2))
                await client.roll_back(JOB)
                assert not any(task.done() for task in reading), f"turn {turn}"
        finally:
            done.set()
        await asyncio.gather(*reading)
    for reader in readers:
        assert set(reader.versions) == {1, 2}


async def all_read(readers: list[Reader], version: int) -> bool:
    """Whether each one was answered by the version last."""
    return all(reader.versions[-1:] == [version] for reader in readers)
