"""Any order of looks, acts, crashes, late acts, verbs and changes by others: what a rollout promises holds throughout.

An act may be sent by several switchers, arrive late or twice, and its answer may be lost; everything else that a
switcher does is one compare-and-set on the stored rollout. So every crash is a lost answer, or an act that is not sent.
"""

from collections.abc import Callable

import msgspec
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from services.switcher.rollouts.acts import ON_ROUTE, Act, ActKind, Done, Later, Refused, acted, due
from services.switcher.rollouts.commands import abort, pause, promote, resume
from services.switcher.rollouts.plan import Gate, Plan, StepKind
from services.switcher.rollouts.rollout import (
    CLAIM,
    Hold,
    Overruling,
    Phase,
    Rollout,
    Seen,
    State,
    advanced,
    asks,
    overruled,
    overruling,
)
from services.switcher.rollouts.verdicts import Finding, GateVerdict
from services.switcher.switch import Command, CutOver, RollBack, SetTraffic
from tests.unit.switcher.rollouts.made import APPROVE, CANDIDATE, CONTROL, EVERYTHING, at, new, passing, plans, say
from tests.unit.switcher.rollouts.world import World
from turnout.errors import TurnoutError
from turnout.routing import WHOLE

# Mostly good news, or no rollout would get far.
VERDICTS = st.sampled_from([GateVerdict.PASS] * 12 + [GateVerdict.WAIT] * 2 + list(GateVerdict))
UNDECIDED = (State.RUNNING, State.PAUSED)
OTHER = 7
"""A version that the rollout has nothing to do with."""
OVERRULINGS: dict[str, tuple[Command, ...]] = {
    "no traffic": (CutOver(CONTROL, override_owner=True),),
    "some traffic": (SetTraffic(((CONTROL, 9300), (CANDIDATE, 700)), override_owner=True),),
    "cut over": (CutOver(CANDIDATE, override_owner=True),),
    "rollback": (RollBack(),),
    "cut over to another": (CutOver(OTHER, override_owner=True),),
    "cut over anew": (CutOver(OTHER, override_owner=True), CutOver(CANDIDATE)),
    "cut over and rollback": (CutOver(OTHER, override_owner=True), RollBack()),
}
"""What a person may make of the route."""


