"""The switcher's schema in PostgreSQL: routes, proposals, the audit. Each method is one transaction.

The database is the truth, so that several replicas may serve. What fronts must hear of is written under the revision
row's lock and announced by NOTIFY; whoever listens polls behind it.
"""

import hashlib
import json
import secrets
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from pathlib import Path
from typing import Any

from core.domain.errors import Aborted, InvalidInput
from core.postgres import Pool, load_queries, postgres_errors
from services.switcher.adoption import Front, Verdict, readiness
from services.switcher.records import (
    ChangeRecord,
    CommandKind,
    Intent,
    Proposal,
    ProposalState,
    RouteRecord,
    View,
    gates_from_json,
    gates_to_json,
    route_from_json,
    route_to_json,
)
from services.switcher.switch import (
    Change,
    MarkReinstated,
    MarkReleased,
    Reinstate,
    Release,
    State,
    decide,
    released_error,
    stale,
)
from turnout.routing import Route

CHANNEL = "turnout_switcher"
MIGRATIONS = Path(__file__).parent / "migrations"
SQL = load_queries(Path(__file__).parent / "queries.sql")


@dataclass(frozen=True, slots=True)
class PendingView:
    """A SQL view that must come to show a version."""

    job: str
    version: int
    epoch: int


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed change, the fronts at that moment, and those that it did not wait for."""

    proposal: str
    record: ChangeRecord
    fronts: tuple[Front, ...]
    not_ready: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class PendingWake:
    """Runs of a rolled back route that are still to be woken."""

    job: str
    epoch: int
    versions: tuple[int, ...]


Encode = Callable[[ChangeRecord], bytes]


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Any]:
    """A connection in a transaction; Unavailable while PostgreSQL is away."""
    with postgres_errors():
        async with pool.acquire() as connection, connection.transaction():
            yield connection


class RouteStore:
    """Routes, proposals, requests, and the audit."""

    def __init__(self, pool: Pool, protection: timedelta) -> None:
        self._pool = pool
        self._protection = protection

    async def read(self, job: str) -> RouteRecord:
        """The route of a job; one that was never committed has no route in its state."""
        async with transaction(self._pool) as connection:
            return await _read(connection, job)

    async def list_routes(self, after: str, limit: int) -> list[RouteRecord]:
        """Committed routes by name, from the one after the job `after`."""
        async with transaction(self._pool) as connection:
            rows = await connection.fetch(SQL.list_routes, after, limit)
        return [record_of(row["job"], row) for row in rows]

    async def list_changes(self, job: str, before_epoch: int | None, limit: int) -> list[ChangeRecord]:
        """Committed changes of a route, newest first; those before an epoch, where one is given."""
        async with transaction(self._pool) as connection:
            rows = await connection.fetch(SQL.list_changes, job, before_epoch, limit)
        return [_change_record(row) for row in rows]

    async def first_answer(self, request_id: str, fingerprint: bytes) -> bytes | None:
        """The stored answer to a request; InvalidInput where the id stands for another request."""
        async with transaction(self._pool) as connection:
            row = await connection.fetchrow(SQL.find_request, request_id)
        if row is None:
            return None
        if row["fingerprint"] != fingerprint:
            raise InvalidInput(
                "REQUEST_ID_REUSED",
                f"The request_id {request_id!r} came with another request before; take a new one for each request.",
            )
        return bytes(row["answer"])

    async def store_answer(self, intent: Intent, answer: bytes) -> bytes:
        """Keep the answer to a request that needed no change; the first one, if the same request came twice at once."""
        async with transaction(self._pool) as connection:
            await connection.execute(SQL.store_request, intent.request_id, intent.fingerprint, answer)
            row = await connection.fetchrow(SQL.find_request, intent.request_id)
        return bytes(row["answer"])

    async def complete_answer(self, request_id: str, answer: bytes) -> None:
        """Put the whole answer in the place of the one that the commit stored."""
        async with transaction(self._pool) as connection:
            await connection.execute(SQL.complete_request, request_id, answer)

    async def propose(self, route: Route, lifetime: timedelta, described: str, traceparent: str) -> str:
        """Open a proposal; its id holds a hash of its content. Aborted where another one is open, or the route moved.

        A proposal that outlives its lifetime has no proposer any more: the next one cancels it.
        """
        text = route_to_json(route)
        proposal = f"{secrets.token_hex(8)}-{hashlib.sha256(text.encode()).hexdigest()[:16]}"
        async with transaction(self._pool) as connection:
            await connection.execute(SQL.make_route, route.job)
            await connection.execute(SQL.lock_route, route.job)
            epoch = (await _read(connection, route.job)).state.epoch
            if epoch != route.epoch - 1:
                raise stale(route.job, epoch)
            open_one = await connection.fetchrow(SQL.open_proposal, route.job)
            if open_one is not None:
                if not open_one["dead"]:
                    raise _in_flight(route.job, open_one["described"])
                dead_at = await connection.fetchval(SQL.next_revision)
                await connection.execute(SQL.cancel_proposal, open_one["proposal"], dead_at)
            revision = await connection.fetchval(SQL.next_revision)
            await connection.execute(
                SQL.propose, proposal, route.job, route.epoch, text, revision, lifetime, described, traceparent
            )
            await connection.execute(SQL.notify)
        return proposal

    async def cancel(self, job: str, proposal: str) -> None:
        """Close a proposal that is still open; changes nothing where it is not."""
        async with transaction(self._pool) as connection:
            await connection.execute(SQL.lock_route, job)
            revision = await connection.fetchval(SQL.next_revision)
            await connection.execute(SQL.cancel_proposal, proposal, revision)
            await connection.execute(SQL.notify)

    async def cancel_dead(self) -> list[str]:
        """Close every proposal whose proposer died; their ids."""
        async with transaction(self._pool) as connection:
            rows = await connection.fetch(SQL.dead_proposals)
        for row in rows:
            await self.cancel(row["job"], row["proposal"])
        return [row["proposal"] for row in rows]

    async def commit(
        self, proposal: str, change: Change, record: ChangeRecord, intent: Intent, encode: Encode
    ) -> Committed:
        """Make a proposal the route, with its audit row and the (encoded) answer to its request.

        Everything that may have changed since the decision is read again under the locks: the epoch, the released
        versions, that the proposal is still open, and that every live front is prepared (one, for a rollback).
        """
        route, emergency = change.route, record.command is CommandKind.ROLL_BACK
        async with transaction(self._pool) as connection:
            await connection.execute(SQL.lock_route, route.job)
            before = (await _read(connection, route.job)).state
            if before.epoch != route.epoch - 1:
                raise stale(route.job, before.epoch)
            for version in sorted(route.versions & before.released):
                raise released_error(route.job, version)
            revision = await connection.fetchval(SQL.next_revision)
            opened = await connection.fetchrow(SQL.commit_proposal, proposal, revision)
            if opened is None:
                raise _expired(route.job)
            fronts = await fronts_of(connection, proposal)
            ready = readiness(fronts, emergency=emergency, overdue=True)
            if ready.verdict is not Verdict.COMMIT:
                raise not_prepared(route.job, ready.complaint)
            record = replace(record, commit_time=opened["commit_time"])
            moved = before.route is None or before.route.active_version != route.active_version
            back = route_to_json(change.way_back) if change.way_back else None
            await connection.execute(
                SQL.commit_route,
                *(route.job, route.epoch, route_to_json(route), back, change.protected_until, proposal, revision),
                *(opened["traceparent"], record.commit_time, moved, emergency),
            )
            await _write_audit(connection, record, intent, encode)
            await connection.execute(SQL.serve_route, route.job, route.epoch, sorted(route.versions))
            await connection.execute(SQL.notify)
        return Committed(proposal, record, tuple(fronts), ready.not_ready)

    async def release(self, job: str, command: Release, actor: str) -> None:
        """Release a version if nothing names it: decided, done and audited under the route's lock."""
        await self._decide_locked(job, command, actor)

    async def reinstate(self, job: str, command: Reinstate, actor: str) -> None:
        """Reverse a release, with its audit row."""
        await self._decide_locked(job, command, actor)

    async def _decide_locked(self, job: str, command: Release | Reinstate, actor: str) -> None:
        forgo = isinstance(command, Release) and command.forgo_rollback
        async with transaction(self._pool) as connection:
            await connection.execute(SQL.make_route, job)
            await connection.execute(SQL.lock_route, job)
            record = await _read(connection, job)
            match decide(record.state, command, record.now, self._protection):
                case MarkReleased(version):
                    await connection.execute(SQL.release, job, version)
                    await connection.execute(SQL.record_release, job, version, "RELEASE", actor, forgo)
                case MarkReinstated(version):
                    await connection.execute(SQL.reinstate, job, version)
                    await connection.execute(SQL.record_release, job, version, "REINSTATE", actor, forgo)

    async def release_progress(self, job: str, version: int) -> tuple[datetime | None, list[str], bool]:
        """When a version was released, the fronts that may still read it, and whether the view may still show it."""
        async with transaction(self._pool) as connection:
            released = await connection.fetchval(SQL.release_time, job, version)
            rows = await connection.fetch(SQL.undrained_fronts, job, version)
            view = (await _read(connection, job)).view
        return released, [row["front"] for row in rows], view.pending or view.version == version

    async def pending_views(self) -> list[PendingView]:
        """Views that do not show the active version yet."""
        async with transaction(self._pool) as connection:
            rows = await connection.fetch(SQL.pending_views)
        return [PendingView(row["job"], row["version"], row["epoch"]) for row in rows]

    async def view_moved(self, view: PendingView) -> None:
        """Note that a view has followed."""
        async with transaction(self._pool) as connection:
            await connection.execute(SQL.view_moved, view.job, view.epoch, view.version)

    async def view_waiting(self, view: PendingView, waiting_for: str) -> None:
        """Note what a pending view waits for."""
        async with transaction(self._pool) as connection:
            await connection.execute(SQL.view_waiting, view.job, view.epoch, waiting_for)

    async def pending_wakes(self) -> list[PendingWake]:
        """Rollbacks whose runs are still to be woken."""
        async with transaction(self._pool) as connection:
            rows = await connection.fetch(SQL.pending_wakes)
        return [PendingWake(row["job"], row["epoch"], tuple(row["versions"])) for row in rows]

    async def woken(self, wake: PendingWake) -> None:
        """Note that the replayer has answered for each of the runs."""
        async with transaction(self._pool) as connection:
            await connection.execute(SQL.woken, wake.job, wake.epoch)

    async def revision(self) -> int:
        """The newest revision."""
        async with transaction(self._pool) as connection:
            return int(await connection.fetchval(SQL.revision))

    async def proposals_since(self, revision: int) -> tuple[int, list[Proposal]]:
        """Proposals that changed after a revision, in the order of theirs, and a revision up to which none is missing.

        That is often beyond the last one's: not every transaction that takes a revision changes a proposal.
        """
        async with transaction(self._pool) as connection:
            newest: int = await connection.fetchval(SQL.revision)
            proposals = [proposal_of(row) for row in await connection.fetch(SQL.proposals_since, revision)]
        return max([newest, *(proposal.revision for proposal in proposals)]), proposals

    async def forget(self, proposals: timedelta, requests: timedelta) -> None:
        """Delete what is older than it can matter: leases by what their front says, the rest by these ages.

        A lease that expired longer ago than its front may serve counts as drained, as if it were not there.
        """
        async with transaction(self._pool) as connection:
            await connection.fetchval(SQL.next_revision)  # for its lock: a commit must not lose a lease it has read
            await connection.execute(SQL.forget_leases)
            await connection.execute(SQL.forget_proposals, proposals)
            await connection.execute(SQL.forget_requests, requests)


