"""A part of the log, which a version's table is made of: where it begins and where it ends.

A range belongs to a version, because it decides what the table holds: the same code with another range is another
version. Two ranges are equal when they say the same: offsets are sorted, and a time is taken to the next millisecond,
since Kafka's own timestamps have no finer ones. What a time means in offsets, and whether the log still holds it, is
found out once, when the run of the version starts.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta

import msgspec

OFFSETS_MAX = 10_000  # in one list
_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)
_INT32_MAX, _INT64_MAX = 2**31 - 1, 2**63 - 1


class LogRangeError(ValueError):
    """A range that makes no sense. The text says why and what to write instead; it ends without a full stop."""


@dataclass(frozen=True, slots=True, order=True)
class PartitionOffset:
    """An offset of a partition."""

    topic: str
    partition: int
    offset: int

    def __str__(self) -> str:
        return f"{self.topic}/{self.partition}={self.offset}"


@dataclass(frozen=True, slots=True)
class LogRange:
    """A part of the log; `LogRange()` is all of it. Constructing one raises LogRangeError (a ValueError).

    start_time: with the first record of each partition written at or after it, by Kafka's timestamps; aware.
    start_offsets: at these offsets; partitions that are not named begin with their earliest record. Neither: with the
    earliest record that is retained when the run starts.
    end_time: before the first record of each partition written at or after it; it must have passed when the run starts.
    end_offsets: before these offsets; every partition must be named. Neither: never, the run goes on as a live tail.
    """

    start_time: datetime | None = None
    start_offsets: tuple[PartitionOffset, ...] = ()
    end_time: datetime | None = None
    end_offsets: tuple[PartitionOffset, ...] = ()

    def __post_init__(self) -> None:
        if self.start_time is not None and self.start_offsets:
            raise LogRangeError("a range begins at a time or at offsets, not at both")
        if self.end_time is not None and self.end_offsets:
            raise LogRangeError("a range ends at a time or at offsets, not at both")
        for name in ("start_time", "end_time"):
            time = getattr(self, name)
            if time is not None:
                object.__setattr__(self, name, _canonical_time(time, name))
        for name in ("start_offsets", "end_offsets"):
            object.__setattr__(self, name, _canonical_offsets(getattr(self, name), name))
        _check_order(self)

    @property
    def whole(self) -> bool:
        """Whether it leaves nothing out: all that is retained, and then the live tail."""
        return self.start_time is None and not self.start_offsets and not self.bounded

    @property
    def bounded(self) -> bool:
        """Whether it ends."""
        return self.end_time is not None or bool(self.end_offsets)

    def check_topics(self, topics: Collection[str]) -> None:
        """LogRangeError unless every topic that it names is one of these."""
        for one in (*self.start_offsets, *self.end_offsets):
            if one.topic not in topics:
                raise LogRangeError(
                    f"{one} names a topic that the job does not read: it reads {', '.join(sorted(topics))}"
                )

    def __str__(self) -> str:
        """In words: "from 2026-03-01 12:00:00 UTC until flights/0=120, flights/1=118"."""
        start = _words(self.start_time, self.start_offsets) or "the earliest record"
        end = _words(self.end_time, self.end_offsets)
        return f"from {start} until {end}" if end else f"from {start} on"


def encode(log_range: LogRange) -> str:
    """As JSON. Equal ranges give equal text."""
    return msgspec.json.encode(log_range).decode()


def decode(text: str) -> LogRange:
    """What `encode` wrote. LogRangeError otherwise."""
    try:
        return msgspec.json.decode(text, type=LogRange)
    except msgspec.DecodeError as error:
        raise LogRangeError(f"a stored range cannot be read: {error}") from None


def unix_ms(time: datetime) -> int:
    """Milliseconds since 1970; a part of one counts as a whole one."""
    return -((_EPOCH - time) // timedelta(milliseconds=1))


def _canonical_time(time: datetime, name: str) -> datetime:
    if not isinstance(time, datetime):
        raise LogRangeError(f"{name} is {time!r}, not a datetime")
    if time.tzinfo is None:
        raise LogRangeError(f"{name} {time.isoformat()} has no zone: say which, such as UTC")
    if time < _EPOCH:
        raise LogRangeError(f"{name} {time.isoformat()} is before 1970, and Kafka's timestamps begin there")
    try:
        return _EPOCH + timedelta(milliseconds=unix_ms(time))
    except OverflowError:
        raise LogRangeError(f"{name} {time.isoformat()} is beyond what a time can be") from None


def _canonical_offsets(given: Iterable[PartitionOffset], name: str) -> tuple[PartitionOffset, ...]:
    offsets = tuple(given)
    if len(offsets) > OFFSETS_MAX:
        raise LogRangeError(f"{name} has {len(offsets):,} offsets; at most {OFFSETS_MAX:,} can be named")
    seen: set[tuple[str, int]] = set()
    for one in offsets:
        if not isinstance(one, PartitionOffset):
            raise LogRangeError(f"{name} holds {one!r}, which is not a PartitionOffset")
        if not one.topic:
            raise LogRangeError(f"{name}: partition {one.partition} at offset {one.offset} names no topic")
        if not 0 <= one.partition <= _INT32_MAX:
            raise LogRangeError(f"{one} names partition {one.partition}; partitions count from 0")
        if not 0 <= one.offset <= _INT64_MAX:
            raise LogRangeError(f"{one} is no offset of a log; offsets count from 0")
        if (one.topic, one.partition) in seen:
            raise LogRangeError(f"{name} names {one.topic}/{one.partition} twice; name each partition once")
        seen.add((one.topic, one.partition))
    return tuple(sorted(offsets))


def _check_order(made: LogRange) -> None:
    if made.start_time is not None and made.end_time is not None and made.end_time < made.start_time:
        raise LogRangeError(f"the range ends at {_moment(made.end_time)}, before it begins, {_moment(made.start_time)}")
    ends = {(one.topic, one.partition): one.offset for one in made.end_offsets}
    for one in made.start_offsets:
        end = ends.get((one.topic, one.partition))
        if end is not None and end < one.offset:
            raise LogRangeError(
                f"the range of {one.topic}/{one.partition} ends at offset {end:,}, before it begins, {one.offset:,}"
            )


def _words(time: datetime | None, offsets: tuple[PartitionOffset, ...]) -> str:
    return _moment(time) if time is not None else ", ".join(map(str, offsets))


def _moment(time: datetime) -> str:
    text = time.strftime("%Y-%m-%d %H:%M:%S")
    return f"{text}.{time.microsecond // 1000:03} UTC" if time.microsecond else f"{text} UTC"
