"""Dropping a version's table, with its positions and dead letters: never while it is written, never with CASCADE."""

import asyncio
from typing import Any

import asyncpg

from services.replayer.locks import with_lock
from services.replayer.states import State
from services.replayer.store import QUERIES, Store, run_of
from turnout.errors import Aborted, FailedPrecondition
from turnout.names import VersionId
from turnout.sql import serving

# Beyond the pool's own: unlinking the files of a large table and deleting millions of dead letters take their time.
DROP_WITHIN_S = 600.0


class Drops:
    """Drops under way. Each goes on when its caller gives up waiting, whose next call waits for the same one: a drop
    that takes longer than a call would otherwise begin anew for ever."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._tasks: dict[VersionId, asyncio.Task[bool]] = {}

    async def drop(self, version: VersionId) -> bool:
        """See `drop_table`."""
        task = self._tasks.get(version)
        if task is None:
            task = asyncio.create_task(drop_table(self._store, version), name=f"drop {version}")
            self._tasks[version] = task
            task.add_done_callback(lambda done: self._ended(version, done))
        return await asyncio.shield(task)

    async def stop(self) -> None:
        """End them, as if they had never begun."""
        tasks = list(self._tasks.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

    def _ended(self, version: VersionId, task: asyncio.Task[bool]) -> None:
        del self._tasks[version]
        if not task.cancelled():
            task.exception()  # the caller's, if one still waits; the next one asks again


async def drop_table(store: Store, version: VersionId) -> bool:
    """Drop; False when there was nothing to drop any more.

    FailedPrecondition (RUN_NOT_STOPPED, TABLE_IN_USE); Aborted (TABLE_BLOCKED) with pid, application and age_s of the
    session in the way.
    """
    run = await store.find(version)
    if run is None or run.drop_time is not None:
        return False
    dropped = False

    async def drop(connection: Any) -> None:
        nonlocal dropped
        locked = run_of(await connection.fetchrow(QUERIES.run_for_update, version.name))
        if locked.drop_time is not None:
            return
        if locked.state not in (State.STOPPED, State.FAILED, State.COMPLETED):
            raise FailedPrecondition(
                "RUN_NOT_STOPPED",
                f"The run of {version} is {locked.state.value}; stop it before its table is dropped.",
                metadata={"run": locked.name},
            )
        await connection.execute(f"drop table if exists {serving(locked.table)} restrict", timeout=DROP_WITHIN_S)
        await connection.execute(QUERIES.delete_positions, version.name, timeout=DROP_WITHIN_S)
        await connection.execute(QUERIES.delete_dead_letters, version.name, timeout=DROP_WITHIN_S)
        await connection.execute(QUERIES.set_dropped, version.name)
        dropped = True

    try:
        blocker = await with_lock(store, run.table, drop)
    except asyncpg.DependentObjectsStillExistError as error:
        raise FailedPrecondition(
            "TABLE_IN_USE",
            f"{error}: {error.detail}. Drop what depends on it, or move it to another version, then try again.",
            metadata={"table": run.table},
        ) from None
    if blocker is not None:
        raise Aborted(
            "TABLE_BLOCKED",
            f"The table {run.table} is locked by {blocker}; end that session or wait for it, then try again.",
            metadata={
                "table": run.table,
                "pid": str(blocker.pid),
                "application": blocker.application,
                "age_s": f"{blocker.age_s:.0f}",
            },
        )
    return dropped
