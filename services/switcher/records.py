"""What the switcher keeps: routes with their circumstances, proposals, audited changes. Pure; also their JSON."""

import json
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum
from typing import Any, Final

from services.switcher.switch import State
from turnout.routing import Arm, Experiment, Interval, Route, Units
from turnout.shadow import Shadow


class CommandKind(Enum):
    """What was asked; the audit's word for it."""

    SET_TRAFFIC = "SET_TRAFFIC"
    CUT_OVER = "CUT_OVER"
    ROLL_BACK = "ROLL_BACK"
    START_EXPERIMENT = "START_EXPERIMENT"
    STOP_EXPERIMENT = "STOP_EXPERIMENT"
    ABORT = "ABORT"  # a guardrail took a candidate off the route
    STEP = "STEP"  # a bandit moved its weights
    SET_SHADOW = "SET_SHADOW"
    ROLL_OUT = "ROLL_OUT"  # a rollout made a step
    WITHDRAW = "WITHDRAW"  # a rollout took its candidate back
    REQUIRE_GATES = "REQUIRE_GATES"

    @property
    def words(self) -> str:
        """For people."""
        return _WORDS[self]


_WORDS: Final = {
    CommandKind.SET_TRAFFIC: "traffic set",
    CommandKind.CUT_OVER: "cutover",
    CommandKind.ROLL_BACK: "rollback",
    CommandKind.START_EXPERIMENT: "start of an experiment",
    CommandKind.STOP_EXPERIMENT: "end of an experiment",
    CommandKind.ABORT: "abort by a guardrail",
    CommandKind.STEP: "step of a bandit",
    CommandKind.SET_SHADOW: "shadow set",
    CommandKind.ROLL_OUT: "step of a rollout",
    CommandKind.WITHDRAW: "way back of a rollout",
    CommandKind.REQUIRE_GATES: "gates demanded",
}


@dataclass(frozen=True, slots=True)
class ReadLoad:
    """Reads that a front answered within a span of time; half of them, and 99 of 100, took no longer than this."""

    reads: int
    window: timedelta
    p50: timedelta
    p99: timedelta


@dataclass(frozen=True, slots=True)
class FrontReadLoad:
    """What a live front last said of its reads, and how long ago; None = it had answered none."""

    front: str
    load: ReadLoad | None
    age: timedelta


class ProposalState(Enum):
    """A proposal's way: OPEN, then one of the others for good."""

    OPEN = "OPEN"
    COMMITTED = "COMMITTED"
    CANCELLED = "CANCELLED"


@dataclass(frozen=True, slots=True)
class View:
    """The SQL view: the version it shows (0 = there is none), and what a pending move waits for."""

    pending: bool
    version: int
    waiting_for: str


@dataclass(frozen=True, slots=True)
class RouteRecord:
    """A job's route as it is stored."""

    state: State
    now: datetime  # the database's clock when it was read
    proposal: str
    revision: int
    traceparent: str
    update_time: datetime | None
    view: View
    group: int = 0  # the revision in which it last changed together with other routes; 0 = never


@dataclass(frozen=True, slots=True)
class Proposed:
    """A route of a proposal, and the versions of its job that fronts must be able to read back."""

    route: Route
    way_back_versions: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class Proposal:
    """Routes on their way to the fronts, by job: adopted all at once."""

    proposal: str
    routes: tuple[Proposed, ...]
    state: ProposalState
    revision: int
    traceparent: str

    @property
    def group(self) -> int:
        """Its revision, if it changes several routes; else 0."""
        return self.revision if len(self.routes) > 1 else 0


@dataclass(frozen=True, slots=True)
class GateAnswer:
    """What a gate said about a version; overridden = it failed and was passed over by name."""

    gate: str
    version: int
    passed: bool
    overridden: bool
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Intent:
    """Who wants what, as the caller claims, and the request it came by."""

    command: CommandKind
    claimed_actor: str
    reason: str
    request_id: str
    fingerprint: bytes


@dataclass(frozen=True, slots=True)
class Adoption:
    """A front, and how long after the commit it served the new route; None = not within the time limit."""

    front: str
    after: timedelta | None


@dataclass(frozen=True, slots=True)
class ChangeRecord:
    """A change of a route, or one that was not needed (`changed` is False) or only checked (no `commit_time`)."""

    route: Route
    command: CommandKind
    claimed_actor: str
    reason: str
    rollback_version: int = 0
    protected_until: datetime | None = None
    gates: tuple[GateAnswer, ...] = ()
    warnings: tuple[str, ...] = ()
    commit_time: datetime | None = None
    view: View | None = None
    adoptions: tuple[Adoption, ...] = ()
    fronts_not_counted: tuple[str, ...] = ()
    changed: bool = True
    group: int = 0  # the revision of the commit, where it changed several routes; else 0


def route_to_json(route: Route) -> str:
    """A route as it is kept: one array an arm `[version, weight]` and an interval `[low, high, version, epoch]`."""
    kept: dict[str, Any] = {
        "epoch": route.epoch,
        "active_version": route.active_version,
        "arms": [[arm.version, arm.weight] for arm in route.arms],
        "salt": route.salt,
        "intervals": [[i.low, i.high, i.version, i.acquired_epoch] for i in route.intervals],
    }
    if route.owner:
        kept["owner"] = route.owner
    if route.experiment:
        kept["experiment"] = _experiment_to_json(route.experiment)
    if route.shadow:
        kept["shadow"] = [route.shadow.version, route.shadow.share]
    if route.required_gates:
        kept["required_gates"] = route.required_gates
    return json.dumps(kept)


def _experiment_to_json(experiment: Experiment) -> dict[str, Any]:
    return {
        "name": experiment.name,
        "number": experiment.number,
        "units": experiment.units.value,
        "holdout": experiment.holdout,
        "holdout_salt": experiment.holdout_salt,
        "overrides": experiment.overrides,
        "slow_us": experiment.slow_us,
    }


def _experiment_from_json(kept: Mapping[str, Any]) -> Experiment:
    overrides = tuple((unit, version) for unit, version in kept["overrides"])
    return Experiment(**{**kept, "units": Units(kept["units"]), "overrides": overrides})


def route_from_json(job: str, text: str) -> Route:
    """The route that `route_to_json` wrote."""
    kept: Mapping[str, Any] = json.loads(text)
    return Route(
        job=job,
        epoch=kept["epoch"],
        active_version=kept["active_version"],
        arms=tuple(Arm(*arm) for arm in kept["arms"]),
        salt=kept["salt"],
        intervals=tuple(Interval(*interval) for interval in kept["intervals"]),
        owner=kept.get("owner", ""),
        experiment=_experiment_from_json(kept["experiment"]) if "experiment" in kept else None,
        shadow=Shadow(*kept["shadow"]) if "shadow" in kept else None,
        required_gates=tuple(kept.get("required_gates", ())),
    )


def gates_to_json(gates: tuple[GateAnswer, ...]) -> str:
    """Gates as the audit keeps them."""
    return json.dumps(
        [
            {
                "gate": gate.gate,
                "version": gate.version,
                "passed": gate.passed,
                "overridden": gate.overridden,
                "evidence": list(gate.evidence),
            }
            for gate in gates
        ]
    )


def gates_from_json(text: str) -> tuple[GateAnswer, ...]:
    """The gates that `gates_to_json` wrote."""
    return tuple(GateAnswer(**{**gate, "evidence": tuple(gate["evidence"])}) for gate in json.loads(text))
