"""Ranges of the log: equal when they say the same, refused when they make no sense, the same on the wire and stored."""

from __future__ import annotations

import random
from collections.abc import Callable
from datetime import UTC, datetime, timedelta, timezone

import pytest
from google.protobuf.timestamp_pb2 import Timestamp
from hypothesis import given
from hypothesis import strategies as st

from turnout.log_range import OFFSETS_MAX, LogRange, LogRangeError, PartitionOffset, decode, encode, unix_ms
from turnout.log_range_proto import from_proto, to_proto
from turnout.registry.v1 import registry_pb2

NOON = datetime(2026, 3, 1, 12, tzinfo=UTC)
MICROSECOND = timedelta(microseconds=1)

times = st.timedeltas(timedelta(0), timedelta(days=50_000)).map(lambda since: datetime(1970, 1, 1, tzinfo=UTC) + since)
offsets = st.dictionaries(
    st.tuples(st.sampled_from(["a", "b-1"]), st.integers(0, 3)), st.integers(0, 2**63 - 1), min_size=1
).map(lambda named: tuple(PartitionOffset(topic, n, offset) for (topic, n), offset in named.items()))
some = st.one_of(st.none(), times, offsets)


def _made(start: object, end: object) -> LogRange | None:
    """The range; None where it is refused."""
    try:
        return LogRange(
            start_time=start if isinstance(start, datetime) else None,
            start_offsets=start if isinstance(start, tuple) else (),
            end_time=end if isinstance(end, datetime) else None,
            end_offsets=end if isinstance(end, tuple) else (),
        )
    except LogRangeError:
        return None


@given(some, some)
def test_it_is_the_same_stored_and_sent(start: object, end: object) -> None:
    made = _made(start, end)
    if made is None:
        return
    assert decode(encode(made)) == made
    message = to_proto(made)
    assert (message is None) is made.whole
    sent = registry_pb2.LogRange() if message is None else registry_pb2.LogRange.FromString(message.SerializeToString())
    assert (from_proto(sent) or LogRange()) == made
    assert made.bounded is (end is not None)


@given(offsets, st.randoms())
def test_the_order_of_offsets_says_nothing(given_offsets: tuple[PartitionOffset, ...], chance: random.Random) -> None:
    shuffled = list(given_offsets)
    chance.shuffle(shuffled)
    one, other = LogRange(start_offsets=given_offsets), LogRange(start_offsets=tuple(shuffled))
    assert one == other
    assert hash(one) == hash(other)
    assert encode(one) == encode(other)


@given(times)
def test_a_time_is_taken_to_the_next_millisecond(time: datetime) -> None:
    taken = LogRange(start_time=time).start_time
    assert taken is not None
    assert timedelta(0) <= taken - time < timedelta(milliseconds=1)
    assert taken.microsecond % 1000 == 0
    assert unix_ms(time) == unix_ms(taken)


def test_what_means_the_same_is_the_same() -> None:
    paris = NOON.astimezone(timezone(timedelta(hours=1)))
    assert LogRange(start_time=paris) == LogRange(start_time=NOON)
    assert LogRange(start_time=NOON - MICROSECOND) == LogRange(start_time=NOON)
    assert LogRange(start_time=NOON + MICROSECOND) != LogRange(start_time=NOON)
    stamp = Timestamp(seconds=int(NOON.timestamp()) - 1, nanos=999_999_999)
    assert from_proto(registry_pb2.LogRange(start_time=stamp)) == LogRange(start_time=NOON)
    assert from_proto(registry_pb2.LogRange()) is None


def test_where_it_begins_is_not_where_it_ends() -> None:
    assert LogRange(start_time=NOON) != LogRange(end_time=NOON)
    # An offset that is named must be there; one that is not begins with whatever is.
    assert LogRange(start_offsets=(PartitionOffset("a", 0, 0),)) != LogRange()


def _at(topic: str = "a", partition: int = 0, offset: int = 5) -> tuple[PartitionOffset, ...]:
    return (PartitionOffset(topic, partition, offset),)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: LogRange(start_time=NOON, start_offsets=_at()), "begins at a time or at offsets, not at both"),
        (lambda: LogRange(end_time=NOON, end_offsets=_at()), "ends at a time or at offsets, not at both"),
        (lambda: LogRange(start_time=NOON.replace(tzinfo=None)), "has no zone: say which"),
        (lambda: LogRange(end_time=datetime(1969, 12, 31, tzinfo=UTC)), "before 1970"),
        (lambda: LogRange(end_time=datetime.max.replace(tzinfo=UTC)), "beyond what a time can be"),
        (lambda: LogRange(start_time=NOON, end_time=NOON - timedelta(seconds=1)), "before it begins, 2026-03-01 12:00"),
        (lambda: LogRange(start_offsets=_at(offset=6), end_offsets=_at()), "range of a/0 ends at offset 5, before it"),
        (lambda: LogRange(start_offsets=_at() + _at(offset=6)), "names a/0 twice"),
        (lambda: LogRange(start_offsets=_at(offset=-1)), "offsets count from 0"),
        (lambda: LogRange(start_offsets=_at(offset=2**63)), "is no offset of a log"),
        (lambda: LogRange(start_offsets=_at(partition=-1)), "partitions count from 0"),
        (lambda: LogRange(start_offsets=_at(topic="")), "names no topic"),
        (
            lambda: LogRange(start_offsets=tuple(PartitionOffset("a", n, 0) for n in range(OFFSETS_MAX + 1))),
            "at most 10,000",
        ),
        (lambda: LogRange(end_offsets=_at()).check_topics(["flights", "b"]), "it reads b, flights"),
        (lambda: decode("{"), "cannot be read"),
        (lambda: decode('{"start_time":"2026-03-01T00:00:00"}'), "has no zone"),
        (
            lambda: from_proto(registry_pb2.LogRange(start_offsets=registry_pb2.Offsets())),
            "start_offsets names no partition",
        ),
        (lambda: from_proto(registry_pb2.LogRange(end_time=Timestamp(seconds=1 << 50))), "beyond what a time can be"),
        (lambda: from_proto(registry_pb2.LogRange(end_time=Timestamp(seconds=-1))), "before 1970"),
    ],
)
def test_what_makes_no_sense_is_refused(make: Callable[[], object], says: str) -> None:
    with pytest.raises(LogRangeError) as refused:
        make()
    assert says in str(refused.value)


def test_an_empty_range_makes_sense() -> None:
    assert LogRange(start_offsets=_at(), end_offsets=_at()).bounded
    assert LogRange(start_time=NOON, end_time=NOON).bounded
    LogRange(start_offsets=_at(), end_offsets=_at(partition=1, offset=0)).check_topics(["a"])


@pytest.mark.parametrize(
    ("made", "words"),
    [
        (LogRange(), "from the earliest record on"),
        (LogRange(start_time=NOON), "from 2026-03-01 12:00:00 UTC on"),
        (LogRange(end_time=NOON + MICROSECOND), "from the earliest record until 2026-03-01 12:00:00.001 UTC"),
        (
            LogRange(start_offsets=_at(partition=1) + _at(), end_offsets=_at(topic="b", offset=7)),
            "from a/0=5, a/1=5 until b/0=7",
        ),
    ],
)
def test_in_words(made: LogRange, words: str) -> None:
    assert str(made) == words
