"""Weights that learn, beside scipy's integrals."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import integrate, stats

from services.switcher.statistics.bandit import (
    Mean,
    Rate,
    best_by_mean,
    best_by_rate,
    discounted,
    epsilon_greedy,
    stepped,
    with_floor,
)
from services.switcher.statistics.beta import beta_cdf, beta_quantiles

PARAMETERS = [(1, 1), (3, 50), (400, 20), (5_000, 90_000), (1, 1_000), (2_000_000, 3_000_000)]
weights = st.lists(st.floats(0.001, 1.0), min_size=2, max_size=5).map(lambda w: [one / sum(w) for one in w])


@pytest.mark.parametrize(("a", "b"), PARAMETERS)
def test_beta_agrees_with_scipy(a: float, b: float) -> None:
    p = np.linspace(0.001, 0.999, 199)
    x = beta_quantiles(a, b, p)
    assert np.max(np.abs(stats.beta.cdf(x, a, b) - p)) < 1e-4
    assert np.max(np.abs(beta_cdf(a, b, x) - stats.beta.cdf(x, a, b))) < 1e-7  # lgamma loses digits of millions


def test_beta_outside_of_its_range() -> None:
    assert list(beta_cdf(2.0, 3.0, np.array([-1.0, 0.0, 1.0, 2.0]))) == [0.0, 0.0, 1.0, 1.0]


def best_of_rates(arms: list[Rate], k: int) -> float:
    posteriors = [stats.beta(1 + arm.successes, 1 + arm.units - arm.successes) for arm in arms]
    others = [one for i, one in enumerate(posteriors) if i != k]
    low, high = posteriors[k].ppf([1e-9, 1 - 1e-9])
    value, _ = integrate.quad(
        lambda x: posteriors[k].pdf(x) * math.prod(one.cdf(x) for one in others), low, high, limit=500
    )
    return float(value)


@pytest.mark.parametrize(
    "arms",
    [
        [Rate(0, 0), Rate(0, 0)],
        [Rate(1000, 100), Rate(1000, 110), Rate(200, 25)],
        [Rate(50, 1), Rate(5000, 40)],
        [Rate(10.5, 2.25), Rate(7.75, 3.5), Rate(100, 20), Rate(3, 3)],
    ],
)
def test_thompson_weights_of_rates_are_the_integral(arms: list[Rate]) -> None:
    found = best_by_rate(arms)
    assert found == pytest.approx([best_of_rates(arms, k) for k in range(len(arms))], abs=2e-3)
    assert sum(found) == pytest.approx(1.0)


def test_the_smallest_rate_is_best_when_minimising() -> None:
    arms = [Rate(1000, 100), Rate(1000, 130)]
    assert best_by_rate(arms, maximise=False) == pytest.approx(best_by_rate(arms)[::-1], abs=1e-3)


def test_thompson_weights_of_means_are_the_integral() -> None:
    arms = [Mean(100, 50.0, 60.0), Mean(120, 66.0, 80.0), Mean(40, 18.0, 20.0)]
    means = [arm.total / arm.units for arm in arms]
    spreads = [
        math.sqrt((arm.squares / arm.units - mean**2) / (arm.units - 1)) for arm, mean in zip(arms, means, strict=True)
    ]
    oracle = []
    for k in range(3):
        value, _ = integrate.quad(
            lambda x, k=k: (
                stats.norm.pdf(x, means[k], spreads[k])
                * math.prod(stats.norm.cdf(x, means[i], spreads[i]) for i in range(3) if i != k)
            ),
            means[k] - 9 * spreads[k],
            means[k] + 9 * spreads[k],
        )
        oracle.append(value)
    assert best_by_mean(arms) == pytest.approx(oracle, abs=1e-6)


def test_means_of_too_few_units_or_without_spread() -> None:
    assert best_by_mean([Mean(1, 5.0, 25.0), Mean(100, 1.0, 1.0)]) == (0.5, 0.5)
    assert best_by_mean([Mean(10, 10.0, 10.0), Mean(10, 20.0, 40.0)]) == pytest.approx((0.0, 1.0), abs=1e-9)


def test_every_computation_gives_the_same_bits() -> None:
    arms = [Rate(1000, 100), Rate(1000, 110), Rate(200, 25)]
    assert best_by_rate(arms) == best_by_rate(list(arms))


def test_older_epochs_count_less() -> None:
    assert discounted([Rate(100, 10), Rate(50, 5)], 0.5) == Rate(100.0, 10.0)
    assert discounted([Mean(2, 4.0, 8.0)], 0.9) == Mean(2.0, 4.0, 8.0)


@given(weights, st.floats(0.0, 0.2))
def test_the_floor_holds_for_every_arm(given_weights: list[float], floor: float) -> None:
    found = with_floor(given_weights, floor)
    assert sum(found) == pytest.approx(1.0)
    assert min(found) >= floor - 1e-12


@given(weights, st.floats(0.01, 0.5), st.data())
def test_a_step_is_bounded_and_keeps_the_sum(old: list[float], step: float, data: st.DataObject) -> None:
    raw = data.draw(st.lists(st.floats(0.001, 1.0), min_size=len(old), max_size=len(old)))
    wanted = [one / sum(raw) for one in raw]
    found = stepped(old, wanted, step)
    assert sum(found) == pytest.approx(1.0)
    assert max(abs(a - b) for a, b in zip(old, found, strict=True)) <= step + 1e-12


def test_epsilon_greedy() -> None:
    assert epsilon_greedy([0.1, 0.3, 0.2], 0.3) == pytest.approx((0.1, 0.8, 0.1))
    assert epsilon_greedy([0.1, 0.3, 0.2], 0.3, maximise=False) == pytest.approx((0.8, 0.1, 0.1))


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda: with_floor([0.5, 0.5], 0.6), "floor of 0.6"),
        (lambda: epsilon_greedy([1.0], 1.5), "epsilon is 1.5"),
        (lambda: discounted([], 0.9), "at least one epoch"),
        (lambda: discounted([Rate(1, 1)], 0.0), "gamma is 0.0"),
        (lambda: best_by_rate([Rate(1, 2), Rate(1, 1)]), "successes must lie"),
    ],
)
def test_refuses_what_cannot_be(call: object, message: str) -> None:
    assert callable(call)
    with pytest.raises(ValueError, match=message):
        call()
