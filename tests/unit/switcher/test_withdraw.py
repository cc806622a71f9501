"""The way out of a rollout: the candidate has no unit, whatever there was before."""

from dataclasses import replace
from datetime import timedelta

import pytest

from services.switcher.questions import GateQuestion
from services.switcher.switch import (
    Change,
    Conduct,
    CutOver,
    Nothing,
    Release,
    RollBack,
    SetShadow,
    SetTraffic,
    State,
    Withdraw,
    decide,
)
from tests.unit.switcher.test_switch import DAY, FIRST, NONE, NOW, after
from turnout.errors import FailedPrecondition
from turnout.routing import WHOLE, Arm
from turnout.shadow import Shadow

OWNER = "jobs/flights/rollouts/second"
OUT = Withdraw(candidate=2, control=1, owner=OWNER)
OWNED = after(FIRST, Conduct(OWNER, ((1, 9500), (2, 500)), OWNER, None))
WHOLLY = after(OWNED, CutOver(2, owner=OWNER))


def withdrawn(state: State) -> Change:
    change = decide(state, OUT, NOW, DAY)
    assert isinstance(change, Change)
    assert (change.emergency, change.gates) == (True, ())
    return change


def test_a_cutover_of_the_owner_leaves_it_the_route() -> None:
    assert WHOLLY.route is not None
    assert (WHOLLY.route.owner, WHOLLY.route.active_version) == (OWNER, 2)
    assert WHOLLY.way_back is not None
    assert WHOLLY.way_back.owner == "", "a rollback gives it to everybody"
    assert isinstance(decide(WHOLLY, CutOver(2, owner=OWNER), NOW, DAY), Nothing)


@pytest.mark.parametrize("other", ["", "jobs/flights/experiments/x"])
def test_nobody_else_cuts_over_what_is_owned(other: str) -> None:
    with pytest.raises(FailedPrecondition, match="The rollout second owns the route"):
        decide(OWNED, CutOver(2, owner=other), NOW, DAY)


@pytest.mark.parametrize(
    ("before", "weights"),
    [
        (OWNED, {1: WHOLE}),
        (WHOLLY, {1: WHOLE}),
        (after(OWNED, SetTraffic(((1, 5000), (2, 5000)), override_owner=True)), {1: WHOLE}),
        (after(WHOLLY, CutOver(3, override_owner=True), SetTraffic(((3, 9000), (2, 1000)))), {3: WHOLE}),
        (after(FIRST, SetTraffic(((1, 7000), (2, 1000), (3, 2000)))), {1: 8000, 3: 2000}),
    ],
)
def test_the_candidate_has_nobody_and_nobody_else_moves(before: State, weights: dict[int, int]) -> None:
    change = withdrawn(before)
    assert {arm.version: arm.weight for arm in change.route.arms} == weights
    assert (change.route.owner, change.route.epoch) == ("", before.epoch + 1)
    assert isinstance(decide(after(before, OUT), OUT, NOW, DAY), Nothing), "once is enough"


def test_it_gives_back_a_route_on_which_nothing_has_moved_yet() -> None:
    claimed = after(FIRST, Conduct(OWNER, ((1, WHOLE),), OWNER, None))
    assert withdrawn(claimed).route == replace(FIRST.route, epoch=3)  # type: ignore[type-var]  # there is a route


@pytest.mark.parametrize(
    "state", [NONE, FIRST, after(FIRST, Conduct("jobs/flights/experiments/x", ((1, WHOLE),), "x", None))]
)
def test_where_there_is_nothing_to_withdraw_nothing_changes(state: State) -> None:
    assert isinstance(decide(state, OUT, NOW, DAY), Nothing)


@pytest.mark.parametrize(
    "state",
    [
        after(FIRST, CutOver(2)),
        after(FIRST, SetTraffic(((1, 7000), (2, 3000)))),
        after(FIRST, Conduct("jobs/flights/experiments/x", ((1, 5000), (2, 5000)), "jobs/flights/experiments/x", None)),
    ],
)
def test_who_has_moved_nothing_takes_nothing_from_somebody_else(state: State) -> None:
    assert isinstance(decide(state, replace(OUT, only_owned=True), NOW, DAY), Nothing)


