"""Rates, lag and share."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replayer.progress import WINDOW_S, measure
from services.replayer.run import Sample
from tests.unit.replayer.made import at, run, sample, tp

OURS = run(2)


def _series(points: list[tuple[float, int, int]]) -> list[Sample]:
    """Samples of one partition from (seconds, next offset, end)."""
    return [sample([(OURS, {0: at(offset)})], {0: end}, at_s=s) for s, offset, end in points]


def test_nothing_measured_yet() -> None:
    assert measure([], OURS.version).records == 0
    assert measure([sample([], {})], OURS.version).share == 0.0


def test_rates_are_means_over_the_window_only() -> None:
    progress = measure(_series([(0, 0, 10_000), (7, 7000, 10_000), (10, 7300, 10_000)]), OURS.version)
    assert progress.records_per_s == pytest.approx(100)  # not 730: the fast past is outside of the window
    assert progress.lag == 2700
    assert progress.share == pytest.approx(0.73)
    assert progress.partitions[tp()].applied == pytest.approx(100)


def test_a_run_that_has_just_begun_has_a_rate() -> None:
    before = [sample([], {}, at_s=s) for s in (0.0, 1.0)]
    begun = [sample([(OURS, {0: at(offset)})], {0: 10_000}, at_s=s) for s, offset in ((1.5, 0), (2.0, 500))]
    assert measure([*before, *begun], OURS.version).records_per_s == pytest.approx(1000)


def test_figures_are_of_all_partitions_together() -> None:
    early = replace(at(100, event_s=5.0), set_aside=1, rows_written=90, bytes_written=900)
    late = replace(at(300, event_s=-5.0), set_aside=2, rows_written=80, bytes_written=800)
    progress = measure([sample([(OURS, {0: early, 1: late})], {0: 100, 1: 400})], OURS.version)
    assert (progress.records, progress.set_aside) == (400, 3)
    assert (progress.rows_written, progress.bytes_written) == (170, 1700)
    assert progress.event_time == early.event_time


def test_a_bounded_range_is_measured_by_its_own_end() -> None:
    position = replace(at(150, start=100), range_end=200)
    for ends in ({}, {0: 10_000}):
        progress = measure([sample([(OURS, {0: position})], ends)], OURS.version)
        assert (progress.lag, progress.share) == (50, 0.5)


def test_a_bounded_range_ends_where_it_ends() -> None:
    samples = [
        sample([(OURS, {0: at(offset, start=100, until=1100)})], {0: end}, at_s=s)
        for s, offset, end in ((0, 100, 50_000), (1, 350, 90_000))
    ]
    progress = measure(samples, OURS.version)
    assert progress.share == pytest.approx(0.25)
    assert (progress.lag, progress.partitions[tp()].arriving) == (750, 0.0)  # however fast the log grows behind it
    done = [sample([(OURS, {0: at(1100, start=100, until=1100)})], {})]  # nor does it matter whether the log is known
    assert (measure(done, OURS.version).lag, measure(done, OURS.version).share) == (0, 1.0)


def test_an_empty_range_is_done() -> None:
    assert measure([sample([(OURS, {0: at(7, start=7, until=7)})], {0: 90})], OURS.version).share == 1.0


def test_an_empty_log_is_done() -> None:
    assert measure(_series([(0, 0, 0)]), OURS.version).share == 1.0


def test_a_position_ahead_of_an_old_end_has_no_lag() -> None:
    assert measure(_series([(0, 120, 100)]), OURS.version).lag == 0


steps = st.lists(st.tuples(st.floats(0.01, 2), st.integers(0, 1000), st.integers(0, 1000)), min_size=1, max_size=20)


@given(steps)
def test_always_within_bounds(moves: list[tuple[float, int, int]]) -> None:
    points, s, offset, end = [], 0.0, 0, 500
    for later_s, read, grown in moves:
        s, end = s + later_s, end + grown
        offset = min(end, offset + read)
        points.append((s, offset, end))
    progress = measure(_series(points), OURS.version)
    assert 0.0 <= progress.share <= 1.0
    assert progress.lag == end - offset
    assert progress.records == offset
    assert progress.records_per_s >= 0
    assert WINDOW_S > 0
