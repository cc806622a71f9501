"""Every command in every order, by several operators at once, over the pure rules of switching.

The machine stands for what the shells do with the rules: a proposal is decided on a state that may be old by the time
it is committed, fronts hear of commits late, twice or by a snapshot, leases end, reads last, and each step of a
retirement may be made again after a crash. Two jobs change alone or in one step; readers bring the tokens of what they
have seen to any front. Versions of one of the jobs are retired.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from functools import partial

import pytest
from hypothesis import HealthCheck, settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.registry import retirement as saga
from services.registry.lifecycle import State as Life
from services.registry.retirement import Asked, Call, Done, Failed, Outcome, Released, Retirement, Step
from services.switcher.adoption import Front, Verdict, adopted, not_counted, readiness
from services.switcher.gates import answers_to, refuse_failed
from services.switcher.questions import GATES
from services.switcher.refusals import released_error
from services.switcher.switch import (
    Change,
    Command,
    CutOver,
    Decision,
    MarkReinstated,
    MarkReleased,
    Nothing,
    Reinstate,
    Release,
    RequireGates,
    RollBack,
    SetShadow,
    SetTraffic,
    State,
    Withdraw,
    decide,
    stale,
)
from tests.unit.switcher.model_parts import (
    FRONTS,
    JOB,
    JOBS,
    MAY_SERVE,
    PROTECTION,
    VERSIONS,
    WITHOUT_TABLE,
    Open,
    Query,
    Reader,
    Wish,
    check_kept,
    demanded,
    fronts,
    jobs,
    operators,
    overrides,
    said_of,
    units,
    versions,
    weights,
    wishes,
    withdrawals,
)
from turnout.errors import FailedPrecondition, TurnoutError
from turnout.names import VersionId
from turnout.query.v1.query_pb2 import ReadToken
from turnout.reading.positions import Position
from turnout.reading.routing import Committed, RoutingTable
from turnout.reading.tokens import behind, carried_over, group_of, merged, parse_token, token_of
from turnout.routing import WHOLE, Route, resolve
from turnout.shadow import Shadow


class Switching(RuleBasedStateMachine):
    """The rules together."""

    def __init__(self) -> None:
        super().__init__()
        self.now = datetime(2030, 1, 1, tzinfo=UTC)
        self.states = {job: State(job) for job in JOBS}
        self.revision = 0
        self.committed: dict[str, Committed] = {}  # the newest of each job
        self.history: dict[tuple[str, int], Route] = {}  # by job and epoch
        self.steps: list[tuple[Committed, ...]] = []
        self.groups: dict[int, dict[str, int]] = {}  # of a step of several jobs: the epoch of each
        self.offsets = dict.fromkeys([(job, version) for job in JOBS for version in VERSIONS], 1)
        self.readers = (Reader(), Reader())
        self.fronts = {name: Query(name) for name in FRONTS}
        self.proposal: Open | None = None
        self.seen: dict[str, dict[str, State]] = {}  # an operator's own, maybe old, picture
        self.lives = dict.fromkeys(VERSIONS, Life.REGISTERED)
        self.retirements: dict[int, Retirement] = {}
        self.stopped: set[int] = set()
        self.dropped: set[int] = set()
        self.unprepared: set[tuple[str, int]] = set()  # by job and epoch: committed while no front was live
        self.view = 0

    @initialize(begun=st.booleans())
    def begin(self, begun: bool) -> None:
        """Most of the time there are routes already: the very beginning is a state of its own."""
        if begun:
            self.cut_over_at_once(JOBS, 1, FRONTS[0], JOBS, "u1")
            self.hear(FRONTS[0])

    # --- operators ---

    @rule(operator=operators)
    def look(self, operator: str) -> None:
        self.seen[operator] = dict(self.states)

    @rule(operator=operators, job=jobs, version=versions, over=overrides, above=st.booleans())
    def cut_over(self, operator: str, job: str, version: int, over: tuple[str, ...], above: bool) -> None:
        """above: over the head of whoever owns the route."""
        self._propose(operator, {job: CutOver(version, over, override_owner=above)})

    @rule(operator=operators, asked=st.tuples(versions, versions), over=overrides)
    def cut_over_together(self, operator: str, asked: tuple[int, int], over: tuple[str, ...]) -> None:
        self._propose(operator, {job: CutOver(version, over) for job, version in zip(JOBS, asked, strict=True)})

    @rule(operator=operators, job=jobs, version=versions, weight=weights, over=overrides, above=st.booleans())
    def split(self, operator: str, job: str, version: int, weight: int, over: tuple[str, ...], above: bool) -> None:
        route = self._seen(operator, job).route
        if route is not None and route.active_version != version:
            pairs = ((route.active_version, WHOLE - weight), (version, weight))
            self._propose(operator, {job: SetTraffic(pairs, over, override_owner=above)})

    @rule(operator=operators, version=versions, ends=st.booleans(), over=overrides)
    def shadow(self, operator: str, version: int, ends: bool, over: tuple[str, ...]) -> None:
        self._propose(operator, {JOB: SetShadow(None if ends else Shadow(version, 500), over)})

    @rule(operator=operators, job=jobs)
    def abort(self, operator: str, job: str) -> None:
        route = self._seen(operator, job).route
        if route is not None:
            self._propose(operator, {job: SetTraffic(((route.active_version, WHOLE),), override_owner=True)})
            if self.proposal is not None and self.proposal.emergency:
                self.answer_all()
                self.commit(overdue=True)

    @rule(operator=operators, chosen=st.sampled_from([(JOB,), ("trains",), JOBS]))
    def roll_back(self, operator: str, chosen: tuple[str, ...]) -> None:
        self._propose(operator, {job: RollBack() for job in chosen})

    @rule(operator=operators, job=jobs, wish=wishes, at_once=st.booleans())
    def conduct(self, operator: str, job: str, wish: Wish, at_once: bool) -> None:
        """An experiment, or a rollout, takes the route, moves its weights, or gives it back."""
        route = self._seen(operator, job).route
        if route is not None and route.active_version != wish.version:
            self._ask(operator, job, wish.of(route), at_once)

    @rule(operator=operators, job=jobs, gates=demanded, at_once=st.booleans(), back=st.booleans())
    def require_gates(self, operator: str, job: str, gates: tuple[str, ...], at_once: bool, back: bool) -> None:
        self._ask(operator, job, RequireGates(gates), at_once)
        if at_once and back:
            self._at_once(job, RollBack())

    def _ask(self, operator: str, job: str, command: Command, at_once: bool) -> None:
        if at_once:
            self._at_once(job, command)
        else:
            self._propose(operator, {job: command})

    @rule(job=jobs, asked=withdrawals, wish=wishes, came=st.integers(0, 2))
    def withdraw(self, job: str, asked: Withdraw, wish: Wish, came: int) -> None:
        """An owner takes a candidate back, maybe one that it had given units, or made active; twice is once."""
        route, owner = self.states[job].route, f"jobs/{job}/{asked.owner}"
        if came and route is not None and route.active_version != wish.version:
            asked = replace(asked, candidate=wish.version, control=route.active_version)
            self._at_once(job, replace(wish, owner=asked.owner, over=GATES, leaves=False).of(route))
            if came == 2:
                self._at_once(job, CutOver(wish.version, GATES, owner=owner))
        asked, before = replace(asked, owner=owner), self.states[job]
        self._at_once(job, asked)
        if self.states[job] != before:
            assert isinstance(decide(self.states[job], asked, self.now, PROTECTION), Nothing)

    def _at_once(self, job: str, command: Command) -> None:
        """Whoever had asked for something else is not heard of any more."""
        self.proposal = None
        self.look("ann")
        self._propose("ann", {job: command})
        if self.proposal is not None:
            self.answer_all()
            self.commit(overdue=True)

    def _seen(self, operator: str, job: str) -> State:
        return self.seen.get(operator, self.states)[job]

    def _propose(self, operator: str, asked: Mapping[str, Command]) -> None:
        try:
            decided = [self._decided(operator, job, command) for job, command in asked.items()]
        except TurnoutError:
            return
        changes = tuple(change for change in decided if isinstance(change, Change))
        emergency = all(change.emergency for change in changes)
        if changes and (self.proposal is None or (emergency and not self.proposal.emergency)):
            self.proposal = Open(changes, emergency)
            for front in self.fronts.values():
                front.prepared, front.nack = False, None

    def _decided(self, operator: str, job: str, command: Command) -> Decision:
        decision = decide(self._seen(operator, job), command, self.now, PROTECTION)
        if isinstance(decision, Change):
            check_kept(self._seen(operator, job), command, decision)
            for question in decision.gates:
                passed = question.candidate not in self._missing(job) | (self.stopped if job == JOB else set())
                said = said_of(question, passed=passed)
                refuse_failed(job, answers_to(question, said, decision.overridden))
            self._refuse_moved(decision)
        return decision

    def _refuse_moved(self, change: Change) -> None:
        route, state = change.route, self.states[change.route.job]
        if route.epoch != state.epoch + 1:
            raise stale(route.job, state.epoch)
        for version in sorted(route.named & state.released):
            raise released_error(route.job, version)

    def _missing(self, job: str) -> set[int]:
        """The versions of a job that have no table."""
        return {WITHOUT_TABLE, *(self.dropped if job == JOB else ())}

    # --- the barrier ---

    @precondition(lambda self: self.proposal)
    @rule(name=fronts)
    def answer(self, name: str) -> None:
        front, wanted = self.fronts[name], self.proposal
        assert wanted is not None
        missing = [one.route.job for one in wanted.changes if one.route.versions & self._missing(one.route.job)]
        front.prepared, front.nack = not missing, f"no table of {missing}" if missing else None

    @precondition(lambda self: self.proposal)
    @rule()
    def answer_all(self) -> None:
        for name in FRONTS:
            self.answer(name)

    @rule(
        chosen=st.sampled_from([(JOB,), (JOB,), ("trains",), JOBS]),
        version=versions,
        deaf=fronts,
        read=st.tuples(jobs, jobs),
        unit=units,
    )
    def cut_over_at_once(
        self, chosen: tuple[str, ...], version: int, deaf: str, read: tuple[str, str], unit: str
    ) -> None:
        """A whole cutover. One front reads meanwhile, one hears of it late; who has read by it reads there, too."""
        self.proposal = None  # whoever had asked for that is not heard of any more
        hearing = [name for name in FRONTS if name != deaf]
        self.begin_read(hearing[1], chosen[0], unit)
        self.look("ann")
        self._propose("ann", {job: CutOver(version, GATES, override_owner=True) for job in chosen})
        if self.proposal is not None:
            self.answer_all()
            self.commit(overdue=True)
            for name in hearing:
                self.hear(name)
            self.read_on(0, (hearing[0], deaf), read, unit, reaches=True)

    @precondition(lambda self: self.proposal)
    @rule(overdue=st.booleans())
    def commit(self, overdue: bool) -> None:
        """As the store does it: all that may have changed is looked at again."""
        wanted = self.proposal
        assert wanted is not None
        ready = readiness(self._fronts(""), emergency=wanted.emergency, overdue=overdue)
        if ready.verdict is Verdict.WAIT:
            return
        self.proposal = None
        if ready.verdict is Verdict.CANCEL:
            return
        try:
            for change in wanted.changes:
                self._refuse_moved(change)
        except TurnoutError:
            return
        live = [front for front in self.fronts.values() if front.live]
        assert all(front.prepared for front in live) or (wanted.emergency and any(front.prepared for front in live))
        if not live:
            self.unprepared |= {(change.route.job, change.route.epoch) for change in wanted.changes}
        self._committed(wanted.changes)

    def _committed(self, changes: Sequence[Change]) -> None:
        self.revision += 1
        proposal, group = f"p{self.revision}", self.revision if len(changes) > 1 else 0
        for change in changes:
            self._write(change, proposal, group)
        step = tuple(self.committed[change.route.job] for change in changes)
        self.steps.append(step)
        if group:
            self.groups[group] = {change.route.job: change.route.epoch for change in changes}
        for front in self.fronts.values():
            front.unheard.append(step)

    def _write(self, change: Change, proposal: str, group: int) -> None:
        route, job = change.route, change.route.job
        state = self.states[job]
        self.states[job] = replace(state, route=route, way_back=change.way_back, protected_until=change.protected_until)
        self.history[job, route.epoch] = route
        before = self.committed.get(job)
        kept = before.group if before is not None else 0
        self.committed[job] = Committed(self.revision, proposal, route, group or kept)
        if job == JOB:
            self.view = route.active_version
        for front in self.fronts.values():
            for version in route.named:
                front.served[VersionId(job, version)] = route.epoch

    def _fronts(self, proposal: str) -> list[Front]:
        return [front.told(self.now, proposal) for front in self.fronts.values()]

    # --- fronts ---

    @rule(name=fronts)
    def hear(self, name: str) -> None:
        front = self.fronts[name]
        if front.unheard and front.live:
            self._adopt(front, front.unheard.pop(0))

    @rule(name=fronts, which=st.integers(0, 30))
    def hear_again(self, name: str, which: int) -> None:
        front, step = self.fronts[name], self.steps[which] if which < len(self.steps) else ()
        if step and front.live and all(one.route.epoch <= front.table.epoch(one.route.job) for one in step):
            self._adopt(front, step)

    @rule(name=fronts)
    def connect(self, name: str) -> None:
        """A new stream: the snapshot has everything."""
        front = self.fronts[name]
        front.live, front.silent_since, front.unheard = True, None, []
        front.table = front.table.with_snapshot(self.revision, self.committed.values())
        for proposal in {one.proposal for one in self.committed.values()}:
            self._serving(front, proposal, [one.route for one in self.committed.values() if one.proposal == proposal])

    @rule(name=fronts)
    def disconnect(self, name: str) -> None:
        front = self.fronts[name]
        if front.live:
            front.live, front.silent_since = False, self.now

    @rule(seconds=st.integers(1, 15))
    def wait(self, seconds: int) -> None:
        self._pass(timedelta(seconds=seconds))

    def _pass(self, time: timedelta) -> None:
        self.now += time
        for front in self.fronts.values():
            if self._is_stale(front):  # it answers no more; a read lasts no longer than that
                for context, _ in front.open_reads:
                    context.__exit__(None, None, None)  # type: ignore[attr-defined]
                front.open_reads.clear()

    def _adopt(self, front: Query, step: tuple[Committed, ...]) -> None:
        before = {job: front.table.epoch(job) for job in JOBS}
        front.table = front.table.with_commit(*step)
        assert all(front.table.epoch(job) >= before[job] for job in JOBS)
        self._serving(front, step[0].proposal, [one.route for one in step])

    def _serving(self, front: Query, proposal: str, routes: Sequence[Route]) -> None:
        front.serving.setdefault(proposal, self.now)
        left = {route.job for route in routes}

        def drained(job: str) -> None:
            left.discard(job)
            if not left and front.live:
                self._drained(front, proposal)

        for route in routes:
            front.reads.when_drained(route.job, route.epoch, partial(drained, route.job))

    def _drained(self, front: Query, proposal: str) -> None:
        newest = {job: one.route.epoch for job, one in self.committed.items() if one.proposal == proposal}
        front.served = {
            version: epoch for version, epoch in front.served.items() if epoch >= newest.get(version.job, 0)
        }

    @rule(name=fronts, job=jobs, unit=units)
    def begin_read(self, name: str, job: str, unit: str) -> None:
        front = self.fronts[name]
        route = front.table.route(job)
        if route is None or self._is_stale(front):
            return
        version = front.table.resolve(job, unit).version
        assert version == resolve(route, unit)
        if version == WITHOUT_TABLE and (job, route.epoch) in self.unprepared:
            return  # TABLE_MISSING: the gates were passed over, and there was nobody to say that it has no table
        assert version not in self._missing(job)
        context = front.reads.read(job, route.epoch)
        context.__enter__()
        front.open_reads.append((context, VersionId(job, version)))

    @rule(name=fronts)
    def end_read(self, name: str) -> None:
        front = self.fronts[name]
        if front.open_reads:
            front.open_reads.pop(0)[0].__exit__(None, None, None)  # type: ignore[attr-defined]

    def _is_stale(self, front: Query) -> bool:
        return front.silent_since is not None and self.now - front.silent_since >= MAY_SERVE

    # --- readers ---

    @rule(job=jobs, version=versions, records=st.integers(1, 3))
    def apply(self, job: str, version: int, records: int) -> None:
        self.offsets[job, version] += records

    @rule(
        who=st.integers(0, 1),
        where=st.tuples(fronts, fronts),
        read=st.tuples(jobs, jobs),
        unit=units,
        reaches=st.booleans(),
    )
    def read_on(self, who: int, where: tuple[str, str], read: tuple[str, str], unit: str, reaches: bool) -> None:
        """One job and then one, maybe at two fronts. reaches: whether a front can ask the switcher for a route."""
        for name, job in zip(where, read, strict=True):
            self._read_on(self.fronts[name], self.readers[who], job, unit, reaches)

    def _read_on(self, front: Query, reader: Reader, job: str, unit: str, reaches: bool) -> None:
        """A read that brings what its reader has seen."""
        token = parse_token(carried_over(reader.tokens.get(job, b""), job, reader.group), job)
        if token is not None and (front.table.epoch(job) < token.epoch or front.table.revision < token.group):
            if not reaches or job not in self.committed:
                return  # ROUTE_BEHIND_TOKEN
            fetched = replace(self.committed[job], revision=front.table.revision, proposal="")
            front.table = front.table.with_commit(fetched)
        if front.table.route(job) is not None and not self._is_stale(front):
            for passed_over in (False, True):
                if self._answered(reader, front.table, job, unit, token, passed_over=passed_over):
                    return

    def _answered(
        self, reader: Reader, table: RoutingTable, job: str, unit: str, token: ReadToken | None, *, passed_over: bool
    ) -> bool:
        """Whether a version may answer: the one of the unit, or the active one in its place (`passed_over`)."""
        route = table.routed(job)
        over = route.versions - {route.active_version} if passed_over else frozenset()
        resolution = table.resolver(job, pinned=0, split=True, passed_over=over).of(unit)
        offset = self.offsets[job, resolution.version]
        positions = [Position("log", "id", 0, offset, None)]
        if token is not None and behind(token, positions):
            return False
        answer = token_of(job, resolution.epoch, positions, token, group=resolution.group)
        assert all(resolution.epoch >= self.groups[group].get(job, 0) for group in reader.groups)
        assert resolution.epoch >= reader.epochs.get(job, 0)
        assert offset >= reader.offsets.get(job, 0)
        reader.epochs[job], reader.offsets[job] = resolution.epoch, offset
        reader.groups |= {resolution.group} if resolution.group else set()
        reader.tokens[job] = merged(reader.tokens.get(job, b""), answer)
        reader.group = max(reader.group, group_of(answer))
        return True

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
                self._pass(timedelta(seconds=5))
            self.step(version, crash=False)

    def _call(self, call: Call, found: Retirement) -> Outcome:
        version = found.version.number
        match call:
            case Call.RELEASE:
                return self._release(version, forgo=found.forgo_rollback)
            case Call.REINSTATE:
                state = self.states[JOB]
                if isinstance(decide(state, Reinstate(version), self.now, PROTECTION), MarkReinstated):
                    self.states[JOB] = replace(state, released=state.released - {version})
            case Call.STOP_RUN:
                self.stopped.add(version)
            case Call.RESUME_RUN:
                self.stopped.discard(version)
            case Call.DROP_TABLE:
                self._drop(version)
        return Done()

    def _release(self, version: int, *, forgo: bool) -> Outcome:
        state = self.states[JOB]
        try:
            decision = decide(state, Release(version, forgo), self.now, PROTECTION)
        except TurnoutError as error:
            return Failed(error)
        if isinstance(decision, MarkReleased):
            self.states[JOB] = replace(state, released=state.released | {version})
        named = VersionId(JOB, version)
        undrained = tuple(
            front.name for front in self.fronts.values() if named in front.served and not self._is_stale(front)
        )
        return Released(undrained, not undrained, self.view == version)

    def _drop(self, version: int) -> None:
        for front in self.fronts.values():
            route = front.table.route(JOB)
            assert self._is_stale(front) or route is None or version not in route.named
            assert all(read != VersionId(JOB, version) for _, read in front.open_reads)
        state = self.states[JOB]
        assert state.route is None or version not in state.route.named
        assert version in state.released
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
            for job, known in front.table.committed.items():
                assert known.route == self.history[job, known.route.epoch]

    @invariant()
    def no_route_names_what_is_released_or_gone(self) -> None:
        for job, state in self.states.items():
            named = state.route.named if state.route else frozenset()
            assert not named & state.released
            assert job != JOB or not named & self.dropped

    @invariant()
    def adoption_is_told_only_when_it_is_so(self) -> None:
        for job, one in self.committed.items():
            told = self._fronts(one.proposal)
            if adopted(told):
                behind = {front.name for front in self.fronts.values() if front.table.epoch(job) < one.route.epoch}
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


TestSwitching = pytest.mark.long(Switching.TestCase)
TestSwitching.settings = settings(
    max_examples=200,
    stateful_step_count=60,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow],  # on a busy machine
)
