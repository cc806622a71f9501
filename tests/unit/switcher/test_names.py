"""Names of experiments and rollouts: what is refused is told in words."""

import pytest

from services.switcher.names import EXPERIMENTS, ROLLOUTS
from turnout.errors import InvalidInput


@pytest.mark.parametrize("one", ["R 3", "Ex!", "", "3rd", "a-", "a" * 43, "r/3"])
def test_a_name_of_another_form_is_told_the_form(one: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        ROLLOUTS.parse(f"jobs/flights/rollouts/{one}")
    assert caught.value.message.startswith(f"{one!r} cannot name an experiment or a rollout: give up to 42 lower-case")
    with pytest.raises(InvalidInput, match="cannot name"):
        EXPERIMENTS.parse_decision(f"jobs/flights/experiments/{one}/decisions/1")


@pytest.mark.parametrize("one", ["a", "a" * 42, "r-3"])
def test_the_form_that_is_told_is_the_one_that_is_taken(one: str) -> None:
    assert ROLLOUTS.parse(f"jobs/flights/rollouts/{one}") == ("flights", one)


def test_names_of_other_things_are_told_the_form_of_the_whole() -> None:
    with pytest.raises(InvalidInput, match="not a name of the form"):
        ROLLOUTS.parse("jobs/flights/route")
    with pytest.raises(InvalidInput, match="not a name of the form"):
        ROLLOUTS.parse_decision("jobs/flights/rollouts/r-3/decisions/x")
