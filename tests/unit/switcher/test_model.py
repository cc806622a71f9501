"""Every command in every order, by several operators at once, over the pure rules of switching.

The machine stands for what the shells do with the rules: a proposal is decided on a state that may be old by the time
it is committed, fronts hear of commits late, twice or by a snapshot, leases end, reads last, and each step of a
retirement may be made again after a crash.
"""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from datetime import UTC, datetime, timedelta

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from services.registry import retirement as saga
from services.registry.lifecycle import State as Life
from services.registry.retirement import Asked, Call, Done, Failed, Outcome, Released, Retirement, Step
from services.switcher.adoption import Front, Verdict, adopted, not_counted, readiness
from services.switcher.gates import Said, answers_to, refuse_failed
from services.switcher.switch import (
    ALWAYS_ASKED,
    GATES,
    Change,
    Command,
    CutOver,
    MarkReinstated,
    MarkReleased,
    Reinstate,
    Release,
    RollBack,
    SetShadow,
    SetTraffic,
    State,
    decide,
    released_error,
    stale,
)
from turnout.errors import FailedPrecondition, TurnoutError
from turnout.names import VersionId
from turnout.reading.inflight import InFlight
from turnout.reading.routing import Committed, RoutingTable
from turnout.routing import WHOLE, Route, resolve
from turnout.shadow import Shadow

JOB = "flights"
FRONTS = ("a", "b", "c")
VERSIONS = (1, 2, 3, 4)
WITHOUT_TABLE = 4
MAY_SERVE = timedelta(seconds=10)
PROTECTION = timedelta(seconds=30)

fronts = st.sampled_from(FRONTS)
versions = st.sampled_from(VERSIONS)
operators = st.sampled_from(("ann", "bob"))
overrides = st.sampled_from([(), GATES])
weights = st.sampled_from([0, 1, 500, 5000, WHOLE])


@dataclass
class Query:
    """A front: what it serves by, and what the switcher remembers of it."""

    name: str
    table: RoutingTable = field(default_factory=RoutingTable)
    reads: InFlight = field(default_factory=InFlight)
    open_reads: list[tuple[object, int]] = field(default_factory=list)  # with the version that is read
    unheard: list[Committed] = field(default_factory=list)
    live: bool = True
    silent_since: datetime | None = None
    prepared: bool = False
    nack: str | None = None
    serving: dict[int, datetime] = field(default_factory=dict)
    served: dict[int, int] = field(default_factory=dict)  # undrained: version -> the newest epoch that names it


@dataclass
class Open:
    """A proposal, and on which state it was decided."""

    change: Change
    emergency: bool


