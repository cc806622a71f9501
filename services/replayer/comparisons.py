"""Stored comparisons: what was asked, what was found range by range, and what it was judged to be.

Statements are in queries.sql. Every method raises Unavailable (POSTGRES_UNAVAILABLE) while PostgreSQL is away.
"""

import json
from collections.abc import Collection, Iterable
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from typing import Any

import asyncpg

from core.postgres import postgres_errors
from services.replayer.compare import Key, Plan, Totals, together
from services.replayer.protocol import TopicPartition
from services.replayer.run import Positions
from services.replayer.store import QUERIES, Store
from services.replayer.verdict import Verdict
from turnout.contract import Contract, decode, encode
from turnout.errors import NotFound
from turnout.names import VersionId, parse_version

KEPT = 100  # of a job


@dataclass(frozen=True, slots=True)
class Stood:
    """Where a table stood in a partition: next offset, and the newest event time applied."""

    tp: TopicPartition
    next_offset: int
    event_time: datetime | None


@dataclass(frozen=True, slots=True)
class Range:
    """A range of keys that is compared: those behind `after`, up to `last`; None = the first, or the last of all.

    why: the tables were not at one cut, in words. held_s: how long the runs were held for it; took_s: how long it was
    compared after that. samples: serialised `RowDifference`s.
    """

    number: int
    after: Key | None
    last: Key | None
    aligned: bool
    exact: bool
    why: str
    old: tuple[Stood, ...]
    new: tuple[Stood, ...]
    cut_time: datetime
    held_s: float
    took_s: float
    totals: Totals
    samples: tuple[bytes, ...]


@dataclass(frozen=True, slots=True)
class Comparison:
    """A comparison and the ranges of it that are done. passed: None = unfinished, or there is no contract."""

    id: str
    old: VersionId
    new: VersionId
    contract: Contract | None
    sample_size: int
    range_rows: int  # asked for; 0 = as many as a moment allows
    allow_unaligned: bool
    align_within_s: float
    plan: Plan
    rows_expected: int  # of both tables; 0 = not known
    request_id: str
    create_time: datetime
    end_time: datetime | None = None
    passed: bool | None = None
    findings: tuple[str, ...] = ()
    ranges: tuple[Range, ...] = ()

    @property
    def name(self) -> str:
        return f"{self.old.job_name}/comparisons/{self.id}"

    @property
    def totals(self) -> Totals:
        """Of the ranges that are done."""
        return together([one.totals for one in self.ranges], len(self.plan.columns))

    @property
    def samples(self) -> list[bytes]:
        """The first ones by key."""
        return [sample for one in self.ranges for sample in one.samples][: self.sample_size]

    @property
    def complete(self) -> bool:
        """Whether all ranges are done."""
        return bool(self.ranges) and self.ranges[-1].last is None

    @property
    def aligned(self) -> bool:
        return bool(self.ranges) and all(one.aligned for one in self.ranges)

    @property
    def exact(self) -> bool:
        return bool(self.ranges) and all(one.exact for one in self.ranges)

    def with_range(self, one: Range) -> "Comparison":
        """One more range is done."""
        return replace(self, ranges=(*self.ranges, one))


