"""Sample ratio mismatch: a Bayes factor, checked by summing over everything that can happen."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy.special import betaln
from scipy.stats import dirichlet_multinomial, multinomial

from services.switcher.statistics.srm import CONCENTRATION, FirstExposures, log_e_mismatch


@given(st.integers(0, 60), st.floats(0.01, 0.99))
def test_is_expected_to_stay_at_1_when_units_are_spread_as_designed(units: int, share: float) -> None:
    expected = sum(
        math.comb(units, k) * share**k * (1 - share) ** (units - k)
        * math.exp(log_e_mismatch([FirstExposures((1 - share, share), (units - k, k))]))
        for k in range(units + 1)
    )  # fmt: skip
    assert expected == pytest.approx(1.0, rel=1e-8)


@given(st.tuples(*[st.integers(0, 300)] * 3))
def test_is_the_ratio_of_the_two_likelihoods(units: tuple[int, int, int]) -> None:
    shares = (0.7, 0.2, 0.1)
    alpha = [CONCENTRATION * share for share in shares]
    oracle = dirichlet_multinomial.logpmf(units, alpha, sum(units)) - multinomial.logpmf(units, sum(units), shares)
    assert log_e_mismatch([FirstExposures(shares, units)]) == pytest.approx(float(oracle), abs=1e-6)


def test_of_two_arms_is_the_beta_binomial() -> None:
    a, b = CONCENTRATION * 0.9, CONCENTRATION * 0.1
    oracle = betaln(a + 800, b + 200) - betaln(a, b) - 800 * math.log(0.9) - 200 * math.log(0.1)
    assert log_e_mismatch([FirstExposures((0.9, 0.1), (800, 200))]) == pytest.approx(float(oracle))


@given(st.lists(st.tuples(st.integers(0, 500), st.integers(0, 500)), max_size=6))
def test_epochs_multiply(epochs: list[tuple[int, int]]) -> None:
    strata = [FirstExposures((0.5, 0.5), units) for units in epochs]
    assert log_e_mismatch(strata) == pytest.approx(sum(log_e_mismatch([one]) for one in strata))


def test_sees_an_arm_that_loses_a_tenth_of_its_units() -> None:
    assert log_e_mismatch([FirstExposures((0.5, 0.5), (5000, 4500))]) > math.log(100)
    assert log_e_mismatch([FirstExposures((0.5, 0.5), (5000, 4970))]) < 0.0


def test_an_arm_without_a_share_may_have_no_unit() -> None:
    assert log_e_mismatch([FirstExposures((1.0, 0.0), (10, 0))]) == pytest.approx(0.0)
    assert log_e_mismatch([FirstExposures((1.0, 0.0), (10, 1))]) == math.inf


@pytest.mark.parametrize(
    ("stratum", "message"),
    [
        (FirstExposures((0.5, 0.6), (1, 1)), "sum to 1"),
        (FirstExposures((1.1, -0.1), (1, 1)), "negative"),
        (FirstExposures((0.5, 0.5), (1, -1)), "negative"),
        (FirstExposures((0.5, 0.5), (1, 1, 1)), "do not fit"),
    ],
)
def test_refuses_what_cannot_be(stratum: FirstExposures, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_e_mismatch([stratum])
