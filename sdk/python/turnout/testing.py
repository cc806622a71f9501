"""Runs a job in memory, for a user's own tests: `turnout.testing.run(punctuality, records)`.

It runs the code that the engine runs, and merges by the rules of `turnout.schema`; there is no Kafka or PostgreSQL, so
derived columns are not computed and values that only PostgreSQL refuses are not refused.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable, Mapping
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any, TypeAlias

import msgspec

from turnout.job.compiled import DELETED, CompiledAggregate, CompiledFold, CompiledJob, Failure
from turnout.job.declare import Job
from turnout.job.rows import Row
from turnout.schema import ColumnType

__all__ = ["MalformedRecordError", "Message", "run"]


@dataclass(frozen=True, slots=True)
class Message:
    """A record as Kafka would hand it over. value None = a tombstone; timestamp: milliseconds since 1970."""

    value: bytes | None
    key: bytes | None = None
    topic: str = ""  # "" = the job's only topic
    partition: int = 0
    offset: int = -1  # -1 = the next of its partition
    timestamp: int = 0
    headers: tuple[tuple[str, bytes], ...] = ()


Input: TypeAlias = Message | bytes | Mapping[str, Any] | tuple[bytes | str | None, bytes | Mapping[str, Any] | None]


class MalformedRecordError(ValueError):
    """A record that the job refuses. `index` counts the records given, from 0."""

    def __init__(self, index: int, message: Message, reason: str) -> None:
        super().__init__(f"record {index} (partition {message.partition} offset {message.offset}): {reason}")
        self.index = index
        self.reason = reason


def run(job: Job[..., Any], records: Iterable[Input]) -> list[Row]:
    """The rows of the job's table after these records, sorted by key.

    A record is the JSON value as a mapping or bytes, or (record key, value) where value None is a tombstone, or a
    `Message` that says topic, partition, timestamp and headers too. Records of one partition are taken in the order
    given. MalformedRecordError for a record that does not decode or map, whatever the job's policy.
    """
    compiled = job.compile()
    rows: dict[Any, Any] = {}
    newest: int | None = None
    for index, message in enumerate(_messages(job, records)):
        failures: list[Failure] = []
        at = _apply(compiled, message, rows, failures)
        if failures:
            raise MalformedRecordError(index, message, failures[0].reason)
        if at is not None:
            newest = at if newest is None else max(newest, at)
    if not isinstance(compiled, CompiledAggregate):
        rows = {key: row for key, row in rows.items() if not row[DELETED]}
    return [compiled.to_row(rows[key]) for key in sorted(rows) if not _expired(job, rows[key], newest)]


def _apply(compiled: CompiledJob, message: Message, rows: dict[Hashable, Any], failures: list[Failure]) -> int | None:
    if isinstance(compiled, CompiledFold):
        folded = compiled.collect(message.topic, message.partition, [message], rows, {}, failures, True)
        return folded.event_time_ms
    return compiled.collect(message.topic, message.partition, [message], rows, failures)


def _messages(job: Job[..., Any], records: Iterable[Input]) -> Iterable[Message]:
    topics = [source.topic for source in job.definition.topics]
    offsets: dict[tuple[str, int], int] = {}
    for record in records:
        if not isinstance(record, Message):
            key, value = record if isinstance(record, tuple) else (None, record)
            record = Message(
                msgspec.json.encode(value) if isinstance(value, Mapping) else value,
                key.encode() if isinstance(key, str) else key,
            )
        if not record.topic and len(topics) > 1:
            raise ValueError(f"the job reads several topics ({', '.join(topics)}): give Message(..., topic=...)")
        topic = record.topic or topics[0]
        if topic not in topics:
            raise ValueError(f"the job does not read the topic {topic!r}, but {', '.join(topics)}")
        offset = offsets.get((topic, record.partition), 0) if record.offset < 0 else record.offset
        offsets[topic, record.partition] = offset + 1
        yield Message(record.value, record.key, topic, record.partition, offset, record.timestamp, record.headers)


def _expired(job: Job[..., Any], columns: Any, newest_ms: int | None) -> bool:
    expiry = job.definition.expiry
    if expiry is None or newest_ms is None:
        return False
    limit = datetime.fromtimestamp(0, UTC) + timedelta(milliseconds=newest_ms, seconds=-expiry.after_s)
    value: date | datetime = columns[job.definition.position(expiry.column)]
    if job.definition.column(expiry.column).type is ColumnType.DATE:
        return value < limit.date()
    return value < limit
