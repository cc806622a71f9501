"""One look at everything: positions, rows and dead letters of the jobs in one snapshot, and what differs."""

from __future__ import annotations

import time
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from bench.faults.reference import Log, Table, expected
from bench.faults.workload import COLUMNS, KEY_COLUMNS

SHOWN_MAX: Final = 10
AWAY: Final = (OSError, TimeoutError, asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError)
"""What the driver raises while PostgreSQL is away."""
_CONNECT_S: Final = 3.0
_LOOK_S: Final = 20.0


@dataclass(frozen=True, slots=True)
class Tabled:
    """A version as the harness knows it."""

    kind: str
    job: str
    topic: str

    @property
    def version(self) -> str:
        return f"jobs/{self.job}/versions/1"

    @property
    def table(self) -> str:
        return f'serving."{self.job.replace("-", "_")}__v1"'


@dataclass(frozen=True, slots=True)
class Seen:
    """One version's content in a snapshot. records, set_aside: as its positions count them."""

    positions: dict[int, int]
    records: int
    set_aside: int
    rows: Table
    letters: frozenset[tuple[int, int]]


@dataclass(frozen=True, slots=True)
class Look:
    """A snapshot of all versions at some time (monotonic seconds), by kind."""

    at_s: float
    seen: Mapping[str, Seen]


async def look(dsn: str, versions: list[Tabled]) -> Look:
    """Read everything in one REPEATABLE READ snapshot."""
    connection = await asyncpg.connect(dsn, timeout=_CONNECT_S, command_timeout=_LOOK_S)
    try:
        async with connection.transaction(isolation="repeatable_read", readonly=True):
            seen = {one.kind: await _see(connection, one) for one in versions}
            return Look(time.monotonic(), seen)
    finally:
        connection.terminate()


async def _see(connection: Any, one: Tabled) -> Seen:
    positions = await connection.fetch(
        "select partition, next_offset, records, set_aside from serving.positions where version = $1", one.version
    )
    letters = await connection.fetch(
        'select partition, "offset" from serving.dead_letters where version = $1', one.version
    )
    visible = " where not _deleted" if one.kind == "map" else ""
    columns = ", ".join(f'"{name}"' for name in COLUMNS[one.kind])
    rows = await connection.fetch(f"select {columns} from {one.table}{visible}")
    return Seen(
        positions={row["partition"]: row["next_offset"] for row in positions},
        records=sum(row["records"] for row in positions),
        set_aside=sum(row["set_aside"] for row in positions),
        rows={tuple(row)[: KEY_COLUMNS[one.kind]]: tuple(row) for row in rows},
        letters=frozenset((row["partition"], row["offset"]) for row in letters),
    )


def differences(kind: str, seen: Seen, log: Log) -> list[str]:
    """What is otherwise than the reference says, a line each, at most so many of a sort; empty when all is equal."""
    wanted = expected(kind, log, seen.positions)
    found = _in_rows(seen.rows, wanted.rows)
    found += _in_letters(seen.letters, wanted.set_aside)
    if seen.records != wanted.records:
        found.append(f"{seen.records} records are counted, {wanted.records} lie before the positions")
    if seen.set_aside != len(wanted.set_aside):
        found.append(f"{seen.set_aside} records are counted as set aside, {len(wanted.set_aside)} should be")
    return [f"{kind}: {line}" for line in found]


def _in_rows(rows: Table, wanted: Table) -> list[str]:
    differing = sorted((key for key in rows.keys() | wanted.keys() if rows.get(key) != wanted.get(key)), key=repr)
    lines = [f"key {key}: the table has {rows.get(key)}, not {wanted.get(key)}" for key in differing[:SHOWN_MAX]]
    if len(differing) > SHOWN_MAX:
        lines.append(f"and {len(differing) - SHOWN_MAX} more of {len(wanted)} keys differ")
    return lines


def _in_letters(letters: frozenset[tuple[int, int]], wanted: frozenset[tuple[int, int]]) -> list[str]:
    missing, surplus = sorted(wanted - letters), sorted(letters - wanted)
    lines = []
    if missing:
        lines.append(f"{len(missing)} records are not set aside (partition, offset): {missing[:SHOWN_MAX]}")
    if surplus:
        lines.append(f"{len(surplus)} records are set aside wrongly (partition, offset): {surplus[:SHOWN_MAX]}")
    return lines