class ComparisonStore:
    """The replayer's tables of comparisons."""

    def __init__(self, store: Store) -> None:
        self._store = store

    async def insert(self, made: Comparison) -> Comparison:
        """Store one that was just made; of two with one request id the second caller gets the first one's."""
        async with self._store.transaction() as connection:
            row = await connection.fetchrow(
                QUERIES.insert_comparison,
                made.id,
                made.old.job,
                made.old.name,
                made.new.name,
                None if made.contract is None else encode(made.contract),
                made.sample_size,
                made.range_rows,
                made.allow_unaligned,
                made.align_within_s,
                made.plan.encode(),
                made.rows_expected,
                made.request_id,
            )
            await connection.execute(QUERIES.forget_comparisons, made.old.job, KEPT)
        if row is None:
            found = await self.by_request(made.request_id)
            assert found is not None
            return found
        return _comparison(row, ())

    async def rows_expected(self, old: str, new: str) -> int:
        """Rows of two tables together, as PostgreSQL estimates them; `old`, `new` as SQL."""
        with postgres_errors():
            return int(await self._store.pool.fetchval(QUERIES.rows_expected, old, new))

    async def get(self, job: str, id_: str) -> Comparison:
        """One with its ranges. NotFound (COMPARISON_NOT_FOUND)."""
        with postgres_errors():
            row = await self._store.pool.fetchrow(QUERIES.comparison, job, id_)
        if row is None:
            raise _absent(job, id_)
        return (await self._with_ranges([row]))[0]

    async def by_request(self, request_id: str) -> Comparison | None:
        """The one that a call with this request id began."""
        with postgres_errors():
            row = await self._store.pool.fetchrow(QUERIES.comparison_by_request, request_id)
        return None if row is None else (await self._with_ranges([row]))[0]

    async def page(
        self, job: str, after: str | None, versions: Collection[VersionId] | None, limit: int
    ) -> list[Comparison]:
        """The newest first, those older than the one with the id `after`."""
        names = None if versions is None else [version.name for version in versions]
        with postgres_errors():
            rows = await self._store.pool.fetch(QUERIES.comparisons_page, job, after, names, limit)
        return await self._with_ranges(rows)

    async def judged(self, old: VersionId, new: VersionId) -> Comparison | None:
        """The newest one of these versions with a contract, a finished one if there is any."""
        with postgres_errors():
            row = await self._store.pool.fetchrow(QUERIES.comparison_judged, old.name, new.name)
        return None if row is None else (await self._with_ranges([row]))[0]

    async def add_range(self, comparison: Comparison, one: Range) -> bool:
        """Store a range; False when somebody else did it meanwhile. NotFound (COMPARISON_NOT_FOUND)."""
        try:
            with postgres_errors():
                stored = await self._insert_range(comparison.id, one)
        except asyncpg.ForeignKeyViolationError:
            raise _absent(comparison.old.job, comparison.id) from None
        return stored is not None

    async def _insert_range(self, comparison: str, one: Range) -> Any:
        return await self._store.pool.fetchval(
            QUERIES.insert_comparison_range,
            comparison,
            one.number,
            None if one.after is None else list(one.after),
            None if one.last is None else list(one.last),
            one.aligned,
            one.exact,
            one.why,
            _stood_text(one.old),
            _stood_text(one.new),
            one.cut_time,
            one.held_s,
            one.took_s,
            one.totals.encode(),
            list(one.samples),
        )

    async def forget_empty(self, comparison: str) -> None:
        """Delete one, unless a range of it is stored or it is finished: whoever resumed it may have gone on."""
        with postgres_errors():
            await self._store.pool.execute(QUERIES.forget_empty_comparison, comparison)

    async def finish(self, comparison: Comparison, verdict: Verdict | None) -> Comparison:
        """All ranges are done, and judged."""
        passed, findings = (None, []) if verdict is None else (verdict.passed, list(verdict.findings))
        with postgres_errors():
            row = await self._store.pool.fetchrow(QUERIES.finish_comparison, comparison.id, passed, findings)
        if row is None:  # so many were begun meanwhile that it was forgotten
            return replace(comparison, end_time=datetime.now(UTC), passed=passed, findings=tuple(findings))
        return _comparison(row, comparison.ranges)

    async def _with_ranges(self, rows: Iterable[Any]) -> list[Comparison]:
        rows = list(rows)
        with postgres_errors():
            found = await self._store.pool.fetch(QUERIES.comparison_ranges, [row["id"] for row in rows])
        ranges: dict[str, list[Range]] = {}
        for one in found:
            ranges.setdefault(one["comparison"], []).append(_range(one))
        return [_comparison(row, tuple(ranges.get(row["id"], ()))) for row in rows]


def _absent(job: str, id_: str) -> NotFound:
    return NotFound(
        "COMPARISON_NOT_FOUND",
        f"There is no comparison {id_} of {job}; the newest {KEPT} of a job are kept.",
        metadata={"comparison": f"jobs/{job}/comparisons/{id_}"},
    )


def stood(positions: Positions) -> tuple[Stood, ...]:
    """Where a table stands, by partition."""
    return tuple(Stood(tp, position.next_offset, position.event_time) for tp, position in sorted(positions.items()))


def _comparison(row: Any, ranges: tuple[Range, ...]) -> Comparison:
    return Comparison(
        id=row["id"],
        old=parse_version(row["old_version"]),
        new=parse_version(row["new_version"]),
        contract=None if row["contract"] is None else decode(row["contract"]),
        sample_size=row["sample_size"],
        range_rows=row["range_rows"],
        allow_unaligned=row["allow_unaligned"],
        align_within_s=row["align_within_s"],
        plan=Plan.decode(row["plan"]),
        rows_expected=row["rows_expected"],
        request_id=row["request_id"],
        create_time=row["create_time"],
        end_time=row["end_time"],
        passed=row["passed"],
        findings=tuple(row["findings"]),
        ranges=ranges,
    )


def _range(row: Any) -> Range:
    return Range(
        number=row["number"],
        after=None if row["after_key"] is None else tuple(row["after_key"]),
        last=None if row["last_key"] is None else tuple(row["last_key"]),
        aligned=row["aligned"],
        exact=row["exact"],
        why=row["unaligned_why"],
        old=_stood_of(row["positions_old"]),
        new=_stood_of(row["positions_new"]),
        cut_time=row["cut_time"],
        held_s=row["held_s"],
        took_s=row["took_s"],
        totals=Totals.decode(row["totals"]),
        samples=tuple(row["samples"]),
    )


def _stood_text(stood: Iterable[Stood]) -> str:
    return json.dumps(
        [
            [one.tp.topic, one.tp.partition, one.next_offset, one.event_time and one.event_time.isoformat()]
            for one in stood
        ]
    )


def _stood_of(text: str) -> tuple[Stood, ...]:
    return tuple(
        Stood(TopicPartition(topic, partition), offset, datetime.fromisoformat(time) if time else None)
        for topic, partition, offset, time in json.loads(text)
    )
