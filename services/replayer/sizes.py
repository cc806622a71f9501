"""How large the output tables are: measured every second, so that whoever decides by it never waits.

To ask for a size waits for whoever has the table locked, as its drop does, for as long as that takes. Such a table
keeps the size it had.
"""

import asyncio
import logging
from collections.abc import Mapping
from typing import Final

import asyncpg

from services.replayer.store import QUERIES, Store
from turnout.errors import Unavailable
from turnout.names import VersionId, parse_version
from turnout.tasks import end

log = logging.getLogger(__name__)

EVERY_S: Final = 1.0
_LOCK_WAIT_MS: Final = 50


class TableSizes:
    """Bytes of each output table with its indexes, as measured last."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._sizes: dict[VersionId, int] | None = None
        self._measuring = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Measure from now on."""
        self._task = asyncio.create_task(self._go_on(), name="measure tables")

    async def stop(self) -> None:
        """End it."""
        await end(self._task)

    async def known(self) -> Mapping[VersionId, int]:
        """The sizes; measured at once if that has never been done. Unavailable while PostgreSQL is away then."""
        if self._sizes is None:
            async with self._measuring:
                if self._sizes is None:
                    self._sizes = await self._measure({})
        return self._sizes

    async def _go_on(self) -> None:
        while True:
            try:
                async with self._measuring:
                    self._sizes = await self._measure(self._sizes or {})
            except Unavailable:  # said elsewhere
                pass
            except Exception:
                log.exception("measuring the tables failed; going on")
            await asyncio.sleep(EVERY_S)

    async def _measure(self, before: Mapping[VersionId, int]) -> dict[VersionId, int]:
        try:
            return await self._read(None)
        except asyncpg.LockNotAvailableError:
            pass
        found: dict[VersionId, int] = {}  # one by one, to pass over the one that is locked
        for run in await self._store.standing():
            try:
                found |= await self._read(run.version)
            except asyncpg.LockNotAvailableError:
                found[run.version] = before.get(run.version, 0)
        return found

    async def _read(self, version: VersionId | None) -> dict[VersionId, int]:
        """The sizes of all tables, or of one. asyncpg.LockNotAvailableError."""
        async with self._store.transaction() as connection:
            await connection.execute(f"set local lock_timeout = {_LOCK_WAIT_MS}")
            rows = await connection.fetch(QUERIES.table_sizes, version.name if version is not None else None)
        return {parse_version(row["version"]): row["size_bytes"] for row in rows}
