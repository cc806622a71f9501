"""Whether one could come back, and how stale that would be."""

from dataclasses import replace
from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.switcher.adoption import Front
from services.switcher.switch import Change, CutOver, Release, RollBack, SetTraffic, State
from services.switcher.way_back import (
    ALIVE,
    Applied,
    Readiness,
    RunSeen,
    readiness,
    refuse_unreadable,
    staleness,
    way_back_gate,
)
from tests.unit.switcher.test_switch import DAY, FIRST, LEFT, MOVED, NONE, NOW, SPLIT, after, changed
from turnout.errors import FailedPrecondition

LIVE = Front("front-1", live=True, prepared=True)
BLIND = Front("front-2", live=True, prepared=True, way_back_problem="v1 has no table")
GONE = Front("front-3", live=False, prepared=True, way_back_problem="v1 has no table")

CUT = changed(SPLIT, CutOver(2))


def at(version: int, *offsets: int, seconds: int = 0, state: str = "TAILING") -> RunSeen:
    applied = {("flights", n): Applied(offset, NOW + timedelta(seconds=seconds)) for n, offset in enumerate(offsets)}
    return RunSeen(version, state, applied=applied)


@pytest.mark.parametrize("state", ["QUEUED", "REPLAYING", "TAILING", "PAUSED", "STOPPED", "FAILED", "COMPLETED"])
def test_a_way_back_needs_a_run_that_is_alive(state: str) -> None:
    (gate,) = way_back_gate(CUT, [RunSeen(1, state, why="disk full")], [LIVE])
    assert (gate.gate, gate.version, gate.passed) == ("rollback", 2, state in ALIVE)
    if not gate.passed:
        assert gate.evidence == (
            f"The run of flights v1 is {state} (disk full), so that its table goes stale: resume it.",
        )


def test_a_run_that_cannot_be_looked_at_proves_nothing() -> None:
    (gate,) = way_back_gate(CUT, [RunSeen(1, problem="flights v1 has no run.")], [])
    assert not gate.passed
    assert gate.evidence == ("The run of flights v1 could not be looked at: flights v1 has no run.",)


def test_every_live_front_must_be_able_to_read_it_back() -> None:
    assert way_back_gate(CUT, [at(1, 5)], [LIVE, GONE])[0].passed
    (gate,) = way_back_gate(CUT, [at(1, 5)], [LIVE, BLIND])
    assert gate.evidence == ("The front front-2 cannot read what a rollback would return to: v1 has no table.",)
    refuse_unreadable(CUT, [LIVE, GONE])
    with pytest.raises(FailedPrecondition, match="could not be rolled back: The front front-2"):
        refuse_unreadable(CUT, [LIVE, BLIND])


def test_it_can_be_passed_over_by_name() -> None:
    over = changed(SPLIT, CutOver(2, override_gates=("rollback",)))
    (gate,) = way_back_gate(over, [at(1, 5, state="STOPPED")], [BLIND])
    assert (gate.passed, gate.overridden) == (False, True)
    refuse_unreadable(over, [BLIND])


def test_only_a_cutover_is_asked_and_the_first_one_passes() -> None:
    (first,) = way_back_gate(changed(NONE, CutOver(1)), [], [BLIND])
    assert (first.passed, first.evidence) == (True, ("It is the first version: there is nothing to go back to.",))
    others: list[Change] = [changed(MOVED, RollBack()), changed(FIRST, SetTraffic(((1, 9000), (2, 1000))))]
    for change in others:
        assert way_back_gate(change, [RunSeen(1, "FAILED")], [BLIND]) == ()


@given(
    st.lists(st.tuples(st.integers(0, 9), st.integers(0, 9)), max_size=4),
    st.integers(-5, 5),
)
def test_staleness_sums_what_the_target_lacks(offsets: list[tuple[int, int]], seconds: int) -> None:
    target = at(1, *(ours for ours, _ in offsets))
    active = at(2, *(theirs for _, theirs in offsets), seconds=seconds)
    found = staleness(target, active)
    if not offsets:
        assert found is None
        return
    assert found is not None
    behind = [theirs - ours for ours, theirs in offsets if theirs > ours]
    assert found.offsets == sum(behind)
    assert found.event_time == timedelta(seconds=max(seconds, 0) if behind else 0)


def test_readiness_of_a_route_that_was_never_cut_over() -> None:
    ready = readiness(FIRST, NOW, {}, None)
    assert (ready.possible, ready.target) == (False, None)
    assert "no cutover of flights to roll back" in ready.problems[0]


def ready_of(state: State, *runs: RunSeen, now: datetime = NOW) -> tuple[bool, tuple[str, ...]]:
    ready = readiness(state, now, {run.version: run for run in runs}, None)
    return ready.possible, ready.problems


def test_readiness_says_what_speaks_against_it() -> None:
    assert ready_of(MOVED, at(1, 5), at(2, 9)) == (True, ())
    possible, problems = ready_of(MOVED, at(1, 5, state="STOPPED"), at(2, 9))
    assert possible, "a rollback resumes a stopped run"
    resumes = "The run of flights v1 is STOPPED, so that its table goes stale: resume it, or the rollback does."
    assert problems == (resumes,)
    _, failed = ready_of(MOVED, at(1, 5, state="FAILED"), at(2, 9))
    assert failed == ("The run of flights v1 is FAILED, so that its table goes stale: resume it.",)


def test_readiness_in_figures() -> None:
    crossing = datetime(2026, 1, 5, tzinfo=UTC)
    lagging = RunSeen(1, "STOPPED", lag=70, applied=at(1, 5, 5).applied, retention="soon", retention_time=crossing)
    ready = readiness(MOVED, NOW, {1: lagging, 2: at(2, 9, 8, seconds=90)}, None)
    assert ready.target == SPLIT.route
    assert ready.staleness is not None
    assert (ready.staleness.offsets, ready.staleness.event_time) == (7, timedelta(seconds=90))
    assert (ready.lag, ready.fresh_until, ready.protected_until) == (70, crossing, NOW + DAY)
    assert "Soon." in ready.problems


def test_a_forgone_way_back_is_no_way_back() -> None:
    """Nothing is said of where it led to, how stale that is or until when it is protected: it is given up."""
    ready = readiness(LEFT, NOW, {1: at(1, 5), 2: at(2, 9)}, None)
    assert replace(ready, problems=()) == Readiness(False, ())
    [why] = ready.problems
    assert "nothing to roll flights back to any more" in why
    assert "`turnout unretire flights v1`" in why


def test_a_forgone_way_back_is_ready_again_once_reinstated() -> None:
    gone = after(MOVED, Release(1, forgo_rollback=True))
    assert not readiness(gone, NOW, {}, None).possible
