"""The routing table of a front: which version answers a read, and in what order routes replace one another. Pure.

The table is immutable: a change makes a new one, which the front puts in place with one assignment, so that no read
ever sees half of a change. Two rules keep it moving forward only, whatever arrives late or twice:

- a route is replaced only by one of a higher epoch; routes that were committed together come in one step, too;
- a snapshot older than what is known (a lower revision) is refused as a whole. The switcher reads each snapshot from
  its database, so such a one means that the database was restored or re-created; a person has to look.

A snapshot that is not older is the whole truth: a job that it does not name has no route any more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from enum import Enum
from typing import NamedTuple

from turnout import routing
from turnout.errors import DataLoss, NotFound
from turnout.routing import Route, Units


class Cause(Enum):
    """Why a version answers."""

    ROUTED = "routed"
    PINNED = "pinned"
    ACTIVE = "active"
    STAND_IN = "stand-in"
    """The version that the route gives to the unit was behind what the reader has seen, so the active one stands in."""
    OVERRIDE = "override"
    """An override of the experiment gave it to the unit, a tester's."""
    HOLDOUT = "holdout"
    """The unit is held out of the experiment."""


class Resolution(NamedTuple):  # made for every read, and as a tuple in a third of the time of a frozen class
    """The version that answers a read, by the route of that epoch (0 = the job has no route), and why."""

    version: int
    epoch: int
    cause: Cause
    group: int = 0  # the route's, see `Committed`


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed route: its place in the order of commits, and the proposal that it came from.

    group: the revision in which the route last changed together with those of other jobs; 0 = never.
    """

    revision: int
    proposal: str
    route: Route
    group: int = 0


@dataclass(slots=True)
class Resolver:
    """Resolves the units of one read of a job, all by one route.

    A version that the request pins goes first, and needs no route. Without a unit, or without `split` (a front that has
    been cut off too long to follow a split), it is the active version. passed_over: versions for which the active one
    stands in.
    """

    route: Route | None
    epoch: int
    split: bool
    pinned: int
    passed_over: frozenset[int]
    group: int = 0

    @property
    def same(self) -> Resolution | None:
        """What every row's key as a unit is given; None where they differ, or an experiment counts each."""
        if self.route is None:
            return Resolution(self.pinned, self.epoch, Cause.PINNED, self.group)
        if not self.split:
            return Resolution(self.route.active_version, self.epoch, Cause.ACTIVE, self.group)
        if self.route.experiment is not None:
            by_caller = self.route.experiment.units is Units.CALLER
            return Resolution(self.route.active_version, self.epoch, Cause.ACTIVE, self.group) if by_caller else None
        if self.route.sole is None:
            return None
        return self._routed(self.route, self.route.sole)

    def of(self, unit: str | None, units: Units = Units.CALLER) -> Resolution:
        """The version that answers the unit; `units` says of which kind it is."""
        route = self.route
        if route is None:
            return Resolution(self.pinned, self.epoch, Cause.PINNED, self.group)
        if unit is None or not self.split:
            return Resolution(route.active_version, self.epoch, Cause.ACTIVE, self.group)
        experiment = route.experiment
        if experiment is not None and units is Units.KEY and experiment.units is Units.CALLER:
            return Resolution(route.active_version, self.epoch, Cause.ACTIVE, self.group)
        if experiment is not None and units is experiment.units:
            version = experiment.version_of.get(unit)
            if version is not None:
                return self._routed(route, version, Cause.OVERRIDE)
            if routing.held_out(experiment, unit):
                return Resolution(route.active_version, self.epoch, Cause.HOLDOUT, self.group)
        return self._routed(route, routing.resolve(route, unit))

    def counts(self, resolution: Resolution, units: Units) -> bool:
        """Whether an experiment counts an answer so resolved to a unit of that kind."""
        experiment = None if self.route is None else self.route.experiment
        return experiment is not None and units is experiment.units and resolution.cause is Cause.ROUTED

    def leaves_out(self, unit: str, units: Units) -> int:
        """Number of the experiment that does not count a read because it brings no unit (""), or one of another kind.
        0 = there is no such experiment."""
        experiment = None if self.route is None else self.route.experiment
        if experiment is None or (unit and units is experiment.units):
            return 0
        return experiment.number

    def _routed(self, route: Route, version: int, cause: Cause = Cause.ROUTED) -> Resolution:
        if version in self.passed_over and version != route.active_version:
            return Resolution(route.active_version, self.epoch, Cause.STAND_IN, self.group)
        return Resolution(version, self.epoch, cause, self.group)


