"""The figures of `python -m bench statistics`, on fewer simulated experiments. Seeded, hence the same each time."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from statsmodels.stats.proportion import proportions_chisquare, proportions_ztest

from bench.statistics import harm, mismatch, promotion
from bench.statistics.command import figures
from bench.statistics.course import first
from bench.statistics.figure import Figure
from bench.statistics.harm import z_of_share
from bench.statistics.mismatch import chi_square_p
from services.switcher.experiments.spec import Metric


@pytest.fixture(scope="module")
def measured() -> list[Figure]:
    return list(figures(seed=7, rounds=60))


@pytest.mark.long
def test_every_figure_reaches_its_goal(measured: list[Figure]) -> None:
    for one in measured:
        # A share of few experiments may stand above the probability by chance.
        chance = 2.6 * math.sqrt(one.goal * (1 - one.goal) / one.experiments) if one.experiments else 0.0
        reached = one.value >= one.goal if one.at_least else one.value <= one.goal + chance
        assert reached, one


@pytest.mark.long
def test_the_naive_tests_fail_where_these_hold(measured: list[Figure]) -> None:
    shares = [one for one in measured if one.nominal is not None]
    assert len(shares) == 7
    for one in shares:
        assert one.naive is not None
        assert one.nominal is not None
        assert one.naive > max(one.value, one.nominal), one


@pytest.mark.parametrize(
    ("shares", "ratios"),
    [
        ((0.05,), {Metric.ERROR: 10.0}),
        (harm.RAMP, {}),
        ((0.5,), {Metric.ERROR: 1.7}),
        ((0.5,), {Metric.CONVERSION: 0.5}),
    ],
)
def test_an_abort_is_concluded_at_no_moment_that_was_passed_over(
    shares: tuple[float, ...], ratios: dict[Metric, float]
) -> None:
    course = harm.simulated(np.random.default_rng(3), shares, ratios)
    moments = sorted({time for one in course.harms.values() for time in one.times.tolist()})
    found = first(course, harm.close_to_an_abort(course), harm.aborts)
    assert found == first(course, moments, harm.aborts)
    assert (found is None) == (not ratios)


@pytest.mark.parametrize("lost", [0.0, 0.2])
def test_a_freeze_is_concluded_at_no_look_that_was_passed_over(lost: float) -> None:
    random = np.random.default_rng(3)
    on = (random.random(10_000) < 0.5 * (1 - lost)).astype(np.int64)
    course = mismatch.course_of((0.5,), np.array([0]), np.zeros(10_000, np.int64), on)
    looks = list(range(99, 10_000, 100))
    found = first(course, mismatch.close_to_a_freeze(course, looks), mismatch.freezes)
    assert found == first(course, looks, mismatch.freezes)
    assert (found is None) == (lost == 0.0)


@pytest.mark.parametrize("ratio", [0.95, 1.3])
def test_a_promotion_is_concluded_at_no_look_that_was_passed_over(ratio: float) -> None:
    course = promotion.simulated(np.random.default_rng(3), 0.5, ratio)
    looks = np.arange(199, promotion.UNITS, 200)
    found = first(course, promotion.close_to_a_promotion(course, looks), promotion.promotes)
    assert found == first(course, looks.tolist(), promotion.promotes)
    assert (found is None) == (ratio > 1.0)


def test_a_course_counts_what_has_happened_by_then_where_it_happened() -> None:
    course = harm.simulated(np.random.default_rng(1), harm.RAMP)
    early, late = (course.situation(time) for time in (harm.READS // 8, harm.READS))
    assert len(early.epochs) == 1
    assert [one.weights for one in late.epochs] == [(9500, 500), (9000, 1000), (7500, 2500), (5000, 5000)]
    assert late.route.weights == (5000, 5000)
    arms = [arm for one in late.epochs for arm in one.arms]
    assert sum(arm.units for arm in arms) == len(course.units.times)
    assert 0 < sum(arm.errors for arm in arms) < sum(arm.closed for arm in arms) < sum(arm.units for arm in arms)
    for place, metric in enumerate(course.spec.harms):
        assert sum(arm.harms[place] for arm in arms) == len(course.harms[metric].times) > 0


@given(st.integers(20, 5000), st.floats(0.02, 0.98), st.floats(0.05, 0.95))
def test_the_naive_tests_are_those_that_statsmodels_has(of: int, rate: float, expected: float) -> None:
    count = round(of * rate)
    z, _ = proportions_ztest(count, of, value=expected, alternative="larger", prop_var=expected)
    assert z_of_share(count, of, expected) == pytest.approx(float(z), abs=1e-9)
    _, p, _ = proportions_chisquare(count, of, value=expected)
    shares = np.array([expected, 1.0 - expected])
    assert chi_square_p(np.array([count, of - count]), shares) == pytest.approx(float(p), abs=1e-9)