class RolloutMachine(RuleBasedStateMachine):
    """One rollout, its world, and all acts that were ever sent."""

    def __init__(self) -> None:
        super().__init__()
        self.stored: Rollout = new()
        self.world = World()
        self.sent: list[tuple[Act, Rollout]] = []
        self.now_s = 0.0

    @initialize(plan=plans(), rounds=st.integers(0, 20))
    def begin(self, plan: Plan, rounds: int = 0) -> None:
        """Somewhere on the way: what goes wrong at the start is tried often enough."""
        self.stored = new(plan)
        for _ in range(rounds):
            if self.stored.step < len(plan.steps) - 1:
                self._with_good_news()

    # --- the switcher ---

    @rule(data=st.data(), seconds=st.floats(0, 40))
    def look(self, data: st.DataObject, seconds: float) -> None:
        self.now_s += seconds
        asked = asks(self.stored)
        findings = [say(data.draw(VERDICTS), gate)[0] for gate in asked if data.draw(st.integers(0, 30))]
        self._look(tuple(findings))

    @rule()
    def look_at_good_news(self) -> None:
        self.now_s += 30.0
        self._look(passing(self.stored))

    def _look(self, findings: tuple[Finding, ...]) -> None:
        before = self.stored
        how, what = overruled(before, self.world.seen), overruling(before, self.world.seen)
        self.stored = advanced(before, Seen(findings, how, what), at(self.now_s))
        self._follows(before, findings, how, what)

    def _follows(self, before: Rollout, findings: tuple[Finding, ...], how: str, what: Overruling) -> None:
        """What must follow from a look, whatever came before."""
        after, asked = self.stored, asks(before)
        said = {one.gate: one.verdict for one in findings}
        watched = before.state in UNDECIDED and before.step != CLAIM
        if GateVerdict.FAIL in said.values() or (watched and how and what is Overruling.ROLLED_BACK):
            assert after.state is State.ROLLING_BACK
            assert due(after) is not None, "nothing holds the way back up"
            return
        assert after.state is before.state or after.state is State.PAUSED
        if before.state is State.PAUSED or how:
            assert after.step == before.step
        if before.state is State.RUNNING and (len(said) < len(asked) or GateVerdict.STALE in said.values()):
            assert due(after) is None
            assert after.step == before.step
            assert after.frozen or after.state is State.PAUSED
        if after.step != before.step:
            step = before.present
            assert step is not None
            assert before.phase is Phase.WATCHING
            assert step.kind is not StepKind.APPROVE
            good = {gate for gate, verdict in said.items() if verdict is GateVerdict.PASS}
            assert set(step.gates) - {Gate.SPREAD} <= good
            assert Gate.SPREAD in good | set(before.passed_over) | (set(Gate) - set(step.gates))
            assert before.watched_s - before.unread_s + 30.0 >= step.for_s

    @rule()
    def send(self) -> None:
        act = due(self.stored)
        if act is not None and (act, self.stored) not in self.sent:
            self.sent.append((act, self.stored))

    @precondition(lambda self: self.sent)
    @rule(data=st.data(), lost=st.booleans())
    def arrive(self, data: st.DataObject, lost: bool) -> None:
        """An act arrives, be it for the second time or much too late; its answer is stored, or lost."""
        self._arrive(*data.draw(st.sampled_from(self.sent)), lost=lost)

    @rule()
    def take_the_newest(self) -> None:
        self.send()
        act = due(self.stored)
        if act is not None:
            self._arrive(act, self.stored, lost=False)

    def _arrive(self, act: Act, sent_by: Rollout, *, lost: bool) -> None:
        before, route = self.stored, self.world.route
        result = self.world.carry_out(act, sent_by, self.stored)
        if self.world.route != route:
            assert act.kind in ON_ROUTE
            assert due(before) == act, "only what is due changes the route"
            assert before.state in (State.PENDING, State.RUNNING, State.ROLLING_BACK)
        if not lost:
            self.stored = acted(self.stored, act, result, at(self.now_s))

    @precondition(lambda self: due(self.stored) is not None)
    @rule(result=st.sampled_from([Later("The replayer is away."), Refused("It cannot be.")]))
    def not_done(self, result: Later | Refused) -> None:
        act = due(self.stored)
        assert act is not None
        if act.request_id in self.world.answered:
            return  # whoever asks once more gets the first answer
        before = self.stored
        self.stored = acted(before, act, result, at(self.now_s))
        if isinstance(result, Later):
            assert due(self.stored) == act, "it is repeated under the same id"
        elif before.state in (State.PENDING, State.ROLLING_BACK):
            assert self.stored.state is State.ROLLING_BACK, "the route is given back, should it have been claimed"
        else:
            assert self.stored.state is State.PAUSED

    # --- people ---

    def _say(self, verb: Callable[[Rollout], Rollout]) -> None:
        """Say it twice: the second time changes nothing."""
        before = self.stored
        try:
            self.stored = verb(before)
        except TurnoutError:
            return
        assert verb(self.stored) is self.stored

    @rule()
    def pause(self) -> None:
        self._say(lambda rollout: pause(rollout, "Somebody paused it.", at(self.now_s)))

    @rule()
    def resume(self) -> None:
        self._say(lambda rollout: resume(rollout, "Somebody resumed it.", at(self.now_s)))

    @rule(ahead=st.sampled_from([0, 0, 0, -1, 1]))
    def promote(self, ahead: int) -> None:
        before, place = self.stored, self.stored.step + ahead
        self._say(lambda rollout: promote(rollout, place, "Somebody promoted it.", at(self.now_s)))
        if self.stored.step != before.step:
            passed = before.plan.steps[before.step]
            assert before.phase is Phase.WATCHING or passed.kind in (StepKind.COMPARE, StepKind.SHADOW)

    @precondition(lambda self: self.now_s > 300)
    @rule()
    def abort(self) -> None:
        over = self.stored.state.over
        before = self.stored
        self._say(lambda rollout: abort(rollout, "Somebody aborted it.", at(self.now_s)))
        assert (self.stored is before) if over else (self.stored.state is State.ROLLING_BACK)

    @precondition(lambda self: self.now_s > 300 and self.stored.claimed)
    @rule(how=st.sampled_from(list(OVERRULINGS)))
    def overrule(self, how: str) -> None:
        self.world.overrule(*OVERRULINGS[how])

    @precondition(lambda self: self.now_s > 300 and self.world.weight == WHOLE)
    @rule(drop=st.booleans())
    def retire(self, drop: bool) -> None:
        """Somebody forgoes the way back; the candidate stays where it is."""
        self.world.retire(drop=drop)

    # --- what holds throughout ---

    @invariant()
    def the_candidate_has_no_more_than_the_rollout_knows_of(self) -> None:
        if self.stored.state in UNDECIDED and not self.world.changed_over_its_head:
            assert self.world.weight in (self.stored.exposed, self.stored.target)
            if self.world.weight:
                assert Gate.RUN in asks(self.stored), "whoever has readers is watched"
            if 0 < self.world.weight < WHOLE:
                assert {Gate.HARM, Gate.SPREAD} <= set(asks(self.stored))

    @invariant()
    def it_ends_with_none_or_with_all(self) -> None:
        if self.stored.state.over:
            assert not self.world.owned
        if self.stored.state.over and not self.world.changed_over_its_head:
            assert self.world.weight == (WHOLE if self.stored.state is State.SUCCEEDED else 0)

    @invariant()
    def what_is_stored_is_all(self) -> None:
        assert msgspec.json.decode(msgspec.json.encode(self.stored), type=Rollout) == self.stored

    @invariant()
    def it_says_why_it_waits(self) -> None:
        if self.stored.state is State.PAUSED:
            assert self.stored.why
            assert self.stored.waits_for
            assert due(self.stored) is None
        if self.stored.state is State.RUNNING and due(self.stored) is None:
            assert self.stored.frozen or self.stored.phase is Phase.WATCHING

    def _with_good_news(self) -> None:
        """One look and one act further, with a person who says yes, unless others have cut over for good."""
        if self.stored.hold is Hold.REFUSED and self.world.changed_over_its_head:
            self.stored = abort(self.stored, "It was cut over by hand.", at(self.now_s))
        if self.stored.state is State.PAUSED:
            self.stored = resume(self.stored, "Go on.", at(self.now_s))
        step = self.stored.present
        if self.stored.state is State.RUNNING and step is not None and step.kind is StepKind.APPROVE:
            self.stored = promote(self.stored, self.stored.step, "Yes.", at(self.now_s))
        self.look_at_good_news()
        self.take_the_newest()

    def teardown(self) -> None:
        """From wherever it is, good news bring it to its end."""
        for _ in range(2000):
            if self.stored.state.over:
                break
            self._with_good_news()
        assert self.stored.state.over
        self.it_ends_with_none_or_with_all()


