"""The query service: the read path, and the gRPC server's way into it."""

import grpc

from core.config import Settings
from core.rpc.server import ServiceApp
from services.query.servicer import QueryServicer
from turnout.channel import connect
from turnout.query.v1 import query_pb2, query_pb2_grpc
from turnout.reading.denials import ToldToTheOperator
from turnout.reading.freshness import Limits
from turnout.reading.path import ReadPath


class QueryApp(ServiceApp):
    """A front in this process."""

    name = "query"
    service_names: tuple[str, ...] = (query_pb2.DESCRIPTOR.services_by_name["Query"].full_name,)
    calls_max = 2_000  # each is answered within its deadline or refused at once, never left to wait without end

    def __init__(self, settings: Settings) -> None:
        self._registry = connect(settings.registry_target)
        self._path = ReadPath(
            settings.instance,
            settings.postgres,
            Limits(active_s=settings.max_stale_active_s, experiment_s=settings.max_stale_experiment_s),
            lambda: connect(settings.switcher_target),
            self._registry,
            denial=ToldToTheOperator(),
            address=settings.listen,
            routes_file=settings.data_dir / "query" / "routes.json",
        )
        self._servicer = QueryServicer(self._path.reads, self._path.front, self._path.outcomes)

    @property
    def ready(self) -> bool:
        """Whether routed reads can be answered. The process is healthy without it, the service is not."""
        return self._path.front.ready

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicer."""
        query_pb2_grpc.add_QueryServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        """Begin to watch; see `ReadPath.start`."""
        await self._path.start()

    async def drain(self) -> None:
        """Say goodbye to the switcher, so that no change waits for this front; see `ReadPath.leave`."""
        await self._path.leave()

    async def stop(self) -> None:
        """End the watch, store the routes, and close what is open."""
        await self._path.stop()
        await self._registry.close()


def build(settings: Settings) -> QueryApp:
    """The query service."""
    return QueryApp(settings)
