"""The retirement saga as rules: every step with every outcome, and random histories."""

import contextlib
import itertools
from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.registry import retirement as rules
from services.registry.lifecycle import State
from services.registry.retirement import (
    Asked,
    Call,
    Change,
    Done,
    Failed,
    Nothing,
    Outcome,
    Released,
    Retirement,
    Step,
    WaitUntil,
    after,
    next_action,
)
from turnout.errors import (
    Aborted,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    TurnoutError,
    Unavailable,
)
from turnout.names import VersionId

NOW = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
HOUR = timedelta(hours=1)
V1 = VersionId("punctuality", 1)
ASKED = Asked(HOUR, False, "ann@desk")

STATES = {
    Step.RELEASE: State.RETIRING,
    Step.STOP_RUN: State.RETIRING,
    Step.RETAIN: State.RETIRED,
    Step.DRAIN: State.RETIRED,
    Step.DROP: State.RETIRED,
    Step.DONE: State.DROPPED,
    Step.REINSTATE: State.RETIRING,
    Step.RESUME_RUN: State.RETIRING,
}
AWAY = Failed(Unavailable("SWITCHER_UNAVAILABLE", "The switcher does not answer."))
REFUSED = Failed(FailedPrecondition("VERSION_IN_USE", "The route names it."))
RUNS_ON = Failed(FailedPrecondition("RUN_NOT_STOPPED", "The run is TAILING; stop it."))
BLOCKED = Failed(Aborted("TABLE_BLOCKED", "Session 7 holds a lock."))
NO_RUN = Failed(NotFound("RUN_NOT_FOUND", "There is no run."))
NO_JOB = Failed(NotFound("JOB_NOT_FOUND", "There is no job."))
CLEAR = Released()
UNDRAINED = Released(("front-a",), drained=False)
VIEW = Released(view_pending=True)

A, B, C = "same step", "DRAIN", "STOP_RUN"
WAITS = (AWAY, REFUSED, BLOCKED, NO_JOB, RUNS_ON)
EXPECTED: dict[tuple[Step, Outcome], Step | str | None] = {
    **{(step, outcome): A for step in Step for outcome in WAITS if step not in (Step.DROP, Step.RESUME_RUN)},
    **{(Step.RELEASE, outcome): None for outcome in (REFUSED, BLOCKED, NO_JOB, NO_RUN, RUNS_ON)},
    (Step.RELEASE, CLEAR): Step.STOP_RUN,
    (Step.RELEASE, UNDRAINED): Step.STOP_RUN,
    (Step.RELEASE, VIEW): Step.STOP_RUN,
    (Step.STOP_RUN, Done()): Step.RETAIN,
    (Step.STOP_RUN, NO_RUN): Step.RETAIN,
    **{(step, CLEAR): Step.DROP for step in (Step.RETAIN, Step.DRAIN)},
    **{(step, outcome): B for step in (Step.RETAIN, Step.DRAIN) for outcome in (UNDRAINED, VIEW)},
    **{(step, NO_RUN): A for step in (Step.RETAIN, Step.DRAIN, Step.REINSTATE)},
    (Step.DROP, Done()): Step.DONE,
    (Step.DROP, NO_RUN): Step.DONE,
    (Step.DROP, AWAY): A,
    **{(Step.DROP, outcome): B for outcome in (REFUSED, BLOCKED, NO_JOB)},
    (Step.DROP, RUNS_ON): C,
    (Step.REINSTATE, Done()): Step.RESUME_RUN,
    (Step.RESUME_RUN, AWAY): A,
    **{(Step.RESUME_RUN, outcome): None for outcome in (Done(), NO_RUN, REFUSED, BLOCKED, NO_JOB, RUNS_ON)},
}


def at(step: Step, **changes: object) -> Retirement:
    retirement = Retirement(
        version=V1,
        step=step,
        retain_for=HOUR,
        forgo_rollback=False,
        claimed_actor="ann@desk",
        start_time=NOW,
        drop_time=NOW if step in (Step.RETAIN, Step.DRAIN, Step.DROP, Step.DONE) else None,
        resume_run=step is Step.REINSTATE or step is Step.RESUME_RUN,
    )
    return replace(retirement, **changes)  # type: ignore[arg-type]  # fields by name


