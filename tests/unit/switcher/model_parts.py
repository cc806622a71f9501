"""What the model of switching is made of: jobs and versions, fronts, proposals, readers, and what each change keeps."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta

from hypothesis import strategies as st

from services.switcher.adoption import Front
from services.switcher.gates import Said
from services.switcher.questions import ALWAYS_ASKED, COMPARISON, DEMANDABLE, GATES, SHADOW, GateQuestion
from services.switcher.switch import (
    Change,
    Command,
    Conduct,
    CutOver,
    RequireGates,
    SetShadow,
    SetTraffic,
    State,
    Withdraw,
)
from turnout.names import VersionId
from turnout.reading.inflight import InFlight
from turnout.reading.routing import Committed, RoutingTable
from turnout.routing import WHOLE, Experiment, Route, Units

JOB = "flights"  # whose versions are retired, too
JOBS = (JOB, "trains")
FRONTS = ("a", "b", "c")
VERSIONS = (1, 2, 3, 4)
WITHOUT_TABLE = 4
MAY_SERVE = timedelta(seconds=10)
PROTECTION = timedelta(seconds=30)
EXPERIMENT = "experiments/e"

fronts = st.sampled_from(FRONTS)
jobs = st.sampled_from(JOBS)
units = st.sampled_from([f"u{n}" for n in range(50)])
versions = st.sampled_from(VERSIONS)
operators = st.sampled_from(("ann", "bob"))
overrides = st.sampled_from([(), GATES])
weights = st.sampled_from([0, 1, 500, 5000, WHOLE])
owners = st.sampled_from((EXPERIMENT, "rollouts/r"))
demanded = st.sampled_from([(), (COMPARISON,), DEMANDABLE])


@dataclass
class Query:
    """A front: what it serves by, and what the switcher remembers of it."""

    name: str
    table: RoutingTable = field(default_factory=RoutingTable)
    reads: InFlight = field(default_factory=InFlight)
    open_reads: list[tuple[object, VersionId]] = field(default_factory=list)  # with the version that is read
    unheard: list[tuple[Committed, ...]] = field(default_factory=list)  # each what was committed in one step
    live: bool = True
    silent_since: datetime | None = None
    prepared: bool = False
    nack: str | None = None
    serving: dict[str, datetime] = field(default_factory=dict)  # by proposal
    served: dict[VersionId, int] = field(default_factory=dict)  # undrained, with the newest epoch that names it

    def told(self, now: datetime, proposal: str) -> Front:
        """What the switcher knows of it as of a proposal."""
        return Front(
            front=self.name,
            live=self.live,
            silent_for=now - self.silent_since if self.silent_since else timedelta(-1),
            may_serve_for=MAY_SERVE,
            prepared=self.prepared,
            nack=self.nack,
            serving_at=self.serving.get(proposal),
        )


@dataclass
class Open:
    """A proposal of changes, each decided on some state of its route."""

    changes: tuple[Change, ...]
    emergency: bool


@dataclass
class Reader:
    """Who reads on, as `turnout.client.session.Session`; with what was really answered."""

    tokens: dict[str, bytes] = field(default_factory=dict)
    group: int = 0  # the newest that it knows of by its tokens
    groups: set[int] = field(default_factory=set)
    epochs: dict[str, int] = field(default_factory=dict)
    offsets: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Wish:
    """What an owner makes of a route. leaves: it gives it back with that."""

    owner: str
    version: int
    weight: int
    over: tuple[str, ...]
    leaves: bool

    def of(self, route: Route) -> Conduct:
        """The command; an experiment has a tester on its candidate, which may have no other unit."""
        actor = f"jobs/{route.job}/{self.owner}"
        counts = self.owner == EXPERIMENT and not self.leaves
        experiment = Experiment(actor, 1, Units.CALLER, overrides=(("tester", self.version),)) if counts else None
        pairs = ((route.active_version, WHOLE - self.weight), (self.version, self.weight))
        return Conduct(actor, pairs, "" if self.leaves else actor, experiment, override_gates=self.over)


wishes = st.builds(Wish, owners, versions, weights, overrides, st.booleans())
withdrawals = st.permutations(VERSIONS).flatmap(
    lambda two: st.builds(Withdraw, st.just(two[0]), st.just(two[1]), owners, st.booleans(), st.booleans())
)
"""Of an owner of whatever job."""


def said_of(question: GateQuestion, *, passed: bool) -> list[Said]:
    """The answer to all that is asked."""
    gates = (*ALWAYS_ASKED, COMPARISON, *((SHADOW,) if question.shadow else ()))
    return [Said(gate, passed, ("it is so",)) for gate in gates]


def check_kept(before: State, command: Command, change: Change) -> None:
    """What no change of a route does, whatever was asked for."""
    route = before.route
    if route is None:
        return
    demands = change.route.required_gates
    assert isinstance(command, RequireGates) or demands == route.required_gates
    for question in change.gates:
        if not question.schema_only and question.baseline is not None:
            assert (question.comparison, question.shadow) == (COMPARISON in demands, SHADOW in demands)
    if change.emergency and change.route.active_version == route.active_version:
        others = change.route.versions - {route.active_version}
        assert all(change.route.weight(version) <= route.weight(version) for version in others)
    match command:
        case CutOver():
            assert command.override_owner or route.owner in ("", command.owner)
            if change.moves_on and (route.owner or command.owner):
                assert change.way_back is not None
                assert change.way_back.versions == {route.active_version}, "nobody watches an ended split"
        case SetTraffic() | SetShadow():
            assert command.override_owner or not route.owner
        case Conduct():
            assert route.owner in ("", command.actor)
            assert change.route.owner == command.owner
            assert change.route.experiment == command.experiment
        case RequireGates():
            assert (change.route.owner, change.route.experiment) == (route.owner, route.experiment)
            assert (change.route.arms, change.route.intervals) == (route.arms, route.intervals)
        case Withdraw():
            assert change.emergency
            assert not change.gates
            assert (change.route.owner, change.route.experiment) == ("", None)
            assert command.candidate not in change.route.named or command.candidate == change.route.active_version
            assert not command.only_owned or route.owner == command.owner
