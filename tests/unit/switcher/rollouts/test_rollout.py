"""A rollout step by step: what it does, what it waits for, and where it goes."""

from typing import cast

import msgspec
import pytest

from services.switcher.rollouts.acts import Act, ActKind, Done, Later, Overruled, Refused, Result, acted, due
from services.switcher.rollouts.commands import abort, pause, promote, resume
from services.switcher.rollouts.plan import Gate, Plan, StepKind
from services.switcher.rollouts.rollout import (
    GAP_MAX_S,
    Hold,
    Overruling,
    Phase,
    Rollout,
    RouteSeen,
    Seen,
    State,
    advanced,
    asks,
    overruled,
    overruling,
)
from services.switcher.rollouts.verdicts import GateVerdict
from tests.unit.switcher.rollouts.made import (
    ALL,
    CANDIDATE,
    CONTROL,
    EVERYTHING,
    MORE,
    RETIRE,
    SOAK,
    SOME,
    at,
    new,
    passing,
    say,
)
from turnout.errors import FailedPrecondition, InvalidInput
from turnout.routing import WHOLE

WHY = "Ada said so."


class Driven:
    """A rollout that is driven by hand; every act that was due, in its order."""

    def __init__(self, plan: Plan = EVERYTHING) -> None:
        self.rollout = new(plan)
        self.now_s = 0.0
        self.acts: list[Act] = []

    def act(self, result: Result = Done()) -> Rollout:  # noqa: B008  # a value
        act = due(self.rollout)
        assert act is not None
        self.acts.append(act)
        self.rollout = acted(self.rollout, act, result, at(self.now_s))
        return self.rollout

    def look(self, verdict: GateVerdict = GateVerdict.PASS, *gates: Gate, after_s: float = 1.0) -> Rollout:
        """All gates pass, but those named say the verdict."""
        self.now_s += after_s
        findings = (*passing(self.rollout), *say(verdict, *gates))
        self.rollout = advanced(self.rollout, Seen(findings), at(self.now_s))
        return self.rollout

    def until(self, kind: StepKind, phase: Phase = Phase.TAKING, share: int = 0) -> Rollout:
        """Good news, until it is about to take a step of this kind, or is watching it."""
        for _ in range(200):
            step, rollout = self.rollout.present, self.rollout
            if step and (step.kind, rollout.phase) == (kind, phase) and share in (0, step.share):
                return rollout
            if due(rollout) is not None:
                self.act()
            elif step is not None and step.kind is StepKind.APPROVE:
                self.rollout = promote(rollout, rollout.step, WHY, at(self.now_s))
            else:
                self.look(after_s=30.0)
        raise AssertionError(self.rollout)


def test_every_step_is_taken_once_and_in_its_order() -> None:
    driven = Driven()
    driven.until(StepKind.RETIRE, Phase.WATCHING)
    driven.look()
    driven.act()
    assert [(act.kind, act.share) for act in driven.acts] == [
        (ActKind.CLAIM, 0),
        (ActKind.START_RUN, 0),
        (ActKind.COMPARE, 0),
        (ActKind.SHADOW, 1000),
        (ActKind.EXPOSE, 500),
        (ActKind.EXPOSE, 2500),
        (ActKind.CUT_OVER, 0),
        (ActKind.RETIRE, 0),
        (ActKind.RELEASE, 0),
    ]
    assert len({act.request_id for act in driven.acts}) == len(driven.acts)
    assert (driven.rollout.state, driven.rollout.exposed, due(driven.rollout)) == (State.SUCCEEDED, WHOLE, None)


def test_an_act_is_repeated_under_the_same_id_until_its_result_is_known() -> None:
    driven = Driven()
    first = due(driven.rollout)
    assert driven.act(Later("The fronts are away.")).waits_for == "The fronts are away."
    assert due(driven.rollout) == first
    driven.act()
    again = acted(driven.rollout, cast(Act, first), Done(), at(1))
    assert again is driven.rollout, "an answer that comes twice changes nothing"


