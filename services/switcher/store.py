"""Routes and proposals in PostgreSQL, and the audit of their changes. Each method is one transaction.

The database is the truth, so that several replicas may serve. What fronts must hear of is written under the revision
row's lock and announced by NOTIFY; whoever listens polls behind it. Locks are taken in the order routes (by job),
revision.
"""

import hashlib
import json
import secrets
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from typing import Any

from core.postgres import Pool
from services.switcher.adoption import Verdict, readiness
from services.switcher.experiments.follow import follow
from services.switcher.records import ChangeRecord, CommandKind, Intent, Proposal, RouteRecord, gates_to_json
from services.switcher.records import route_to_json as route_json
from services.switcher.refusals import released_error
from services.switcher.rows import (
    SQL,
    Fence,
    change_of,
    fronts_of,
    proposal_of,
    read_route,
    record_of,
    statement,
    transaction,
)
from services.switcher.switch import Change, stale
from services.switcher.way_back import refuse_unreadable
from turnout.errors import Aborted

NOT_PREPARED = "NOT_PREPARED"
Encode = Callable[[Sequence[ChangeRecord]], bytes]


@dataclass(frozen=True, slots=True)
class Decided:
    """A change of one route, and what the audit will say of it."""

    change: Change
    record: ChangeRecord


@dataclass(frozen=True, slots=True)
class Committed:
    """Changes that were committed in one transaction, and the fronts whose lease was alive at that moment."""

    proposal: str
    records: tuple[ChangeRecord, ...]
    counted: frozenset[str]


@dataclass(frozen=True, slots=True)
class Terms:
    """How a proposal is opened.

    emergency: it takes the place of any other proposal that is not an emergency itself, and needs one front only.
    rolls_back: an emergency that takes the place of any other proposal that is not a rollback itself.
    """

    lifetime: timedelta  # unless its proposer renews it
    described: str  # who wants what, for another operator
    traceparent: str
    emergency: bool = False
    rolls_back: bool = False

    def overtakes(self, row: Any) -> bool:
        """Whether it takes the place of an open proposal (a row of `open_proposals`)."""
        return (self.rolls_back and not row["rolls_back"]) or (self.emergency and not row["emergency"])


