"""The routing table of a front: which version answers a read, and in what order routes replace one another. Pure.

The table is immutable: a change makes a new one, which the front puts in place with one assignment, so that no read
ever sees half of a change. Two rules keep it moving forward only, whatever arrives late or twice:

- a route is replaced only by one of a higher epoch;
- a snapshot older than what is known (a lower revision) is refused as a whole. The switcher reads each snapshot from
  its database, so such a one means that the database was restored or re-created; a person has to look.

A snapshot that is not older is the whole truth: a job that it does not name has no route any more.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from enum import Enum

from turnout import routing
from turnout.errors import DataLoss, NotFound
from turnout.routing import Route


class Cause(Enum):
    """Why a version answers."""

    ROUTED = "routed"
    PINNED = "pinned"
    ACTIVE = "active"


@dataclass(frozen=True, slots=True)
class Resolution:
    """The version that answers a read, by the route of that epoch (0 = the job has no route), and why."""

    version: int
    epoch: int
    cause: Cause


@dataclass(frozen=True, slots=True)
class Committed:
    """A committed route: its place in the order of commits, and the proposal that it came from."""

    revision: int
    proposal: str
    route: Route


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

    def with_commit(self, committed: Committed) -> "RoutingTable":
        """The table after a committed route; this very table when it knows that route or a newer one."""
        job = committed.route.job
        revision = max(self.revision, committed.revision)
        if committed.route.epoch <= self.epoch(job):
            return self if revision == self.revision else RoutingTable(revision, self.committed)
        return RoutingTable(revision, {**self.committed, job: committed})

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

    def resolve(self, job: str, unit: str | None, *, pinned: int = 0, split: bool = True) -> Resolution:
        """The version that answers.

        A version that the request pins goes first, and needs no route. Without a unit, or without `split` (a front
        that has been cut off too long to follow a split), it is the active version. NotFound (JOB_NOT_ROUTED).
        """
        if pinned:
            return Resolution(pinned, self.epoch(job), Cause.PINNED)
        route = self.routed(job)
        if unit is None or not split:
            return Resolution(route.active_version, route.epoch, Cause.ACTIVE)
        return Resolution(routing.resolve(route, unit), route.epoch, Cause.ROUTED)

    def routed(self, job: str) -> Route:
        """The job's route. NotFound (JOB_NOT_ROUTED) before its first cutover."""
        route = self.route(job)
        if route is None:
            raise NotFound(
                "JOB_NOT_ROUTED",
                f"No version of {job} serves readers yet. Make one serve with `turnout cutover {job} vN`, or name the "
                f"version to read. `turnout show {job}` lists them.",
                metadata={"job": job},
            )
        return route