def test_who_has_moved_nothing_gives_back_what_it_owns() -> None:
    change = decide(OWNED, replace(OUT, only_owned=True), NOW, DAY)
    assert change == decide(OWNED, OUT, NOW, DAY)
    assert isinstance(change, Change)


ANEW = after(WHOLLY, CutOver(3, override_owner=True), CutOver(2))
"""Others have cut over from the candidate, and to it once more: the way back leads to v3."""
RETIRED = after(WHOLLY, Release(1, forgo_rollback=True))


@pytest.mark.parametrize("state", [after(NONE, CutOver(2)), ANEW, after(ANEW, RollBack(), CutOver(2), RollBack())])
def test_a_candidate_that_others_made_active_for_good_stays(state: State) -> None:
    assert isinstance(decide(state, OUT, NOW, DAY), Nothing)


def test_where_the_control_retires_for_good_the_route_alone_is_given_back() -> None:
    change = withdrawn(RETIRED)
    assert change.route == replace(RETIRED.route, epoch=4, owner="")  # type: ignore[type-var]  # there is a route
    with pytest.raises(FailedPrecondition, match="v1 of flights is being retired"):
        decide(RETIRED, replace(OUT, reinstates=True), NOW, timedelta(days=1))


@pytest.mark.parametrize(
    "cut_over", [CutOver(2, owner=OWNER), CutOver(2, override_owner=True), CutOver(3, override_owner=True)]
)
def test_a_rollback_leaves_nobody_on_the_candidate(cut_over: CutOver) -> None:
    """Also where a person cuts over above the rollout's head: nobody watches its share any more."""
    moved = after(OWNED, cut_over)
    assert moved.way_back is not None
    assert (moved.way_back.versions, moved.way_back.epoch) == (frozenset({1}), OWNED.epoch)
    back = after(moved, RollBack())
    assert back.route is not None
    assert (back.route.arms, back.route.owner, back.way_back) == ((Arm(1, WHOLE),), "", None)
    assert isinstance(decide(back, OUT, NOW, DAY), Nothing)


def test_what_the_candidate_had_is_what_the_control_acquired_last() -> None:
    assert WHOLLY.way_back is not None
    again = after(after(WHOLLY, RollBack()), SetTraffic(((1, 9500), (2, 500)))).route
    assert again is not None
    assert OWNED.route is not None
    assert [(i.low, i.high, i.version) for i in again.intervals] == [
        (i.low, i.high, i.version) for i in OWNED.route.intervals
    ], "the same units have the candidate, should it have its share again"


SHADOWED = after(OWNED, Conduct(OWNER, ((1, WHOLE),), OWNER, None, shadows=(Shadow(2, 1000),)))


def test_an_owner_lets_fronts_compare_its_candidate_and_ends_it_with_what_it_does_next() -> None:
    change = decide(FIRST, Conduct(OWNER, ((1, WHOLE),), OWNER, None, shadows=(Shadow(2, 1000),)), NOW, DAY)
    assert isinstance(change, Change)
    assert change.route.shadow == Shadow(2, 1000)
    assert change.gates == (GateQuestion(2, 1, schema_only=True),)
    assert isinstance(
        decide(SHADOWED, Conduct(OWNER, ((1, WHOLE),), OWNER, None, shadows=(Shadow(2, 1000),)), NOW, DAY), Nothing
    )
    kept = after(SHADOWED, Conduct(OWNER, ((1, 9000), (2, 1000)), OWNER, None)).route
    ended = after(SHADOWED, Conduct(OWNER, ((1, 9000), (2, 1000)), OWNER, None, shadows=())).route
    assert kept is not None
    assert ended is not None
    assert (kept.shadow, ended.shadow) == (Shadow(2, 1000), None)


def test_whoever_is_taken_back_is_no_shadow_either() -> None:
    assert withdrawn(SHADOWED).route.shadow is None
    given_up = after(SHADOWED, Conduct(OWNER, ((1, WHOLE),), "", None))
    assert withdrawn(given_up).route.shadow is None
    other = after(OWNED, SetShadow(Shadow(3, 1000), override_owner=True))
    assert withdrawn(other).route.shadow == Shadow(3, 1000), "that of somebody else"
