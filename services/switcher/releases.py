"""Who may name a version: releases and their reversal, decided and audited under the route's lock."""

from datetime import datetime, timedelta

from core.postgres import Pool
from services.switcher.rows import SQL, read_route, transaction
from services.switcher.switch import MarkReinstated, MarkReleased, Reinstate, Release, decide


class ReleaseStore:
    """Releases of versions. One transaction a method."""

    def __init__(self, pool: Pool, protection: timedelta) -> None:
        self._pool = pool
        self._protection = protection

    async def release(self, job: str, command: Release, actor: str) -> None:
        """Release a version if nothing names it: decided, done and audited under the route's lock."""
        await self._decide_locked(job, command, actor)

    async def reinstate(self, job: str, command: Reinstate, actor: str) -> None:
        """Reverse a release, with its audit row."""
        await self._decide_locked(job, command, actor)

    async def _decide_locked(self, job: str, command: Release | Reinstate, actor: str) -> None:
        forgo = isinstance(command, Release) and command.forgo_rollback
        async with transaction(self._pool) as connection:
            await connection.execute(SQL.make_routes, [job])
            await connection.execute(SQL.lock_routes, [job])
            record = await read_route(connection, job)
            match decide(record.state, command, record.now, self._protection):
                case MarkReleased(version):
                    await connection.execute(SQL.release, job, version)
                    await connection.execute(SQL.record_release, job, version, "RELEASE", actor, forgo)
                case MarkReinstated(version):
                    await connection.execute(SQL.reinstate, job, version)
                    await connection.execute(SQL.record_release, job, version, "REINSTATE", actor, forgo)

    async def progress(self, job: str, version: int) -> tuple[datetime | None, list[str], bool]:
        """When a version was released, the fronts that may still read it, and whether the view may still show it."""
        async with transaction(self._pool) as connection:
            released = await connection.fetchval(SQL.release_time, job, version)
            rows = await connection.fetch(SQL.undrained_fronts, job, version)
            view = (await read_route(connection, job)).view
        return released, [row["front"] for row in rows], view.pending or view.version == version
