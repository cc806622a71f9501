"""The read path as a whole: what a front consists of, whoever it answers."""

from collections.abc import Callable, Mapping
from pathlib import Path

import grpc

from turnout.clock import SystemClock
from turnout.reading.denials import Denial
from turnout.reading.freshness import Limits
from turnout.reading.front import Front
from turnout.reading.keeper import RoutesKeeper
from turnout.reading.link import SwitcherLink
from turnout.reading.metrics import FrontMetrics
from turnout.reading.neighbours import RegistryVersions, SwitcherRoutes
from turnout.reading.outcomes import Outcomes
from turnout.reading.reads import Reads
from turnout.reading.routes_file import RoutesFile
from turnout.reading.shadows import Shadows
from turnout.reading.table import Tables
from turnout.reading.watch import RouteWatch

_STORE_EVERY_SHARE = 20  # the stored time is at most this share of the longest age older than it could be
_ROUTES_WITHIN_S = 2.0


class ReadPath:
    """A front, its tables, its watch of the routes, the reads that go by them, and what becomes of those.

    name: unique among live fronts. denial: how one is told of a table that its user of the database may not read.
    address: where it answers, for people. routes_file: where it keeps its routes, None = nowhere. attributes: of its
    metrics. switcher: opens a channel to it, see `SwitcherLink`. The caller opens and closes the one to the registry.
    """

    def __init__(
        self,
        name: str,
        postgres: str,
        limits: Limits,
        switcher: Callable[[], grpc.aio.Channel],
        registry: grpc.aio.Channel,
        *,
        denial: Denial,
        address: str,
        routes_file: Path | None,
        attributes: Mapping[str, str] | None = None,
    ) -> None:
        clock = SystemClock()
        self.front = Front(name, clock, limits)
        self._tables = Tables(postgres, denial)
        file = None if routes_file is None else RoutesFile(routes_file)
        self._keeper = RoutesKeeper(self.front, file, clock, every_s=limits.active_s / _STORE_EVERY_SHARE)
        self._link = SwitcherLink(switcher)
        self._watch = RouteWatch(self.front, self._tables, self._keeper, self._link, clock, address)
        self._metrics = FrontMetrics(self.front, attributes)
        self.outcomes = Outcomes(self.front, self.front.exposures, self._link)
        self._shadows = Shadows(self.front, Tables(postgres, denial, hidden=True, connections_max=1), self._link)
        routes, versions = SwitcherRoutes(self.front, self._link), RegistryVersions(registry)
        self.reads = Reads(self.front, self._tables, routes, versions, self._shadows)

    async def start(self) -> None:
        """Begin to watch, and give the switcher a moment to send its routes before stored ones are served.

        Waits for neither PostgreSQL nor the switcher: reads say what is away until it is there.
        """
        await self._tables.open()
        self._metrics.start()
        await self._watch.start(_ROUTES_WITHIN_S)
        self.outcomes.start()
        await self._shadows.start()

    async def leave(self) -> None:
        """Say goodbye to the switcher, so that no change waits for this front. Reads that have begun go on, and so do
        those that pin their version; others are refused (STOPPING)."""
        await self._watch.leave()

    async def stop(self) -> None:
        """Tell what was seen, end the watch, store the routes, and close the connections to PostgreSQL."""
        self._metrics.stop()
        await self.outcomes.stop()
        await self._shadows.stop()
        await self._watch.stop()
        await self._keeper.stop()
        await self._tables.close()
        await self._link.close()
