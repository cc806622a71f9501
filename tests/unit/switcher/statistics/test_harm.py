"""The abort test: an exact e-process, checked by summing over everything that can happen."""

import itertools
import math
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats
from scipy.special import logsumexp

from services.switcher.statistics.harm import WORSE, Firsts, label_share, log_e_harm, log_e_loss

shares = st.floats(0.01, 0.99)
counts = st.integers(0, 200)


def expected_e(labels: int, share: float, ratio: float, allowed_ratio: float = 1.0) -> float:
    """The mean e-value after so many first errors, when the candidate's rate is really `ratio` times the other's."""
    q = float(label_share(share, ratio))
    return sum(
        math.comb(labels, k) * q**k * (1 - q) ** (labels - k)
        * math.exp(log_e_harm([Firsts(share, labels - k, k)], allowed_ratio))
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
    assert log_e_harm([Firsts(share, active, candidate)], allowed) == pytest.approx(float(oracle), abs=1e-6)


@given(st.integers(0, 40), shares, st.sampled_from([1.0, 1.2]))
def test_is_expected_to_stay_at_1_at_the_allowed_ratio(labels: int, share: float, allowed: float) -> None:
    assert expected_e(labels, share, allowed, allowed) == pytest.approx(1.0, rel=1e-9)


@given(st.integers(0, 40), shares, st.floats(0.05, 1.0))
def test_is_expected_to_fall_while_the_candidate_is_better(labels: int, share: float, ratio: float) -> None:
    assert expected_e(labels, share, ratio) <= 1.0 + 1e-9


@given(shares, counts, counts, shares, counts, counts)
def test_does_not_depend_on_the_order_of_the_epochs(a: float, n: int, m: int, b: float, k: int, j: int) -> None:
    first, second = Firsts(a, n, m), Firsts(b, k, j)
    assert log_e_harm([first, second]) == pytest.approx(log_e_harm([second, first]))


@given(shares, counts, counts)
def test_an_epoch_may_be_split_anywhere(share: float, active: int, candidate: int) -> None:
    whole = log_e_harm([Firsts(share, active, candidate)])
    parts = [Firsts(share, active // 3, candidate // 2)]
    parts.append(Firsts(share, active - active // 3, candidate - candidate // 2))
    assert log_e_harm(parts) == pytest.approx(whole, abs=1e-9)


@given(shares, counts, counts)
def test_another_error_of_the_candidate_is_evidence_and_one_of_the_active_version_is_none(
    share: float, active: int, candidate: int
) -> None:
    now = log_e_harm([Firsts(share, active, candidate)])
    assert log_e_harm([Firsts(share, active, candidate + 1)]) > now
    assert log_e_harm([Firsts(share, active + 1, candidate)]) < now


def lost_e(labels: int, share: float, ratio: float, margin: float) -> float:
    """The mean e-value of a loss after so many first conversions, when the candidate's rate is `ratio` times the
    other's, and so few units convert that none is missed."""
    q = float(label_share(share, ratio))
    return sum(
        math.comb(labels, k) * q**k * (1 - q) ** (labels - k)
        * math.exp(log_e_loss([Firsts(share, labels - k, k)], margin))
        for k in range(labels + 1)
    )  # fmt: skip


margins = st.sampled_from([0.0, 0.05, 0.1, 0.5])


@given(st.integers(0, 40), shares, margins)
def test_a_loss_is_expected_to_stay_at_1_where_the_margin_is_used_up(labels: int, share: float, margin: float) -> None:
    assert lost_e(labels, share, 1 / (1 + margin), margin) == pytest.approx(1.0, rel=1e-9)


@given(st.integers(0, 40), shares, st.floats(1.0, 20.0), margins)
def test_a_loss_is_expected_to_fall_while_the_candidate_converts_more(
    labels: int, share: float, more: float, margin: float
) -> None:
    assert lost_e(labels, share, more / (1 + margin), margin) <= 1.0 + 1e-9


@given(shares, counts, counts, margins)
def test_a_loss_is_harm_to_the_candidate_in_the_other_place(
    share: float, active: int, candidate: int, margin: float
) -> None:
    exchanged = Firsts(1 - share, candidate, active)
    assert log_e_loss([Firsts(share, active, candidate)], margin) == log_e_harm([exchanged], 1 + margin)


Left = tuple[int, int, int, int]
"""Units that have not converted: slow and fast ones of the active version, slow and fast ones of the candidate."""


def next_conversion(left: Left, ratio: float, fast: float) -> list[tuple[Left, bool, float]]:
    """What is left after the next conversion, whether it was the candidate's, and how probable that is."""
    rates = [left[0], left[1] * fast, left[2] * ratio, left[3] * ratio * fast]
    total = sum(rates)
    return [
        ((left[0] - (at == 0), left[1] - (at == 1), left[2] - (at == 2), left[3] - (at == 3)), at >= 2, rate / total)
        for at, rate in enumerate(rates)
        if rate
    ]


def crossing(units: int, share: float, ratio: float, fast: float, margin: float, level: float) -> float:
    """The probability that the e-value of a loss ever passes 1 / level while all of so many units convert, one after
    the other. Each is the candidate's with probability `share`, and `fast` times as fast with probability 1/2."""
    going: dict[tuple[Left, int, int], float] = {}
    for on, quick_on, quick_off in itertools.product(range(units + 1), repeat=3):
        if quick_on > on or quick_off > units - on:
            continue
        splits = math.comb(units, on) * math.comb(on, quick_on) * math.comb(units - on, quick_off)
        left = (units - on - quick_off, quick_off, on - quick_on, quick_on)
        going[left, 0, 0] = splits * share**on * (1 - share) ** (units - on) / 2**units
    crossed = 0.0
    for _ in range(units):
        after: dict[tuple[Left, int, int], float] = defaultdict(float)
        for (left, active, candidate), probability in going.items():
            for then, own, part in next_conversion(left, ratio, fast):
                a, b = active + (not own), candidate + own
                if log_e_loss([Firsts(share, a, b)], margin) >= -math.log(level):
                    crossed += probability * part
                else:
                    after[then, a, b] += probability * part
        going = after
    return crossed


@settings(max_examples=25, deadline=None)  # thousands of ways an example
@given(
    share=st.sampled_from([0.2, 0.5, 0.8, 0.95]),
    more=st.sampled_from([1.0, 1.1, 2.0, 8.0]),
    fast=st.sampled_from([1.0, 3.0, 20.0]),
    margin=st.sampled_from([0.0, 0.1]),
    level=st.sampled_from([0.9, 0.7, 0.5, 0.2]),
)
def test_no_loss_is_found_too_often_though_every_unit_converts_in_the_end(
    share: float, more: float, fast: float, margin: float, level: float
) -> None:
    assert crossing(6, share, more / (1 + margin), fast, margin, level) <= level + 1e-9


def test_a_pooled_ramp_would_see_harm_where_the_strata_see_none() -> None:
    # Equal code; the base rate has risen tenfold by the time that the weight has.
    strata = [Firsts(0.05, 19, 1), Firsts(0.5, 100, 100)]
    assert log_e_harm(strata) < 0.0
    assert log_e_harm([Firsts(0.05 * 0.5 + 0.5 * 0.5, 119, 101)]) > math.log(1000)


def test_nothing_seen_is_no_evidence() -> None:
    assert log_e_harm([]) == 0.0
    assert log_e_harm([Firsts(0.0, 50, 0), Firsts(1.0, 0, 50)]) == 0.0


def test_large_counts_neither_overflow_nor_underflow() -> None:
    assert log_e_harm([Firsts(0.5, 0, 1_000_000)]) > 100_000
    assert -1e9 < log_e_harm([Firsts(0.5, 1_000_000, 0)]) < 0


@pytest.mark.parametrize(
    ("stratum", "allowed", "message"),
    [
        (Firsts(1.5, 1, 1), 1.0, "share is 1.5"),
        (Firsts(-0.1, 1, 1), 1.0, "share is -0.1"),
        (Firsts(0.5, -1, 1), 1.0, "cannot be negative"),
        (Firsts(0.5, 1, 1), 0.0, "allowed_ratio is 0.0"),
    ],
)
def test_refuses_what_cannot_be(stratum: Firsts, allowed: float, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        log_e_harm([stratum], allowed)