def test_watching_takes_its_time_and_an_outage_is_no_time() -> None:
    driven = Driven()
    driven.until(StepKind.TRAFFIC, Phase.WATCHING)
    driven.look()
    driven.look(after_s=20)
    assert driven.rollout.waits_for == "0:00:40 more of traffic 5 %"
    driven.look(after_s=100_000)
    assert driven.rollout.watched_s == 20 + GAP_MAX_S
    driven.look(GateVerdict.STALE, Gate.HARM)
    assert "harm says STALE." in driven.rollout.frozen
    driven.look(after_s=20)
    assert driven.rollout.watched_s == 20 + GAP_MAX_S, "nobody saw how it did meanwhile"
    assert driven.look(after_s=10).present == MORE


def test_time_without_a_read_that_is_counted_shows_nothing_and_ends_at_the_limit_all_the_same() -> None:
    driven = Driven()
    driven.until(StepKind.TRAFFIC, Phase.WATCHING)
    driven.look()
    for _ in range(5):
        driven.look(GateVerdict.WAIT, Gate.HARM, after_s=20)
    assert (driven.rollout.present, driven.rollout.waits_for) == (SOME, "harm says WAIT.")
    driven.look(after_s=20)
    assert driven.rollout.waits_for == "0:00:40 more of traffic 5 %"
    driven.until(StepKind.TRAFFIC, Phase.WATCHING, share=2500)
    for _ in range(22):
        driven.look(GateVerdict.WAIT, Gate.HARM, after_s=30)
    assert driven.rollout.hold is Hold.INCONCLUSIVE
    driven.rollout = promote(driven.rollout, driven.rollout.step, WHY, at(driven.now_s))
    assert driven.rollout.state is State.RUNNING


def test_a_clock_that_goes_back_takes_no_time_away() -> None:
    driven = Driven()
    driven.until(StepKind.SOAK, Phase.WATCHING)
    driven.look()
    driven.look(after_s=5)
    assert driven.look(after_s=-100).watched_s == 5


def test_a_gate_that_fails_takes_the_candidate_back_whatever_else_is_stale() -> None:
    driven = Driven()
    driven.until(StepKind.TRAFFIC, Phase.WATCHING, share=2500)
    driven.rollout = advanced(
        driven.rollout,
        Seen((*say(GateVerdict.FAIL, Gate.HARM), *say(GateVerdict.STALE, Gate.RUN)), "It was changed."),
        at(999),
    )
    assert (driven.rollout.state, driven.rollout.why) == (State.ROLLING_BACK, "harm says FAIL.")
    assert cast(Act, due(driven.rollout)).kind is ActKind.WITHDRAW
    assert driven.act().state is State.ROLLED_BACK
    assert (driven.rollout.exposed, driven.rollout.why) == (0, "harm says FAIL.")


@pytest.mark.parametrize("hold", [Hold.PERSON, Hold.INCONCLUSIVE, Hold.REFUSED])
def test_a_pause_does_not_hold_the_way_back_up(hold: Hold) -> None:
    driven = Driven()
    driven.until(StepKind.TRAFFIC, Phase.WATCHING)
    if hold is Hold.PERSON:
        driven.rollout = pause(driven.rollout, WHY, at(0))
    elif hold is Hold.INCONCLUSIVE:
        driven.look(GateVerdict.INCONCLUSIVE, Gate.SPREAD)
    else:
        driven.until(StepKind.TRAFFIC, share=2500)
        driven.act(Refused("Its gates fail."))
    assert (driven.rollout.state, driven.rollout.hold, due(driven.rollout)) == (State.PAUSED, hold, None)
    assert driven.look(GateVerdict.FAIL, Gate.HARM).state is State.ROLLING_BACK


def test_nothing_moves_on_while_readers_have_the_candidate_and_nobody_sees_how_it_does() -> None:
    driven = Driven()
    driven.until(StepKind.TRAFFIC, share=2500)
    assert driven.rollout.exposed == 500
    assert due(driven.look(GateVerdict.STALE, Gate.HARM)) is None
    assert driven.rollout.waits_for == "harm says STALE."
    assert cast(Act, due(driven.look())).share == 2500


def test_without_readers_there_is_nothing_to_be_seen_of_harm() -> None:
    driven = Driven()
    driven.until(StepKind.COMPARE, Phase.WATCHING)
    assert asks(driven.rollout) == (Gate.RUN, Gate.COMPARISON)
    driven.until(StepKind.SOAK, Phase.WATCHING)
    assert asks(driven.rollout) == (Gate.RUN, Gate.CATCH_UP)


