"""A gRPC server with the services of one process: start, health, reflection, drain."""

import asyncio
import logging
from typing import Protocol

import grpc
from grpc_health.v1 import health, health_pb2, health_pb2_grpc
from grpc_reflection.v1alpha import reflection

from core.domain.errors import InvalidInput
from core.rpc.interceptors import chain

log = logging.getLogger(__name__)

MESSAGE_BYTES_MAX = 16 * 1024 * 1024
_OPTIONS: list[tuple[str, int]] = [
    ("grpc.so_reuseport", 0),  # else a second server binds the same port in silence
    ("grpc.max_receive_message_length", MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", MESSAGE_BYTES_MAX),
    ("grpc.keepalive_permit_without_calls", 1),
    ("grpc.http2.min_ping_interval_without_data_ms", 10_000),
]


class ServiceApp(Protocol):
    """One of the four services, as `services.<name>.app.build` makes it."""

    name: str
    service_names: tuple[str, ...]

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicers."""

    async def start(self) -> None:
        """Open pools and start background work. Called before the server listens."""

    async def stop(self) -> None:
        """End background work, then close pools. Called after the last call has ended."""


class RpcServer:
    """The server of one process. `start` returns when it listens; `stop` drains."""

    def __init__(self, listen: str, apps: list[ServiceApp]) -> None:
        self._listen = listen
        self._apps = apps
        self._started: list[ServiceApp] = []
        self._health = health.aio.HealthServicer()
        self._server = grpc.aio.server(interceptors=chain(), options=_OPTIONS)

    async def start(self) -> int:
        """Start the apps, then listen; the port that was bound. InvalidInput when the port is taken."""
        names = [name for app in self._apps for name in app.service_names]
        for app in self._apps:
            app.register(self._server)
        health_pb2_grpc.add_HealthServicer_to_server(self._health, self._server)
        reflection.enable_server_reflection([*names, health.SERVICE_NAME, reflection.SERVICE_NAME], self._server)
        try:
            port = self._server.add_insecure_port(self._listen)
        except RuntimeError:
            raise InvalidInput(
                "PORT_TAKEN",
                f"Cannot listen on {self._listen}: another process has it. Choose another with --listen.",
            ) from None
        await self._server.start()
        for app in self._apps:
            # Noted before, not after: a start that fails half way has parts to stop.
            self._started.append(app)
            await app.start()
        for name in [*names, ""]:
            await self._health.set(name, health_pb2.HealthCheckResponse.SERVING)
        return port

    async def stop(self, grace_s: float = 5.0) -> None:
        """Say NOT_SERVING, let calls in flight end within the grace, then stop the apps in reverse order."""
        await self._health.enter_graceful_shutdown()
        await self._server.stop(grace_s)
        for app in reversed(self._started):
            try:
                await asyncio.wait_for(app.stop(), grace_s * 2)
            except Exception:
                log.exception("%s did not stop cleanly", app.name)
