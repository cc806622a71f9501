"""Clients in direct mode are counted as fronts: by a change of the route, and by the drop of a version."""

from __future__ import annotations

import asyncio
import os
import signal
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.integration.query.fronts import Serving
from tests.integration.switcher.conftest import V1, Switcher, lease_is_over
from tests.support.eventually import eventually
from turnout.client import Client, Direct

JOB = "carrier-punctuality"
TABLE = "carrier_punctuality"
READER = """
import asyncio, sys
from turnout.client import Client, Direct

async def main(switcher, postgres):
    targets = {"switcher": switcher, "registry": switcher}
    async with Client(targets=targets, direct=Direct(postgres, max_stale_active_s=60)) as client:
        read = await client.get("carrier-punctuality", 1)
        print((await client.explain("carrier-punctuality", unit="u")).front, read.version, flush=True)
        await asyncio.Event().wait()

asyncio.run(main(*sys.argv[1:]))
"""


@pytest.fixture
async def tables(postgres: str) -> AsyncIterator[Serving]:
    """Versions 1 to 3 with a row each."""
    serving = await Serving.create(postgres)
    for version in (1, 2, 3):
        await serving.sql(f"create table serving.{TABLE}__v{version} (id bigint primary key, name text)")
        await serving.sql(f"insert into serving.{TABLE}__v{version} values (1, 'v{version}')")
        await serving.position(version, 10 * version, job=JOB)
    yield serving
    await serving.connection.close()


@asynccontextmanager
async def direct(switcher: Switcher, postgres: str) -> AsyncIterator[Client]:
    targets = {"switcher": switcher.target, "registry": switcher.target}
    async with Client(targets=targets, direct=Direct(postgres), timeout_s=20) as client:
        yield client


@asynccontextmanager
async def reader_process(switcher: Switcher, postgres: str) -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """A process that has read version 1 in direct mode and stays: its front's name."""
    process = await asyncio.create_subprocess_exec(
        sys.executable, "-c", READER, switcher.target, postgres, stdout=asyncio.subprocess.PIPE, env=dict(os.environ)
    )
    assert process.stdout is not None
    try:
        name, version = (await asyncio.wait_for(process.stdout.readline(), 60)).decode().split()
        assert version == "1"
        yield name, process
    finally:
        if process.returncode is None:
            process.kill()
        await process.wait()


async def test_a_change_is_answered_when_the_client_serves_by_it(
    switcher: Switcher, tables: Serving, postgres: str
) -> None:
    await switcher.cut_over(1)
    async with direct(switcher, postgres) as one, direct(switcher, postgres) as two:
        clients = {(await client.explain(JOB, unit="u")).front: client for client in (one, two)}
        for version in (2, 3, 1):
            change = await switcher.cut_over(version)
            assert {adoption.front for adoption in change.adoptions} == set(clients)
            assert all(adoption.HasField("adoption_time") for adoption in change.adoptions)
            for client in clients.values():
                read = await client.get(JOB, 1)
                assert (read.version, read.epoch, read.row) == (
                    version,
                    change.route.epoch,
                    {"id": 1, "name": f"v{version}"},
                )
    change = await switcher.cut_over(2)
    assert not change.adoptions, "who has closed is not waited for"
    assert not change.fronts_not_counted


async def test_a_client_that_cannot_read_the_table_refuses_the_change(
    switcher: Switcher, tables: Serving, postgres: str
) -> None:
    await switcher.cut_over(1)
    async with direct(switcher, postgres) as client:
        await tables.sql(f"drop table serving.{TABLE}__v2")
        with pytest.raises(Exception, match="carrier-punctuality v2 has no table"):
            await switcher.cut_over(2)
        assert (await client.get(JOB, 1)).version == 1


async def test_a_frozen_client_is_waited_for_until_its_lease_is_over(
    switcher: Switcher, tables: Serving, postgres: str, database: Any
) -> None:
    await switcher.cut_over(1)
    async with reader_process(switcher, postgres) as (name, process):
        process.send_signal(signal.SIGSTOP)
        changing = asyncio.create_task(switcher.cut_over(2))

        async def proposed() -> bool:
            return bool(await database.fetchval("select count(*) from switcher.proposals where state = 'OPEN'"))

        await eventually(proposed)
        await lease_is_over(database, name)
        change = await changing
        assert not [adoption for adoption in change.adoptions if adoption.HasField("adoption_time")]
        assert name in change.fronts_not_counted


async def test_no_version_is_dropped_that_a_killed_client_may_still_read(
    switcher: Switcher, tables: Serving, postgres: str, database: Any
) -> None:
    await switcher.cut_over(1)
    async with reader_process(switcher, postgres) as (name, process):
        process.kill()
        await process.wait()
        await lease_is_over(database, name)
        assert (await switcher.cut_over(2)).route.active_version == 2
        assert list((await switcher.release(V1, forgo_rollback=True)).undrained_fronts) == [name]
        # It serves for 60 seconds without the switcher, and a read may take 120.
        await database.execute("update switcher.reader_leases set expires = now() - interval '140 seconds'")
        assert list((await switcher.release(V1)).undrained_fronts) == [name]
        await database.execute("update switcher.reader_leases set expires = now() - interval '181 seconds'")
        assert (await switcher.release(V1)).drained


async def test_a_session_does_not_go_back_through_a_cutover(switcher: Switcher, tables: Serving, postgres: str) -> None:
    await switcher.cut_over(2)
    async with direct(switcher, postgres) as client:
        reader = client.session()
        assert [(await reader.get(JOB, 1)).version for _ in range(2)] == [2, 2]
        await switcher.cut_over(1)  # which is behind what the reader has seen, at 10 instead of 20
        waiting = asyncio.create_task(reader.get(JOB, 1, timeout_s=20))
        assert [one.next_offset for one in (await client.get(JOB, 1)).applied_positions] == [10]
        await tables.position(1, 25, job=JOB)
        read = await waiting
        assert (read.version, [one.next_offset for one in read.applied_positions]) == (1, [25])
