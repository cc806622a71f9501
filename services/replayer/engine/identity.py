"""Is this still the log that the positions belong to? Pure.

A topic that was deleted and created again under its name has other records at the same offsets, and Kafka reads on
without a word. The run's service pins the topic's id; a worker compares the last record it applied with the one that
the log now holds at that offset. Offset, timestamp and checksum together are the record's identity.
"""

import zlib
from dataclasses import dataclass
from enum import Enum


@dataclass(frozen=True, slots=True)
class RecordIdentity:
    """A record's identity within its partition."""

    offset: int
    timestamp_ms: int
    crc: int  # CRC-32 over key and value


def identity_of(offset: int, timestamp_ms: int, key: bytes | None, value: bytes | None) -> RecordIdentity:
    """The identity of a record as read. An absent key or value differs from an empty one."""
    crc = zlib.crc32(b"k" + key if key is not None else b"-")
    crc = zlib.crc32(b"v" + value if value is not None else b"-", crc)
    return RecordIdentity(offset, timestamp_ms, crc)


class LogFinding(Enum):
    """What the ends of the log say of a position."""

    READABLE = "readable"
    TRUNCATED = "truncated"  # the log begins after the position: records were deleted unread
    BEYOND_END = "beyond end"  # the position lies after the log end: it is not this log's


def judge_position(next_offset: int, log_start: int, log_end: int) -> LogFinding:
    """Whether the log can be read on at `next_offset`. `log_end` is the last stable offset or later."""
    if next_offset > log_end:
        return LogFinding.BEYOND_END
    if next_offset < log_start:
        return LogFinding.TRUNCATED
    return LogFinding.READABLE


def same_record(applied: RecordIdentity, found: RecordIdentity) -> bool:
    """Whether the record found when reading from `applied.offset` speaks against this being the log. A later offset
    does not: compaction may have removed the record."""
    return found.offset != applied.offset or found == applied
