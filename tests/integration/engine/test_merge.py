"""PostgreSQL merges rows as the compiled job does in memory, in whatever batches they come."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import asyncpg
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from services.replayer import ddl
from tests.integration.engine.workers import Version
from turnout.job.compiled import CompiledAggregate
from turnout.sql import serving

EVERYTHING = """
    from datetime import date, datetime
    from decimal import Decimal
    from enum import Enum
    from uuid import UUID
    from turnout import Key, LastBy, Max, Min, Record, Row, Sum, aggregate

    class Colour(Enum):
        RED = "red"
        BLUE = "Blue"

    class Input(Record):
        key: str

    class Merged(Row):
        key: Key[str]
        n: Sum[int]
        money: Sum[Decimal | None]
        first_text: Min[str | None]
        last_text: Max[str]
        first_day: Min[date]
        last_id: Max[UUID | None]
        raw: Max[bytes | None]
        flag: Min[bool]
        newest: Max[int]
        text: LastBy[str | None]
        colour: LastBy[Colour | None]
        number: LastBy[int | None]

    @aggregate("tested", topic="unread", last_by="newest")
    def merged(record: Input) -> Merged | None:
        return None
"""

TEXT = st.text(st.characters(exclude_characters="\0", exclude_categories=["Cs"]), max_size=3)
INTS = st.integers(-5, 5)
ROWS = st.tuples(
    st.sampled_from("aAbBé"),
    INTS,
    st.none() | st.decimals(-100, 100, places=2),
    st.none() | TEXT,
    TEXT,
    st.dates(),
    st.none() | st.uuids(),
    st.none() | st.binary(max_size=3),
    st.booleans(),
    INTS,
    st.none() | TEXT,
    st.none() | st.sampled_from(["red", "Blue"]),
    st.none() | INTS,
)


def _gathered(job: CompiledAggregate, batch: list[tuple[Any, ...]]) -> dict[str, list[Any]]:
    groups: dict[str, list[Any]] = {}
    for row in batch:
        if row[0] in groups:
            job.merge(groups[row[0]], row)
        else:
            groups[row[0]] = list(row)
    return groups


async def test_every_merge_rule(postgres: str, tmp_path: Path) -> None:
    version = Version(postgres, "", tmp_path, EVERYTHING)
    await version.create({})
    job = version.job.compile()
    assert isinstance(job, CompiledAggregate)
    connection = await asyncpg.connect(postgres)
    await connection.execute(ddl.create_staging(version.definition))
    names = ddl.staged_columns(version.definition)
    batches: list[list[list[tuple[Any, ...]]]] = []

    @settings(max_examples=150, database=None, suppress_health_check=list(HealthCheck))
    @given(st.lists(st.lists(ROWS, max_size=8), min_size=1, max_size=4))
    def collect(example: list[list[tuple[Any, ...]]]) -> None:
        batches.append(example)

    collect()
    for example in batches:
        await connection.execute(f"truncate {serving(version.table)}")
        for batch in example:
            async with connection.transaction():
                await connection.copy_records_to_table(
                    "staging", schema_name="pg_temp", columns=names, records=_gathered(job, batch).values()
                )
                await connection.execute(ddl.merge(version.definition, version.table))
        expected = _gathered(job, [row for batch in example for row in batch])
        found = await connection.fetch(f"select {', '.join(names)} from {serving(version.table)} order by key")
        assert [list(row) for row in found] == [expected[key] for key in sorted(expected)], example
    await connection.close()