def not_prepared(job: str, complaint: str) -> Aborted:
    """The error of a proposal that fronts cannot serve."""
    return Aborted(
        "NOT_PREPARED",
        f"Not every query front can serve the new route of {job}, so nothing has changed. {complaint}. Try again "
        "once they can; a front that is gone stops counting when its lease expires.",
    )


def _in_flight(job: str, described: str) -> Aborted:
    return Aborted(
        "CHANGE_IN_FLIGHT",
        f"Another change of the route of {job} is on its way ({described}). Nothing was done; read the route again "
        "and decide anew.",
    )


def _expired(job: str) -> Aborted:
    return Aborted(
        "PROPOSAL_EXPIRED",
        f"The proposal for {job} was cancelled, for it was open for too long. Nothing has changed; try again.",
    )


async def _write_audit(connection: Any, record: ChangeRecord, intent: Intent, encode: Encode) -> None:
    route = record.route
    await connection.execute(
        SQL.record_change,
        *(route.job, route.epoch, record.command.value, record.claimed_actor, record.reason, intent.request_id),
        *(gates_to_json(record.gates), json.dumps(record.warnings), route_to_json(route)),
        *(record.rollback_version, record.protected_until, record.commit_time),
    )
    if intent.request_id:
        await connection.execute(SQL.store_request, intent.request_id, intent.fingerprint, encode(record))


