"""The promotion test: an e-process over the whole of its null hypothesis, checked by summing over all outcomes."""

import itertools
import math

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from statsmodels.stats.proportion import samplesize_proportions_2indep_onetail
from statsmodels.stats.proportion import test_proportions_2indep as no_worse_at_once

from services.switcher.statistics.promotion import Windows, log_e_no_worse, units_needed


def expected_e(units: int, share: float, active: float, candidate: float, margin: float) -> float:
    """The mean e-value after so many units, for given risks: over every split into arms and every number of errors."""
    mean = 0.0
    for on in range(units + 1):
        off = units - on
        split = math.comb(units, on) * share**on * (1 - share) ** off
        for a, b in itertools.product(range(off + 1), range(on + 1)):
            outcome = math.comb(off, a) * active**a * (1 - active) ** (off - a)
            outcome *= math.comb(on, b) * candidate**b * (1 - candidate) ** (on - b)
            mean += split * outcome * math.exp(log_e_no_worse([Windows(share, off, a, on, b)], margin))
    return mean


@settings(max_examples=60)  # hundreds of outcomes an example
@given(
    units=st.integers(1, 7),
    share=st.floats(0.02, 0.98),
    active=st.floats(0.001, 0.9),
    beyond=st.floats(1.0, 3.0),
    margin=st.sampled_from([0.0, 0.05, 0.1, 0.5]),
)
def test_is_expected_to_be_at_most_1_wherever_the_candidate_is_too_bad(
    units: int, share: float, active: float, beyond: float, margin: float
) -> None:
    candidate = active * (1 + margin) * beyond
    if candidate <= 1.0:
        assert expected_e(units, share, active, candidate, margin) <= 1.0 + 1e-9


@given(st.integers(200, 20_000), st.floats(0.02, 0.6), st.floats(0.5, 1.2), st.sampled_from([0.05, 0.1, 0.3]))
def test_promotes_nobody_whom_one_look_at_the_end_would_not(
    units: int, active: float, ratio: float, margin: float
) -> None:
    errors, on_candidate = round(units * active), round(units * active * ratio)
    if log_e_no_worse([Windows(0.5, units, errors, units, on_candidate)], margin) >= math.log(20):
        at_once = no_worse_at_once(
            on_candidate, units, errors, units, value=1 + margin, compare="ratio", alternative="smaller", method="score"
        )
        assert at_once.pvalue <= 0.05


@pytest.mark.parametrize("risk", [0.001, 0.01, 0.05])
@pytest.mark.parametrize("margin", [0.1, 0.3])
def test_costs_a_few_times_the_units_of_one_look_at_the_end(risk: float, margin: float) -> None:
    at_once = 2 * samplesize_proportions_2indep_onetail(
        margin * risk, risk, power=0.8, alpha=0.05, alternative="larger"
    )
    assert 0.5 < units_needed(risk, 0.5, margin, 0.05) / at_once < 4


def test_grows_where_the_candidate_is_as_good_at_any_base_risk() -> None:
    for risk in (0.05, 0.5, 0.9):
        n = int(4 * units_needed(risk, 0.5, 0.3, 0.05))
        windows = Windows(0.5, n, round(n * risk), n, round(n * risk))
        assert log_e_no_worse([windows], 0.3) > math.log(20), risk


def test_common_errors_are_told_apart_by_the_units_that_did_not_err() -> None:
    # At a risk of .9 labels alone would need several times as many.
    n = 700
    assert log_e_no_worse([Windows(0.5, n, round(n * 0.9), n, round(n * 0.9))], 0.1) > math.log(20)
    assert units_needed(0.9, 0.5, 0.1, 0.05) > 5 * n


@given(st.floats(0.05, 0.95), st.integers(1, 400), st.integers(1, 400))
def test_an_epoch_may_be_split_and_reordered(share: float, active: int, candidate: int) -> None:
    whole = [Windows(share, 2 * active, active, 2 * candidate, candidate)]
    halves = [Windows(share, active, active, candidate, 0), Windows(share, active, 0, candidate, candidate)]
    assert log_e_no_worse(halves, 0.1) == pytest.approx(log_e_no_worse(whole, 0.1), abs=1e-6)
    assert log_e_no_worse(halves[::-1], 0.1) == pytest.approx(log_e_no_worse(whole, 0.1), abs=1e-6)


def test_nothing_seen_is_no_evidence() -> None:
    assert log_e_no_worse([], 0.1) == pytest.approx(0.0)
    assert log_e_no_worse([Windows(1.0, 0, 0, 500, 0)], 0.1) == pytest.approx(0.0)


def test_units_needed_has_no_end_where_nothing_can_be_told() -> None:
    assert units_needed(0.0, 0.5, 0.1, 0.05) == math.inf
    assert units_needed(0.1, 0.0, 0.1, 0.05) == math.inf
    assert units_needed(0.1, 0.5, 0.0, 0.05) == math.inf
    assert units_needed(0.01, 0.5, 0.1, 0.05) > units_needed(0.1, 0.5, 0.1, 0.05) > 0


@pytest.mark.parametrize(
    ("windows", "margin", "message"),
    [
        (Windows(1.2, 1, 0, 1, 0), 0.1, "share is 1.2"),
        (Windows(0.5, 1, 2, 1, 0), 0.1, "errors must lie"),
        (Windows(0.5, 1, 0, 1, -1), 0.1, "errors must lie"),
        (Windows(0.5, 1, 0, 1, 0), -0.1, "margin is -0.1"),
    ],
)
def test_refuses_what_cannot_be(windows: Windows, margin: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_e_no_worse([windows], margin)
