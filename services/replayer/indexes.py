"""The declared indexes of a table, built after the copy, while the live tail goes on.

A build may take hours. Each has a connection of its own, so that none of the pool's is missing to what must answer at
once, and few go on at a time: they would only take the disk from one another, and from the live work.
"""

import asyncio
import contextlib
from collections.abc import AsyncIterator
from typing import Final

from core.postgres import Connection, connect, postgres_errors
from services.replayer import ddl
from services.replayer.store import QUERIES, Store
from turnout.schema import JobDefinition
from turnout.sql import serving

AT_A_TIME: Final = 2
LOOK_EVERY_S: Final = 5.0
_BUILD_S_MAX: Final = 30 * 86400.0
_IDLE_S_MAX: Final = 30
_CLOSE_S: Final = 5.0


class IndexBuilds:
    """The builds of this replica."""

    def __init__(self, dsn: str, store: Store) -> None:
        self._dsn = dsn
        self._store = store
        self._turns = asyncio.Semaphore(AT_A_TIME)

    async def build(self, definition: JobDefinition, table: str) -> bool:
        """Build what is missing, once it is this table's turn; False when another replica is at it.

        An index that an interrupted build left invalid is dropped and built again, so there must be one builder at a
        time: one under way looks the same. asyncpg.PostgresError when PostgreSQL refuses an index; Unavailable.
        """
        async with self._turns, self._connection() as connection:
            if not await connection.fetchval(QUERIES.try_lock_builder, table):
                return False
            for number, statement in enumerate(ddl.create_indexes(definition, table)):
                name = serving(ddl.index_name(table, number))
                valid = await connection.fetchval(QUERIES.index_is_valid, name)
                if valid is False:
                    await self._execute(connection, f"drop index concurrently {name}")
                if not valid:
                    await self._execute(connection, statement)
        return True

    @contextlib.asynccontextmanager
    async def _connection(self) -> AsyncIterator[Connection]:
        # A builder that was frozen between two statements does not keep the lock: the server ends its session.
        settings = {"idle_session_timeout": f"{_IDLE_S_MAX}s"}
        with postgres_errors():
            connection = await connect(
                self._dsn, application_name="turnout indexes", command_timeout_s=_IDLE_S_MAX, settings=settings
            )
        try:
            yield connection
        finally:
            try:  # in order, so that a statement that was given up is cancelled, and the lock is free at once
                await connection.close(timeout=_CLOSE_S)
            except Exception:
                connection.terminate()

    async def _execute(self, connection: Connection, statement: str) -> None:
        """However long it takes, as long as the server works on it: a build may take hours, and a network that lost the
        connection on the server's side only would let us wait for ever. The connection is cut when the server has twice
        said that it does nothing."""
        pid, idle = connection.get_server_pid(), 0
        work = asyncio.create_task(connection.execute(statement, timeout=_BUILD_S_MAX))
        try:
            while not work.done():
                await asyncio.wait({work}, timeout=LOOK_EVERY_S)
                idle = 0 if work.done() or await self._store.session_works(pid) else idle + 1
                if idle > 1:
                    connection.terminate()
                    break
            await work
        finally:
            if not work.done():
                work.cancel()
                await asyncio.wait({work})