async def fronts_of(connection: Any, proposal: str) -> list[Front]:
    """Every front that is remembered, and what it said about a proposal."""
    return [Front(**dict(row)) for row in await connection.fetch(SQL.fronts_of_proposal, proposal)]


async def _read(connection: Any, job: str) -> RouteRecord:
    return record_of(job, await connection.fetchrow(SQL.state_of_route, job))


def record_of(job: str, row: Any) -> RouteRecord:
    state = State(
        job=job,
        route=route_from_json(job, row["route"]) if row["epoch"] else None,
        way_back=route_from_json(job, row["way_back"]) if row["way_back"] else None,
        protected_until=row["protected_until"],
        released=frozenset(row["released"]),
    )
    view = View(row["view_epoch"] < row["view_due_epoch"], row["view_version"], row["view_waiting_for"])
    return RouteRecord(
        state=state,
        now=row["now"],
        proposal=row["proposal"],
        revision=row["revision"],
        traceparent=row["traceparent"],
        update_time=row["update_time"],
        view=view,
    )


def proposal_of(row: Any) -> Proposal:
    return Proposal(
        proposal=row["proposal"],
        route=route_from_json(row["job"], row["route"]),
        state=ProposalState(row["state"]),
        revision=row["revision"],
        traceparent=row["traceparent"],
    )


def _change_record(row: Any) -> ChangeRecord:
    return ChangeRecord(
        route=route_from_json(row["job"], row["route"]),
        command=CommandKind(row["command"]),
        claimed_actor=row["claimed_actor"],
        reason=row["reason"],
        rollback_version=row["rollback_version"],
        protected_until=row["protected_until"],
        gates=gates_from_json(row["gates"]),
        warnings=tuple(json.loads(row["warnings"])),
        commit_time=row["commit_time"],
    )