@pytest.mark.parametrize(("step", "outcome"), [pair for pair in EXPECTED if pair[0] is not Step.DONE], ids=str)
def test_every_step_with_every_outcome(step: Step, outcome: Outcome) -> None:
    change = after(at(step), STATES[step], outcome, NOW)
    expected = EXPECTED[step, outcome]
    if expected is None:
        why = outcome.error.message if step is Step.RELEASE and isinstance(outcome, Failed) else ""
        assert change == Change(State.REGISTERED, None, NOW, why)
        return
    assert change.retirement is not None
    waits = isinstance(expected, str)
    steps: dict[Step | str, Step] = {A: step, B: Step.DRAIN, C: Step.STOP_RUN}
    assert change.retirement.step is steps.get(expected, expected)
    assert change.state is STATES[change.retirement.step]
    if waits:
        assert change.retirement.waiting_for
        assert change.retirement.failures == 1
        assert NOW < change.next_time <= NOW + timedelta(seconds=rules.POLL_S_MAX)
    elif change.retirement.step is Step.RETAIN:
        assert change.next_time == change.retirement.drop_time == NOW + HOUR
    else:
        assert change.next_time == NOW
        assert change.retirement.waiting_for == ""
        assert change.retirement.failures == 0


CALLS = {
    Step.RELEASE: Call.RELEASE,
    Step.STOP_RUN: Call.STOP_RUN,
    Step.RETAIN: Call.RELEASE,
    Step.DRAIN: Call.RELEASE,
    Step.DROP: Call.DROP_TABLE,
    Step.REINSTATE: Call.REINSTATE,
    Step.RESUME_RUN: Call.RESUME_RUN,
}


@pytest.mark.parametrize("step", list(Step))
def test_every_step_asks_for_its_call(step: Step) -> None:
    assert next_action(at(step), STATES[step], NOW) == CALLS.get(step, Nothing())
    assert next_action(at(step), State.DROPPED, NOW) == Nothing()


def test_a_retained_table_waits_for_its_time() -> None:
    retained = at(Step.RETAIN, drop_time=NOW + HOUR)
    assert next_action(retained, State.RETIRED, NOW) == WaitUntil(NOW + HOUR)
    assert next_action(retained, State.RETIRED, NOW + HOUR) is Call.RELEASE


def test_what_it_waits_for_is_said() -> None:
    assert "front-a" in UNDRAINED.waits_for
    assert "view" in VIEW.waits_for
    change = after(at(Step.DRAIN), State.RETIRED, UNDRAINED, NOW)
    assert change.retirement is not None
    assert "front-a" in change.retirement.waiting_for
    blocked = after(at(Step.DROP), State.RETIRED, BLOCKED, NOW).retirement
    assert blocked is not None
    assert blocked.waiting_for == "Session 7 holds a lock."


def test_polling_slows_down_with_a_bound() -> None:
    waits = [rules.poll_s(failures) for failures in range(1000)]
    assert waits == sorted(waits)
    assert (waits[0], waits[-1]) == (rules.POLL_S_MIN, rules.POLL_S_MAX)


def test_without_a_run_to_resume_reinstating_is_the_end() -> None:
    assert after(at(Step.REINSTATE, resume_run=False), State.RETIRING, Done(), NOW) == Change(
        State.REGISTERED, None, NOW
    )


# --- commands ---


def test_retiring_stores_what_was_asked() -> None:
    change = rules.retire(V1, State.REGISTERED, None, Asked(HOUR, True, "bo"), NOW)
    assert change is not None
    assert change.state is State.RETIRING
    assert change.retirement == Retirement(V1, Step.RELEASE, HOUR, True, "bo", NOW)


@pytest.mark.parametrize("step", list(Step))
def test_retiring_again(step: Step) -> None:
    if step in (Step.REINSTATE, Step.RESUME_RUN):
        with pytest.raises(Aborted) as refused:
            rules.retire(V1, STATES[step], at(step), ASKED, NOW)
        assert refused.value.reason == "UNRETIRE_IN_PROGRESS"
        return
    change = rules.retire(V1, STATES[step], at(step), Asked(2 * HOUR, True, "bo"), NOW)
    if step is Step.RELEASE:
        assert change is not None
        assert change.retirement == at(step, retain_for=2 * HOUR, forgo_rollback=True, claimed_actor="bo")
    else:
        assert change is None


def test_a_run_that_goes_on_is_stopped_again_and_the_drop_time_stays() -> None:
    change = after(at(Step.DROP), State.RETIRED, RUNS_ON, NOW + HOUR)
    assert change.retirement is not None
    assert change.why == "The run is TAILING; stop it."
    assert next_action(change.retirement, change.state, NOW + HOUR) is Call.STOP_RUN
    change = after(change.retirement, change.state, Done(), NOW + HOUR)
    assert change.retirement is not None
    assert (change.state, change.retirement.step) == (State.RETIRED, Step.RETAIN)
    assert change.retirement.drop_time == NOW
    assert next_action(change.retirement, change.state, NOW + HOUR) is Call.RELEASE


