"""The retention guard: whose cursor the start of the log passes, when, and when that is news."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replayer.engine.identity import RecordIdentity
from services.replayer.forecast import UNKNOWN, Forecast
from services.replayer.retention import (
    HORIZON_S,
    URGENT_S,
    Alarms,
    Retention,
    Risk,
    StartLine,
    risk_of,
    standing_cursors,
)
from services.replayer.run import LogEnds, Position, Run, Sample
from services.replayer.states import State
from tests.unit.replayer.made import NOW, at, run, sample, tp

WEEK_S = 7 * 86400.0
FAST = Forecast(60.0, 50.0, 70.0)  # it is at the end within a minute


def _standing_at(next_offset: int, *, log_s: float | None = None) -> Position:
    """A position whose last record was written so many seconds after NOW."""
    last = None if log_s is None else RecordIdentity(next_offset - 1, int((NOW.timestamp() + log_s) * 1000), 0)
    return replace(at(next_offset), last=last)


def _samples(made: Run, positions: Sequence[Position], end: int = 10_000, grown: int = 0) -> list[Sample]:
    """A sample a second."""
    return [sample([(made, {0: one})], {0: end + n * grown}, at_s=float(n)) for n, one in enumerate(positions)]


def _by_time(made: Run, log_s: Sequence[float], keeps_s: float, forecast: Forecast = UNKNOWN) -> Risk | None:
    samples = _samples(made, [_standing_at(100 + n, log_s=s) for n, s in enumerate(log_s)])
    return risk_of(made, samples, forecast, Retention({"flights": keeps_s}))


def test_a_run_that_is_slower_than_the_log_is_overtaken() -> None:
    # An hour behind, through half a second of the log's time each second, kept for an hour and 40 s.
    found = _by_time(run(2, State.REPLAYING), [-3600 + n / 2 for n in range(8)], 3640.0, Forecast(500.0, 400.0, 600.0))
    assert found is not None
    assert found.tp == tp()
    left_s = 3640 - (3600 - 3.5 + 7)
    assert found.in_s == pytest.approx(left_s / 0.5)
    assert found.crossing == NOW + timedelta(seconds=7 + found.in_s)
    assert "keeps records for 61 min" in found.message
    assert "raise its rate limit or its workers" in found.message


@pytest.mark.parametrize(
    ("log_s", "keeps_s", "forecast"),
    [
        ([-3600 + n * 10.0 for n in range(8)], 3640.0, Forecast(500.0, 400.0, 600.0)),  # faster than the log
        ([-3600 + n / 2 for n in range(8)], 3640.0, FAST),  # done before
        ([-3600 + n / 2 for n in range(8)], WEEK_S, Forecast(500.0, 400.0, 600.0)),  # kept for long
    ],
)
def test_or_it_is_not(log_s: list[float], keeps_s: float, forecast: Forecast) -> None:
    assert _by_time(run(2, State.REPLAYING), log_s, keeps_s, forecast) is None


def test_a_run_that_never_catches_up_is_overtaken_one_day() -> None:
    log_s = [-3600 + n / 2 for n in range(8)]
    assert _by_time(run(2, State.REPLAYING), log_s, WEEK_S, Forecast(never=True)) is not None


@pytest.mark.parametrize(
    ("state", "advice"),
    [
        (State.QUEUED, "raise the run's priority"),
        (State.PAUSED, "resume it"),
        (State.FAILED, "resume it"),
        (State.STOPPED, None),
    ],
)
def test_who_stands_still_is_told_what_to_do(state: State, advice: str | None) -> None:
    found = _by_time(run(2, state), [-3600.0] * 8, 4000.0)
    if advice is None:
        assert found is None
    else:
        assert found is not None
        assert found.in_s == pytest.approx(4000 - 3607)
        assert advice in found.message


def test_a_dropped_run_has_no_cursor() -> None:
    assert _by_time(run(2, State.PAUSED, drop_time=NOW), [-3600.0] * 8, 4000.0) is None


def test_a_pause_is_told_of_when_half_of_the_retention_is_gone() -> None:
    assert _by_time(run(2, State.PAUSED), [-0.45 * WEEK_S] * 8, WEEK_S) is None
    assert _by_time(run(2, State.PAUSED), [-0.55 * WEEK_S] * 8, WEEK_S) is not None
    assert _by_time(run(2, State.PAUSED), [0.0] * 8, HORIZON_S - 60) is not None  # short: at once


def test_the_next_record_counts_where_its_time_is_known() -> None:
    """The record before an idle topic's newest one may be very old."""
    made = run(2, State.PAUSED)
    samples = _samples(made, [_standing_at(100, log_s=-0.99 * WEEK_S)] * 8)
    known = Retention({"flights": WEEK_S}, next_times={(tp(), 100): NOW})
    assert risk_of(made, samples, UNKNOWN, known) is None
    assert list(standing_cursors(made, samples)) == [(tp(), 100)]
    elsewhere = Retention({"flights": WEEK_S}, next_times={(tp(), 99): NOW})
    assert risk_of(made, samples, UNKNOWN, elsewhere) is not None


