"""The fronts in PostgreSQL: leases, reports, and which front may still read which version. One transaction a method."""

import secrets
from collections.abc import Awaitable, Callable, Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Any

from core.postgres import Pool, postgres_errors
from services.switcher.adoption import Front
from services.switcher.records import FrontReadLoad, Proposal, ReadLoad, RouteRecord
from services.switcher.rows import SQL, fronts_of, proposal_of, record_of, statement, transaction
from turnout.errors import Aborted, TurnoutError
from turnout.postgres.pool import COMMAND_TIMEOUT_S
from turnout.reading.deadline import Deadline
from turnout.reading.gathering import Gathering


@dataclass(frozen=True, slots=True)
class Registration:
    """What a front gets when it registers: its stream's right to the lease, and all routes at a revision."""

    front: str
    stream: str
    revision: int
    routes: tuple[RouteRecord, ...]
    open_proposals: tuple[Proposal, ...]


_DRAINED = "DRAINED"
Report = tuple[str, str, str, str]
"""A front, a proposal, what the front says of it, and a reason."""


class FrontStore:
    """Leases and reports of the query fronts."""

    def __init__(self, pool: Pool, lease: timedelta) -> None:
        self._pool = pool
        self.lease = lease
        self._known: tuple[int, tuple[RouteRecord, ...]] = (-1, ())
        self._said = _gathering(self._report)
        self._drained = _gathering(self._report_drained)

    async def register(self, front: str, address: str, may_serve_for: timedelta) -> Registration:
        """Take a lease and the snapshot, such that every commit sees the one or is in the other."""
        stream = secrets.token_hex(8)
        async with transaction(self._pool) as connection:
            revision = await connection.fetchval(SQL.share_revision)
            await connection.execute(SQL.take_lease, front, stream, address, self.lease, may_serve_for)
            await connection.execute(SQL.serve_all_routes, front)
            routes = await self._routes(connection, revision)
            proposals = await connection.fetch(SQL.proposals_open)
            await connection.execute(SQL.notify_of_fronts)
        return Registration(
            front=front,
            stream=stream,
            revision=revision,
            routes=routes,
            open_proposals=tuple(proposal_of(row) for row in proposals),
        )

    async def _routes(self, connection: Any, revision: int) -> tuple[RouteRecord, ...]:
        """All routes at a revision, read once: many fronts come at once when a switcher starts, and with many jobs it
        would be busy with their snapshots until their leases have expired. What else changes of a route, without a
        revision, is nothing that a front is told."""
        if self._known[0] != revision:
            rows = await connection.fetch(SQL.list_routes, "", None)
            self._known = (revision, tuple(record_of(row["job"], row) for row in rows))
        return self._known[1]

    async def renew(self, front: str, stream: str, load: ReadLoad | None = None) -> int:
        """Extend the lease and keep what the front says of its reads.

        The newest revision at that moment, which holds every commit from before the heartbeat. Aborted when the lease
        has expired or another stream has it: the front must say hello again.
        """
        async with statement(self._pool) as connection:
            said = (None,) * 4 if load is None else (load.reads, load.window, load.p50, load.p99)
            revision: int | None = await connection.fetchval(SQL.renew_lease, front, stream, self.lease, *said)
        if revision is None:
            raise Aborted(
                "LEASE_EXPIRED",
                f"The reader lease of {front} has expired or belongs to a newer stream; open the watch again.",
            )
        return revision

    async def read_load(self) -> list[FrontReadLoad]:
        """What each live front last said of its reads; one that has said nothing yet is left out."""
        async with statement(self._pool) as connection:
            rows = await connection.fetch(SQL.read_load)
        return [FrontReadLoad(row["front"], _load_of(row), row["age"]) for row in rows]

    async def end(self, front: str, stream: str) -> None:
        """End the lease at once: the front said goodbye."""
        async with transaction(self._pool) as connection:
            await connection.execute(SQL.end_lease, front, stream)
            await connection.execute(SQL.notify_of_fronts)

    async def report(self, front: str, proposal: str, state: str, reason: str) -> None:
        """Keep what a front says about a proposal. Of a proposal that is long forgotten nothing is kept. Reports that
        come at once share a statement."""
        gathering = self._drained if state == _DRAINED else self._said
        with postgres_errors():
            await gathering.send((front, proposal, state, reason), Deadline(COMMAND_TIMEOUT_S))

    async def _report(self, reports: Sequence[Report]) -> Sequence[None]:
        async with statement(self._pool) as connection:
            await connection.execute(SQL.report, *map(list, zip(*reports, strict=True)))
        return [None] * len(reports)

    async def _report_drained(self, reports: Sequence[Report]) -> Sequence[None]:
        drained: dict[str, list[str]] = {}
        for front, proposal, _, _ in reports:
            drained.setdefault(proposal, []).append(front)
        async with transaction(self._pool) as connection:
            # Orders the change of these fronts' rows with a commit, which writes them too.
            await connection.fetchval(SQL.share_revision)
            for proposal, fronts in drained.items():
                await connection.execute(SQL.drain, fronts, proposal)
            await connection.execute(SQL.report, *map(list, zip(*reports, strict=True)))
        return [None] * len(reports)

    async def fronts(self, proposal: str) -> list[Front]:
        """Every front that is remembered, and what it said about a proposal."""
        async with statement(self._pool) as connection:
            return await fronts_of(connection, proposal)


def _load_of(row: Any) -> ReadLoad | None:
    if row["load_reads"] is None:
        return None
    return ReadLoad(row["load_reads"], row["load_window"], row["load_p50"], row["load_p99"])


def _gathering(keep: Callable[[Sequence[Report]], Awaitable[Sequence[None]]]) -> Gathering[Report, None]:
    async def one(report: Report, _: Deadline) -> None:
        await keep([report])

    async def many(reports: Sequence[Report], _: Deadline) -> Sequence[None]:
        return await keep(reports)

    return Gathering(one, many, (TurnoutError,), "reports of fronts")
