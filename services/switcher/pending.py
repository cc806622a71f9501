"""What a committed change still asks of the replayer: views to move, runs to wake. One transaction a method."""

from dataclasses import dataclass

from core.postgres import Pool
from services.switcher.rows import SQL, statement


@dataclass(frozen=True, slots=True)
class PendingView:
    """A SQL view that must come to show a version."""

    job: str
    version: int
    epoch: int


@dataclass(frozen=True, slots=True)
class PendingWake:
    """Runs of a rolled back route that are still to be woken."""

    job: str
    epoch: int
    versions: tuple[int, ...]


class PendingStore:
    """Written by the commit of a change, so that neither a lost caller nor a replayer that is away loses it."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def views(self) -> list[PendingView]:
        """Views that do not show the active version yet."""
        async with statement(self._pool) as connection:
            rows = await connection.fetch(SQL.pending_views)
        return [PendingView(row["job"], row["version"], row["epoch"]) for row in rows]

    async def view_moved(self, view: PendingView) -> None:
        """Note that a view has followed."""
        async with statement(self._pool) as connection:
            await connection.execute(SQL.view_moved, view.job, view.epoch, view.version)

    async def view_waiting(self, view: PendingView, waiting_for: str) -> None:
        """Note what a pending view waits for."""
        async with statement(self._pool) as connection:
            await connection.execute(SQL.view_waiting, view.job, view.epoch, waiting_for)

    async def wakes(self) -> list[PendingWake]:
        """Rollbacks whose runs are still to be woken."""
        async with statement(self._pool) as connection:
            rows = await connection.fetch(SQL.pending_wakes)
        return [PendingWake(row["job"], row["epoch"], tuple(row["versions"])) for row in rows]

    async def woken(self, wake: PendingWake) -> None:
        """Note that the replayer has answered for each of the runs."""
        async with statement(self._pool) as connection:
            await connection.execute(SQL.woken, wake.job, wake.epoch)
