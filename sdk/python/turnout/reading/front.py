"""The state of one front: its routing table, how fresh that is, the reads in flight and how long reads take.

Nothing here waits.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from datetime import timedelta

from turnout.clock import Clock
from turnout.errors import Unavailable
from turnout.reading.exposures import Exposures
from turnout.reading.freshness import Freshness, Limits
from turnout.reading.inflight import InFlight
from turnout.reading.latency import ReadLatency
from turnout.reading.limits import READ_S_MAX
from turnout.reading.routing import Resolver, RoutingTable


class Front:
    """What reads go by. The watch puts new tables in place; each read takes the one that is there."""

    def __init__(self, name: str, clock: Clock, limits: Limits) -> None:
        self.name = name
        self.table = RoutingTable()
        self.in_flight = InFlight()
        self.latency = ReadLatency(clock.monotonic_s())
        self.exposures = Exposures()
        self.unreadable: set[str] = set()
        """Jobs whose newest route was sent and cannot be served by; the table has the one before, or none."""
        self._clock = clock
        self._limits = limits
        self._fresh_at_s: float | None = None
        self._left = False

    def leave(self) -> None:
        """Answer by routes no more, for good: from the goodbye on no cutover counts this front or names it. Reads that
        have begun end as they would."""
        self._left = True

    def vouched(self, at_s: float) -> None:
        """The switcher vouched for the table as of that time on the monotonic clock."""
        if self._fresh_at_s is None or at_s > self._fresh_at_s:
            self._fresh_at_s = at_s

    @property
    def may_serve_for(self) -> timedelta:
        """How long after the last word from the switcher a read by the table may still run."""
        return timedelta(seconds=self._limits.active_s + READ_S_MAX)

    @property
    def age_s(self) -> float | None:
        """Seconds since the sending of the last acknowledged heartbeat; None when there has been no table at all."""
        return None if self._fresh_at_s is None else max(0.0, self._clock.monotonic_s() - self._fresh_at_s)

    @property
    def freshness(self) -> Freshness | None:
        """What the age of the routing table allows; None when there has been no table at all."""
        age_s = self.age_s
        return None if age_s is None else self._limits.judge(age_s)

    @property
    def ready(self) -> bool:
        """Whether routed reads can be answered: there is a routing table, not too old, and the front has not left."""
        return not self._left and self.freshness not in (None, Freshness.STALE)

    @property
    def experiments(self) -> bool:
        """Whether any route takes part in an experiment."""
        return any(one.route.experiment is not None for one in self.table.committed.values())

    def routes(self, job: str) -> tuple[RoutingTable, bool]:
        """The table for a routed read of the job, and whether splits are followed. Unavailable while the front is not
        ready, and where the job's newest route cannot be served by."""
        if self._left:
            raise Unavailable("STOPPING", "This front is stopping; ask another one.", metadata={"front": self.name})
        age_s = self.age_s
        if age_s is None:
            raise Unavailable(
                "ROUTES_UNKNOWN",
                "This front has had no routes from the switcher yet; try again. If it lasts, see whether the switcher "
                "runs and can be reached from here.",
                metadata={"front": self.name},
            )
        freshness = self._limits.judge(age_s)
        if freshness is Freshness.STALE:
            raise Unavailable(
                "ROUTE_STALE",
                f"This front last heard from the switcher {age_s:.0f} s ago and serves without it for at most "
                f"{self._limits.active_s:g} s; try another front, and see whether the switcher runs.",
                metadata={"front": self.name, "age_s": f"{age_s:.3f}"},
            )
        if job in self.unreadable:
            raise Unavailable(
                "ROUTE_UNREADABLE",
                f"This front cannot serve by the newest route of {job}, and its log says why; try another front, and "
                f"see whether this one is of an older release than the switcher.",
                metadata={"front": self.name, "job": job},
            )
        return self.table, freshness is Freshness.FRESH

    @contextmanager
    def read(self, job: str, pinned: int = 0, passed_over: frozenset[int] = frozenset()) -> Iterator[Resolver]:
        """Resolve the units of a read, and count the read as in flight until the block is left.

        All by one table, hence under one epoch. A pinned version needs no fresh table. NotFound; Unavailable.
        """
        table, split = (self.table, True) if pinned else self.routes(job)
        resolver = table.resolver(job, pinned=pinned, split=split, passed_over=passed_over)
        with self.in_flight.read(job, resolver.epoch):
            yield resolver
