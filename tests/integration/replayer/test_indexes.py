"""Building the declared indexes of many tables at once."""

from __future__ import annotations

import asyncio

import asyncpg

from services.replayer import ddl
from services.replayer.indexes import AT_A_TIME, IndexBuilds
from services.replayer.store import POOL_SIZE_MAX, Store
from tests.support.eventually import eventually
from tests.unit.replayer.made import definition
from turnout.postgres.pool import connect
from turnout.schema import Index

TABLES = [f"punctuality__v{number}" for number in range(1, POOL_SIZE_MAX + 2)]
BUILDING = """
select count(*) from pg_stat_activity
where datname = current_database() and query like 'create index concurrently%' and state = 'active'
"""


async def test_builds_leave_the_pool_alone_and_few_go_on_at_a_time(postgres: str) -> None:
    store = Store(postgres)
    await store.open()
    builds = IndexBuilds(postgres, store)
    job = definition(indexes=(Index(("flights",)),))
    blocker = await connect(postgres, application_name="blocker")
    tasks: list[asyncio.Task[bool]] = []
    try:
        for table in TABLES:
            await blocker.execute(ddl.create_table(job, table, {}))
        await blocker.execute("begin")
        for table in TABLES:
            await blocker.execute(f"lock table serving.{table} in share update exclusive mode")
        tasks = [asyncio.create_task(builds.build(job, table)) for table in TABLES]

        async def building() -> bool:
            return bool(await store.pool.fetchval(BUILDING) == AT_A_TIME)

        await eventually(building)
        free: list[asyncpg.Connection] = [await store.pool.acquire(timeout=30.0) for _ in range(POOL_SIZE_MAX)]
        for connection in free:
            await store.pool.release(connection)
        assert await building()
        await blocker.execute("rollback")
        assert all(await asyncio.gather(*tasks))
        valid = "select count(*) from pg_index where indisvalid and indexrelid = any($1::regclass[])"
        names = [f"serving.{ddl.index_name(table, 0)}" for table in TABLES]
        assert await store.pool.fetchval(valid, names) == len(TABLES)
    finally:
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await blocker.close()
        await store.close()
