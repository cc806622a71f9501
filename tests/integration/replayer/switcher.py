"""What the replayer asks of a switcher, answered as a test says, over a real channel."""

from __future__ import annotations

from typing import Any

import grpc

from core.rpc.interceptors import Watches, chain
from turnout.switcher.v1 import front_pb2, route_pb2
from turnout.switcher.v1 import switcher_pb2_grpc as rpc


class SmallSwitcher(rpc.SwitcherServicer):
    """GetReadLoad and ListRoutes; the other methods answer UNIMPLEMENTED, as the generated base class does."""

    def __init__(self) -> None:
        self.p99_ms: float | None = None
        """Of the reads of the one front in the second before each call; None = it answers none."""
        self.serving: dict[str, int] = {}
        """Job -> version that its route names."""
        self._server = grpc.aio.server(interceptors=chain(Watches()))
        rpc.add_SwitcherServicer_to_server(self, self._server)
        self.target = f"127.0.0.1:{self._server.add_insecure_port('127.0.0.1:0')}"

    async def start(self) -> None:
        await self._server.start()

    async def stop(self) -> None:
        await self._server.stop(0)

    async def GetReadLoad(self, request: front_pb2.GetReadLoadRequest, context: Any) -> front_pb2.GetReadLoadResponse:
        front = front_pb2.FrontReadLoad(front="front-1")
        if self.p99_ms is not None:
            front.read_load.reads = 300
            # As a front that says so twice a second, so that a test need not wait for more than it must.
            front.read_load.window.FromMilliseconds(400)
            front.read_load.p99.FromMicroseconds(round(self.p99_ms * 1000))
        return front_pb2.GetReadLoadResponse(fronts=[front])

    async def ListRoutes(self, request: route_pb2.ListRoutesRequest, context: Any) -> route_pb2.ListRoutesResponse:
        return route_pb2.ListRoutesResponse(
            routes=[
                route_pb2.Route(
                    name=f"jobs/{job}/route", epoch=1, active_version=version, arms=[route_pb2.Arm(version=version)]
                )
                for job, version in self.serving.items()
            ]
        )
