"""The figures of `python -m bench statistics`, on fewer simulated experiments. Seeded, hence the same each time."""

import math

import pytest

from bench.statistics import Figure, figures

AT_LEAST = {"promote_power_hazard_1", "replayed_decisions_equal"}


@pytest.fixture(scope="module")
def measured() -> list[Figure]:
    return list(figures(seed=7, rounds=100))


def test_every_figure_reaches_its_goal(measured: list[Figure]) -> None:
    for one in measured:
        # A share of few experiments may stand above the probability by chance.
        chance = 2.6 * math.sqrt(one.goal * (1 - one.goal) / one.experiments) if one.experiments else 0.0
        reached = one.value >= one.goal if one.name in AT_LEAST else one.value <= one.goal + chance
        assert reached, one


def test_the_naive_tests_fail_where_these_hold(measured: list[Figure]) -> None:
    shares = [one for one in measured if one.naive is not None and one.experiments]
    assert len(shares) == 6
    for one in shares:
        assert one.naive is not None
        assert one.naive > max(one.value, one.goal), one
