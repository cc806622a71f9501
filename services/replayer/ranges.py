"""Which offsets a version's range of the log means, found out once when its run starts. Pure.

An offset that was given is taken at its word: it must be in the log, else nothing is started, for a table that lacks
what its version promises would look like any other. A time is looked for: the first record of each partition written
at or after it; where there is none, the end of the log. So a time before the oldest record begins with that one, and
only times that have passed can be looked for.

Where transactions are open the log has two ends: a reader sees no further than the first open one. A range may end
behind it, for the run waits there until that transaction has ended; it cannot begin there.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.replayer.protocol import TopicPartition
from services.replayer.run import LogEnds
from turnout.errors import FailedPrecondition
from turnout.log_range import LogRange, PartitionOffset

_NAMED_MAX: Final = 5  # problems told at once


@dataclass(frozen=True, slots=True)
class Extent:
    """What a run reads of one partition: the offsets from `start` up to, not including, `end`; None = for ever."""

    start: int
    end: int | None = None


@dataclass(frozen=True, slots=True)
class Retained:
    """What the log holds of a partition: the offsets [start, end); readers see no further than `stable_end`."""

    start: int
    stable_end: int
    end: int


FirstAt = Mapping[TopicPartition, int | None]
"""Of each partition the offset of the first record at or after a time; None = it has none yet."""


def times_of(log_range: LogRange) -> tuple[datetime, ...]:
    """The times of the range that are to be looked for in the log."""
    return tuple(time for time in (log_range.start_time, log_range.end_time) if time is not None)


def check_passed(log_range: LogRange, now: datetime) -> None:
    """FailedPrecondition (RANGE_NOT_PASSED) while a time of the range is still to come."""
    for what, time in (("begins", log_range.start_time), ("ends", log_range.end_time)):
        if time is not None and time > now:
            raise FailedPrecondition(
                "RANGE_NOT_PASSED",
                f"The range {what} at {time:%Y-%m-%d %H:%M:%S} UTC, and it is {now:%Y-%m-%d %H:%M:%S} UTC: which "
                f"records that means is not known before it has passed. Start the run then, or choose a time that has "
                f"passed.",
            )


def resolve(
    log_range: LogRange, retained: Mapping[TopicPartition, Retained], first_at: Mapping[datetime, FirstAt]
) -> dict[TopicPartition, Extent]:
    """The offsets of every partition that the log holds.

    first_at: for each of `times_of`. FailedPrecondition, naming the partitions that are at fault and what is there:
    RANGE_NOT_RETAINED for an offset that the log does not hold, RANGE_INCOMPLETE for an end that leaves partitions out,
    RANGE_IN_TRANSACTION for a start behind an open transaction, RANGE_BACKWARDS for an end before the start.
    """
    _refuse(
        "RANGE_NOT_RETAINED",
        "The log does not hold an offset of the version's range",
        [*_not_there(log_range.start_offsets, retained), *_not_there(log_range.end_offsets, retained)],
        "Apply the job's file with a range that the log holds, as another version",
    )
    ends = _by_partition(log_range.end_offsets)
    missing = [f"{_where(tp)} (the log ends at {retained[tp].end:,})" for tp in sorted(retained) if tp not in ends]
    _refuse(
        "RANGE_INCOMPLETE",
        "A range that ends at offsets must name one for every partition",
        missing if ends else [],
        "Apply the job's file with these partitions named as well, as another version",
    )
    starts = _by_partition(log_range.start_offsets)
    found = {}
    for tp, there in sorted(retained.items()):
        start = starts.get(tp, there.start)
        if log_range.start_time is not None:
            start = _or_end(first_at[log_range.start_time][tp], there)
        end = ends.get(tp)
        if log_range.end_time is not None:
            end = _or_end(first_at[log_range.end_time][tp], there)
        found[tp] = Extent(start, end)
    _check(found, retained)
    return found


def within(
    ends: Mapping[TopicPartition, LogEnds], extents: Mapping[TopicPartition, Extent]
) -> dict[TopicPartition, LogEnds]:
    """What the log holds at present of what a run reads."""
    found = {}
    for tp, one in extents.items():
        there = ends[tp]
        end = there.end if one.end is None else min(there.end, one.end)
        found[tp] = LogEnds(one.start, max(one.start, end), there.asked_s)
    return found


def _check(found: Mapping[TopicPartition, Extent], retained: Mapping[TopicPartition, Retained]) -> None:
    _refuse(
        "RANGE_IN_TRANSACTION",
        "The version's range begins behind a transaction that is still open",
        [
            f"{_where(tp)}: it begins at {one.start:,}, and what is readable ends at {retained[tp].stable_end:,}"
            for tp, one in found.items()
            if one.start > retained[tp].stable_end
        ],
        "Start the run once it has ended, or apply the job's file with an earlier start, as another version",
    )
    _refuse(
        "RANGE_BACKWARDS",
        "The version's range ends before it begins",
        [
            f"{_where(tp)}: it begins at {one.start:,} and ends at {one.end:,}"
            for tp, one in found.items()
            if one.end is not None and one.end < one.start
        ],
        "Apply the job's file with a range that ends later, as another version",
    )


def _not_there(given: tuple[PartitionOffset, ...], retained: Mapping[TopicPartition, Retained]) -> Iterator[str]:
    for one in given:
        there = retained.get(TopicPartition(one.topic, one.partition))
        if there is None:
            count = sum(tp.topic == one.topic for tp in retained)
            yield f"{one}: {one.topic} has the partitions 0 to {count - 1}"
        elif not there.start <= one.offset <= there.end:
            yield f"{one}: the log begins at {there.start:,} and ends at {there.end:,}"


def _or_end(offset: int | None, there: Retained) -> int:
    return there.end if offset is None else max(offset, there.start)


def _by_partition(offsets: tuple[PartitionOffset, ...]) -> dict[TopicPartition, int]:
    return {TopicPartition(one.topic, one.partition): one.offset for one in offsets}


def _where(tp: TopicPartition) -> str:
    return f"{tp.topic}/{tp.partition}"


def _refuse(reason: str, what: str, problems: list[str], remedy: str) -> None:
    if problems:
        more = f"; and {len(problems) - _NAMED_MAX:,} more" if len(problems) > _NAMED_MAX else ""
        raise FailedPrecondition(reason, f"{what}: {'; '.join(problems[:_NAMED_MAX])}{more}. {remedy}.")
