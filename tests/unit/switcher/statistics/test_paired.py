"""The paired test of a shadow: an exact e-process, held against the exact test of McNemar and simulated."""

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats
from statsmodels.stats.contingency_tables import mcnemar

from services.switcher.statistics.paired import Discordant, log_e_differs

strata = st.lists(st.builds(Discordant, st.integers(0, 200), st.integers(0, 200)), max_size=6)


@given(st.integers(0, 80))
def test_is_expected_to_stay_at_its_start_while_both_differ_as_often(reads: int) -> None:
    chances = stats.binom.pmf(np.arange(reads + 1), reads, 0.5)
    values = [math.exp(log_e_differs([Discordant(reads - k, k)])) for k in range(reads + 1)]
    assert float(chances @ np.array(values)) == pytest.approx(1.0, rel=1e-9)


@given(st.integers(0, 120), st.integers(0, 120))
def test_decides_nothing_that_the_exact_test_of_mcnemar_would_not(active: int, candidate: int) -> None:
    if log_e_differs([Discordant(active, candidate)]) >= math.log(20):
        exact = mcnemar(np.array([[0, active], [candidate, 0]]), exact=True)
        assert candidate > active
        assert exact.pvalue / 2 <= 0.05  # of its two sides the one that is asked for


@given(st.integers(0, 200), st.integers(0, 200), strata)
def test_one_more_read_in_which_the_candidate_differs_is_evidence(
    active: int, candidate: int, before: list[Discordant]
) -> None:
    more, less = Discordant(active, candidate + 1), Discordant(active + 1, candidate)
    now = Discordant(active, candidate)
    assert log_e_differs([more]) > log_e_differs([now]) > log_e_differs([less])
    assert log_e_differs([*before, more]) >= log_e_differs([*before, now]) >= log_e_differs([*before, less])


@given(strata)
def test_a_stratum_that_begins_changes_nothing(found: list[Discordant]) -> None:
    assert log_e_differs([*found, Discordant(0, 0)]) == pytest.approx(log_e_differs(found), abs=1e-12)


def test_starts_at_1_and_finds_what_is_there() -> None:
    assert log_e_differs([]) == pytest.approx(0.0)
    assert log_e_differs([Discordant(0, 10)]) > math.log(20)
    assert log_e_differs([Discordant(40, 44)]) < math.log(20)


def test_seldom_speaks_while_both_differ_as_often_however_often_one_looks_and_whatever_the_fronts_share() -> None:
    draws = np.random.default_rng(20_5).integers(0, 2, size=(300, 300))
    alarms = 0
    for labels in draws:
        candidate = np.cumsum(labels)
        for looked in range(5, 301, 10):
            own = Discordant(looked - int(candidate[looked - 1]), int(candidate[looked - 1]))
            if log_e_differs([own, own, own]) >= math.log(20):  # three fronts that see the same keys
                alarms += 1
                break
    assert alarms / len(draws) <= 0.05