def test_undecided_after_its_limit_a_person_decides() -> None:
    driven = Driven()
    driven.until(StepKind.TRAFFIC, Phase.WATCHING, share=2500)
    for _ in range(22):
        driven.look(GateVerdict.WAIT, Gate.NO_WORSE, after_s=30)
    assert driven.rollout.hold is Hold.INCONCLUSIVE
    assert driven.rollout.why == "traffic 25 % is undecided after 0:10:00, its limit: no-worse says WAIT."
    driven.rollout = resume(driven.rollout, WHY, at(driven.now_s))
    assert (driven.rollout.phase, driven.rollout.watched_s) == (Phase.TAKING, 0.0), "it has its whole time once more"


def test_a_comparison_of_before_a_pause_does_not_count_after_it() -> None:
    driven = Driven()
    driven.until(StepKind.COMPARE, Phase.WATCHING)
    first = driven.acts[-1]
    driven.rollout = resume(pause(driven.rollout, WHY, at(0)), WHY, at(7 * 86400))
    again = cast(Act, due(driven.rollout))
    assert (again.kind, again.request_id == first.request_id) == (ActKind.COMPARE, False)


def test_resume_tries_again_what_may_answer_otherwise() -> None:
    driven = Driven()
    driven.until(StepKind.COMPARE)
    driven.act()
    driven.look(GateVerdict.INCONCLUSIVE, Gate.COMPARISON)
    first = driven.acts[-1]
    driven.rollout = resume(driven.rollout, WHY, at(0))
    again = cast(Act, due(driven.rollout))
    assert (again.kind, again.request_id == first.request_id) == (ActKind.COMPARE, False)


def test_resume_passes_over_what_another_look_would_not_change() -> None:
    driven = Driven()
    driven.until(StepKind.TRAFFIC, Phase.WATCHING)
    driven.look(GateVerdict.INCONCLUSIVE, Gate.SPREAD)
    driven.rollout = resume(driven.rollout, WHY, at(0))
    assert driven.look(GateVerdict.INCONCLUSIVE, Gate.SPREAD).state is State.RUNNING
    for _ in range(3):
        driven.look(GateVerdict.INCONCLUSIVE, Gate.SPREAD, after_s=30)
    assert driven.rollout.state is State.PAUSED, "for the next step a person is asked again"
    assert driven.rollout.present == MORE


def test_after_a_pause_of_a_person_it_goes_on_where_it_was() -> None:
    driven = Driven()
    driven.until(StepKind.TRAFFIC, Phase.WATCHING)
    driven.look()
    driven.look(after_s=10)
    driven.rollout = resume(pause(driven.rollout, WHY, at(20)), WHY, at(5000))
    driven.look(after_s=5000)
    assert (driven.rollout.phase, driven.rollout.watched_s) == (Phase.WATCHING, 10.0)


def test_a_refused_act_waits_for_a_person_and_is_another_one_then() -> None:
    driven = Driven()
    driven.until(StepKind.TRAFFIC)
    driven.act(Refused("v2 was released."))
    assert (driven.rollout.hold, driven.rollout.why) == (Hold.REFUSED, "v2 was released.")
    with pytest.raises(FailedPrecondition, match=r"traffic 5 % was refused.*v2 was released\."):
        promote(driven.rollout, driven.rollout.step, WHY, at(0))
    driven.rollout = resume(driven.rollout, WHY, at(0))
    assert cast(Act, due(driven.rollout)).request_id != driven.acts[-1].request_id


def test_a_comparison_that_cannot_be_made_may_be_passed_over() -> None:
    driven = Driven()
    driven.until(StepKind.COMPARE)
    driven.act(Refused("The keys differ."))
    assert promote(driven.rollout, 1, WHY, at(0)).present == EVERYTHING.steps[2]


def test_without_the_route_it_never_begins() -> None:
    driven = Driven()
    driven.act(Refused("An experiment owns it."))
    assert cast(Act, due(driven.rollout)).kind is ActKind.WITHDRAW, "an earlier claim may have come through"
    driven.act()
    assert (driven.rollout.state, driven.rollout.why) == (State.FAILED, "An experiment owns it.")


def test_paused_before_it_has_the_route_it_takes_nothing() -> None:
    driven = Driven()
    driven.rollout = pause(driven.rollout, WHY, at(0))
    assert due(driven.rollout) is None
    assert driven.look() is driven.rollout
    assert resume(driven.rollout, WHY, at(0)).state is State.PENDING


