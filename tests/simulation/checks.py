"""What must hold, looked at from outside: by what was committed, and by what each front really knows and answers."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from datetime import timedelta
from typing import TYPE_CHECKING, Any

from services.switcher.records import route_from_json
from tests.simulation.postgres import Session
from tests.simulation.rollout_checks import RolloutChecks
from turnout.names import VersionId
from turnout.reading.freshness import Freshness
from turnout.routing import WHOLE, Route, resolve
from turnout.switcher.v1 import change_pb2

if TYPE_CHECKING:
    from tests.simulation.world import FrontHost, World


_SOON = timedelta(minutes=1)
_EMERGENCIES = ("ROLL_BACK", "WITHDRAW")
"""Commands that may bring a version back before every front is prepared."""


class Violation(Exception):
    """Something that must hold did not."""


@dataclass
class Checks:
    """Collects violations; the first one ends the simulation."""

    world: World
    history: dict[str, dict[int, Route]] = field(default_factory=dict)  # of a job, by epoch
    adopted: dict[str, int] = field(default_factory=dict)  # of a job: the epoch that every front was said to serve
    requests: dict[tuple[str, int], str] = field(default_factory=dict)  # of a job and epoch: the id of its request
    violations: list[str] = field(default_factory=list)
    counts: dict[str, int] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.rolling = RolloutChecks(self)

    def fail(self, what: str) -> None:
        self.violations.append(f"at {self.world.loop.time():.6f}: {what}")

    def count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def newest(self, job: str) -> Route | None:
        """The route that was committed last."""
        epochs = self.history.get(job)
        return epochs[max(epochs)] if epochs else None

    # --- after each commit ---

    def committed(self, session: Session) -> None:
        if "rollout" in session.touched:
            self.rolling.rollouts_changed()
        if session.touched & {"route", "released_version"}:
            self._routes_changed()
        if session.touched & {"route", "experiment"}:
            self.rolling.experiments_follow()

    def _routes_changed(self) -> None:
        known = {job: max(epochs, default=0) for job, epochs in self.history.items()}
        rows = self.world.real.fetch(
            "select r.job, r.epoch, c.command, c.request_id, c.route, r.route as current, "
            "array(select version from switcher.released_versions v where v.job = r.job) as released "
            "from switcher.routes r left join switcher.route_changes c on c.job = r.job and c.epoch = r.epoch"
        )
        for row in rows:
            before = known.get(row["job"], 0)
            if row["epoch"] == 0:
                continue
            if row["epoch"] not in (before, before + 1):
                self.fail(f"the epoch of {row['job']} went from {before} to {row['epoch']}")
            if row["route"] is None or json.loads(row["route"]) != json.loads(row["current"]):
                self.fail(f"epoch {row['epoch']} of {row['job']} is not in the audit as it is")
            route = route_from_json(row["job"], row["current"])
            if named := route.versions & set(row["released"]):
                self.fail(f"{row['job']} at epoch {route.epoch} names {sorted(named)}, which are released")
            if row["epoch"] > before:
                self._moved(route, row["command"], row["request_id"])

    def _moved(self, route: Route, command: str, request: str) -> None:
        """A route has come to its next epoch."""
        before = self.newest(route.job)
        self.history.setdefault(route.job, {})[route.epoch] = route
        self.requests[route.job, route.epoch] = request
        self.count(command)
        new = before is None or not route.versions <= before.versions
        if new and command not in _EMERGENCIES:
            self._prepared(route)
        self.rolling.route_changed(before, route, command, request)

    def _prepared(self, route: Route) -> None:
        """Every front whose lease is live has really prepared each table that the route names."""
        rows = self.world.real.fetch(
            "select front from switcher.reader_leases where expires > $1 and not ended", self.world.loop.now()
        )
        for front in (row["front"] for row in rows):
            for version in sorted(route.versions):
                if (front, VersionId(route.job, version)) not in self.world.prepared:
                    self.fail(f"epoch {route.epoch} of {route.job} was committed though {front} is not prepared")

    # --- after each answer of a change ---

    def answered(self, change: change_pb2.RouteChange) -> None:
        """Adoption is answered only when it is true."""
        route = change.route
        job, epoch = route.name.removeprefix("jobs/").removesuffix("/route"), route.epoch
        if not change.changed or not change.adoptions:
            return
        late = {one.front for one in change.adoptions if not one.HasField("adoption_time")}
        named = late | set(change.fronts_not_counted)
        adopted = {one.front for one in change.adoptions} - late
        # A front that has adopted and died may start again by what it had on disk.
        hosts_named = {name.rsplit(".", 1)[0] for name in named | adopted}
        for host in self.world.fronts:
            process, front = host.process, host.front
            if process is None or front is None:
                continue
            behind = front.table.epoch(job) < epoch
            if process.name in adopted and behind:
                self.fail(f"{process.name} was said to serve epoch {epoch} of {job}, and does not")
            elif behind and front.ready and host.name not in hosts_named:
                self.fail(f"{process.name} may serve an epoch of {job} before {epoch}, and was not named")
        if not named:
            self.adopted[job] = max(self.adopted.get(job, 0), epoch)

    def aborted(self, change: change_pb2.RouteChange) -> None:
        """All to the active version: no other one has a weight."""
        weights = {arm.version: arm.weight for arm in change.route.arms}
        if weights != {change.route.active_version: WHOLE}:
            self.fail(f"after an abort {change.route.name} has the weights {weights}")

    # --- at each drop ---

    def before_drop(self, version: VersionId) -> None:
        """No front can still read the table."""
        for host in self.world.fronts:
            self._cannot_read(host, version)
        self.count("dropped")

    def _cannot_read(self, host: FrontHost, version: VersionId) -> None:
        limit_s = self.world.settings.max_stale_active_s
        stored = host.disk.stored
        if stored is not None and _names(stored.table.route(version.job), version):
            age_s = (self.world.loop.now() - stored.vouched_at).total_seconds()
            if age_s <= limit_s and (host.process is None or not host.process.alive):
                self.fail(f"{version} was dropped while {host.name} may start with stored routes that name it")
        process, front = host.process, host.front
        if process is None or front is None:
            return
        if front.ready and _names(front.table.route(version.job), version):
            self.fail(f"{version} was dropped while the route at {process.name} names it")
        for epoch in front.in_flight._reads.get(version.job, {}):
            if _names(self.history.get(version.job, {}).get(epoch), version):
                self.fail(f"{version} was dropped while {process.name} reads by epoch {epoch}, which names it")

    # --- at each read ---

    def read(self, job: str, unit: str, version: int, epoch: int, cause: str, row_version: int | None) -> None:
        route = self.history.get(job, {}).get(epoch)
        self.count("reads")
        if route is None:
            self.fail(f"a read of {job} was answered by epoch {epoch}, which was never committed")
            return
        expected = resolve(route, unit) if cause == "ROUTED" else route.active_version
        if version != expected:
            self.fail(f"{unit} read v{version} of {job} under epoch {epoch} ({cause}), which gives it v{expected}")
        if row_version != version:
            self.fail(f"v{version} of {job} answered with a row of v{row_version}")

    # --- at the end, when everything runs and reaches everything ---

    def unsettled(self) -> list[str]:
        """What has not come to its end yet."""
        down = [] if self.world.server.up else ["the database is down"]
        return [*down, *self.rolling.unsettled(), *self._routes_under_way(), *self._retirements_under_way()]

    def _routes_under_way(self) -> Iterator[str]:
        fetch: Callable[..., list[Any]] = self.world.real.fetch
        for host in self.world.fronts:
            if host.front is None or not host.front.ready or host.front.freshness is not Freshness.FRESH:
                yield f"{host.name} has not heard from a switcher lately"
        for row in fetch("select job, epoch, view_epoch, view_due_epoch, wake_epoch from switcher.routes"):
            if row["view_epoch"] < row["view_due_epoch"]:
                yield f"the view of {row['job']} is pending still"
            if row["wake_epoch"]:
                yield f"the runs of {row['job']} were never woken"
            for host in self.world.fronts:
                front = host.front
                epoch = 0 if front is None else front.table.epoch(row["job"])
                if epoch != row["epoch"]:
                    yield f"{host.name} is at epoch {epoch} of {row['job']}, not {row['epoch']}"
        for row in fetch("select proposal from switcher.proposals where state = 'OPEN'"):
            yield f"the proposal {row['proposal']} is open still"

    def _retirements_under_way(self) -> Iterator[str]:
        for row in self._versions():
            version = VersionId(row["job"], row["number"])
            gone = version not in self.world.tables.runs or version in self.world.tables.dropped
            if row["released"] != (row["state"] != "REGISTERED"):
                yield f"{version} is {row['state']} and {'' if row['released'] else 'not '}released"
            if gone != (row["state"] == "DROPPED") and version in self.world.tables.runs:
                yield f"{version} is {row['state']} and its table is {'gone' if gone else 'there'}"
            kept = row["step"] == "RETAIN" and row["drop_time"] > self.world.loop.now() + _SOON
            if row["step"] not in (None, "DONE") and not kept:
                yield f"the retirement of {version} stands at {row['step']}: {row['waiting_for']}"

    def _versions(self) -> list[Any]:
        return self.world.real.fetch(
            "select v.job, v.number, v.state, r.step, r.drop_time, r.waiting_for, "
            "(v.job, v.number) in (select job, version from switcher.released_versions) as released "
            "from registry.versions v left join registry.retirements r using (job, number)"
        )

    def ended(self) -> None:
        """What must hold of the whole, looked at once it has come to its end."""
        for row in self.world.real.fetch(
            "select request_id, count(*) as n from switcher.route_changes group by request_id, job having count(*) > 1"
        ):
            if row["request_id"]:
                self.fail(f"the request {row['request_id']} was carried out {row['n']} times")
        self.rolling.ended()
        for process in self.world.processes:
            for fault in process.faults:
                self.fail(f"{process.name}: {type(fault).__name__}: {fault}")
        for deadlock in self.world.server.deadlocks:
            self.fail(deadlock)


def _names(route: Route | None, version: VersionId) -> bool:
    return route is not None and version.number in route.versions
