"""Rates, lag, share and time to go."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replayer.progress import WINDOW_S, expiry, measure
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
    assert progress.eta_s == pytest.approx(27)
    assert progress.partitions[tp()].applied == pytest.approx(100)


def test_a_run_that_has_just_begun_has_a_rate() -> None:
    before = [sample([], {}, at_s=s) for s in (0.0, 1.0)]
    begun = [sample([(OURS, {0: at(offset)})], {0: 10_000}, at_s=s) for s, offset in ((1.5, 0), (2.0, 500))]
    assert measure([*before, *begun], OURS.version).records_per_s == pytest.approx(1000)


def test_the_eta_chases_a_moving_end() -> None:
    progress = measure(_series([(0, 0, 3000), (1, 900, 3600)]), OURS.version)
    assert progress.eta_s == pytest.approx(2700 / 300)
    assert not progress.never


def test_never_is_said() -> None:
    progress = measure(_series([(0, 0, 3000), (1, 500, 3600)]), OURS.version)
    assert progress.never
    assert progress.eta_s is None


def test_a_standstill_is_not_never() -> None:
    progress = measure(_series([(0, 500, 3000), (1, 500, 3000)]), OURS.version)
    assert (progress.eta_s, progress.never) == (None, False)


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
    assert progress.eta_s is None or (progress.eta_s > 0 and not progress.never)
    assert WINDOW_S > 0


def _reading(event_s: list[float], *, end: int = 10_000, per_step: int = 100) -> list[Sample]:
    """Samples a second apart, of a run that stands at these event times, in seconds after the first sample."""
    return [
        sample([(OURS, {0: at(s * per_step, event_s=event)})], {0: end}, at_s=float(s))
        for s, event in enumerate(event_s)
    ]


def test_the_retention_overtakes_a_slow_run() -> None:
    # An hour behind, going through half a second of the log's time each second, kept for an hour and 40 s.
    slow = _reading([-3600.0, -3599.5, -3599.0], per_step=1)
    found = expiry(slow, OURS, {"flights": 3640.0})
    assert found is not None
    assert found.tp == tp()
    assert found.in_s == pytest.approx((3640 - 3601) / 0.5)


@pytest.mark.parametrize(
    ("event_s", "retention", "end", "per_step"),
    [
        ([-3600.0, -3590.0], {"flights": 3640.0}, 10_000, 1),  # ten times faster than the log
        ([-3600.0, -3599.5], {}, 10_000, 1),  # kept for ever
        ([-3600.0, -3599.5], {"flights": 3640.0}, 1, 1),  # nothing is left to read
        ([-3600.0, -3599.5], {"flights": 3640.0}, 200, 100),  # done in a second
    ],
)
def test_or_it_does_not(event_s: list[float], retention: dict[str, float], end: int, per_step: int) -> None:
    assert expiry(_reading(event_s, end=end, per_step=per_step), OURS, retention) is None
    assert expiry([], OURS, retention) is None