@dataclass(frozen=True, slots=True)
class RoutingTable:
    """Every committed route by the job's id, as of a revision of the watch."""

    revision: int = 0
    committed: Mapping[str, Committed] = field(default_factory=dict)

    def route(self, job: str) -> Route | None:
        """The job's route, None before its first cutover."""
        committed = self.committed.get(job)
        return None if committed is None else committed.route

    def epoch(self, job: str) -> int:
        """The epoch of the job's route, 0 before its first cutover."""
        route = self.route(job)
        return 0 if route is None else route.epoch

    def group(self, job: str) -> int:
        """The revision in which the job's route last changed together with those of other jobs; 0 = never."""
        committed = self.committed.get(job)
        return 0 if committed is None else committed.group

    def with_commit(self, *committed: Committed) -> "RoutingTable":
        """The table after routes that were committed in one step; this very table when it knows all that already.

        Of each job the newer route stays.
        """
        revision = max(self.revision, *(one.revision for one in committed))
        newer = {
            one.route.job: replace(one, group=max(one.group, self.group(one.route.job)))
            for one in committed
            if one.route.epoch > self.epoch(one.route.job)
        }
        if not newer:
            return self if revision == self.revision else RoutingTable(revision, self.committed)
        return RoutingTable(revision, {**self.committed, **newer})

    def with_snapshot(self, revision: int, committed: Iterable[Committed]) -> "RoutingTable":
        """The table after a snapshot of all routes. DataLoss (SNAPSHOT_TOO_OLD) when this table is newer."""
        if revision < self.revision:
            raise DataLoss(
                "SNAPSHOT_TOO_OLD",
                f"The switcher sent its routes as of revision {revision}, but this front has already served revision "
                f"{self.revision}: the switcher's database was restored or re-created. Check `turnout show`, then "
                f"remove the front's stored routes and restart it.",
            )
        routes = {one.route.job: one for one in committed}
        for job, known in self.committed.items():
            if job in routes and routes[job].route.epoch < known.route.epoch:
                routes[job] = known
        return RoutingTable(revision, routes)

    def resolve(
        self, job: str, unit: str | None, units: Units = Units.CALLER, *, pinned: int = 0, split: bool = True
    ) -> Resolution:
        """The version that answers. See `Resolver.of`. NotFound (JOB_NOT_ROUTED)."""
        return self.resolver(job, pinned=pinned, split=split, passed_over=frozenset()).of(unit, units)

    def resolver(self, job: str, *, pinned: int, split: bool, passed_over: frozenset[int]) -> "Resolver":
        """Resolves the units of one read. NotFound (JOB_NOT_ROUTED) unless the request pins a version."""
        if pinned:
            return Resolver(None, self.epoch(job), split, pinned, passed_over, self.group(job))
        route = self.routed(job)
        return Resolver(route, route.epoch, split, 0, passed_over, self.group(job))

    def routed(self, job: str) -> Route:
        """The job's route. NotFound (JOB_NOT_ROUTED) before its first cutover."""
        route = self.route(job)
        if route is None:
            raise NotFound(
                "JOB_NOT_ROUTED",
                f"No version of {job} serves readers yet, or there is no job of that name (`turnout show` lists all). "
                f"Make one serve with `turnout cutover {job} vN`, or name the version to read; `turnout show {job}` "
                f"lists them.",
                metadata={"job": job},
            )
        return route
