"""What may not be fixed, and that what is fixed is kept."""

import math
from typing import Any

import msgspec
import pytest

from services.switcher.experiments.spec import (
    Arm,
    Bandit,
    Metric,
    Objective,
    Spec,
    checked,
    default_harms,
    spec_from_json,
    spec_to_json,
)
from services.switcher.statistics.decision import Plan
from turnout.errors import InvalidInput
from turnout.routing import Units

GOOD = Spec((Arm(3, 9000), Arm(1, 500), Arm(4, 500)), Units.KEY)


def test_a_good_one_passes_and_is_kept() -> None:
    whole = msgspec.structs.replace(GOOD, holdout=500, overrides=(("tester", 4),), bandit=Bandit(), slow_s=0.25)
    assert checked(whole) is whole
    assert spec_from_json(spec_to_json(whole)) == whole
    assert whole.control == 3
    assert whole.candidates == (1, 4)
    assert whole.on_route("jobs/j/experiments/e", 7).slow_us == 250_000


def test_conversions_are_watched_unless_a_bandit_looks_for_them() -> None:
    assert Metric.CONVERSION in GOOD.harms
    assert Metric.CONVERSION in default_harms(None)
    assert Metric.CONVERSION in default_harms(Bandit(objective=Objective.REWARDS))
    assert Metric.CONVERSION not in default_harms(Bandit(objective=Objective.CONVERSIONS))
    assert Metric.ERROR in default_harms(Bandit(objective=Objective.CONVERSIONS))


def test_an_arm_without_weight_needs_a_tester() -> None:
    assert checked(Spec((Arm(1, 10_000), Arm(2, 0)), Units.CALLER, overrides=(("tester", 2),)))


@pytest.mark.parametrize(
    ("fields", "complaint", "named"),
    [
        ({"arms": (Arm(1, 10_000),)}, "2 to 8 arms", "arms"),
        ({"arms": (), "bandit": Bandit()}, "2 to 8 arms", "arms"),
        ({"arms": (Arm(1, 5000), Arm(1, 5000))}, "named twice", "arms"),
        ({"arms": (Arm(1, 5000), Arm(2, 4000))}, "all sum to 100 %", "arms"),
        ({"arms": (Arm(1, 12_000), Arm(2, -2000))}, "all sum to 100 %", "arms"),
        ({"arms": (Arm(1, 0), Arm(2, 10_000))}, "needs a weight", "arms"),
        ({"arms": (Arm(1, 10_000), Arm(2, 0))}, "neither a weight nor an override", "arms"),
        ({"arms": (Arm(0, 5000), Arm(2, 5000))}, "count from 1", "arms"),
        ({"overrides": (("tester", 9),)}, "override to v9", "overrides"),
        ({"overrides": (("", 1),)}, "1 to 1024 characters", "overrides"),
        ({"overrides": (("tester", 1), ("tester", 4))}, "overridden twice", "overrides"),
        ({"holdout": 6000}, "it must be 0 % to 50 %", "holdout"),
        ({"plan": Plan(abort_alpha=2.0)}, "abort_alpha is 2.0", "plan.abort_alpha"),
        (
            {"plan": Plan(margin=9.0)},
            r"The margin is 9; give a part of one, above 0 and at most 1 \(100%\)",
            "plan.margin",
        ),
        ({"plan": Plan(margin=math.inf)}, "The margin is inf; give", "plan.margin"),
        ({"plan": Plan(margin=math.nan)}, "The margin is nan; give", "plan.margin"),
        ({"plan": Plan(margin=-0.1)}, "The margin is -0.1; give", "plan.margin"),
        ({"harms": ()}, "no guardrail", "plan.harms"),
        ({"harms": (Metric.REWARD,)}, "are harms", "plan.harms"),
        ({"errors": (Metric.CONVERSION,)}, "are errors of a window", "plan.errors"),
        ({"window_s": 0.0}, "window", "plan.window"),
        ({"bandit": Bandit(floor=0.5)}, "floor", "bandit.floor"),
        ({"bandit": Bandit(step_max=0.0)}, "step", "bandit.step_max"),
        ({"bandit": Bandit(gamma=0.0)}, "gamma", "bandit.gamma"),
        ({"bandit": Bandit(epsilon=1.5)}, "epsilon", "bandit.epsilon"),
        ({"bandit": Bandit(units_min=1)}, "2 units", "bandit.units_min"),
        ({"bandit": Bandit(every_s=59.0)}, "at least 60 s", "bandit.every"),
        ({"bandit": Bandit(every_s=1e12)}, "at most 90 days", "bandit.every"),
    ],
)
def test_what_cannot_be_is_refused_with_the_reason(fields: dict[str, Any], complaint: str, named: str) -> None:
    with pytest.raises(InvalidInput, match=complaint) as caught:
        checked(msgspec.structs.replace(GOOD, **fields))
    assert caught.value.reason == "INVALID_EXPERIMENT"
    assert {one.subject for one in caught.value.violations} == {f"experiment.{named}"}


def test_all_that_is_wrong_is_told_at_once() -> None:
    with pytest.raises(InvalidInput) as caught:
        checked(msgspec.structs.replace(GOOD, holdout=6000, delay_s=-1.0, bandit=Bandit(gamma=0.0)))
    told = [(one.subject, one.description) for one in caught.value.violations]
    assert [field for field, _ in told] == ["experiment.holdout", "experiment.plan.delay", "experiment.bandit.gamma"]
    assert caught.value.message == " ".join(text for _, text in told)