TestRollout = RolloutMachine.TestCase
TestRollout.settings = settings(max_examples=150, stateful_step_count=60, deadline=None)


def test_a_late_retirement_does_not_close_the_way_back() -> None:
    """The retirement was sent, taken back by an abort, and arrives only then."""
    machine = RolloutMachine()
    machine.begin(Plan(new().plan.steps[-3:]))
    while not machine.stored.retiring:
        machine.take_the_newest()
        machine.look_at_good_news()
    retire = due(machine.stored)
    assert retire is not None
    machine.stored = abort(machine.stored, "No.", at(machine.now_s))
    machine.take_the_newest()
    assert isinstance(machine.world.carry_out(retire, machine.stored, machine.stored), Done)
    assert retire.kind is ActKind.RETIRE
    machine.teardown()
    assert (machine.stored.state, machine.world.weight, machine.world.retiring) == (State.ABORTED, 0, False)


ON_THE_WAY = [
    ActKind.CLAIM,
    ActKind.START_RUN,
    ActKind.COMPARE,
    ActKind.SHADOW,
    ActKind.EXPOSE,
    ActKind.EXPOSE,
    ActKind.CUT_OVER,
    ActKind.RETIRE,
]
"""The acts of a plan with each kind of step, before the last one."""


@pytest.mark.parametrize("back", [False, True])
def test_an_act_whose_answer_was_lost_is_done_once(back: bool) -> None:
    """Of each kind; whoever takes over sends it again."""
    machine = RolloutMachine()
    machine.stored = new(EVERYTHING)
    while not machine.stored.state.over:
        machine.look_at_good_news()
        if machine.stored.present == APPROVE:
            machine.promote(0)
        if back and machine.stored.retiring:
            machine.stored = abort(machine.stored, "No.", at(machine.now_s))
        act = due(machine.stored)
        if act is not None:
            machine._arrive(act, machine.stored, lost=True)
            machine._arrive(act, machine.stored, lost=False)
    after = [ActKind.TAKE_BACK, ActKind.WITHDRAW] if back else [ActKind.RELEASE]
    assert machine.world.done == [*(ON_THE_WAY[:-1] if back else ON_THE_WAY), *after]
    assert machine.stored.state is (State.ABORTED if back else State.SUCCEEDED)
    assert {*ON_THE_WAY, ActKind.RELEASE, ActKind.TAKE_BACK, ActKind.WITHDRAW} == set(ActKind)
