"""The registry: the only place that constructs its parts."""

from typing import Any

import grpc

from core.config import Settings
from core.postgres import migrate, open_pool
from core.rpc.server import ServiceApp
from services.registry.neighbours import Neighbours
from services.registry.saga import Saga
from services.registry.servicer import RegistryServicer
from services.registry.store import MIGRATIONS, Store
from turnout.channel import connect
from turnout.clock import SystemClock
from turnout.registry.v1 import registry_pb2, registry_pb2_grpc


class RegistryApp(ServiceApp):
    """The registry in this process."""

    name = "registry"
    service_names: tuple[str, ...] = (registry_pb2.DESCRIPTOR.services_by_name["Registry"].full_name,)

    def __init__(self, settings: Settings) -> None:
        clock = SystemClock()
        self._postgres = settings.postgres
        self._pool: Any = None
        self._store = Store()
        self._switcher = connect(settings.switcher_target)
        self._replayer = connect(settings.replayer_target)
        self._saga = Saga(self._store, Neighbours(self._switcher, self._replayer), clock)
        self._servicer = RegistryServicer(self._store, self._saga, clock)

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicer."""
        registry_pb2_grpc.add_RegistryServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        """Open the pool, bring the schema up to date, go on with the retirements."""
        self._pool = await open_pool(self._postgres, application_name="turnout registry")
        await migrate(self._pool, "registry", MIGRATIONS)
        self._store.open(self._pool)
        self._saga.start()

    async def stop(self) -> None:
        """End the loop and close what is open."""
        await self._saga.stop()
        if self._pool is not None:
            await self._pool.close()
        await self._switcher.close()
        await self._replayer.close()


def build(settings: Settings) -> RegistryApp:
    """The registry service."""
    return RegistryApp(settings)