class RouteStore:
    """Routes, proposals, and the audit."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def read(self, job: str) -> RouteRecord:
        """The route of a job; one that was never committed has no route in its state."""
        async with statement(self._pool) as connection:
            return await read_route(connection, job)

    async def list_routes(self, after: str, limit: int) -> list[RouteRecord]:
        """Committed routes by name, from the one after the job `after`."""
        async with statement(self._pool) as connection:
            rows = await connection.fetch(SQL.list_routes, after, limit)
        return [record_of(row["job"], row) for row in rows]

    async def list_changes(self, job: str, before_epoch: int | None, limit: int) -> list[ChangeRecord]:
        """Committed changes of a route, newest first; those before an epoch, where one is given."""
        async with statement(self._pool) as connection:
            rows = await connection.fetch(SQL.list_changes, job, before_epoch, limit)
        return [change_of(row) for row in rows]

    async def partners(self, job: str) -> list[str]:
        """The other jobs whose last cutover was the same step as that of this job, and can still be taken back."""
        async with statement(self._pool) as connection:
            return [row["job"] for row in await connection.fetch(SQL.partners, job)]

    async def propose(
        self, changes: Sequence[Change], intent: Intent, terms: Terms, opening: Fence | None = None
    ) -> str:
        """Open a proposal of all these changes; its id holds a hash of its content.

        opening: called in the same transaction, once no other proposal is in the way; what it raises opens none.
        Aborted where another one is open for one of the jobs, or a route moved. A proposal that outlives its lifetime
        has no proposer any more: the next one cancels it, and so do the terms that overtake it.
        """
        routes = {change.route.job: route_json(change.route) for change in changes}
        jobs = sorted(routes)
        content = "\n".join(f"{job} {routes[job]}" for job in jobs)
        proposal = f"{secrets.token_hex(8)}-{hashlib.sha256(content.encode()).hexdigest()[:16]}"
        async with transaction(self._pool) as connection:
            await connection.execute(SQL.make_routes, jobs)
            await connection.execute(SQL.lock_routes, jobs)
            for change in changes:
                await _refuse_moved(connection, change)
            await _make_way(connection, jobs, terms)
            revision = await connection.fetchval(SQL.next_revision)
            await connection.execute(
                SQL.propose,
                *(proposal, revision, terms.lifetime, terms.described, terms.traceparent, terms.emergency),
                *(terms.rolls_back, intent.request_id, intent.fingerprint),
            )
            for change in changes:
                await connection.execute(
                    SQL.propose_route,
                    *(proposal, change.route.job, change.route.epoch, routes[change.route.job]),
                    sorted(change.to_read_back),
                )
            if opening is not None:
                await opening(connection)
        return proposal

    async def renew(self, proposal: str, lifetime: timedelta) -> None:
        """Say that the proposer of an open proposal is alive; changes nothing where it is open no more, or too late."""
        async with statement(self._pool) as connection:
            await connection.execute(SQL.renew_proposal, proposal, lifetime)

    async def cancel(self, jobs: Iterable[str], proposal: str, because: str) -> None:
        """Close a proposal that is still open; changes nothing where it is not."""
        async with transaction(self._pool) as connection:
            await connection.execute(SQL.lock_routes, sorted(jobs))
            await _close(connection, proposal, because)

    async def cancel_dead(self) -> list[str]:
        """Close every proposal whose proposer died; their ids."""
        async with statement(self._pool) as connection:
            rows = await connection.fetch(SQL.dead_proposals)
        for row in rows:
            await self.cancel(row["jobs"], row["proposal"], "its proposer was not heard of any more")
        return [row["proposal"] for row in rows]

    async def commit(
        self, proposal: str, decided: Sequence[Decided], intent: Intent, encode: Encode, fence: Fence | None = None
    ) -> Committed:
        """Make a proposal's routes the routes of their jobs, with audit rows and the (encoded) answer to the request.

        Everything that may have changed since the decision is read again under the locks: the epochs, the released
        versions, that the proposal is still open and (by its fence) still wanted, and that every live front is prepared
        (one, for an emergency) and can read back what a rollback would need.
        """
        jobs = sorted(one.change.route.job for one in decided)
        emergency = all(one.change.emergency for one in decided)
        async with transaction(self._pool) as connection:
            await connection.execute(SQL.lock_routes, jobs)
            revision = await connection.fetchval(SQL.next_revision)
            opened = await connection.fetchrow(SQL.commit_proposal, proposal, revision)
            if opened is None:
                raise _closed(jobs, await connection.fetchval(SQL.closed_because, proposal))
            if fence is not None:
                await fence(connection)
            befores = [await _refuse_moved(connection, one.change) for one in decided]
            fronts = await fronts_of(connection, proposal)
            ready = readiness(fronts, emergency=emergency, overdue=True)
            if ready.verdict is not Verdict.COMMIT:
                raise not_prepared(jobs, ready.complaint)
            for one in decided:
                refuse_unreadable(one.change, fronts)
            counted = frozenset(front.front for front in fronts if front.live)
            await connection.execute(SQL.close_proposal, proposal, sorted(counted))
            group = revision if len(decided) > 1 else 0
            records = tuple(replace(one.record, commit_time=opened["commit_time"], group=group) for one in decided)
            for before, one, record in zip(befores, decided, records, strict=True):
                made = _Made(proposal, revision, opened["traceparent"], before)
                await _write(connection, made, one.change, record, intent)
            if intent.request_id:
                stored = intent.request_id, intent.fingerprint, encode(records), proposal
                if await connection.fetchval(SQL.store_request, *stored) is None:
                    raise _carried_out_before(jobs)
        return Committed(proposal, records, counted)

    async def revision(self) -> int:
        """The newest revision."""
        async with statement(self._pool) as connection:
            return int(await connection.fetchval(SQL.revision))

    async def proposals_since(self, revision: int) -> tuple[int, list[Proposal]]:
        """Proposals that changed after a revision, in the order of theirs, and a revision up to which none is missing.

        That is often beyond the last one's: not every transaction that takes a revision changes a proposal.
        """
        async with statement(self._pool) as connection:
            rows = await connection.fetch(SQL.proposals_since, revision)
        return rows[0]["newest"], [proposal_of(row) for row in rows if row["proposal"] is not None]

    async def forget(self, proposals: timedelta, requests: timedelta) -> None:
        """Delete what is older than it can matter: leases by what their front says, the rest by these ages.

        A lease that expired longer ago than its front may serve counts as drained, as if it were not there.
        """
        async with transaction(self._pool) as connection:
            await connection.fetchval(SQL.next_revision)  # for its lock: a commit must not lose a lease it has read
            await connection.execute(SQL.forget_leases)
            await connection.execute(SQL.forget_proposals, proposals)
            await connection.execute(SQL.forget_requests, requests)
            await connection.execute(SQL.forget_shadows)


def not_prepared(jobs: Sequence[str], complaint: str) -> Aborted:
    """The error of a proposal that fronts cannot serve."""
    return Aborted(
        NOT_PREPARED,
        f"Not every query front can serve the new route of {', '.join(jobs)}, so nothing has changed. {complaint}. Try "
        "again once they can; a front that is gone stops counting when its lease expires.",
    )


def _closed(jobs: Sequence[str], because: str | None) -> Aborted:
    return Aborted(
        "PROPOSAL_EXPIRED",
        f"The proposal for {', '.join(jobs)} was cancelled: {because or 'it was open for too long'}. Nothing has "
        "changed; read the route again and decide anew.",
    )


def _carried_out_before(jobs: Sequence[str]) -> Aborted:
    return Aborted(
        "REQUEST_CARRIED_OUT",
        f"The same request for {', '.join(jobs)} was carried out before; repeat it for its answer.",
    )


async def _refuse_moved(connection: Any, change: Change) -> RouteRecord:
    """The route as it is under the lock; an error where the change does not follow from it any more."""
    route = change.route
    record = await read_route(connection, route.job)
    if record.state.epoch != route.epoch - 1:
        raise stale(route.job, record.state.epoch)
    for version in sorted(route.named & record.state.released):
        raise released_error(route.job, version)
    return record


async def _make_way(connection: Any, jobs: Sequence[str], terms: Terms) -> None:
    """Close the proposals that are in the way; Aborted (CHANGE_IN_FLIGHT) where one is not to be closed."""
    for row in await connection.fetch(SQL.open_proposals, jobs):
        if row["dead"]:
            await _close(connection, row["proposal"], "its proposer was not heard of any more")
        elif terms.overtakes(row):
            await _close(connection, row["proposal"], f"{terms.described} took its place")
        else:
            raise Aborted(
                "CHANGE_IN_FLIGHT",
                f"Another change of the route of {', '.join(jobs)} is on its way ({row['described']}). Nothing was "
                "done; read the route again and decide anew.",
            )


async def _close(connection: Any, proposal: str, because: str) -> None:
    revision = await connection.fetchval(SQL.next_revision)
    await connection.execute(SQL.cancel_proposal, proposal, revision, because)


@dataclass(frozen=True, slots=True)
class _Made:
    """What the changes of one commit have in common, and the route before."""

    proposal: str
    revision: int
    traceparent: str
    before: RouteRecord


async def _write(connection: Any, made: _Made, change: Change, record: ChangeRecord, intent: Intent) -> None:
    """One route of a commit: the route, its audit row, and who may be reading it from now on."""
    route, before = change.route, made.before.state.route
    moved = before is None or before.active_version != route.active_version
    returns = record.command is CommandKind.ROLL_BACK or (moved and record.command is CommandKind.WITHDRAW)
    back = route_json(change.way_back) if change.way_back else None
    await connection.execute(
        SQL.commit_route,
        *(route.job, route.epoch, route_json(route), back, change.protected_until, made.proposal, made.revision),
        *(made.traceparent, record.commit_time, moved, returns, record.group > 0, sorted(route.named)),
        *(record.command.value, record.claimed_actor, record.reason, intent.request_id),
        *(gates_to_json(record.gates), json.dumps(record.warnings), record.rollback_version),
    )
    await follow(connection, before, record)
