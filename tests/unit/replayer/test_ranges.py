"""What a range of the log means in offsets."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replayer.protocol import TopicPartition
from services.replayer.ranges import Extent, FirstAt, Retained, check_passed, resolve, times_of, within
from services.replayer.run import LogEnds
from tests.unit.replayer.made import NOW, tp
from turnout.errors import FailedPrecondition
from turnout.log_range import LogRange, PartitionOffset

EARLIER, LATER = NOW - timedelta(hours=2), NOW - timedelta(hours=1)
# Partition 0 lost its first hundred records; in partition 1 a transaction is open from 40 on; partition 2 is empty.
LOG = {tp(0): Retained(100, 500, 500), tp(1): Retained(0, 40, 60), tp(2): Retained(7, 7, 7)}


def _at(*offsets: int) -> tuple[PartitionOffset, ...]:
    return tuple(PartitionOffset("flights", n, offset) for n, offset in enumerate(offsets))


def _found(log_range: LogRange, first_at: dict[datetime, FirstAt] | None = None) -> list[Extent]:
    found = resolve(log_range, LOG, first_at or {})
    assert list(found) == sorted(LOG)
    return list(found.values())


def _times(*offsets: int | None) -> FirstAt:
    return {tp(n): offset for n, offset in enumerate(offsets)}


def test_offsets_are_taken_at_their_word() -> None:
    assert _found(LogRange(start_offsets=_at(120, 3))) == [Extent(120), Extent(3), Extent(7)]  # 2 is not named
    assert _found(LogRange(end_offsets=_at(100, 60, 7))) == [Extent(100, 100), Extent(0, 60), Extent(7, 7)]
    both = LogRange(start_offsets=_at(500, 40, 7), end_offsets=_at(500, 41, 7))
    assert _found(both) == [Extent(500, 500), Extent(40, 41), Extent(7, 7)]


def test_times_are_looked_for_and_else_mean_the_end() -> None:
    assert times_of(LogRange(start_time=EARLIER, end_time=LATER)) == (EARLIER, LATER)
    assert times_of(LogRange(start_offsets=_at(1))) == ()
    found = _found(
        LogRange(start_time=EARLIER, end_time=LATER),
        {EARLIER: _times(130, 10, None), LATER: _times(None, 50, None)},
    )
    assert found == [Extent(130, 500), Extent(10, 50), Extent(7, 7)]


def test_a_record_that_expires_meanwhile_moves_the_bound_to_the_log_start() -> None:
    assert _found(LogRange(start_time=EARLIER), {EARLIER: _times(90, 0, None)})[0] == Extent(100)


def test_a_time_and_offsets_go_together() -> None:
    found = _found(LogRange(start_offsets=_at(120), end_time=LATER), {LATER: _times(120, 5, None)})
    assert found == [Extent(120, 120), Extent(0, 5), Extent(7, 7)]


def _refused(log_range: LogRange, first_at: dict[datetime, FirstAt] | None = None) -> tuple[str, str]:
    with pytest.raises(FailedPrecondition) as refused:
        resolve(log_range, LOG, first_at or {})
    return refused.value.reason, refused.value.message


@pytest.mark.parametrize(
    ("log_range", "says"),
    [
        (LogRange(start_offsets=_at(99)), "flights/0=99: the log begins at 100 and ends at 500."),
        (LogRange(start_offsets=_at(501)), "flights/0=501: the log begins at 100 and ends at 500."),
        (LogRange(end_offsets=_at(99, 10, 7)), "flights/0=99: the log begins at 100 and ends at 500."),
        (LogRange(end_offsets=_at(500, 61, 7)), "flights/1=61: the log begins at 0 and ends at 60."),
        (LogRange(start_offsets=_at(100, 0, 7, 0)), "flights/3=0: flights has the partitions 0 to 2."),
        (
            LogRange(start_offsets=_at(99), end_offsets=_at(600, 0, 7)),
            "flights/0=99: the log begins at 100 and ends at 5",
        ),
    ],
)
def test_an_offset_that_is_not_there_is_named_with_what_is(log_range: LogRange, says: str) -> None:
    reason, message = _refused(log_range)
    assert reason == "RANGE_NOT_RETAINED"
    assert says in message
    assert message.endswith("Apply the job's file with a range that the log holds, as another version.")


def test_all_that_is_wrong_is_told_at_once_within_reason() -> None:
    _, message = _refused(LogRange(start_offsets=_at(1), end_offsets=_at(2, 99, 3)))
    assert all(text in message for text in ("flights/0=1:", "flights/0=2:", "flights/1=99:", "flights/2=3:"))
    _, message = _refused(LogRange(start_offsets=_at(*[0] * 3, *[0] * 9)))
    assert "; and 6 more." in message


def test_an_end_at_offsets_names_every_partition() -> None:
    reason, message = _refused(LogRange(end_offsets=_at(500)))
    assert reason == "RANGE_INCOMPLETE"
    assert "flights/1 (the log ends at 60); flights/2 (the log ends at 7)" in message


def test_a_range_may_end_behind_an_open_transaction_and_not_begin_there() -> None:
    assert _found(LogRange(end_offsets=_at(500, 60, 7)))[1] == Extent(0, 60)
    reason, message = _refused(LogRange(start_offsets=_at(100, 41)))
    assert reason == "RANGE_IN_TRANSACTION"
    assert "flights/1: it begins at 41, and what is readable ends at 40" in message
    assert _refused(LogRange(start_time=LATER), {LATER: _times(None, None, None)})[0] == "RANGE_IN_TRANSACTION"


def test_a_range_that_turns_out_to_end_before_it_begins() -> None:
    reason, message = _refused(LogRange(start_offsets=_at(300), end_time=EARLIER), {EARLIER: _times(200, 5, None)})
    assert reason == "RANGE_BACKWARDS"
    assert "flights/0: it begins at 300 and ends at 200" in message


@pytest.mark.parametrize(
    ("log_range", "says"),
    [
        (LogRange(start_time=NOW + timedelta(seconds=1)), "begins at 2026-01-01 12:00:01 UTC"),
        (LogRange(end_time=NOW + timedelta(days=1)), "ends at 2026-01-02 12:00:00 UTC"),
        (LogRange(start_time=NOW, end_time=NOW), None),
        (LogRange(start_offsets=_at(10**9)), None),
    ],
)
def test_times_must_have_passed(log_range: LogRange, says: str | None) -> None:
    if says is None:
        check_passed(log_range, NOW)
        return
    with pytest.raises(FailedPrecondition, match=says) as refused:
        check_passed(log_range, NOW)
    assert refused.value.reason == "RANGE_NOT_PASSED"
    assert "it is 2026-01-01 12:00:00 UTC" in refused.value.message


@st.composite
def logs(draw: st.DrawFn) -> dict[TopicPartition, Retained]:
    made = {}
    for n in range(draw(st.integers(1, 4))):
        start, stable_end, end = sorted(draw(st.lists(st.integers(0, 100), min_size=3, max_size=3)))
        made[tp(n)] = Retained(start, stable_end, end)
    return made


offset = st.integers(0, 110)


@given(logs(), st.data())
def test_whatever_is_accepted_lies_in_the_log(log: dict[TopicPartition, Retained], data: st.DataObject) -> None:
    def bound() -> tuple[datetime | None, tuple[PartitionOffset, ...], FirstAt]:
        kind = data.draw(st.sampled_from(["open", "time", "offsets"]))
        if kind == "time":
            first = {one: data.draw(st.one_of(st.none(), st.integers(0, there.end))) for one, there in log.items()}
            return datetime(2000, 1, 1, tzinfo=UTC), (), first
        named = data.draw(st.lists(st.sampled_from(sorted(log)), unique=True)) if kind == "offsets" else []
        return None, tuple(PartitionOffset(one.topic, one.partition, data.draw(offset)) for one in named), {}

    start_time, start_offsets, first_start = bound()
    end_time, end_offsets, first_end = bound()
    try:
        made = LogRange(start_time, start_offsets, end_time and end_time + timedelta(1), end_offsets)
    except ValueError:
        return
    first_at = {time: first for time, first in ((made.start_time, first_start), (made.end_time, first_end)) if time}
    try:
        found = resolve(made, log, first_at)
    except FailedPrecondition:
        return
    assert found.keys() == log.keys()
    for one, extent in found.items():
        there = log[one]
        assert there.start <= extent.start <= there.stable_end
        assert (extent.end is not None) is made.bounded
        assert extent.end is None or extent.start <= extent.end <= there.end
    for named in made.start_offsets:
        assert found[TopicPartition(named.topic, named.partition)].start == named.offset


def test_what_the_log_holds_of_an_extent() -> None:
    ends = {tp(0): LogEnds(0, 50, 1.0)}
    assert within(ends, {tp(0): Extent(10)}) == {tp(0): LogEnds(10, 50, 1.0)}
    assert within(ends, {tp(0): Extent(10, 30)}) == {tp(0): LogEnds(10, 30, 1.0)}
    assert within(ends, {tp(0): Extent(10, 90)}) == {tp(0): LogEnds(10, 50, 1.0)}  # a transaction is open at 50
    assert within(ends, {tp(0): Extent(60, 90)}) == {tp(0): LogEnds(60, 60, 1.0)}