def test_a_run_that_has_read_nothing_goes_by_its_start() -> None:
    made = run(2, State.QUEUED, start_times={tp(): NOW - timedelta(days=6)})
    samples = _samples(made, [at(100, start=100)] * 8)
    assert risk_of(made, samples, UNKNOWN, Retention({"flights": WEEK_S})) is not None
    unknown = run(2, State.QUEUED)
    assert risk_of(unknown, samples, UNKNOWN, Retention({"flights": WEEK_S})) is None


def test_a_tail_at_its_end_is_never_at_risk() -> None:
    """For an instant each record is unread; and of a busy topic there always is one."""
    tail = run(2, State.TAILING)
    idle = [_standing_at(100, log_s=-0.99 * WEEK_S)] * 8
    samples = _samples(tail, idle, end=100)
    samples[-1] = replace(samples[-1], ends={tp(): LogEnds(0, 101, 7.0)})
    assert risk_of(tail, samples, UNKNOWN, Retention({"flights": WEEK_S})) is None
    busy = _samples(tail, [_standing_at(100 + 10 * n, log_s=-0.99 * WEEK_S) for n in range(8)], end=110, grown=10)
    assert risk_of(tail, busy, UNKNOWN, Retention({"flights": WEEK_S})) is None


def test_a_tail_that_falls_behind_is_at_risk_unless_it_catches_up_in_time() -> None:
    tail = run(2, State.TAILING)
    slow = _samples(tail, [_standing_at(100 + n, log_s=-3600.0 + n / 2) for n in range(8)], end=10_000, grown=5)
    assert risk_of(tail, slow, UNKNOWN, Retention({"flights": 3640.0})) is not None
    fast = _samples(tail, [_standing_at(100 + 1000 * n, log_s=-3600.0 + n / 2) for n in range(8)], end=10_000, grown=5)
    assert risk_of(tail, fast, UNKNOWN, Retention({"flights": 3640.0})) is None


def test_the_first_of_several_crossings_is_named() -> None:
    made = run(2, State.PAUSED)
    samples = [
        sample([(made, {0: _standing_at(5, log_s=-100.0), 1: _standing_at(5, log_s=-900.0)})], {0: 9, 1: 9}, at_s=n)
        for n in range(8)
    ]
    found = risk_of(made, samples, UNKNOWN, Retention({"flights": 1000.0}))
    assert found is not None
    assert found.tp == tp(1)


def test_what_is_lost_already_is_no_risk() -> None:
    made = run(2, State.PAUSED)
    samples = [replace(one, ends={tp(): LogEnds(200, 300, 0.0)}) for one in _samples(made, [at(100)] * 8)]
    assert risk_of(made, samples, UNKNOWN, Retention({"flights": 1.0})) is None


# --- by the movement of the start -----------------------------------------------------------------------------------


def _moved(*moves: tuple[float, int]) -> StartLine:
    line = StartLine()
    for at_s, start in moves:
        line.add(at_s, start)
    return line


EVERY_FIVE_MINUTES = [(0.0, 0), (10.0, 0), (100.0, 1000), (400.0, 2000), (700.0, 3000)]