@pytest.mark.parametrize("step", list(Step))
def test_unretiring(step: Step) -> None:
    state = STATES[step]
    if step in (Step.DROP, Step.DONE):
        with pytest.raises(FailedPrecondition) as refused:
            rules.unretire(V1, state, at(step), "bo", NOW)
        assert refused.value.reason == "VERSION_DROPPED"
        return
    change = rules.unretire(V1, state, at(step), "bo", NOW)
    if step in (Step.REINSTATE, Step.RESUME_RUN):
        assert change is None
        return
    assert change is not None
    assert change.retirement is not None
    assert change.state is State.RETIRING
    assert change.retirement.step is Step.REINSTATE
    assert change.retirement.claimed_actor == "bo"
    assert change.retirement.resume_run is (step is not Step.RELEASE)


def test_unretiring_what_is_not_retired_changes_nothing() -> None:
    assert rules.unretire(V1, State.REGISTERED, None, "bo", NOW) is None


@pytest.mark.parametrize("retain_for", [timedelta(seconds=-1), timedelta(days=3651)])
def test_retention_has_bounds(retain_for: timedelta) -> None:
    with pytest.raises(InvalidInput, match="3650 days"):
        rules.check_retain_for(retain_for)


def test_retention_defaults_to_a_day() -> None:
    assert rules.check_retain_for(None) == timedelta(hours=24)
    assert rules.check_retain_for(timedelta(0)) == timedelta(0)


# --- histories ---


def _errors() -> st.SearchStrategy[TurnoutError]:
    return st.sampled_from([AWAY.error, REFUSED.error, BLOCKED.error, RUNS_ON.error])


@st.composite
def _histories(draw: st.DrawFn) -> list[tuple[str, Outcome | None]]:
    answers = st.one_of(st.builds(Failed, _errors()), st.sampled_from([CLEAR, UNDRAINED, VIEW]))
    return draw(
        st.lists(st.tuples(st.sampled_from(["answer"] * 6 + ["unretire", "retire", "wait"]), answers), max_size=60)
    )


@given(_histories())
def test_any_history_keeps_the_table_until_nobody_can_want_it(history: list[tuple[str, Outcome | None]]) -> None:
    """A drop is only asked for when the last answer said clear, after the retention, and never once taken back."""
    state, retirement, now = State.REGISTERED, None, NOW
    last_answer: Outcome | None = None
    drop_times = itertools.count()
    for what, drawn in history:
        now += timedelta(minutes=20 if what == "wait" else 0, seconds=1)
        change = None
        with contextlib.suppress(FailedPrecondition, Aborted):
            if what == "unretire":
                change = rules.unretire(V1, state, retirement, "bo", now)
            elif what == "retire":
                change = rules.retire(V1, state, retirement, ASKED, now)
        if change is None and what == "answer" and retirement is not None:
            action = next_action(retirement, state, now)
            if not isinstance(action, Call):
                continue
            if action is Call.DROP_TABLE:
                assert isinstance(last_answer, Released) or last_answer == AWAY
                assert retirement.drop_time is not None
                assert now >= retirement.drop_time
                next(drop_times)
            releases = action is Call.RELEASE
            outcome = drawn if releases or isinstance(drawn, Failed) else Done()
            assert outcome is not None
            change = after(retirement, state, outcome, now)
            last_answer = outcome
        if change is not None:
            state, retirement = change.state, change.retirement
        if retirement is not None:
            assert state is STATES[retirement.step]
        else:
            assert state is State.REGISTERED


@given(st.lists(st.sampled_from([AWAY, BLOCKED, RUNS_ON]), max_size=20))
def test_it_ends_dropped_however_often_it_fails_first(failures: list[Failed]) -> None:
    change = rules.retire(V1, State.REGISTERED, None, ASKED, NOW)
    assert change is not None
    now, calls = NOW, []
    while change.retirement is not None and change.retirement.step is not Step.DONE:
        now = max(now, change.next_time)
        action = next_action(change.retirement, change.state, now)
        assert isinstance(action, Call)
        calls.append(action)
        outcome: Outcome = CLEAR if action is Call.RELEASE else Done()
        if failures:
            failed = failures.pop()
            # Refused, a release would end the retirement instead.
            outcome = failed if failed == AWAY or change.retirement.step is not Step.RELEASE else outcome
        change = after(change.retirement, change.state, outcome, now)
    assert change.state is State.DROPPED
    order = [call for call, _ in itertools.groupby(calls)]
    assert order[:2] == [Call.RELEASE, Call.STOP_RUN]
    assert order[-2:] == [Call.RELEASE, Call.DROP_TABLE]
