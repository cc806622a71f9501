"""What an act of a rollout asks of a route that others have changed."""

import pytest

from services.switcher.rollouts.acts import Act, ActKind
from services.switcher.rollouts.on_route import command
from services.switcher.rollouts.rollout import Rollout, entered
from services.switcher.switch import CutOver, State
from tests.unit.switcher.rollouts.made import at, new
from tests.unit.switcher.test_switch import FIRST, after
from turnout.errors import FailedPrecondition

THIRD: State = after(FIRST, CutOver(3))


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


def test_it_cuts_over_from_the_candidate_itself_too() -> None:
    rollout = entered(new(), 6, "", at(0))
    act = Act(ActKind.CUT_OVER, "one", claims=True)
    asked = command(rollout, act, "jobs/flights/rollouts/second", after(FIRST, CutOver(rollout.candidate)))
    assert isinstance(asked, CutOver)
    assert asked.version == rollout.candidate
