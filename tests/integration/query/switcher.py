"""A switcher and registry under a test's control: real gRPC, and nothing decided that the test did not say."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from typing import Any

import grpc
from google.protobuf.duration_pb2 import Duration

from core.rpc.server import RpcServer, ServiceApp
from turnout.errors import NotFound
from turnout.registry.v1 import registry_pb2, registry_pb2_grpc
from turnout.routing import HASHES
from turnout.switcher.v1 import front_pb2, route_pb2, switcher_pb2_grpc

State = front_pb2.Report.State


def route(job: str, epoch: int, active: int, share: dict[int, float] | None = None) -> route_pb2.Route:
    """A route whose arms own their shares of the hashes, side by side; all for the active one by default."""
    share = share or {active: 1.0}
    weights = {version: round(part * 10_000) for version, part in share.items()}
    weights.setdefault(active, 0)
    intervals, low = [], 0
    for version in sorted(share):
        high = low + HASHES * weights[version] // 10_000
        intervals.append(route_pb2.Interval(low=low, high=high, version=version, acquired_epoch=epoch))
        low = high
    intervals[-1].high = HASHES
    return route_pb2.Route(
        name=f"jobs/{job}/route",
        epoch=epoch,
        active_version=active,
        arms=[route_pb2.Arm(version=version, weight=weights[version]) for version in sorted(weights)],
        salt="salt",
        intervals=intervals,
    )


@dataclass
class Stream:
    """A front that watches."""

    front: str
    outbox: asyncio.Queue[front_pb2.WatchRoutesResponse | None] = field(default_factory=asyncio.Queue)
    heartbeats: int = 0
    read_loads: list[front_pb2.ReadLoad] = field(default_factory=list)
    """What heartbeats said of the reads, those without any left out."""


class ScriptedSwitcher(ServiceApp, switcher_pb2_grpc.SwitcherServicer, registry_pb2_grpc.RegistryServicer):
    """Keeps what fronts reported, in order, and sends them what the test says."""

    name = "scripted"
    service_names: tuple[str, ...] = ("turnout.switcher.v1.Switcher", "turnout.registry.v1.Registry")

    def __init__(self) -> None:
        self.lease_s = 6.0
        """Of fronts. Longer than a busy machine stands still: one that hears nothing for so long says everything once
        more, over a new stream."""
        self.revision = 0
        self.routes: dict[str, front_pb2.RouteCommitted] = {}
        self.fetchable: dict[str, route_pb2.Route] = {}
        self.versions: dict[str, registry_pb2.Version] = {}
        self.streams: list[Stream] = []
        self.reports: list[tuple[str, str, str]] = []
        self.acknowledges = True
        self.hellos = 0

    def register(self, server: grpc.aio.Server) -> None:
        switcher_pb2_grpc.add_SwitcherServicer_to_server(self, server)
        registry_pb2_grpc.add_RegistryServicer_to_server(self, server)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    # --- what the test says ---

    def propose(self, proposal: str, to: route_pb2.Route, traceparent: str = "") -> None:
        message = front_pb2.Proposal(proposal=proposal, route=to, traceparent=traceparent)
        self._send(front_pb2.WatchRoutesResponse(proposal=message))

    def propose_step(self, proposal: str, *proposed: front_pb2.ProposedRoute) -> None:
        """A proposal for several jobs."""
        first, *others = proposed
        message = front_pb2.Proposal(
            proposal=proposal, route=first.route, way_back_versions=first.way_back_versions, others=others
        )
        self._send(front_pb2.WatchRoutesResponse(proposal=message))

    def commit_step(self, proposal: str, *to: route_pb2.Route) -> None:
        """Commit the routes of several jobs at once."""
        self.revision += 1
        for one in to:
            one.group = self.revision
            self.routes[one.name] = front_pb2.RouteCommitted(revision=self.revision, proposal=proposal, route=one)
        committed = front_pb2.RouteCommitted(revision=self.revision, proposal=proposal, route=to[0], others=to[1:])
        self._send(front_pb2.WatchRoutesResponse(route_committed=committed))

    def hang_up(self) -> None:
        """End every stream; the fronts begin again with a snapshot."""
        for stream in self.streams:
            stream.outbox.put_nowait(None)

    def cancel(self, proposal: str) -> None:
        self._send(front_pb2.WatchRoutesResponse(proposal_cancelled=front_pb2.ProposalCancelled(proposal=proposal)))

    def commit(self, proposal: str, to: route_pb2.Route, traceparent: str = "") -> None:
        self.revision += 1
        committed = front_pb2.RouteCommitted(
            revision=self.revision, proposal=proposal, route=to, traceparent=traceparent
        )
        self.routes[to.name] = committed
        self._send(front_pb2.WatchRoutesResponse(route_committed=committed))

    def said(self, proposal: str) -> list[str]:
        """What was reported of a proposal, in order."""
        return [state for one, state, _ in self.reports if one == proposal]

    def reason(self, proposal: str) -> str:
        """The reason of the last report of a proposal."""
        return [reason for one, _, reason in self.reports if one == proposal][-1]

    def _send(self, message: front_pb2.WatchRoutesResponse) -> None:
        for stream in self.streams:
            stream.outbox.put_nowait(message)

    # --- the contract ---

    async def WatchRoutes(
        self, request_iterator: AsyncIterator[front_pb2.WatchRoutesRequest], context: Any
    ) -> AsyncIterator[front_pb2.WatchRoutesResponse]:
        hello = (await anext(request_iterator)).hello
        self.hellos += 1
        stream = Stream(hello.front)
        snapshot = front_pb2.Snapshot(
            revision=self.revision, routes=self.routes.values(), lease_time=_duration(self.lease_s)
        )
        stream.outbox.put_nowait(front_pb2.WatchRoutesResponse(snapshot=snapshot))
        self.streams.append(stream)
        reading = asyncio.create_task(self._read(stream, request_iterator))
        try:
            while (message := await stream.outbox.get()) is not None:
                yield message
        finally:
            self.streams.remove(stream)
            reading.cancel()
            with contextlib.suppress(BaseException):
                await reading

    async def _read(self, stream: Stream, requests: AsyncIterator[front_pb2.WatchRoutesRequest]) -> None:
        """What the front says, until it ends its side, which is the goodbye: the switcher ends the stream, too."""
        async for request in requests:
            if request.HasField("report"):
                report = request.report
                self.reports.append((report.proposal, State.Name(report.state), report.reason))
            elif request.HasField("heartbeat"):
                stream.heartbeats += 1
                if request.heartbeat.HasField("read_load"):
                    stream.read_loads.append(request.heartbeat.read_load)
                if self.acknowledges:
                    acknowledged = front_pb2.HeartbeatAcknowledged(sequence=request.heartbeat.sequence)
                    stream.outbox.put_nowait(front_pb2.WatchRoutesResponse(heartbeat_acknowledged=acknowledged))
        stream.outbox.put_nowait(None)

    async def GetRoute(self, request: route_pb2.GetRouteRequest, context: Any) -> route_pb2.Route:
        if request.name not in self.fetchable:
            raise NotFound("ROUTE_NOT_FOUND", f"{request.name} has no route.")
        return self.fetchable[request.name]

    async def GetVersion(self, request: registry_pb2.GetVersionRequest, context: Any) -> registry_pb2.Version:
        if request.name not in self.versions:
            raise NotFound("VERSION_NOT_FOUND", f"There is no {request.name}.")
        return self.versions[request.name]


class SwitcherProcess:
    """The scripted switcher on a port, which it keeps when it is stopped and started again."""

    def __init__(self, script: ScriptedSwitcher, port: int) -> None:
        self.script = script
        self.target = f"127.0.0.1:{port}"
        self._server: RpcServer | None = None

    async def start(self) -> None:
        self._server = RpcServer(self.target, [self.script])
        await self._server.start()

    @property
    def runs(self) -> bool:
        """Whether it can be called."""
        return self._server is not None

    async def stop(self) -> None:
        if self._server is not None:
            server, self._server = self._server, None
            await server.stop(grace_s=0.1)


def _duration(seconds: float) -> Duration:
    return Duration(nanos=round(seconds * 1e9) % 1_000_000_000, seconds=int(seconds))
