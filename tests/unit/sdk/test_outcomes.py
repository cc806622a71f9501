"""What can be asked of an experiment and reported of an answer, and what is refused before it is sent."""

import math
from typing import Any

import pytest

from turnout.client import Client
from turnout.client.experiment_proto import bandit_message, outcome_message, plan_message
from turnout.errors import InvalidInput
from turnout.experiments import Bandit, Metric, Outcome, Plan


@pytest.mark.parametrize("reward", ["12", "", True, [1]])
def test_a_reward_is_a_number(reward: Any) -> None:
    with pytest.raises(InvalidInput, match="give an int or a float"):
        outcome_message(Outcome("id", Metric.REWARD, reward))


@pytest.mark.parametrize("reward", [0, 1, -2.5])
def test_any_number_is_sent(reward: float) -> None:
    assert outcome_message(Outcome("id", Metric.REWARD, reward)).reward.value == reward


@pytest.mark.parametrize("reward", [math.nan, math.inf, -math.inf])
async def test_a_reward_that_is_not_finite_is_named_as_such(reward: float) -> None:
    with pytest.raises(InvalidInput, match=r"^The reward is -?(nan|inf); give a finite number\.$"):
        await Client().report_outcome("id", reward=reward)


async def test_a_false_may_stand_beside_what_is_reported() -> None:
    client = Client()
    assert not await client.report_outcome("", error=False, conversion=True)  # of an answer that nothing counts
    assert not await client.report_outcome("id", error=False, conversion=False)
    with pytest.raises(InvalidInput, match="give a finite number"):
        await client.report_outcome("id", error=False, reward=math.inf)
    for two in ({"error": True, "conversion": True}, {"conversion": True, "reward": 0.0}, {}):
        with pytest.raises(InvalidInput, match="Report one of error, conversion and reward"):
            await client.report_outcome("id", **two)


def test_one_of_many_that_is_too_large_is_left_to_its_place_in_the_report() -> None:
    assert outcome_message(Outcome("id", Metric.REWARD, 10**400)).reward.value == math.inf


async def test_a_unit_that_is_no_text_is_refused() -> None:
    with pytest.raises(InvalidInput, match="surrogate") as refused:
        await Client().get("j", 1, unit="\ud800")
    assert refused.value.reason == "INVALID_UNIT"


def test_a_zero_which_would_be_the_default_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"^margin is 0, which stands for the default; give more, or leave it out"):
        plan_message(Plan(margin=0.0))
    with pytest.raises(InvalidInput, match=r"^epsilon is 0, which stands for the default"):
        bandit_message(Bandit(epsilon=0.0))
    assert not plan_message(Plan()).ListFields()
