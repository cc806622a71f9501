"""A gRPC server with the services of one process: start, health, reflection, drain."""

import abc
import asyncio
import logging
from collections.abc import Coroutine
from typing import Any

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from core.rpc.interceptors import Watches, chain
from turnout.errors import InvalidInput
from turnout.tasks import end

log = logging.getLogger(__name__)

_HEALTH_EVERY_S = 0.5
MESSAGE_BYTES_MAX = 16 * 1024 * 1024
_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]


class ServiceApp(abc.ABC):
    """One of the four services, as `services.<name>.app.build` makes it."""

    name: str
    service_names: tuple[str, ...]
    calls_max: int | None = None  # of all its calls but watches, at a time; None = no bound

    @property
    def ready(self) -> bool:
        """Whether the service can do its work; its health follows."""
        return True

    @abc.abstractmethod
    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicers."""

    @abc.abstractmethod
    async def start(self) -> None:
        """Open pools and start background work. The server listens already: the services of a process need one
        another; its health says NOT_SERVING until all have started."""

    async def drain(self) -> None:  # noqa: B027  # most have nothing to say
        """Tell others that this process is leaving, while it still answers."""

    @abc.abstractmethod
    async def stop(self) -> None:
        """End background work, then close pools. Called after the last call has ended."""


class RpcServer:
    """The server of one process. `start` returns when it listens; `stop` drains.

    shared_port: other processes listen on the same port.
    """

    def __init__(self, listen: str, apps: list[ServiceApp], *, shared_port: bool = False) -> None:
        self._listen = listen
        self._apps = apps
        self._started: list[ServiceApp] = []
        self._watches = Watches()
        self._health = health.aio.HealthServicer()
        limits = {name: app.calls_max for app in apps for name in app.service_names if app.calls_max is not None}
        # gRPC shares ports unless told otherwise: a second server would bind the same one in silence.
        options = [*_OPTIONS, ("grpc.so_reuseport", int(shared_port))]
        self._server = grpc.aio.server(interceptors=chain(self._watches, limits), options=options)
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> int:
        """Listen, then start the apps; the port that was bound. InvalidInput when the port is taken."""
        names = [name for app in self._apps for name in app.service_names]
        for app in self._apps:
            app.register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        for name in [*names, ""]:
            await self._health.set(name, health_pb2.HealthCheckResponse.NOT_SERVING)
        try:
            port = self._server.add_insecure_port(self._listen)
        except RuntimeError:
            raise InvalidInput(
                "PORT_TAKEN", f"Cannot listen on {self._listen}: another process has it. Choose another with --listen."
            ) from None
        await self._server.start()
        for app in self._apps:
            # Noted before, not after: a start that fails half way has parts to stop.
            self._started.append(app)
            await app.start()
        await self._health.set("", health_pb2.HealthCheckResponse.SERVING)
        await self._tell_health()
        self._following = asyncio.create_task(self._follow_readiness(), name="health")
        return port

    async def stop(self, grace_s: float = 5.0) -> None:
        """Say NOT_SERVING and goodbye, let calls in flight end within the grace, then stop the apps."""
        await end(self._following)
        await self._health.enter_graceful_shutdown()
        for app in self._started:
            await self._in_time(app.drain(), app, grace_s)
        self._watches.end()
        await self._server.stop(grace_s)
        for app in reversed(self._started):
            await self._in_time(app.stop(), app, grace_s * 2)

    async def _in_time(self, work: Coroutine[Any, Any, None], app: ServiceApp, within_s: float) -> None:
        try:
            await asyncio.wait_for(work, within_s)
        except Exception:
            log.exception("%s did not stop cleanly", app.name)

    async def _follow_readiness(self) -> None:
        while True:
            await asyncio.sleep(_HEALTH_EVERY_S)
            await self._tell_health()

    async def _tell_health(self) -> None:
        for app in self._apps:
            state = health_pb2.HealthCheckResponse.SERVING if app.ready else health_pb2.HealthCheckResponse.NOT_SERVING
            for name in app.service_names:
                await self._health.set(name, state)
