"""The front's side of WatchRoutes: stays present at the switcher, prepares what is proposed, adopts what is committed.

One session is one stream: hello, snapshot, then heartbeats on a third of the lease time, proposals and commits. When it
ends, for whatever reason, the next one begins after a short wait, for ever; meanwhile reads go on with the last good
table for as long as `freshness.Limits` allow. Every session starts with a snapshot, so nothing is lost in between.
"""

import asyncio
import contextlib
import logging
import random
from collections.abc import AsyncIterator, Coroutine, Iterable, Sequence
from dataclasses import dataclass, field
from functools import partial
from typing import Any

import grpc
from opentelemetry.trace import Status, StatusCode

from turnout.clock import Clock
from turnout.errors import DataLoss, TurnoutError
from turnout.names import VersionId
from turnout.reading.freshness import Heartbeats
from turnout.reading.front import Front
from turnout.reading.keeper import RoutesKeeper
from turnout.reading.link import SwitcherLink
from turnout.reading.route_proto import committed_of, heartbeat_message, route_of, step_of
from turnout.reading.routing import Committed
from turnout.reading.table import TableMissing, Tables
from turnout.routing import Route
from turnout.status import from_rpc_error
from turnout.switcher.v1 import front_pb2, route_pb2
from turnout.tasks import end
from turnout.telemetry import remote_context, tracer

log = logging.getLogger(__name__)

_FIRST_WAIT_S = 0.1
_WAIT_S_MAX = 1.0
_SNAPSHOT_WITHIN_S = 5.0
_HEARTBEATS_A_LEASE = 3
_HEARTBEAT_S_MAX = 1.0  # copies of the log make way by what heartbeats tell of the reads
_GOODBYE_WITHIN_S = 1.0

_Report = front_pb2.Report


@dataclass
class _Session:
    """One stream: what is to be sent, what runs, and how long silence is borne."""

    patience: asyncio.Timeout
    outbox: asyncio.Queue[front_pb2.WatchRoutesRequest | None] = field(default_factory=asyncio.Queue)
    heartbeats: Heartbeats = field(default_factory=Heartbeats)
    preparing: dict[str, asyncio.Task[None]] = field(default_factory=dict)
    tasks: set[asyncio.Task[None]] = field(default_factory=set)
    lease_s: float = _SNAPSHOT_WITHIN_S

    def run(self, work: Coroutine[Any, Any, None]) -> asyncio.Task[None]:
        """Work that ends with the session."""
        task = asyncio.create_task(work)
        self.tasks.add(task)
        task.add_done_callback(self.tasks.discard)
        return task

    def heard(self) -> None:
        """The switcher is there: bear silence for another lease, after which it has given up on this stream too."""
        self.patience.reschedule(asyncio.get_running_loop().time() + self.lease_s)

    def report(self, proposal: str, state: _Report.State.ValueType, reason: str = "") -> None:
        """Tell the switcher what this front made of a proposal."""
        report = _Report(proposal=proposal, state=state, reason=reason)
        self.outbox.put_nowait(front_pb2.WatchRoutesRequest(report=report))

    async def requests(self) -> AsyncIterator[front_pb2.WatchRoutesRequest]:
        """What is to be sent, in order, until `end`."""
        while (request := await self.outbox.get()) is not None:
            yield request

    async def end(self) -> None:
        """End all work, and the requests too: gRPC would wait for the next one for ever once the call has failed."""
        self.outbox.put_nowait(None)
        tasks = list(self.tasks)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


