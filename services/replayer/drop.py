"""Dropping a version's table, with its positions and dead letters: never while it is written, never with CASCADE."""

from typing import Any

import asyncpg

from core.domain.errors import Aborted, FailedPrecondition
from core.domain.names import VersionId
from core.domain.sql import serving
from services.replayer.locks import with_lock
from services.replayer.states import State
from services.replayer.store import QUERIES, Store, run_of


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
        if locked.state not in (State.STOPPED, State.FAILED):
            raise FailedPrecondition(
                "RUN_NOT_STOPPED",
                f"The run of {version} is {locked.state.value}; stop it before its table is dropped.",
                metadata={"run": locked.name},
            )
        await connection.execute(f"drop table if exists {serving(locked.table)} restrict")
        await connection.execute(QUERIES.delete_positions, version.name)
        await connection.execute(QUERIES.delete_dead_letters, version.name)
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
