"""The declared indexes of a table, built after the copy, while the live tail goes on."""

import asyncio
from typing import Any, Final

from core.domain.sql import serving
from core.postgres import Pool
from services.replayer import ddl
from services.replayer.store import QUERIES
from turnout.schema import JobDefinition

LOOK_EVERY_S: Final = 5.0
_BUILD_S_MAX: Final = 30 * 86400.0
_IDLE_S_MAX: Final = 30


async def build_indexes(pool: Pool, definition: JobDefinition, table: str) -> bool:
    """Build what is missing; False when another replica is at it.

    An index that an interrupted build left invalid is dropped and built again, so there must be one builder at a time:
    one under way looks the same. asyncpg.PostgresError when PostgreSQL refuses an index.
    """
    async with pool.acquire() as connection:
        # A builder that was frozen between two statements does not keep the lock: the server ends its session.
        await connection.execute(f"set idle_session_timeout = '{_IDLE_S_MAX} s'")
        if not await connection.fetchval(QUERIES.try_lock_builder, table):
            return False
        for number, statement in enumerate(ddl.create_indexes(definition, table)):
            name = serving(ddl.index_name(table, number))
            valid = await connection.fetchval(QUERIES.index_is_valid, name)
            if valid is False:
                await _execute(pool, connection, f"drop index concurrently {name}")
            if not valid:
                await _execute(pool, connection, statement)
    return True


async def _execute(pool: Pool, connection: Any, statement: str) -> None:
    """However long it takes, as long as the server works on it: a build may take hours, and a network that lost the
    connection on the server's side only would let us wait for ever. The connection is cut when the server has twice
    said that it does nothing."""
    pid, idle = connection.get_server_pid(), 0
    work = asyncio.create_task(connection.execute(statement, timeout=_BUILD_S_MAX))
    try:
        while not work.done():
            await asyncio.wait({work}, timeout=LOOK_EVERY_S)
            idle = 0 if work.done() or await pool.fetchval(QUERIES.session_works, pid) else idle + 1
            if idle > 1:
                connection.terminate()
                break
        await work
    finally:
        work.cancel()