class RouteWatch:
    """Keeps a front's routing table in step with the switcher."""

    def __init__(
        self, front: Front, tables: Tables, keeper: RoutesKeeper, link: SwitcherLink, clock: Clock, address: str
    ) -> None:
        self._front = front
        self._tables = tables
        self._keeper = keeper
        self._link = link
        self._clock = clock
        self._address = address
        self._tracer = tracer("turnout.query")
        self._task: asyncio.Task[None] | None = None
        self._complaint = ""
        self._has_routes = asyncio.Event()
        self._session_open: _Session | None = None
        self._leaving = False

    async def start(self, within_s: float) -> None:
        """Begin to watch, in the background; give the switcher a moment to send its routes, then take stored ones."""
        self._keeper.start()
        self._task = asyncio.create_task(self._watch(), name="watch routes")
        with contextlib.suppress(TimeoutError):
            await asyncio.wait_for(self._has_routes.wait(), within_s)
        self._keeper.vouch_stored()

    async def leave(self) -> None:
        """Say goodbye: the switcher then counts this front no longer, and it answers by routes no more. Nothing is lost
        where nobody listens."""
        self._leaving = True
        if self._session_open is not None:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._keeper.give_up(), _GOODBYE_WITHIN_S)
        self._front.leave()
        if self._session_open is not None:
            self._session_open.outbox.put_nowait(None)
            await asyncio.wait([self._task] if self._task else [], timeout=_GOODBYE_WITHIN_S)

    async def stop(self) -> None:
        """End the watch. Who has not left is given up by the switcher when its lease expires."""
        await end(self._task)

    async def _watch(self) -> None:
        wait_s = _FIRST_WAIT_S
        while not self._leaving:
            began_s = self._clock.monotonic_s()
            try:
                await self._session()
            except grpc.aio.AioRpcError as error:
                self._complain(from_rpc_error(error, "switcher").message)
            except TimeoutError:
                self._complain("The switcher has fallen silent.")
                self._link.renew()
            except asyncio.CancelledError:
                task = asyncio.current_task()
                if task is None or task.cancelling():
                    raise
                self._complain("The stream was cancelled.")  # by gRPC, not by `stop`: the watch must go on
            except DataLoss as error:
                path = self._keeper.path
                self._complain(error.message if path is None else f"{error.message} They are in {path}.")
            except Exception:
                log.exception("the watch of the routes failed and begins anew")
            else:
                if self._leaving:
                    return
                self._complain("The switcher ended the watch.")
            if self._clock.monotonic_s() - began_s > _WAIT_S_MAX:
                wait_s = _FIRST_WAIT_S  # it had worked for a while
            await asyncio.sleep(wait_s * random.uniform(0.5, 1.0))  # noqa: S311 - spreads fronts, guards nothing
            wait_s = min(_WAIT_S_MAX, wait_s * 2)

    def _complain(self, why: str) -> None:
        """Say once why the switcher does not answer; it may stay so for hours."""
        if why != self._complaint:
            log.warning("no routes from the switcher: %s This front goes on with what it has and tries again.", why)
        self._complaint = why

    async def _session(self) -> None:
        async with asyncio.timeout(_SNAPSHOT_WITHIN_S) as patience:
            session = _Session(patience)
            hello = front_pb2.Hello(front=self._front.name, address=self._address)
            hello.may_serve_for.FromTimedelta(self._front.may_serve_for)
            session.outbox.put_nowait(front_pb2.WatchRoutesRequest(hello=hello))
            hello_s = self._clock.monotonic_s()
            call = self._link.stub.WatchRoutes(session.requests())
            self._session_open = session
            try:
                async for message in call:
                    self._received(session, message, hello_s)
            finally:
                self._session_open = None
                call.cancel()
                self._front.in_flight.forget_waiting()
                self._keeper.forget_waiting()
                await session.end()

    def _received(self, session: _Session, message: front_pb2.WatchRoutesResponse, hello_s: float) -> None:
        match message.WhichOneof("message"):
            case "snapshot":
                self._snapshot(session, message.snapshot, hello_s)
            case "proposal":
                proposal = message.proposal
                session.preparing[proposal.proposal] = session.run(self._prepare(session, proposal))
            case "proposal_cancelled":
                self._stop_preparing(session, message.proposal_cancelled.proposal)
            case "route_committed":
                self._committed(session, message.route_committed)
            case "heartbeat_acknowledged":
                sent_s = session.heartbeats.acknowledged(message.heartbeat_acknowledged.sequence)
                if sent_s is not None:
                    self._vouched(session, sent_s)

    # --- presence ---

    def _snapshot(self, session: _Session, snapshot: front_pb2.Snapshot, hello_s: float) -> None:
        self._front.unreadable.clear()
        routes = [one for one in map(self._readable, snapshot.routes) if one is not None]
        self._front.table = self._front.table.with_snapshot(snapshot.revision, routes)
        self._front.exposures.use_keys({one.number: one.key for one in snapshot.exposure_keys})
        session.lease_s = snapshot.lease_time.ToTimedelta().total_seconds() or session.lease_s
        self._vouched(session, hello_s)
        self._keeper.changed()
        self._has_routes.set()
        if self._complaint:
            log.info("routes from the switcher again, as of revision %d", snapshot.revision)
            self._complaint = ""
        for proposal in dict.fromkeys(committed.proposal for committed in routes):
            self._serving(session, proposal, [one.route for one in routes if one.proposal == proposal])
        session.run(self._beat(session))

    def _readable(self, message: front_pb2.RouteCommitted) -> Committed | None:
        """The route; where it is not one to serve by, the one that the front has, and answers by no more: one job's
        fault stays its own."""
        try:
            return committed_of(message)
        except (ValueError, TurnoutError) as error:
            log.warning("the switcher sent a route that cannot be served by: %s", error)
            job = _job_of(message.route)
            self._front.unreadable.add(job)
            return self._front.table.committed.get(job)

    def _vouched(self, session: _Session, sent_s: float) -> None:
        session.heard()
        self._front.vouched(sent_s)
        self._keeper.vouched()

    async def _beat(self, session: _Session) -> None:
        while True:
            now_s = self._clock.monotonic_s()
            sequence = session.heartbeats.send(now_s)
            session.outbox.put_nowait(heartbeat_message(sequence, self._front.latency.take(now_s)))
            await asyncio.sleep(min(session.lease_s / _HEARTBEATS_A_LEASE, _HEARTBEAT_S_MAX))

    # --- changes ---

    async def _prepare(self, session: _Session, proposal: front_pb2.Proposal) -> None:
        """Learn every table that the proposed routes name, then say PREPARED, or NACK and why."""
        with self._tracer.start_as_current_span(
            "front.prepare",
            context=remote_context(proposal.traceparent),
            attributes={"turnout.front": self._front.name, "turnout.route": proposal.route.name},
        ) as span:
            state, reason = await self._prepared(proposal)
            if state == _Report.NACK:
                span.set_status(Status(StatusCode.ERROR, reason))
        session.preparing.pop(proposal.proposal, None)
        session.report(proposal.proposal, state, reason)

    async def _prepared(self, proposal: front_pb2.Proposal) -> tuple[_Report.State.ValueType, str]:
        """PREPARED where every route can be served here, with what a rollback could not read; else NACK, and why."""
        proposed = [
            front_pb2.ProposedRoute(route=proposal.route, way_back_versions=proposal.way_back_versions),
            *proposal.others,
        ]
        try:
            routes = [route_of(one.route) for one in proposed]
        except (ValueError, TurnoutError) as error:
            return _Report.NACK, str(error)
        if reason := await self._unreadable((route.job, sorted(route.versions)) for route in routes):
            return _Report.NACK, reason
        back = ((route.job, one.way_back_versions) for route, one in zip(routes, proposed, strict=True))
        return _Report.PREPARED, await self._unreadable(back)

    async def _unreadable(self, named: Iterable[tuple[str, Iterable[int]]]) -> str:
        """Why one of these versions of these jobs cannot be read here; empty when all of them can."""
        for version in (VersionId(job, number) for job, numbers in named for number in numbers):
            try:
                await self._tables.prepare(version)
            except TableMissing as error:
                return f"{error.version} has no table"
            except TurnoutError as error:
                return str(error)
            except Exception as error:
                log.exception("preparing %s failed", version)
                return f"{type(error).__name__}: {error}"
        return ""

    def _stop_preparing(self, session: _Session, proposal: str) -> None:
        task = session.preparing.pop(proposal, None)
        if task is not None:
            task.cancel()

    def _committed(self, session: _Session, message: front_pb2.RouteCommitted) -> None:
        """Put the route, and those committed in the same step, in place in one assignment, and say SERVING."""
        self._stop_preparing(session, message.proposal)
        try:
            step = step_of(message)
        except (ValueError, TurnoutError) as error:
            log.warning("the switcher committed a route that cannot be served by: %s", error)
            self._front.unreadable.update(_job_of(one) for one in (message.route, *message.others))
            session.report(message.proposal, _Report.NACK, str(error))
            return
        with self._tracer.start_as_current_span(
            "front.adopt",
            context=remote_context(message.traceparent),
            attributes={
                "turnout.front": self._front.name,
                "turnout.route": message.route.name,
                "turnout.epoch": message.route.epoch,
            },
        ):
            self._front.table = self._front.table.with_commit(*step)
            self._front.unreadable.difference_update(one.route.job for one in step)
            self._serving(session, message.proposal, [one.route for one in step])
        self._keeper.changed()

    def _serving(self, session: _Session, proposal: str, routes: Sequence[Route]) -> None:
        """Say SERVING now, and DRAINED once no read begun under an earlier route of any of the jobs is in flight, nor
        will be: a restart must not find it on disk."""
        session.report(proposal, _Report.SERVING)
        left = {route.job for route in routes}

        def stored() -> None:
            if session is self._session_open:
                session.report(proposal, _Report.DRAINED)

        def drained(job: str) -> None:
            left.discard(job)
            if not left:
                self._keeper.when_stored(stored)

        for route in routes:
            self._front.in_flight.when_drained(route.job, route.epoch, partial(drained, route.job))


def _job_of(route: route_pb2.Route) -> str:
    return route.name.removeprefix("jobs/").removesuffix("/route")
