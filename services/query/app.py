"""The query service: the only place that constructs its parts."""

import grpc

from core.clock import SystemClock
from core.config import Settings
from core.rpc.channel import connect
from core.rpc.server import ServiceApp
from services.query.metrics import FrontMetrics
from services.query.servicer import QueryServicer
from turnout.query.v1 import query_pb2, query_pb2_grpc
from turnout.reading.freshness import Limits
from turnout.reading.front import Front
from turnout.reading.keeper import RoutesKeeper
from turnout.reading.neighbours import RegistryVersions, SwitcherRoutes
from turnout.reading.reads import Reads
from turnout.reading.routes_file import RoutesFile
from turnout.reading.table import Tables
from turnout.reading.watch import RouteWatch

_STORE_EVERY_SHARE = 20  # the stored time is at most this share of max_stale_active_s older than it could be
_ROUTES_WITHIN_S = 2.0


class QueryApp(ServiceApp):
    """A front in this process."""

    name = "query"
    service_names: tuple[str, ...] = (query_pb2.DESCRIPTOR.services_by_name["Query"].full_name,)
    calls_max = 2_000  # each is answered within its deadline or refused at once, never left to wait without end

    def __init__(self, settings: Settings) -> None:
        clock = SystemClock()
        limits = Limits(active_s=settings.max_stale_active_s, experiment_s=settings.max_stale_experiment_s)
        self._front = Front(settings.instance, clock, limits)
        self._tables = Tables(settings.postgres)
        self._switcher = connect(settings.switcher_target)
        self._registry = connect(settings.registry_target)
        file = RoutesFile(settings.data_dir / "query" / "routes.json")
        self._keeper = RoutesKeeper(self._front, file, clock, every_s=settings.max_stale_active_s / _STORE_EVERY_SHARE)
        self._watch = RouteWatch(self._front, self._tables, self._keeper, self._switcher, clock, settings.listen)
        routes, registry = SwitcherRoutes(self._front, self._switcher), RegistryVersions(self._registry)
        self._metrics = FrontMetrics(self._front)
        self._servicer = QueryServicer(Reads(self._front, self._tables, routes, registry), self._front)

    @property
    def ready(self) -> bool:
        """Whether routed reads can be answered. The process is healthy without it, the service is not."""
        return self._front.ready

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicer."""
        query_pb2_grpc.add_QueryServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        """Begin to watch, and give the switcher a moment to send its routes before those on disk are served.

        Waits for neither PostgreSQL nor the switcher: reads say what is away until it is there.
        """
        await self._tables.open()
        self._metrics.start()
        await self._watch.start(_ROUTES_WITHIN_S)

    async def drain(self) -> None:
        """Say goodbye to the switcher, so that no change waits for this front. Reads go on until the server stops."""
        await self._watch.leave()

    async def stop(self) -> None:
        """End the watch, store the routes, and close what is open."""
        self._metrics.stop()
        await self._watch.stop()
        await self._keeper.stop()
        await self._tables.close()
        await self._switcher.close()
        await self._registry.close()


def build(settings: Settings) -> QueryApp:
    """The query service."""
    return QueryApp(settings)