def test_promote_names_the_step_that_it_passes_over() -> None:
    driven = Driven()
    driven.until(StepKind.TRAFFIC, Phase.WATCHING)
    with pytest.raises(FailedPrecondition, match=r"at step 4, traffic 5 %, not yet at step 5"):
        promote(driven.rollout, 4, WHY, at(0))
    with pytest.raises(InvalidInput, match="9 steps; 10 is none"):
        promote(driven.rollout, 9, WHY, at(0))
    past = promote(driven.rollout, 3, WHY, at(0))
    assert (past.present, past.skipped) == (MORE, (3,))
    assert promote(past, 3, WHY, at(0)) is past
    assert promote(past, 0, WHY, at(0)) is past


def test_promoted_while_its_act_is_under_way_it_waits_for_the_act_alone() -> None:
    driven = Driven()
    driven.until(StepKind.TRAFFIC)
    driven.rollout = promote(driven.rollout, 3, WHY, at(0))
    assert (driven.rollout.promoted, due(driven.rollout) is None) == (True, False)
    assert (driven.act().present, driven.rollout.exposed, driven.rollout.skipped) == (MORE, 500, (3,))


def test_the_retirement_has_nothing_to_pass_over() -> None:
    driven = Driven()
    driven.until(StepKind.RETIRE)
    with pytest.raises(FailedPrecondition, match=r"retire has nothing that could be passed over\.$"):
        promote(driven.rollout, driven.rollout.step, WHY, at(0))
    driven.rollout = pause(driven.rollout, WHY, at(0))
    with pytest.raises(FailedPrecondition, match=r"passed over\. Resume the rollout"):
        promote(driven.rollout, driven.rollout.step, WHY, at(0))


def test_promote_before_the_first_and_after_the_last_step() -> None:
    driven = Driven(Plan((ALL,)))
    with pytest.raises(FailedPrecondition, match="at its very beginning"):
        promote(driven.rollout, 0, WHY, at(0))
    driven.until(StepKind.TRAFFIC, Phase.WATCHING)
    driven.look()
    assert promote(driven.rollout, 0, WHY, at(0)) is driven.rollout
    assert driven.act().state is State.SUCCEEDED
    assert promote(driven.rollout, 0, WHY, at(0)) is driven.rollout


def test_an_abort_before_anything_happened_gives_the_route_back_and_later_does_nothing() -> None:
    driven = Driven()
    driven.rollout = abort(driven.rollout, WHY, at(0))
    assert driven.act().state is State.ABORTED
    assert abort(driven.rollout, "Again.", at(0)) is driven.rollout


def test_an_abort_after_a_failed_gate_leaves_the_reason() -> None:
    driven = Driven()
    driven.until(StepKind.TRAFFIC, Phase.WATCHING)
    driven.look(GateVerdict.FAIL, Gate.HARM)
    assert abort(driven.rollout, WHY, at(0)) is driven.rollout
    for verb in (pause, resume):
        with pytest.raises(FailedPrecondition, match="nothing holds up: harm says FAIL"):
            verb(driven.rollout, WHY, at(0))


@pytest.mark.parametrize("verb", [pause, resume, lambda rollout, why, now: promote(rollout, 0, why, now)])
def test_what_is_over_is_over(verb: object) -> None:
    driven = Driven()
    driven.rollout = abort(driven.rollout, WHY, at(0))
    driven.act()
    with pytest.raises(FailedPrecondition) as caught:
        verb(driven.rollout, WHY, at(0))  # type: ignore[operator]  # one of three
    assert caught.value.reason == "ROLLOUT_OVER"


def test_a_retirement_is_taken_back_before_the_candidate_is() -> None:
    driven = Driven(Plan((ALL, RETIRE)))
    driven.until(StepKind.RETIRE)
    driven.act(Later("The registry is away."))
    driven.rollout = abort(driven.rollout, WHY, at(0))
    kinds = []
    for result in (Refused("It does not retire."), Refused("It is released."), Done(), Done()):
        kinds.append(cast(Act, due(driven.rollout)).kind)
        driven.act(result)
    assert kinds == [ActKind.TAKE_BACK, ActKind.WITHDRAW, ActKind.TAKE_BACK, ActKind.WITHDRAW]
    assert driven.rollout.state is State.ABORTED


