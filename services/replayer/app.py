"""The replayer service: the only place that constructs its parts."""

import grpc

from core.config import Settings
from core.rpc.server import ServiceApp
from services.replayer.admission import Admission
from services.replayer.artifacts import Artifacts
from services.replayer.drop import Drops
from services.replayer.fleet import Fleet
from services.replayer.gates import Limits
from services.replayer.governing import Governing
from services.replayer.guard import RetentionGuard
from services.replayer.indexes import IndexBuilds
from services.replayer.metrics import RunMetrics
from services.replayer.presence import Presence
from services.replayer.runs import Runs
from services.replayer.sampler import Sampler
from services.replayer.servicer import ReplayerServicer
from services.replayer.sizes import TableSizes
from services.replayer.store import Store
from services.replayer.surroundings import Surroundings
from services.replayer.topics import EndsWatch, Topics
from turnout.channel import connect
from turnout.clock import SystemClock
from turnout.replayer.v1 import replayer_pb2, replayer_pb2_grpc


class ReplayerApp(ServiceApp):
    """The replayer in this process, and its worker processes."""

    name = "replayer"
    service_names: tuple[str, ...] = (replayer_pb2.DESCRIPTOR.services_by_name["Replayer"].full_name,)

    def __init__(self, settings: Settings) -> None:
        clock = SystemClock()
        topics = Topics(settings.brokers)
        ends = EndsWatch(topics)
        self._store = Store(settings.postgres)
        self._presence = Presence(settings.postgres, self._store, settings.instance, settings.run_lease_s, clock)
        self._sampler = Sampler(self._store, ends, self._presence, clock)
        self._guard = RetentionGuard(topics, self._sampler, clock)
        self._registry = connect(settings.registry_target)
        self._switcher = connect(settings.switcher_target)
        self._governing = Governing(settings, self._store, self._sampler, self._switcher, clock)
        self._sizes = TableSizes(self._store)
        around = Surroundings(
            settings=settings,
            store=self._store,
            topics=topics,
            ends=ends,
            sampler=self._sampler,
            presence=self._presence,
            guard=self._guard,
            artifacts=Artifacts(self._registry, settings.data_dir / "artifacts"),
            limits=Limits(),
            governing=self._governing,
            sizes=self._sizes,
            indexes=IndexBuilds(settings.postgres, self._store),
        )
        self._fleet = Fleet(around)
        self._drops = Drops(self._store)
        self._admission = Admission(around, self._fleet.follow)
        runs = Runs(around, self._fleet, self._admission, clock)
        self._servicer = ReplayerServicer(around, self._fleet, runs, self._admission, self._drops, clock)
        self._metrics = RunMetrics(self._servicer.runs_now)

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicer."""
        replayer_pb2_grpc.add_ReplayerServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        """Open the database, begin to measure, and take up the runs that should run."""
        await self._store.open()
        self._sampler.start()
        self._sizes.start()
        self._governing.start()
        self._guard.start()
        self._metrics.start()
        await self._fleet.start()
        self._admission.start()

    async def drain(self) -> None:
        """Leave the work to the other replicas: they begin to take over while the calls in flight end."""
        await self._presence.leave()

    async def stop(self) -> None:
        """End all workers in order, then close what is open. What the runs want stays stored."""
        await self._admission.stop()
        await self._fleet.stop()
        await self._drops.stop()
        self._metrics.stop()
        await self._guard.stop()
        await self._governing.stop()
        await self._sizes.stop()
        await self._sampler.stop()
        await self._store.close()
        await self._registry.close()
        await self._switcher.close()


def build(settings: Settings) -> ReplayerApp:
    """The replayer service."""
    return ReplayerApp(settings)
