"""How long a copy takes, how long it waits, and whether retention overtakes it."""

from __future__ import annotations

import math
from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replayer.copy_time import (
    SHORT_REACH,
    START_S,
    Crossing,
    Measured,
    Speed,
    arriving,
    crossing,
    duration,
    limited,
    measured,
    queue_wait_s,
    speed_of,
)
from services.replayer.run import LogEnds
from services.replayer.states import State
from tests.unit.replayer.made import NOW, at, run, tp

SPEED = Speed(1000.0, 800.0, 1250.0, "a copy")
DAY_S = 86400.0


# --- speed ---


def test_nothing_measured_nothing_known() -> None:
    assert speed_of([], [], "map", 1) is None
    assert speed_of([Measured("a v1", 0, 5.0)], [Measured("b v1", 5, 0.0)], "map", 1) is None


def test_copies_of_the_job_tell_more_than_those_of_its_kind() -> None:
    own, other = Measured("a v1", 100_000, 100.0), Measured("b v1", 9_000_000, 100.0)
    speed = speed_of([own], [other, own], "fold", 10**6)
    assert speed is not None
    assert speed.expected == pytest.approx(100_000 / (100 - START_S))
    assert speed.basis == "the time is judged by copies of this job: a v1 read 100,000 offsets in 100.0 s"
    speed = speed_of([], [own, other], "fold", 10**6)
    assert speed is not None
    assert "other fold jobs, for this one has made none yet: b v1 read" in speed.basis
    assert speed.basis.endswith(", and 1 more")
    assert speed.slowest < 1000 < speed.expected < 90_000 < speed.fastest


def test_a_long_copy_tells_the_speed_closely_a_short_one_says_how_little_it_tells() -> None:
    long, short = speed_of([Measured("", 10**6, 1000.0)], [], "", 9), speed_of([Measured("", 1500, 1.5)], [], "", 9)
    assert long is not None
    assert short is not None
    assert long.fastest / long.slowest < 1.6
    assert short.fastest / short.slowest > 10


def test_a_short_copy_beside_a_long_one_adds_nothing() -> None:
    long, short = Measured("a v1", 10**6, 1000.0), Measured("a v2", 100, 1.5)
    alone, both = speed_of([long], [], "", 10**6), speed_of([short, long], [], "", 10**6)
    assert alone == both


def test_short_copies_are_asked_only_where_none_is_long_and_not_of_a_much_longer_log() -> None:
    tiny, long = Measured("a v1", 200, 4.7), Measured("b v1", 200_000, 17.0)
    assert speed_of([tiny], [], "map", 213_773) is None
    assert speed_of([tiny], [], "map", 200 * SHORT_REACH + 1) is None
    by_itself = speed_of([tiny], [tiny], "map", 200 * SHORT_REACH)
    assert by_itself is not None
    assert by_itself.expected == pytest.approx(200 / (4.7 - START_S))
    by_another = speed_of([tiny], [tiny, long], "map", 213_773)
    assert by_another is not None
    assert "other map jobs, for this one has made only short ones: b v1 read 200,000" in by_another.basis
    assert duration(213_773, 0.0, by_another).expected_s == pytest.approx(18, abs=0.5)
    slow = Measured("c v1", 19_999, 600.0)
    assert speed_of([slow, long], [], "map", 1) == speed_of([long], [], "map", 1)


def test_the_start_does_not_count_as_speed() -> None:
    one = Measured("a v1", 30_000, 6.0)
    speed = speed_of([one], [], "map", 30_000)
    assert speed is not None
    assert duration(30_000, 0.0, speed).expected_s == pytest.approx(6.0)
    assert duration(300_000, 0.0, speed).expected_s == pytest.approx(33.0)


@given(st.lists(st.builds(Measured, st.just("x"), st.integers(1, 10**9), st.floats(0.1, 10**5)), min_size=1))
def test_the_expected_speed_lies_within_its_spread(copies: list[Measured]) -> None:
    speed = speed_of(copies, [], "map", 1)
    assert speed is not None
    assert 0 < speed.slowest < speed.expected < speed.fastest


def test_what_holds_a_run_back_makes_it_slower_never_faster() -> None:
    assert limited(SPEED, 1000.0, "x") is SPEED
    held = limited(SPEED, 900.0, "its rate limit")
    assert (held.expected, held.slowest, held.fastest) == (900, 800, 900)
    assert held.basis == "the time is judged by its rate limit, 900 records/s, for copies are faster (a copy)"


def test_a_copy_is_measured_when_it_has_caught_up_or_while_it_runs() -> None:
    done = run(1, State.PAUSED, copy_offsets=100, copy_s=4.0)
    assert measured(done, {}, NOW) == Measured("punctuality v1", 100, 4.0)
    under_way = run(2, State.REPLAYING, admit_time=NOW - timedelta(seconds=10), admit_offsets=40)
    assert measured(under_way, {tp(0): at(100), tp(1): at(50)}, NOW) == Measured("punctuality v2", 110, 10.0)
    for says_nothing in (
        replace(under_way, rate_limit=5),
        replace(under_way, state=State.PAUSED),
        replace(under_way, admit_time=None),
        replace(under_way, admit_time=NOW - timedelta(seconds=START_S)),
        replace(under_way, admit_offsets=150),
    ):
        assert measured(says_nothing, {tp(0): at(100), tp(1): at(50)}, NOW) is None


# --- duration ---


