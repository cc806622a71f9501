"""What an act of a rollout asks of a route that others have changed."""

import msgspec
import pytest

from services.switcher.rollouts.acts import Act, ActKind, Done, Later, Overruled, Refused, Result
from services.switcher.rollouts.on_route import command, given_back, outcome, refused
from services.switcher.rollouts.rollout import Rollout, entered
from services.switcher.switch import CutOver, RollBack, State
from tests.unit.switcher.rollouts.made import at, new
from tests.unit.switcher.test_switch import FIRST, after
from turnout.errors import AlreadyExists, FailedPrecondition, TurnoutError, Unavailable, Violation

THIRD: State = after(FIRST, CutOver(3))


def gates_failed(*gates: str) -> FailedPrecondition:
    violations = tuple(Violation(gate, "v2", "It fails.") for gate in gates)
    return FailedPrecondition("GATES_FAILED", "Gates fail.", violations=violations)


def refusal(rollout: Rollout, kind: ActKind) -> str:
    with pytest.raises(FailedPrecondition) as refused:
        command(rollout, Act(kind, "one", 500, claims=True), "jobs/flights/rollouts/second", THIRD)
    assert refused.value.reason == "ROUTE_OVERRULED"
    return refused.value.message


@pytest.mark.parametrize("kind", [ActKind.CLAIM, ActKind.EXPOSE, ActKind.CUT_OVER])
def test_where_another_version_is_active_nobody_is_told_to_resume_in_a_circle(kind: ActKind) -> None:
    told = refusal(entered(new(), 3, "", at(0)), kind)
    assert "Make v1 active again (`turnout cutover flights v1`) and resume" in told
    assert "resume" not in refusal(new(), ActKind.CLAIM)


EVERYBODY: Rollout = entered(new(), 6, "", at(0))
"""It is about to make the candidate the active version."""
OWNER = "jobs/flights/rollouts/second"


def test_it_cuts_over_from_the_candidate_itself_too() -> None:
    act = Act(ActKind.CUT_OVER, "one", claims=True)
    asked = command(EVERYBODY, act, OWNER, after(FIRST, CutOver(2)))
    assert isinstance(asked, CutOver)
    assert asked.version == EVERYBODY.candidate


def test_what_others_have_given_back_needs_not_be_given_back() -> None:
    """Nor is it refused, which a person could do nothing about."""
    release = Act(ActKind.RELEASE, "one")
    owned = after(FIRST, CutOver(2, owner=OWNER))
    assert not given_back(EVERYBODY, release, OWNER, owned)
    assert given_back(EVERYBODY, release, OWNER, after(owned, CutOver(2, override_owner=True)))
    assert not given_back(EVERYBODY, release, OWNER, THIRD)
    assert not given_back(EVERYBODY, Act(ActKind.CUT_OVER, "one"), OWNER, after(FIRST, CutOver(2)))


@pytest.mark.parametrize(
    ("state", "told"),
    [
        (after(THIRD, CutOver(2)), "the way back leads to v3, not to v1, because others have cut over since"),
        (after(FIRST, CutOver(2), CutOver(3), RollBack()), "no way back leads to v1 any more"),
    ],
)
def test_it_does_not_take_over_what_it_could_not_take_back(state: State, told: str) -> None:
    with pytest.raises(FailedPrecondition, match=told) as refused:
        command(EVERYBODY, Act(ActKind.CUT_OVER, "one", claims=True), OWNER, state)
    assert refused.value.reason == "ROUTE_OVERRULED"
    assert "Make v1 active again (`turnout cutover flights v1`) and resume" in refused.value.message


WITHDRAW = Act(ActKind.WITHDRAW, "one")


@pytest.mark.parametrize(
    ("rollout", "active", "back"),
    [
        (EVERYBODY, 1, 0),
        (EVERYBODY, 3, 2),
        (new(), 2, 1),  # it never had the route
        (msgspec.structs.replace(EVERYBODY, disowned=True), 2, 1),
    ],
)
def test_a_candidate_is_withdrawn_where_it_is_not_active_by_the_rollout(
    rollout: Rollout, active: int, back: int
) -> None:
    assert outcome(rollout, WITHDRAW, active, back) == Done()


@pytest.mark.parametrize(("back", "told"), [(3, "the way back leads to v3"), (0, "no way back"), (1, "no way back")])
def test_who_stays_active_is_said(back: int, told: str) -> None:
    result = outcome(EVERYBODY, WITHDRAW, 2, back)
    assert isinstance(result, Overruled)
    assert result.why.startswith("But v2 stays the active version of flights: ")
    assert told in result.why
    assert result.why.endswith("cut over to it (`turnout cutover flights v1`).")


@pytest.mark.parametrize("kind", [kind for kind in ActKind if kind is not ActKind.WITHDRAW])
def test_every_other_act_that_came_true_is_done(kind: ActKind) -> None:
    assert outcome(EVERYBODY, Act(kind, "one"), 2, 0) == Done()


@pytest.mark.parametrize(
    ("kind", "error", "means"),
    [
        (ActKind.TAKE_BACK, FailedPrecondition("VERSION_DROPPED", "It is gone."), Overruled),
        (ActKind.RETIRE, FailedPrecondition("VERSION_DROPPED", "It is gone."), Refused),
        (ActKind.RETIRE, FailedPrecondition("ROLLBACK_WINDOW", "It is kept."), Later),
        (ActKind.EXPOSE, AlreadyExists("EXPERIMENT_RUNS", "Another one runs."), Later),
        (ActKind.EXPOSE, gates_failed("catch-up"), Later),
        (ActKind.EXPOSE, gates_failed("catch-up", "schema"), Refused),
        (ActKind.EXPOSE, Unavailable("X", "It is away."), Later),
        (ActKind.CLAIM, FailedPrecondition("ROUTE_OWNED", "It is owned."), Refused),
    ],
)
def test_what_an_error_means(kind: ActKind, error: TurnoutError, means: type[Result]) -> None:
    assert refused(EVERYBODY, Act(kind, "one"), error) == means(error.message)


def test_how_long_the_way_back_holds_a_retirement_up_is_said_as_what_it_waits_for() -> None:
    kept = FailedPrecondition(
        "ROLLBACK_WINDOW", "v1 was not retired.", metadata={"protected_until": "2026-03-01T12:00:00+00:00"}
    )
    told = "2026-03-01 12:00:00 UTC, the time until which the way back to v1 is kept."
    assert refused(EVERYBODY, Act(ActKind.RETIRE, "one"), kept) == Later(told)