def test_a_cursor_that_stands_still_is_passed_by_the_segment_that_covers_it() -> None:
    line = _moved(*EVERY_FIVE_MINUTES)
    assert line.passes_in_s(3500, 0.0, 800.0) == pytest.approx(200)  # by the next one, at 1000 s
    assert line.passes_in_s(4500, 0.0, 800.0) == pytest.approx(200 + 500 / (1000 / 300))


def test_a_cursor_that_is_faster_is_not_passed_once_the_next_segment_is_behind_it() -> None:
    line = _moved(*EVERY_FIVE_MINUTES)
    assert line.passes_in_s(3500, 10.0, 800.0) == math.inf  # at 5500 when the next one goes
    assert line.passes_in_s(3500, 2.0, 800.0) == pytest.approx(200)  # at 3900 by then
    assert line.passes_in_s(4500, 2.0, 800.0) < math.inf  # slower than the log: one day


def test_one_move_is_no_pace() -> None:
    assert _moved((0.0, 0), (100.0, 1000)).passes_in_s(1500, 0.0, 200.0) == math.inf
    assert _moved().passes_in_s(0, 0.0, 0.0) == math.inf


def test_a_start_that_moves_no_more_is_a_danger_that_fades() -> None:
    line = _moved(*EVERY_FIVE_MINUTES)
    assert line.passes_in_s(3500, 0.0, 5000.0) == pytest.approx(0.0)  # overdue: at any moment
    assert _moved(*EVERY_FIVE_MINUTES, (800.0, 0)).passes_in_s(3500, 0.0, 800.0) == math.inf  # another log


def test_the_sooner_one_counts() -> None:
    made = run(2, State.PAUSED)
    samples = _samples(made, [_standing_at(3500, log_s=0.0)] * 8)
    samples = [replace(one, monotonic_s=one.monotonic_s + 800.0) for one in samples]
    found = risk_of(made, samples, UNKNOWN, Retention({"flights": WEEK_S}, {tp(): _moved(*EVERY_FIVE_MINUTES)}))
    assert found is not None
    assert found.in_s == pytest.approx(193)
    assert "the log's start has moved so of late" in found.message


@given(
    st.lists(st.tuples(st.floats(0.1, 1000.0), st.integers(0, 10_000)), max_size=80),
    st.integers(0, 10**6),
    st.floats(0.0, 1e6),
)
def test_a_crossing_lies_ahead(moves: list[tuple[float, int]], ahead: int, applied_per_s: float) -> None:
    line, s, start = StartLine(), 0.0, 0
    for later_s, by in moves:
        s, start = s + later_s, start + by
        line.add(s, start)
    assert line.passes_in_s(start + ahead, applied_per_s, s + 1.0) >= 0.0


# --- what is news ---------------------------------------------------------------------------------------------------


def _risk(in_s: float) -> Risk:
    return Risk(tp(), NOW, in_s, "")


def test_a_risk_is_told_once_and_again_when_it_is_urgent() -> None:
    alarms, version = Alarms(), run().version
    calm, urgent = {version: _risk(URGENT_S + 1)}, {version: _risk(URGENT_S - 1)}
    told = [alarms.due(risks, float(n)) for n, risks in enumerate([calm, calm, urgent, urgent, calm, urgent])]
    assert told == [[version], [], [version], [], [], []]


def test_a_risk_that_comes_and_goes_is_news_after_a_while_only() -> None:
    alarms, version = Alarms(), run().version
    risks = {version: _risk(URGENT_S + 1)}
    assert alarms.due(risks, 0.0) == [version]
    assert alarms.due({}, 10.0) == []
    assert alarms.due(risks, 20.0) == []
    assert alarms.due({}, 1000.0) == []
    assert alarms.due(risks, 1001.0) == [version]


def test_one_that_is_urgent_at_first_is_told_once() -> None:
    alarms, version = Alarms(), run().version
    told = [alarms.due({version: _risk(1.0)}, float(n)) for n in range(3)]
    assert told == [[version], [], []]