def test_overruled_it_waits_for_a_person_and_takes_the_route_over_again() -> None:
    driven = Driven()
    driven.until(StepKind.SOAK, Phase.WATCHING)
    back = RouteSeen(owned=False, active=CONTROL, weight=0, change="CUT_OVER by ada, epoch 9")
    told = overruled(driven.rollout, back)
    assert told == (
        "The route was changed over the rollout's head (CUT_OVER by ada, epoch 9): v1 is active and v2 has 0 % "
        "instead of 100 %."
    )
    driven.rollout = advanced(driven.rollout, Seen(passing(driven.rollout), told), at(0))
    assert (driven.rollout.hold, driven.rollout.why) == (Hold.OVERRULED, told)
    assert driven.look() is driven.rollout
    with pytest.raises(FailedPrecondition, match=r"over the rollout's head.*Resume"):
        promote(driven.rollout, driven.rollout.step, WHY, at(0))
    driven.rollout = resume(driven.rollout, WHY, at(0))
    driven.look()
    again = cast(Act, due(driven.rollout))
    assert (again.kind, again.claims) == (ActKind.CUT_OVER, True)
    assert (driven.act().claimed, driven.rollout.phase) == (True, Phase.WATCHING)


def look_at(driven: Driven, seen: RouteSeen) -> Rollout:
    """All gates pass, and the route is as it is seen."""
    how, what = overruled(driven.rollout, seen), overruling(driven.rollout, seen)
    driven.rollout = advanced(driven.rollout, Seen(passing(driven.rollout), how, what), at(driven.now_s))
    return driven.rollout


BACK = RouteSeen(False, CONTROL, 0, "ROLL_BACK by ada: slow", rolled_back=True)
"""What a rollback of the rollout's cutover leaves."""


@pytest.mark.parametrize("paused", [False, True])
@pytest.mark.parametrize("kind", [StepKind.TRAFFIC, StepKind.SOAK])
def test_who_rolls_its_cutover_back_ends_it(kind: StepKind, paused: bool) -> None:
    driven = Driven(Plan((SOME, ALL, SOAK)))
    driven.until(kind, Phase.WATCHING, WHOLE if kind is StepKind.TRAFFIC else 0)
    if paused:
        driven.rollout = pause(driven.rollout, WHY, at(0))
    look_at(driven, BACK)
    assert (driven.rollout.state, driven.rollout.disowned) == (State.ROLLING_BACK, True)
    assert driven.act().state is State.ROLLED_BACK
    assert driven.rollout.why == (
        "The cutover to v2 was rolled back (ROLL_BACK by ada: slow): v1 is active, and nobody reads v2."
    )


def test_a_cutover_that_was_rolled_back_before_its_answer_came_is_not_done_again() -> None:
    driven = Driven(Plan((SOME, ALL)))
    driven.until(StepKind.TRAFFIC, share=WHOLE)
    assert look_at(driven, BACK).state is State.ROLLING_BACK


def test_who_rolls_back_while_it_retires_the_control_has_that_taken_back() -> None:
    driven = Driven(Plan((ALL, RETIRE)))
    driven.until(StepKind.RETIRE)
    look_at(driven, BACK)
    assert [cast(Act, due(driven.rollout)).kind, cast(Act, due(driven.act())).kind] == [
        ActKind.TAKE_BACK,
        ActKind.WITHDRAW,
    ]


@pytest.mark.parametrize(
    ("seen", "what"),
    [
        (BACK, Overruling.CHANGED),  # of another cutover: this rollout has made none
        (RouteSeen(False, CANDIDATE, WHOLE, "", CONTROL), Overruling.CUT_OVER),
        (RouteSeen(False, CANDIDATE, WHOLE, "", 7), Overruling.CHANGED),
        (RouteSeen(False, CANDIDATE, WHOLE, "", 0, rolled_back=True), Overruling.CHANGED),
        (RouteSeen(False, 7, 0, "", CONTROL), Overruling.CHANGED),
    ],
)
def test_what_others_made_of_the_route(seen: RouteSeen, what: Overruling) -> None:
    driven = Driven()
    driven.until(StepKind.TRAFFIC, Phase.WATCHING, 500)
    look_at(driven, seen)
    assert (driven.rollout.hold, driven.rollout.overruling) == (Hold.OVERRULED, what)


