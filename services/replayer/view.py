"""The SQL view named like a job: moved from one version's table to another's, for readers who use SQL.

CREATE OR REPLACE VIEW can neither drop, reorder nor retype columns, so the view is dropped and created in one
transaction. What others may do with it, and the comment on it, are put back.
"""

from dataclasses import dataclass
from typing import Any

import asyncpg

from services.replayer import ddl
from services.replayer.locks import with_lock
from services.replayer.run import Run
from services.replayer.store import QUERIES, Store
from turnout.errors import FailedPrecondition, InvalidInput
from turnout.names import VersionId
from turnout.schema import view_name
from turnout.sql import DELETED_COLUMN, quoted, serving


@dataclass(frozen=True, slots=True)
class Moved:
    """Whether the view shows the version now and, while it does not, why."""

    moved: bool
    waiting_for: str = ""


async def move_view(store: Store, version: VersionId, epoch: int) -> Moved:
    """Make the job's view show this version. An older epoch than the view's own changes nothing."""
    if epoch < 1:
        raise InvalidInput("INVALID_EPOCH", f"epoch is {epoch}; epochs of a route count from 1.")
    run = await store.get(version)
    if run.drop_time is not None:
        raise FailedPrecondition("VERSION_DROPPED", f"The table of {version} was dropped; no view can show it.")
    view = view_name(version.job)
    stale = ""

    async def move(connection: Any) -> None:
        nonlocal stale
        current = await connection.fetchrow(QUERIES.view_for_update, version.job)
        if current is not None and current["epoch"] > epoch:
            if current["version"] != version.name:
                stale = f"the view follows epoch {current['epoch']} already and shows {current['version']}"
            return
        exists = await connection.fetchval("select to_regclass($1) is not null", serving(view))
        if not exists or current is None or current["version"] != version.name:
            await _replace(connection, run, view)
        await connection.execute(QUERIES.set_view, version.job, version.name, epoch)

    try:
        blocker = await with_lock(store, view, move)
    except asyncpg.DependentObjectsStillExistError as error:
        return Moved(False, f"{error}: {error.detail}" if error.detail else str(error))
    except asyncpg.WrongObjectTypeError:
        return Moved(False, f"{serving(view)} is no view but something of somebody else's with that name; rename it")
    if blocker is not None:
        return Moved(False, f"{blocker} holds a lock on the view")
    return Moved(not stale, stale)


async def _replace(connection: Any, run: Run, view: str) -> None:
    name = serving(view)
    grants = await connection.fetch(QUERIES.grants, name)
    comment = await connection.fetchval(QUERIES.relation_comment, name)
    columns = ddl.visible_columns(run.definition)
    await connection.execute(f"drop view if exists {name} restrict")
    listed = ", ".join(quoted(column) for column in columns)
    where = f" where not {DELETED_COLUMN}" if ddl.has_tombstones(run.definition) else ""
    statement = f"create view {name} as select {listed} from {serving(run.table)}{where}"  # noqa: S608  # quoted
    await connection.execute(statement)
    for grant in grants:
        if grant["column_name"] is None or grant["column_name"] in columns:
            await connection.execute(_grant(name, grant))
    if comment is not None:
        await connection.execute(await connection.fetchval(QUERIES.comment_on_view, name, comment))


def _grant(view: str, grant: Any) -> str:
    """One privilege put back. Its name is PostgreSQL's own word."""
    column = f" ({quoted(grant['column_name'])})" if grant["column_name"] is not None else ""
    grantee = "public" if grant["grantee"] is None else quoted(grant["grantee"])
    option = " with grant option" if grant["grantable"] else ""
    return f"grant {grant['privilege']}{column} on {view} to {grantee}{option}"
