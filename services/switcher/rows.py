"""What the switcher's tables hold, as records; and the transaction that every store of the switcher uses."""

import json
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from core.postgres import Pool, load_queries, postgres_errors
from services.switcher.adoption import Front
from services.switcher.records import (
    ChangeRecord,
    CommandKind,
    Proposal,
    ProposalState,
    Proposed,
    RouteRecord,
    View,
    gates_from_json,
    route_from_json,
)
from services.switcher.switch import State

# What is announced, once it is committed: that a proposal or a route has changed, or what a front says of itself.
ROUTES_CHANNEL = "turnout_routes"
FRONTS_CHANNEL = "turnout_fronts"
MIGRATIONS = Path(__file__).parent / "migrations"
SQL = load_queries(Path(__file__).parent / "queries.sql")
Fence = Callable[[Any], Awaitable[None]]
"""Raises, on the connection of a transaction, where what it is for is not wanted any more."""


@asynccontextmanager
async def transaction(pool: Pool) -> AsyncIterator[Any]:
    """A connection in a transaction; Unavailable while PostgreSQL is away."""
    with postgres_errors():
        async with pool.acquire() as connection, connection.transaction():
            yield connection


@asynccontextmanager
async def statement(pool: Pool) -> AsyncIterator[Any]:
    """A connection without a transaction, for one statement, or for some that need not see the same: a process that is
    frozen in between holds no lock. Unavailable as above."""
    with postgres_errors():
        async with pool.acquire() as connection:
            yield connection


async def read_route(connection: Any, job: str) -> RouteRecord:
    """The route of a job; one that was never committed has no route in its state."""
    return record_of(job, await connection.fetchrow(SQL.state_of_route, job))


async def fronts_of(connection: Any, proposal: str) -> list[Front]:
    """Every front that is remembered, and what it said about a proposal."""
    return [Front(**dict(row)) for row in await connection.fetch(SQL.fronts_of_proposal, proposal)]


def record_of(job: str, row: Any) -> RouteRecord:
    """A row of `routes`."""
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
        group=row["group_revision"],
    )


def proposal_of(row: Any) -> Proposal:
    """A row of `proposals` with arrays of its routes."""
    ways_back = json.loads(row["way_back_versions"])
    return Proposal(
        proposal=row["proposal"],
        routes=tuple(
            Proposed(route_from_json(job, route), tuple(versions))
            for job, route, versions in zip(row["jobs"], row["routes"], ways_back, strict=True)
        ),
        state=ProposalState(row["state"]),
        revision=row["revision"],
        traceparent=row["traceparent"],
    )


def change_of(row: Any) -> ChangeRecord:
    """A row of `route_changes`."""
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
        group=row["group_revision"],
    )
