"""Where the switcher is put together."""

import asyncio
import contextlib
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import grpc

from core.config import Settings
from core.postgres import Listener, migrate, open_pool
from core.rpc.server import ServiceApp
from services.switcher.barrier import Barrier, Limits
from services.switcher.change import Changes, Neighbours
from services.switcher.experiments.conducting import Experiments
from services.switcher.experiments.guardrails import Guardrails
from services.switcher.experiments.ledger import Ledger
from services.switcher.experiments.servicer import ExperimentParts
from services.switcher.experiments.store import ExperimentStore
from services.switcher.feed import Feed
from services.switcher.hint import Hint
from services.switcher.pending import PendingStore
from services.switcher.presence import FrontStore
from services.switcher.readiness import RollbackReadiness
from services.switcher.reconcile import Reconcile
from services.switcher.releases import ReleaseStore
from services.switcher.replayer_client import ReplayerClient
from services.switcher.requests import RequestStore
from services.switcher.rollouts.acting import Acts
from services.switcher.rollouts.comparing import Comparisons
from services.switcher.rollouts.conducting import Rollouts
from services.switcher.rollouts.driving import Driver
from services.switcher.rollouts.looking import Looks
from services.switcher.rollouts.neighbours import Neighbours as RolloutNeighbours
from services.switcher.rollouts.servicer import RolloutParts
from services.switcher.rollouts.store import RolloutStore
from services.switcher.rows import FRONTS_CHANNEL, MIGRATIONS, ROUTES_CHANNEL
from services.switcher.servicer import Parts, SwitcherServicer
from services.switcher.shadow_store import ShadowStore
from services.switcher.store import RouteStore
from services.switcher.views import Views
from services.switcher.wakes import Wakes
from services.switcher.watch import Watch
from turnout.channel import connect
from turnout.switcher.v1 import switcher_pb2, switcher_pb2_grpc
from turnout.tasks import end

# Every statement is short. A connection that is lost on the server's side only keeps the route watch no longer.
_COMMAND_TIMEOUT_S = 3.0


class SwitcherApp(ServiceApp):
    """The switcher service of one process."""

    name = "switcher"
    service_names: tuple[str, ...] = (switcher_pb2.DESCRIPTOR.services_by_name["Switcher"].full_name,)

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._servicer = SwitcherServicer()
        self._closing = contextlib.AsyncExitStack()
        self._feed: Feed | None = None

    @property
    def ready(self) -> bool:
        """Whether fronts hear of changes from here."""
        return self._feed is not None and self._feed.recent

    def register(self, server: grpc.aio.Server) -> None:
        """Add the servicer."""
        switcher_pb2_grpc.add_SwitcherServicer_to_server(self._servicer, server)

    async def start(self) -> None:
        """Open the pool, bring the schema up to date, begin to feed watches and to reconcile."""
        settings = self._settings
        pool = await open_pool(
            settings.postgres,
            application_name="turnout switcher",
            command_timeout_s=_COMMAND_TIMEOUT_S,
            # A replica that hangs in a transaction must not keep the locks that every change needs.
            settings={"idle_in_transaction_session_timeout": "4s"},
        )
        self._closing.push_async_callback(pool.close)
        await migrate(pool, "switcher", MIGRATIONS)
        channel, registry = connect(settings.replayer_target), connect(settings.registry_target)
        self._closing.push_async_callback(channel.close)
        self._closing.push_async_callback(registry.close)
        of_routes, of_fronts = Hint(), Hint()
        listener = Listener(settings.postgres, {ROUTES_CHANNEL: of_routes.give, FRONTS_CHANNEL: of_fronts.give})
        listener.start()
        self._closing.push_async_callback(listener.stop)

        limits = Limits(timedelta(seconds=settings.rollback_protection_s))
        store, pending, releases = RouteStore(pool), PendingStore(pool), ReleaseStore(pool, limits.protection)
        fronts = FrontStore(pool, timedelta(seconds=settings.reader_lease_s))
        replayer, shadows = ReplayerClient(channel), ShadowStore(pool)
        views, wakes = Views(store, pending, replayer), Wakes(pending, replayer)
        self._feed = feed = Feed(store, of_routes)
        await feed.begin()
        self._run("feed", feed.run())
        self._run("reconcile", Reconcile(store, views, wakes).run())
        barrier, neighbours = (
            Barrier(store, fronts, of_fronts, limits),
            Neighbours(replayer, shadows, views, wakes),
        )
        requests = RequestStore(pool)
        changes = Changes(store, requests, barrier, neighbours, of_routes, limits)
        experiments = ExperimentStore(pool)
        keys, ledger = await experiments.keys(), Ledger(pool)
        guardrails = Guardrails(experiments, ledger, changes, replayer, settings.instance)
        self._run("experiments", guardrails.run())
        rollouts = RolloutStore(pool)
        around = RolloutNeighbours(channel, registry)
        comparisons = Comparisons(around)
        looks = Looks(store, experiments, shadows, replayer, comparisons)
        acts = Acts(store, requests, experiments, changes, around)
        driver = Driver(rollouts, experiments, looks, acts, comparisons, settings.instance)
        self._run("rollouts", driver.run())
        self._servicer.started = Parts(
            store,
            changes,
            releases,
            RollbackReadiness(store, fronts, replayer),
            Watch(fronts, feed, keys),
            fronts,
            ExperimentParts(experiments, Experiments(experiments, store, changes), ledger, keys),
            RolloutParts(rollouts, Rollouts(rollouts, store, around, limits.protection)),
            shadows,
        )

    async def stop(self) -> None:
        """End the background work, then close the pool."""
        self._servicer.started = None
        await self._closing.aclose()

    def _run(self, name: str, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work, name=f"switcher {name}")
        self._closing.push_async_callback(end, task)


def build(settings: Settings) -> ServiceApp:
    """The switcher for these settings."""
    return SwitcherApp(settings)