class Switching(RuleBasedStateMachine):
    """The rules together."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.state = State(JOB)
        self.revision = 0
        self.history: dict[int, Route] = {}
        self.fronts = {name: Query(name) for name in FRONTS}
        self.proposal: Open | None = None
        self.seen: dict[str, State] = {}  # an operator's own, maybe old, picture
        self.lives = dict.fromkeys(VERSIONS, Life.REGISTERED)
        self.retirements: dict[int, Retirement] = {}
        self.stopped: set[int] = set()
        self.dropped: set[int] = set()
        self.view = 0

    # --- operators ---

    @rule(operator=operators)
    def look(self, operator: str) -> None:
        self.seen[operator] = self.state

    @rule(operator=operators, version=versions, over=overrides)
    def cut_over(self, operator: str, version: int, over: tuple[str, ...]) -> None:
        self._propose(operator, CutOver(version, over))

    @rule(operator=operators, version=versions, weight=weights, over=overrides)
    def split(self, operator: str, version: int, weight: int, over: tuple[str, ...]) -> None:
        route = self.seen.get(operator, self.state).route
        if route is not None and route.active_version != version:
            pairs = ((route.active_version, WHOLE - weight), (version, weight))
            self._propose(operator, SetTraffic(pairs, over))

    @rule(operator=operators, version=versions, ends=st.booleans(), over=overrides)
    def shadow(self, operator: str, version: int, ends: bool, over: tuple[str, ...]) -> None:
        self._propose(operator, SetShadow(None if ends else Shadow(version, 500), over))

    @rule(operator=operators)
    def abort(self, operator: str) -> None:
        route = self.seen.get(operator, self.state).route
        if route is not None:
            self._propose(operator, SetTraffic(((route.active_version, WHOLE),)))
            if self.proposal is not None and self.proposal.emergency:
                self.answer_all()
                self.commit(overdue=True)

    @rule(operator=operators)
    def roll_back(self, operator: str) -> None:
        self._propose(operator, RollBack())

    def _propose(self, operator: str, command: Command) -> None:
        try:
            decision = decide(self.seen.get(operator, self.state), command, self.now, PROTECTION)
            if not isinstance(decision, Change):
                return
            for question in decision.gates:
                passed = question.candidate not in self.stopped | self.dropped | {WITHOUT_TABLE}
                said = [Said(gate, passed, ("it is so",)) for gate in ALWAYS_ASKED]
                refuse_failed(JOB, answers_to(question, said, decision.overridden))
            if decision.route.epoch != self.state.epoch + 1:
                raise stale(JOB, self.state.epoch)
        except TurnoutError:
            return
        if self.proposal is None:
            self.proposal = Open(decision, decision.emergency)
            for front in self.fronts.values():
                front.prepared, front.nack = False, None

    # --- the barrier ---

    @precondition(lambda self: self.proposal)
    @rule(name=fronts)
    def answer(self, name: str) -> None:
        front, wanted = self.fronts[name], self.proposal
        assert wanted is not None
        missing = wanted.change.route.versions & (self.dropped | {WITHOUT_TABLE})
        front.prepared, front.nack = not missing, f"no table of {sorted(missing)}" if missing else None

    @precondition(lambda self: self.proposal)
    @rule()
    def answer_all(self) -> None:
        for name in FRONTS:
            self.answer(name)

    @precondition(lambda self: not self.proposal)
    @rule(version=versions, deaf=st.sampled_from([None, *FRONTS]))
    def cut_over_at_once(self, version: int, deaf: str | None) -> None:
        """A whole cutover, of which one front may hear only later."""
        self.look("ann")
        self._propose("ann", CutOver(version, GATES))
        if self.proposal is not None:
            self.answer_all()
            self.commit(overdue=True)
            for name in FRONTS:
                if name != deaf:
                    self.hear(name)

    @precondition(lambda self: self.proposal)
    @rule(overdue=st.booleans())
    def commit(self, overdue: bool) -> None:
        """As the store does it: all that may have changed is looked at again."""
        wanted = self.proposal
        assert wanted is not None
        ready = readiness(self._fronts(0), emergency=wanted.emergency, overdue=overdue)
        if ready.verdict is Verdict.WAIT:
            return
        self.proposal = None
        if ready.verdict is Verdict.CANCEL:
            return
        change = wanted.change
        try:
            if change.route.epoch != self.state.epoch + 1:
                raise stale(JOB, self.state.epoch)
            for version in sorted(change.route.named & self.state.released):
                raise released_error(JOB, version)
        except TurnoutError:
            return
        self._committed(change, wanted.emergency)

    def _committed(self, change: Change, emergency: bool) -> None:
        before = self.state.route
        self.revision += 1
        self.state = replace(
            self.state, route=change.route, way_back=change.way_back, protected_until=change.protected_until
        )
        self.history[change.route.epoch] = change.route
        self.view = change.route.active_version
        live = [front for front in self.fronts.values() if front.live]
        if not emergency:
            assert all(front.prepared for front in live)
        else:
            assert not live or any(front.prepared for front in live)
        if emergency and before is not None and change.route.active_version == before.active_version:
            assert all(change.route.weight(v) == 0 for v in VERSIONS if v != before.active_version)
        for front in self.fronts.values():
            front.unheard.append(Committed(self.revision, f"p{change.route.epoch}", change.route))
            for version in change.route.named:
                front.served[version] = change.route.epoch

    def _fronts(self, epoch: int) -> list[Front]:
        return [
            Front(
                front=front.name,
                live=front.live,
                silent_for=self.now - front.silent_since if front.silent_since else timedelta(-1),
                may_serve_for=MAY_SERVE,
                prepared=front.prepared,
                nack=front.nack,
                serving_at=front.serving.get(epoch),
            )
            for front in self.fronts.values()
        ]

    # --- fronts ---

    @rule(name=fronts)
    def hear(self, name: str) -> None:
        front = self.fronts[name]
        if front.unheard and front.live:
            self._adopt(front, front.unheard.pop(0))

    @rule(name=fronts, epoch=st.integers(1, 30))
    def hear_again(self, name: str, epoch: int) -> None:
        front, route = self.fronts[name], self.history.get(epoch)
        if front.live and route is not None and epoch <= front.table.epoch(JOB):
            self._adopt(front, Committed(0, f"p{epoch}", route))

    @rule(name=fronts)
    def connect(self, name: str) -> None:
        """A new stream: the snapshot has everything."""
        front = self.fronts[name]
        front.live, front.silent_since, front.unheard = True, None, []
        routes = [Committed(self.revision, f"p{self.state.epoch}", self.state.route)] if self.state.route else []
        front.table = front.table.with_snapshot(self.revision, routes)
        if self.state.route:
            self._serving(front, self.state.route)

    @rule(name=fronts)
    def disconnect(self, name: str) -> None:
        front = self.fronts[name]
        if front.live:
            front.live, front.silent_since = False, self.now

    @rule(seconds=st.integers(1, 15))
    def wait(self, seconds: int) -> None:
        self.now += timedelta(seconds=seconds)
        for front in self.fronts.values():
            if self._is_stale(front):  # it answers no more; a read lasts no longer than that
                for context, _ in front.open_reads:
                    context.__exit__(None, None, None)  # type: ignore[attr-defined]
                front.open_reads.clear()

    def _adopt(self, front: Query, committed: Committed) -> None:
        before = front.table.epoch(JOB)
        front.table = front.table.with_commit(committed)
        assert front.table.epoch(JOB) >= before
        self._serving(front, committed.route)

    def _serving(self, front: Query, route: Route) -> None:
        front.serving.setdefault(route.epoch, self.now)
        front.reads.when_drained(JOB, route.epoch, lambda: self._drained(front, route.epoch))

    def _drained(self, front: Query, epoch: int) -> None:
        if front.live:
            front.served = {version: newest for version, newest in front.served.items() if newest >= epoch}

    @rule(name=fronts, unit=st.sampled_from([f"u{n}" for n in range(50)]))
    def begin_read(self, name: str, unit: str) -> None:
        front = self.fronts[name]
        route = front.table.route(JOB)
        if route is None or self._is_stale(front):
            return
        version = front.table.resolve(JOB, unit).version
        assert version == resolve(route, unit)
        assert version not in self.dropped
        context = front.reads.read(JOB, route.epoch)
        context.__enter__()
        front.open_reads.append((context, version))

    @rule(name=fronts)
    def end_read(self, name: str) -> None:
        front = self.fronts[name]
        if front.open_reads:
            front.open_reads.pop(0)[0].__exit__(None, None, None)  # type: ignore[attr-defined]

    def _is_stale(self, front: Query) -> bool:
        return front.silent_since is not None and self.now - front.silent_since >= MAY_SERVE

    # --- retirement ---

    @rule(version=versions, forgo=st.booleans())
    def retire(self, version: int, forgo: bool) -> None:
        asked = Asked(timedelta(seconds=5), forgo, "ann")
        found = self.retirements.get(version)
        try:
            self._store(version, saga.retire(VersionId(JOB, version), self.lives[version], found, asked, self.now))
        except TurnoutError:
            return

    @rule(version=versions)
    def unretire(self, version: int) -> None:
        found = self.retirements.get(version)
        try:
            change = saga.unretire(VersionId(JOB, version), self.lives[version], found, "bob", self.now)
        except FailedPrecondition:
            assert version in self.dropped or (found is not None and found.step in (Step.DROP, Step.DONE))
            return
        self._store(version, change)

    @rule(version=versions, crash=st.booleans())
    def step(self, version: int, crash: bool) -> None:
        """Make the call of the stored step; after a crash its outcome is forgotten."""
        found = self.retirements.get(version)
        if found is None:
            return
        action = saga.next_action(found, self.lives[version], self.now)
        if not isinstance(action, Call):
            return
        outcome = self._call(action, found)
        if not crash:
            self._store(version, saga.after(found, self.lives[version], outcome, self.now))

    @rule(version=versions, steps=st.integers(1, 6))
    def retire_on(self, version: int, steps: int) -> None:
        """A retirement that nobody disturbs for some steps."""
        self.retire(version, forgo=True)
        for _ in range(steps):
            found = self.retirements.get(version)
            if found is not None and found.step is Step.RETAIN:
                self.now += timedelta(seconds=5)
            self.step(version, crash=False)

    def _call(self, call: Call, found: Retirement) -> Outcome:
        version = found.version.number
        match call:
            case Call.RELEASE:
                return self._release(version, forgo=found.forgo_rollback)
            case Call.REINSTATE:
                decision = decide(self.state, Reinstate(version), self.now, PROTECTION)
                if isinstance(decision, MarkReinstated):
                    self.state = replace(self.state, released=self.state.released - {version})
            case Call.STOP_RUN:
                self.stopped.add(version)
            case Call.RESUME_RUN:
                self.stopped.discard(version)
            case Call.DROP_TABLE:
                self._drop(version)
        return Done()

    def _release(self, version: int, *, forgo: bool) -> Outcome:
        try:
            decision = decide(self.state, Release(version, forgo), self.now, PROTECTION)
        except TurnoutError as error:
            return Failed(error)
        if isinstance(decision, MarkReleased):
            self.state = replace(self.state, released=self.state.released | {version})
        undrained = tuple(
            front.name for front in self.fronts.values() if version in front.served and not self._is_stale(front)
        )
        return Released(undrained, not undrained, self.view == version)

    def _drop(self, version: int) -> None:
        for front in self.fronts.values():
            route = front.table.route(JOB)
            assert self._is_stale(front) or route is None or version not in route.named
            assert all(read != version for _, read in front.open_reads)
        assert self.state.route is None or version not in self.state.route.named
        assert version in self.state.released
        self.dropped.add(version)

    def _store(self, version: int, change: saga.Change | None) -> None:
        if change is None:
            return
        self.lives[version] = change.state
        if change.retirement is None:
            self.retirements.pop(version, None)
        else:
            self.retirements[version] = change.retirement

    # --- what always holds ---

    @invariant()
    def every_front_serves_what_was_committed(self) -> None:
        for front in self.fronts.values():
            route = front.table.route(JOB)
            assert route is None or route == self.history[route.epoch]

    @invariant()
    def no_route_names_what_is_released_or_gone(self) -> None:
        named = self.state.route.named if self.state.route else frozenset()
        assert not named & self.state.released
        assert not named & self.dropped

    @invariant()
    def adoption_is_told_only_when_it_is_so(self) -> None:
        epoch = self.state.epoch
        told = self._fronts(epoch)
        if epoch and adopted(told):
            behind = {front.name for front in self.fronts.values() if front.table.epoch(JOB) < epoch}
            may_serve = {name for name in behind if not self._is_stale(self.fronts[name])}
            assert may_serve <= set(not_counted(told))

    @invariant()
    def what_is_gone_stays_gone(self) -> None:
        for version, life in self.lives.items():
            assert (life is Life.DROPPED) <= (version in self.dropped)
            found = self.retirements.get(version)
            if version in self.dropped and life is not Life.DROPPED:
                assert found is not None
                assert found.step is Step.DROP


TestSwitching = Switching.TestCase
TestSwitching.settings = settings(max_examples=200, stateful_step_count=60, deadline=None)
