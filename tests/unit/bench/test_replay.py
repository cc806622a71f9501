"""What the replay benchmark makes of what it measured."""

from __future__ import annotations

import argparse
import json

import pytest

from bench.measure import ETA_FLOOR_S, Measured, eta_errors, eta_worst, median
from bench.peers import PeerResult
from bench.replay import GOALS, Results, ratio, summary
from bench.workload import MODES


def measured(steady_per_s: float, rss_mib: float = 100.0, errors: tuple[float, ...] = ()) -> Measured:
    """A replay of a million records whose start took a second."""
    working_s = 1e6 / steady_per_s
    return Measured(1_000_000, working_s + 1.0, working_s, rss_mib, errors, eta_known_from=0.07)


def peer(steady_per_s: float) -> PeerResult:
    return PeerResult("flink", "append", "2.3", "", "at least once", 1_000_000, 10.0, steady_per_s / 2, steady_per_s)


def given(*, linearity: bool = False, workers: tuple[int, ...] = (1, 2)) -> argparse.Namespace:
    return argparse.Namespace(modes=list(MODES), workers=list(workers), linearity=linearity)


@pytest.fixture
def results() -> Results:
    found = Results(1_000_000)
    for mode in MODES:
        for workers in (1, 2):
            found.measured["hand", mode, workers] = [measured(100_000.0 * workers)]
            found.measured["ours", mode, workers] = [measured(90_000.0 * workers, 150.0, (0.1, 0.3))]
    return found


def test_the_answer_holds_ratios_of_steady_rates_with_most_workers(results: Results) -> None:
    results.peers["append_vs_flink"] = peer(45_000.0)
    answer = summary(results, given())
    assert answer["append_vs_hand_loop"] == answer["fold_vs_hand_loop"] == 0.9
    assert answer["append_vs_flink"] == 4.0
    assert answer["append_vs_quix"] is None
    assert answer["two_workers_vs_one"] == 2.0
    assert answer["rss_mib_per_worker_max"] == 150
    assert answer["eta_error_worst"] == 0.3
    assert answer["eta_known_from"] == 0.07
    assert answer["records_per_s"] == 180_000
    assert GOALS.keys() <= answer.keys()
    json.dumps(answer)


def test_the_worst_kind_tells_what_a_second_worker_brings(results: Results) -> None:
    results.measured["ours", MODES[1], 2] = [measured(99_000.0)]
    assert summary(results, given())["two_workers_vs_one"] == 1.1


def test_without_one_worker_it_is_not_known_what_a_second_brings(results: Results) -> None:
    assert summary(results, given(workers=(2,)))["two_workers_vs_one"] is None


def test_the_forecast_of_the_long_replay_counts_where_there_is_one(results: Results) -> None:
    for mode in MODES:
        results.measured["long", mode, 2] = [measured(90_000.0, 220.0, (0.05,))]
    answer = summary(results, given(linearity=True))
    assert answer["eta_error_worst"] == 0.05
    assert answer["rss_mib_per_worker_max"] == 220
    assert answer["rss_mib_by_mode_long"] == dict.fromkeys(MODES, 220)


def test_medians_of_rates_but_the_largest_memory_and_every_error() -> None:
    one = median([measured(1e5, 100.0, (0.1,)), measured(3e5, 300.0), measured(2e5, 200.0, (0.2,))])
    assert round(one.steady_per_s) == 200_000
    assert one.rss_mib == 300.0
    assert list(one.eta_errors) == [0.1, 0.2]


def test_forecasts_count_from_a_tenth_of_the_way_on_beside_what_was_left() -> None:
    told = [(0.0, 0.05, 1000.0), (10.0, 0.5, 45.0), (20.0, 0.7, 44.0)]
    assert eta_errors(told, 60.0) == pytest.approx([5 / 50, 4 / 40])


def test_shortly_before_the_end_a_forecast_is_judged_beside_some_seconds() -> None:
    assert eta_errors([(59.0, 0.9, 2.0)], 60.0) == pytest.approx([1 / ETA_FLOOR_S])
    assert eta_errors([(61.0, 1.0, 0.0)], 60.0) == []


def test_the_worst_forecast_is_told_with_the_truth() -> None:
    told = [(0.0, 0.05, 1000.0), (10.0, 0.5, 45.0), (20.0, 0.7, 60.0)]
    assert eta_worst(told, 60.0) == "worst forecast at 70% of the way: 60.0 s, and 40.0 s were left, off by 0.50"
    assert eta_worst(told[:1], 60.0) == eta_worst([], 60.0) == "no forecast"


def test_nothing_is_compared_with_what_is_not_known() -> None:
    assert ratio(1.0, 0.0) is None
    assert ratio(1.0, 3.0) == 0.33
