"""The child process in which `check --sample` runs a job's code: `python -m turnout.cli.sample_child PATH`.

Standard output belongs to the protocol alone; whatever the job's code prints goes to standard error. For each record
given on standard input, one JSON document a line, it answers a line with the record's rows or why it is malformed.
"""

from __future__ import annotations

import os
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, BinaryIO

import msgspec

from turnout.job import PartitionConflictError, load
from turnout.job.compiled import DELETED, HIDDEN, CompiledFold, CompiledJob, Failure


class Transformed(msgspec.Struct):
    """A record's rows by column name, in the table's order; `deleted` = keys of rows it deletes; or why it fails."""

    rows: list[dict[str, Any]] = []
    deleted: list[dict[str, Any]] = []
    failure: str = ""


class Given(msgspec.Struct):
    """A record. Bytes are base64, as msgspec writes them."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: list[tuple[str, bytes]]


@dataclass(frozen=True, slots=True)
class _Message:
    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def main(path: str) -> None:
    """Serve one job until standard input ends."""
    out = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)
    compiled = load(path).compile()
    states: dict[Any, Any] = {}
    for line in sys.stdin.buffer:
        given = msgspec.json.decode(line, type=Given)
        message = _Message(
            given.topic, given.partition, given.offset, given.timestamp, given.key, given.value, tuple(given.headers)
        )
        _write(out, _transform(compiled, message, states))


def _write(out: BinaryIO, document: msgspec.Struct) -> None:
    out.write(msgspec.json.encode(document) + b"\n")
    out.flush()


def _transform(compiled: CompiledJob, message: _Message, states: dict[Any, Any]) -> Transformed:
    failures: list[Failure] = []
    found: dict[Any, Any] = {}
    try:
        if isinstance(compiled, CompiledFold):
            compiled.collect(message.topic, message.partition, [message], states, found, failures, True)
        else:
            compiled.collect(message.topic, message.partition, [message], found, failures)
    except PartitionConflictError as error:
        return Transformed(failure=str(error))
    if failures:
        return Transformed(failure=failures[0].reason)
    answer = Transformed()
    names = [column.name for column in compiled.definition.columns]
    keys = set(compiled.definition.key)
    for values, deleted in _rows(list(found.values()), len(names)):
        named = dict(zip(names, values, strict=True))
        if deleted:
            answer.deleted.append({name: value for name, value in named.items() if name in keys})
        else:
            answer.rows.append(named)
    return answer


def _rows(found: list[Any], width: int) -> Iterator[tuple[list[Any], bool]]:
    for columns in found:
        deleted = len(columns) == width + HIDDEN and columns[DELETED]
        yield list(columns[:width]), deleted


if __name__ == "__main__":
    main(sys.argv[1])
