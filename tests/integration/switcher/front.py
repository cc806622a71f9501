"""A query front without tables: a real watch stream that reports as a test tells it to."""

import asyncio
import contextlib
from datetime import timedelta
from typing import Any

import grpc

from tests.support.eventually import eventually
from turnout.channel import connect
from turnout.switcher.v1 import front_pb2, route_pb2
from turnout.switcher.v1 import switcher_pb2_grpc as rpc


class Front:
    """PREPARED, SERVING and DRAINED are reported at once, unless a test says otherwise."""

    def __init__(self, target: str, name: str) -> None:
        self.name = name
        self.may_serve_for = timedelta(seconds=120)
        self.prepares = True
        self.serves = True
        self.drains = True
        self.nack = ""
        """Why it cannot serve any proposal."""
        self.way_back_problem = ""
        """Why it cannot read what a rollback would return to."""
        self.routes: dict[str, route_pb2.Route] = {}
        self.committed: list[front_pb2.RouteCommitted] = []
        self.proposals: list[front_pb2.Proposal] = []
        self.cancelled: list[str] = []
        self.beats = 0
        self.read_load: front_pb2.ReadLoad | None = None
        """What it says of its reads with every heartbeat."""
        self.acknowledged = 0
        self.ended_with: grpc.aio.AioRpcError | None = None
        self._channel = connect(target)
        self._lock = asyncio.Lock()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> "Front":
        """Say hello; returns with the snapshot."""
        stub: Any = rpc.SwitcherStub(self._channel)
        self._call = stub.WatchRoutes()
        hello = front_pb2.Hello(front=self.name, address="127.0.0.1:1")
        hello.may_serve_for.FromTimedelta(self.may_serve_for)
        await self._send(front_pb2.WatchRoutesRequest(hello=hello))
        first = await self._call.read()
        self.snapshot: front_pb2.Snapshot = first.snapshot
        for committed in self.snapshot.routes:
            await self._adopt(committed)
        self._tasks = [asyncio.create_task(self._listen()), asyncio.create_task(self._beat())]
        return self

    async def goodbye(self) -> None:
        """End the stream on purpose."""
        self._tasks[1].cancel()
        async with self._lock:
            await self._call.done_writing()
        await self._tasks[0]
        await self._channel.close()

    async def die(self) -> None:
        """Break the stream."""
        for task in self._tasks:
            task.cancel()
        if hasattr(self, "_call"):
            self._call.cancel()
        for task in self._tasks:
            with contextlib.suppress(asyncio.CancelledError):
                await task
        await self._channel.close()

    async def report(self, proposal: str, state: front_pb2.Report.State.ValueType, reason: str = "") -> None:
        """Say what became of a proposal."""
        report = front_pb2.Report(proposal=proposal, state=state, reason=reason)
        await self._send(front_pb2.WatchRoutesRequest(report=report))

    async def _send(self, request: front_pb2.WatchRoutesRequest) -> None:
        async with self._lock:
            await self._call.write(request)

    async def _beat(self) -> None:
        every_s = min(0.4, self.snapshot.lease_time.ToTimedelta().total_seconds() / 4)
        while True:
            self.beats += 1
            await self._send(
                front_pb2.WatchRoutesRequest(
                    heartbeat=front_pb2.Heartbeat(sequence=self.beats, read_load=self.read_load)
                )
            )
            await asyncio.sleep(every_s)

    async def _listen(self) -> None:
        try:
            async for response in self._call:
                await self._handle(response)
        except grpc.aio.AioRpcError as error:
            self.ended_with = error

    async def _handle(self, response: front_pb2.WatchRoutesResponse) -> None:
        match response.WhichOneof("message"):
            case "proposal":
                self.proposals.append(response.proposal)
                if self.nack:
                    await self.report(response.proposal.proposal, front_pb2.Report.NACK, self.nack)
                elif self.prepares:
                    asked = response.proposal.way_back_versions or any(
                        one.way_back_versions for one in response.proposal.others
                    )
                    problem = self.way_back_problem if asked else ""
                    await self.report(response.proposal.proposal, front_pb2.Report.PREPARED, problem)
            case "proposal_cancelled":
                self.cancelled.append(response.proposal_cancelled.proposal)
            case "route_committed":
                await self._adopt(response.route_committed)
            case "heartbeat_acknowledged":
                self.acknowledged = response.heartbeat_acknowledged.sequence

    async def _adopt(self, committed: front_pb2.RouteCommitted) -> None:
        self.committed.append(committed)
        self.routes |= {route.name: route for route in (committed.route, *committed.others)}
        if self.serves:
            await self.report(committed.proposal, front_pb2.Report.SERVING)
        if self.drains:
            await self.report(committed.proposal, front_pb2.Report.DRAINED)

    async def until_proposed(self, count: int = 1) -> front_pb2.Proposal:
        """The newest proposal once there are so many."""

        async def proposed() -> bool:
            return len(self.proposals) >= count

        await eventually(proposed)
        return self.proposals[-1]