def test_what_arrives_is_read_too() -> None:
    assert duration(10_000, 0.0, SPEED).expected_s == START_S + 10.0
    still = duration(10_000, 200.0, SPEED, waits_s=5.0)
    assert still.expected_s == pytest.approx(START_S + 11_600 / 800)
    assert still.shortest_s == pytest.approx(START_S + 11_600 / 1050)
    assert still.longest_s == pytest.approx(START_S + 11_600 / 600)


def test_a_log_that_grows_faster_than_it_is_read_is_never_caught_up_with() -> None:
    assert duration(1, 1000.0, SPEED).never
    assert not duration(1, 999.0, SPEED).never
    may_be_never = duration(10_000, 900.0, SPEED)
    assert (may_be_never.never, may_be_never.longest_s) == (False, None)
    assert may_be_never.expected_s == pytest.approx(START_S + (10_000 + 900 * START_S) / 100)


@given(st.integers(0, 10**9), st.floats(0, 2000))
def test_the_duration_lies_within_its_spread(offsets: int, per_s: float) -> None:
    found = duration(offsets, per_s, SPEED)
    assert found.never == (found.expected_s is None)
    if found.expected_s is not None:
        assert found.shortest_s is not None
        assert found.shortest_s <= found.expected_s <= (math.inf if found.longest_s is None else found.longest_s)


def test_the_log_grows_by_what_its_ends_moved_on() -> None:
    before = {tp(0): LogEnds(0, 100, 10.0), tp(1): LogEnds(0, 50, 10.0), tp(2): LogEnds(0, 7, -math.inf)}
    now = {
        tp(0): LogEnds(0, 400, 12.0),
        tp(1): LogEnds(0, 50, 12.0),
        tp(2): LogEnds(0, 9, 12.0),
        tp(3): LogEnds(0, 9, 12.0),
    }
    assert arriving(before, now) == 150.0
    assert arriving(now, now) == 0.0
    assert arriving({}, now) == 0.0


# --- the queue ---


def test_the_wait_is_until_enough_copies_have_ended() -> None:
    assert queue_wait_s(0, 2, [None]) == 0.0
    assert queue_wait_s(1, 2, [30.0, 10.0]) == 10.0
    assert queue_wait_s(2, 2, [30.0, 10.0]) == 30.0
    assert queue_wait_s(1, 1, [30.0, 10.0, 20.0]) == 30.0  # the budget was narrowed: all three must end
    assert queue_wait_s(1, 2, [None, 10.0]) == 10.0


def test_the_wait_is_not_known_without_the_etas_that_matter() -> None:
    assert queue_wait_s(3, 2, [30.0, 10.0]) is None  # behind runs that have not begun
    assert queue_wait_s(2, 2, [None, 10.0]) is None
    assert queue_wait_s(1, 2, [10.0]) is None  # not copies are what it waits for


# --- retention ---


def risk(
    age_s: float, *, kept_s: float = DAY_S, waits_s: float = 0.0, holds_s: float | None, reads_s: float | None
) -> Crossing | None:
    oldest = {tp(0): NOW - timedelta(seconds=age_s), tp(1): NOW}
    return crossing(oldest, NOW, {"flights": kept_s}, waits_s=waits_s, holds_s=holds_s, reads_s=reads_s)


def test_a_run_that_reads_faster_than_the_log_was_written_is_not_overtaken() -> None:
    assert risk(DAY_S - 1, holds_s=3600.0, reads_s=4000.0) is None
    assert risk(2 * DAY_S, holds_s=3600.0, reads_s=4000.0) is None  # due, and not gone yet: it is read first


def test_a_run_that_waits_longer_than_its_oldest_record_is_kept_is_overtaken_in_the_queue() -> None:
    assert risk(DAY_S - 60, waits_s=61.0, holds_s=60.0, reads_s=60.0) == Crossing(tp(0), 60.0, queued=True)
    assert risk(DAY_S - 60, waits_s=59.0, holds_s=60.0, reads_s=60.0) is None
    assert risk(DAY_S - 60, waits_s=math.inf, holds_s=None, reads_s=None) == Crossing(tp(0), 60.0, queued=True)
    assert risk(2 * DAY_S, waits_s=1.0, holds_s=None, reads_s=None) == Crossing(tp(0), 0.0, queued=True)


def test_a_dense_log_is_overtaken_while_it_is_read() -> None:
    # Ten hours of log take twenty to read, and its oldest record goes in two: half an hour an hour, so in four.
    found = risk(10 * 3600.0, kept_s=12 * 3600.0, holds_s=20 * 3600.0, reads_s=20 * 3600.0)
    assert found == Crossing(tp(0), pytest.approx(4 * 3600.0), queued=False)  # type: ignore[arg-type]  # like a float
    assert risk(10 * 3600.0, kept_s=22 * 3600.0, holds_s=20 * 3600.0, reads_s=20 * 3600.0) is None
    assert risk(10 * 3600.0, kept_s=22 * 3600.0, holds_s=20 * 3600.0, reads_s=None) is not None  # it never ends


def test_what_is_kept_for_ever_is_never_lost() -> None:
    oldest = {tp(0): NOW - timedelta(days=999)}
    assert crossing(oldest, NOW, {}, waits_s=math.inf, holds_s=None, reads_s=None) is None
    assert crossing(oldest, NOW, {"other": 1.0}, waits_s=math.inf, holds_s=None, reads_s=None) is None


def test_the_first_partition_to_be_lost_is_named() -> None:
    oldest = {tp(0): NOW, tp(1): NOW - timedelta(seconds=5), tp(2): NOW - timedelta(seconds=5)}
    found = crossing(oldest, NOW, {"flights": 9.0}, waits_s=math.inf, holds_s=None, reads_s=None)
    assert found == Crossing(tp(1), 4.0, queued=True)