def test_who_made_the_candidate_active_has_gone_ahead_and_the_rollout_follows() -> None:
    driven = Driven()
    driven.until(StepKind.TRAFFIC, Phase.WATCHING, 500)
    look_at(driven, RouteSeen(False, CONTROL, 700, "SET_TRAFFIC"))
    assert driven.rollout.overruling is Overruling.CHANGED
    look_at(driven, RouteSeen(False, CANDIDATE, WHOLE, "CUT_OVER by eve", CONTROL))
    assert "CUT_OVER by eve" in driven.rollout.why
    driven.rollout = resume(driven.rollout, WHY, at(0))
    again = cast(Act, due(driven.rollout))
    assert (again.kind, again.claims, driven.rollout.skipped) == (ActKind.CUT_OVER, True, (3, 4))
    driven.act()
    assert (driven.rollout.exposed, driven.rollout.claimed, driven.rollout.overruling) == (WHOLE, True, None)
    driven.until(StepKind.SOAK, Phase.WATCHING)


def test_a_candidate_that_cannot_be_taken_back_any_more_stays_and_that_ends_it() -> None:
    driven = Driven()
    driven.until(StepKind.SOAK, Phase.WATCHING)
    driven.rollout = abort(driven.rollout, WHY, at(0))
    driven.act(Overruled("But v2 stays."))
    assert (driven.rollout.state, driven.rollout.why) == (State.ABORTED, "Ada said so. But v2 stays.")
    assert (driven.rollout.exposed, driven.rollout.claimed) == (WHOLE, False)


def test_a_control_that_was_dropped_is_not_waited_for() -> None:
    driven = Driven(Plan((ALL, RETIRE)))
    driven.until(StepKind.RETIRE)
    driven.rollout = abort(driven.rollout, WHY, at(0))
    driven.act(Overruled("v1 was dropped."))
    assert cast(Act, due(driven.rollout)).kind is ActKind.WITHDRAW
    driven.act(Refused("v1 is being retired."))
    assert cast(Act, due(driven.rollout)).kind is ActKind.WITHDRAW, "there is nothing to be taken back"


def test_overruled_before_any_reader_had_the_candidate_it_claims_the_route_again() -> None:
    driven = Driven()
    driven.until(StepKind.COMPARE, Phase.WATCHING)
    told = overruled(driven.rollout, RouteSeen(owned=False, active=CONTROL, weight=100, change="by ada"))
    driven.rollout = advanced(driven.rollout, Seen(passing(driven.rollout), told), at(0))
    driven.rollout = resume(driven.rollout, WHY, at(0))
    assert [cast(Act, due(driven.rollout)).kind, cast(Act, due(driven.act())).kind] == [ActKind.CLAIM, ActKind.COMPARE]


@pytest.mark.parametrize(
    ("route", "is_overruled"),
    [
        (RouteSeen(True, CONTROL, 500, ""), False),
        (RouteSeen(True, CONTROL, 2500, ""), False),  # the act may have been carried out
        (RouteSeen(False, CONTROL, 500, ""), True),
        (RouteSeen(True, CONTROL, 700, ""), True),
        (RouteSeen(True, 7, 500, ""), True),
        (RouteSeen(True, CANDIDATE, WHOLE, ""), True),
    ],
)
def test_a_route_is_as_it_was_left_or_as_the_act_under_way_makes_it(route: RouteSeen, is_overruled: bool) -> None:
    driven = Driven()
    driven.until(StepKind.TRAFFIC, share=2500)
    assert bool(overruled(driven.rollout, route)) is is_overruled
    unclaimed = msgspec.structs.replace(driven.rollout, claimed=False)
    assert not overruled(unclaimed, route)


def test_given_back_already_is_not_overruled() -> None:
    driven = Driven(Plan((SOME, ALL, SOAK)))
    driven.until(StepKind.SOAK, Phase.WATCHING)
    while driven.rollout.present is not None:
        driven.look(after_s=30)
    assert not overruled(driven.rollout, RouteSeen(False, CANDIDATE, WHOLE, ""))
    assert overruled(driven.rollout, RouteSeen(False, CONTROL, 0, ""))
