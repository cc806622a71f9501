"""Applied positions, as bytes until somebody looks at them. Pure.

Every answer tells the positions of its table, and they change a few times a second at the most, while a front answers
thousands of reads. So a statement gives them as one value, PostgreSQL's binary form of some parallel arrays one after
the other, and a reader that sees the bytes that it saw before takes what it made of them then.
"""

from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from struct import Struct
from typing import Any, Final

from turnout.reading.kept import Kept

COLUMNS: Final = ("topic", "topic_id", "partition", "next_offset", "event_time")
"""Columns of serving.positions, in the order of the arrays."""

_POSTGRES_EPOCH: Final = datetime(2000, 1, 1, tzinfo=UTC)
_INFINITY: Final = 2**63 - 1  # of times; the negative one is the smallest int64
_HEAD: Final = Struct(">iiIii")  # dimensions, whether there are nulls, type, length, first index
_LENGTH: Final = Struct(">i")
_INT32: Final = Struct(">i")
_INT64: Final = Struct(">q")


@dataclass(frozen=True, slots=True)
class Position:
    """How far the rows reflect one partition: every record before `next_offset` is in them. topic_id: of the broker, ""
    = unknown."""

    topic: str
    topic_id: str
    partition: int
    next_offset: int
    event_time: datetime | None


class Positions:
    """The positions of a table in one snapshot, by topic and partition; none where nothing was recorded.

    raw: the arrays of `COLUMNS`, each as `array_send` gives it; empty = none. What is made of them is `kept`, so that
    it serves as long as the table has these positions.
    """

    __slots__ = ("kept", "raw")

    def __init__(self, raw: bytes) -> None:
        self.raw = raw
        self.kept = Kept()

    @property
    def each(self) -> tuple[Position, ...]:
        """One by one."""
        return self.kept("each", lambda: _decoded(self.raw))


def _decoded(raw: bytes) -> tuple[Position, ...]:
    if not raw:
        return ()
    at = 0
    arrays = []
    for _ in COLUMNS:
        array, at = _array(raw, at)
        arrays.append(array)
    return tuple(
        Position(
            topic.decode(),
            "" if topic_id is None else topic_id.decode(),
            _INT32.unpack(partition)[0],
            _INT64.unpack(next_offset)[0],
            None if time is None else _instant(_INT64.unpack(time)[0]),
        )
        for topic, topic_id, partition, next_offset, time in zip(*arrays, strict=True)
    )


def _array(raw: bytes, at: int) -> tuple[list[Any], int]:
    """The elements of an array, as bytes or None, and where the next one begins."""
    _, _, _, count, _ = _HEAD.unpack_from(raw, at)
    elements = list(_elements(raw, at + _HEAD.size, count))
    end = at + _HEAD.size + sum(_LENGTH.size + (0 if one is None else len(one)) for one in elements)
    return elements, end


def _elements(raw: bytes, at: int, count: int) -> Iterator[bytes | None]:
    for _ in range(count):
        (length,) = _LENGTH.unpack_from(raw, at)
        at += _LENGTH.size
        if length < 0:
            yield None
        else:
            yield raw[at : at + length]
            at += length


def _instant(micros: int) -> datetime:
    """A time as PostgreSQL sends it; its infinities become the first or last instant that Python has."""
    if micros == _INFINITY:
        return datetime.max.replace(tzinfo=UTC)
    if micros == -_INFINITY - 1:
        return datetime.min.replace(tzinfo=UTC)
    return _POSTGRES_EPOCH + timedelta(microseconds=micros)
