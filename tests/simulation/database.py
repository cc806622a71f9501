"""A database with the product's schemas, in which `now()` and `clock_timestamp()` are the simulation's."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import services.switcher
from core.postgres import migrate, open_pool
from tests.simulation.real import PREPARE, SCHEMA
from tests.support.databases import fresh_database

_AS_IT_IS = """
do $$ declare made regclass; begin
    for made in select format('%I.%I', schemaname, tablename)::regclass from pg_tables
        where schemaname in ('registry', 'serving', 'switcher')
    loop execute format('alter table %s set (autovacuum_enabled = off)', made); end loop;
end $$
"""
_SERVICES = Path(services.switcher.__file__).parent.parent


@asynccontextmanager
async def simulated_database(server: str) -> AsyncIterator[str]:
    """The connection string of such a database on a server, dropped afterwards."""
    async with fresh_database(server) as dsn:
        pool = await open_pool(
            dsn,
            application_name="turnout simulation",
            settings={"search_path": f"{SCHEMA}, pg_catalog, public", "simulated.now": "2030-01-01 00:00:00+00"},
        )
        try:
            async with pool.acquire() as connection:
                await connection.execute(PREPARE)
            for name in ("registry", "replayer", "switcher"):
                await migrate(pool, name, _SERVICES / name / "migrations")
            async with pool.acquire() as connection:  # autovacuum comes in real time, with other plans and places
                await connection.execute(_AS_IT_IS)
        finally:
            await pool.close()
        yield dsn
