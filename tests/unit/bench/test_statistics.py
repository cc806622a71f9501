"""The figures of `python -m bench statistics`, on fewer simulated experiments. Seeded, hence the same each time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportions_chisquare, proportions_ztest

from bench.statistics import Figure, chi_square_p, figures, z_of_share

AT_LEAST = {"promote_power_hazard_1", "replayed_decisions_equal"}


@pytest.fixture(scope="module")
def measured() -> list[Figure]:
    return list(figures(seed=7, rounds=100))


@pytest.mark.long
def test_every_figure_reaches_its_goal(measured: list[Figure]) -> None:
    for one in measured:
        # A share of few experiments may stand above the probability by chance.
        chance = 2.6 * math.sqrt(one.goal * (1 - one.goal) / one.experiments) if one.experiments else 0.0
        reached = one.value >= one.goal if one.name in AT_LEAST else one.value <= one.goal + chance
        assert reached, one


@pytest.mark.long
def test_the_naive_tests_fail_where_these_hold(measured: list[Figure]) -> None:
    shares = [one for one in measured if one.naive is not None and one.experiments]
    assert len(shares) == 6
    for one in shares:
        assert one.naive is not None
        assert one.naive > max(one.value, one.goal), one


@given(st.integers(20, 5000), st.floats(0.02, 0.98), st.floats(0.05, 0.95))
def test_the_naive_tests_are_those_that_statsmodels_has(of: int, rate: float, expected: float) -> None:
    count = round(of * rate)
    z, _ = proportions_ztest(count, of, value=expected, alternative="larger", prop_var=expected)
    assert z_of_share(count, of, expected) == pytest.approx(float(z), abs=1e-9)
    _, p, _ = proportions_chisquare(count, of, value=expected)
    shares = np.array([expected, 1.0 - expected])
    assert chi_square_p(np.array([count, of - count]), shares) == pytest.approx(float(p), abs=1e-9)
