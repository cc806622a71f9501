"""The abort test: an exact e-process, checked by summing over everything that can happen."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

from services.switcher.statistics.harm import WORSE, FirstErrors, label_share, log_e_harm

shares = st.floats(0.01, 0.99)
counts = st.integers(0, 200)


def expected_e(labels: int, share: float, ratio: float, allowed_ratio: float = 1.0) -> float:
    """The mean e-value after so many first errors, when the candidate's rate is really `ratio` times the other's."""
    q = float(label_share(share, ratio))
    return sum(
        math.comb(labels, k) * q**k * (1 - q) ** (labels - k)
        * math.exp(log_e_harm([FirstErrors(share, labels - k, k)], allowed_ratio))
        for k in range(labels + 1)
    )  # fmt: skip


@given(shares, counts, counts, st.sampled_from([1.0, 1.2]))
def test_is_the_mean_of_ratios_of_binomial_likelihoods(
    share: float, active: int, candidate: int, allowed: float
) -> None:
    labels = active + candidate
    worse = stats.binom.logpmf(candidate, labels, label_share(share, allowed * WORSE))
    at_allowed = stats.binom.logpmf(candidate, labels, label_share(share, allowed))
    oracle = logsumexp(worse - at_allowed) - math.log(len(WORSE))
    assert log_e_harm([FirstErrors(share, active, candidate)], allowed) == pytest.approx(float(oracle), abs=1e-6)


@given(st.integers(0, 40), shares, st.sampled_from([1.0, 1.2]))
def test_is_expected_to_stay_at_1_at_the_allowed_ratio(labels: int, share: float, allowed: float) -> None:
    assert expected_e(labels, share, allowed, allowed) == pytest.approx(1.0, rel=1e-9)


@given(st.integers(0, 40), shares, st.floats(0.05, 1.0))
def test_is_expected_to_fall_while_the_candidate_is_better(labels: int, share: float, ratio: float) -> None:
    assert expected_e(labels, share, ratio) <= 1.0 + 1e-9


@given(shares, counts, counts, shares, counts, counts)
def test_does_not_depend_on_the_order_of_the_epochs(a: float, n: int, m: int, b: float, k: int, j: int) -> None:
    first, second = FirstErrors(a, n, m), FirstErrors(b, k, j)
    assert log_e_harm([first, second]) == pytest.approx(log_e_harm([second, first]))


@given(shares, counts, counts)
def test_an_epoch_may_be_split_anywhere(share: float, active: int, candidate: int) -> None:
    whole = log_e_harm([FirstErrors(share, active, candidate)])
    parts = [FirstErrors(share, active // 3, candidate // 2)]
    parts.append(FirstErrors(share, active - active // 3, candidate - candidate // 2))
    assert log_e_harm(parts) == pytest.approx(whole, abs=1e-9)


@given(shares, counts, counts)
def test_another_error_of_the_candidate_is_evidence_and_one_of_the_active_version_is_none(
    share: float, active: int, candidate: int
) -> None:
    now = log_e_harm([FirstErrors(share, active, candidate)])
    assert log_e_harm([FirstErrors(share, active, candidate + 1)]) > now
    assert log_e_harm([FirstErrors(share, active + 1, candidate)]) < now


def test_a_pooled_ramp_would_see_harm_where_the_strata_see_none() -> None:
    # Equal code; the base rate has risen tenfold by the time that the weight has.
    strata = [FirstErrors(0.05, 19, 1), FirstErrors(0.5, 100, 100)]
    assert log_e_harm(strata) < 0.0
    assert log_e_harm([FirstErrors(0.05 * 0.5 + 0.5 * 0.5, 119, 101)]) > math.log(1000)


def test_nothing_seen_is_no_evidence() -> None:
    assert log_e_harm([]) == 0.0
    assert log_e_harm([FirstErrors(0.0, 50, 0), FirstErrors(1.0, 0, 50)]) == 0.0


def test_large_counts_neither_overflow_nor_underflow() -> None:
    assert log_e_harm([FirstErrors(0.5, 0, 1_000_000)]) > 100_000
    assert -1e9 < log_e_harm([FirstErrors(0.5, 1_000_000, 0)]) < 0


@pytest.mark.parametrize(
    ("stratum", "allowed", "message"),
    [
        (FirstErrors(1.5, 1, 1), 1.0, "share is 1.5"),
        (FirstErrors(-0.1, 1, 1), 1.0, "share is -0.1"),
        (FirstErrors(0.5, -1, 1), 1.0, "cannot be negative"),
        (FirstErrors(0.5, 1, 1), 0.0, "allowed_ratio is 0.0"),
    ],
)
def test_refuses_what_cannot_be(stratum: FirstErrors, allowed: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_e_harm([stratum], allowed)
