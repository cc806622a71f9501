"""Running a comparison: range by range of the keys, each in one snapshot at a cut of its own, stored as it is found.

A snapshot that lasts keeps PostgreSQL from cleaning up behind every writer, so a range is made as large as is compared
in a few seconds. The runs are held only until a snapshot is made. What is stored is done: whoever resumes goes on
behind the last key of the last range.
"""

import time
import uuid
from collections.abc import AsyncGenerator, Iterator
from contextlib import aclosing, contextmanager
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

import asyncpg

from core.domain.text import ID_MAX, text
from services.replayer import compare
from services.replayer.aligning import Aligner, Snapshot
from services.replayer.alignment import WITHIN_DEFAULT_S, WITHIN_MAX_S
from services.replayer.compare import Key, Totals
from services.replayer.comparison_convert import row_difference
from services.replayer.comparisons import Comparison, ComparisonStore, Range, Stood, stood
from services.replayer.spans import span
from services.replayer.surroundings import Surroundings
from services.replayer.verdict import Evidence, judge
from turnout.clock import Clock
from turnout.contract import Contract
from turnout.errors import Aborted, FailedPrecondition, InvalidInput, ResourceExhausted
from turnout.names import VersionId
from turnout.sql import serving

AT_ONCE_MAX: Final = 2  # comparisons of one replica, each of which takes a connection
ROWS_FIRST: Final = 50_000  # of a range, before it is known how long one takes
ROWS_MIN: Final = 1_000
ROWS_MAX: Final = 10_000_000
RANGE_AIM_S: Final = 3.0
RANGE_MAX_S: Final = 30.0  # then it is tried with fewer rows
_SHOWN: Final = 3  # partitions


@dataclass(frozen=True, slots=True)
class Question:
    """What is to be compared, and how. align_within_s, sample_size, range_rows: 0 = the default."""

    old: VersionId
    new: VersionId
    contract: Contract | None = None
    sample_size: int = 0
    allow_unaligned: bool = False
    align_within_s: float = 0.0
    range_rows: int = 0
    request_id: str = ""


class Comparisons:
    """Begins, resumes and reads comparisons."""

    def __init__(self, around: Surroundings, clock: Clock) -> None:
        self._around = around
        self._clock = clock
        self._store = ComparisonStore(around.store)
        self._aligner = Aligner(around)
        self._running = 0

    @property
    def store(self) -> ComparisonStore:
        return self._store

    async def compare(self, asked: Question, timeout_s: float) -> AsyncGenerator[Comparison, None]:
        """Store what is to be compared and do it, as `resume`; of a repeated request, go on with what the first began.

        InvalidInput; NotFound (RUN_NOT_FOUND); FailedPrecondition (TABLE_MISSING, KEYS_DIFFER); those of `resume`.
        """
        ends_s = time.monotonic() + timeout_s
        _check(asked)
        known = await self._store.by_request(asked.request_id) if asked.request_id else None
        if known is not None:
            begun = self.resume(_same(known, asked), ends_s - time.monotonic())
        else:
            begun = self._first(asked, ends_s)
        async with aclosing(begun) as steps:
            async for comparison in steps:
                yield comparison

    async def resume(self, comparison: Comparison, timeout_s: float) -> AsyncGenerator[Comparison, None]:
        """Do the ranges that are not done, within the time; the comparison after each of them, and at last finished.

        Of a finished one, that. Errors of `Aligner.snapshot`; Aborted (COMPARISON_UNDER_WAY); NotFound
        (COMPARISON_NOT_FOUND) where it is deleted meanwhile; ResourceExhausted (TOO_MANY_COMPARISONS).
        """
        if comparison.end_time is not None:
            yield comparison
            return
        ends_s = time.monotonic() + timeout_s
        with self._place():
            async with aclosing(self._ranges(comparison, ends_s)) as steps:
                async for done in steps:
                    yield done

    async def _first(self, asked: Question, ends_s: float) -> AsyncGenerator[Comparison, None]:
        with self._place():  # before anything is stored: a refused one must not take the place of a finished one
            made = await self._planned(asked)
            comparison = await self._store.insert(made)
            try:
                async with aclosing(self._ranges(_same(comparison, asked), ends_s)) as steps:
                    async for done in steps:
                        yield done
            except (FailedPrecondition, Aborted):
                if comparison.id == made.id:  # somebody else's is theirs to go on with
                    await self._store.forget_empty(made.id)
                raise

    async def _planned(self, asked: Question) -> Comparison:
        store = self._around.store
        old, new = await store.get(asked.old), await store.get(asked.new)
        old_types, new_types = await store.column_types(old.table), await store.column_types(new.table)
        plan = compare.plan(old, new, old_types, new_types, asked.contract)
        return Comparison(
            id=uuid.uuid4().hex[:12],
            old=asked.old,
            new=asked.new,
            contract=asked.contract,
            sample_size=min(asked.sample_size, compare.SAMPLES_MAX) or compare.SAMPLES_DEFAULT,
            range_rows=asked.range_rows,
            allow_unaligned=asked.allow_unaligned,
            align_within_s=asked.align_within_s or WITHIN_DEFAULT_S,
            plan=plan,
            rows_expected=await self._store.rows_expected(serving(old.table), serving(new.table)),
            request_id=asked.request_id,
            create_time=self._clock.now(),
        )

    @contextmanager
    def _place(self) -> Iterator[None]:
        if self._running >= AT_ONCE_MAX:
            raise ResourceExhausted(
                "TOO_MANY_COMPARISONS", f"{AT_ONCE_MAX} comparisons are under way here; try again when one is over."
            )
        self._running += 1
        try:
            yield
        finally:
            self._running -= 1

    async def _ranges(self, comparison: Comparison, ends_s: float) -> AsyncGenerator[Comparison, None]:
        if comparison.end_time is not None:  # begun under the same request id, and finished, since that was looked up
            yield comparison
            return
        size = _Size(comparison)
        while not comparison.complete:
            comparison = await self._next(comparison, size, ends_s)
            if not comparison.complete:
                yield comparison
        yield await self._finish(comparison)

    async def evidence(self, candidate: VersionId, baseline: VersionId) -> Evidence | None:
        """What the newest comparison under a contract tells of the candidate."""
        found = await self._store.judged(baseline, candidate)
        if found is None:
            return None
        return Evidence(
            name=found.name,
            passed=found.passed if found.end_time is not None else None,
            aligned=found.aligned,
            exact=found.exact,
            findings=found.findings,
            age=max(timedelta(0), self._clock.now() - found.create_time),
            cut=_cut_text(found.ranges[-1].new) if found.ranges else "no cut yet",
        )

    async def _finish(self, comparison: Comparison) -> Comparison:
        verdict = None
        if comparison.contract is not None:
            verdict = judge(comparison.contract, comparison.plan, comparison.totals)
        return await self._store.finish(comparison, verdict)

    async def _next(self, comparison: Comparison, size: "_Size", ends_s: float) -> Comparison:
        """With one more range, or as it is when it has to be tried again with fewer rows."""
        left_s = ends_s - time.monotonic()
        whole = comparison.plan.projected
        limit_s = max(0.001, left_s if whole else min(left_s, RANGE_MAX_S))
        try:
            async with self._aligner.snapshot(
                comparison.old,
                comparison.new,
                comparison.align_within_s,
                allow_unaligned=comparison.allow_unaligned,
            ) as snapshot:
                done = await _compare(comparison, snapshot, size.rows, limit_s)
        except _TooLongError:
            if whole or left_s <= limit_s or not size.fewer():
                raise FailedPrecondition(
                    "RANGE_TOO_SLOW",
                    f"A range of {comparison.name} was not compared within {span(limit_s)}; what is done stays done. "
                    f"Resume it with more time, or begin another one with smaller ranges.",
                ) from None
            return comparison
        size.took(done.took_s)
        if not await self._store.add_range(comparison, done):
            raise Aborted(
                "COMPARISON_UNDER_WAY", f"Somebody else goes on with {comparison.name}; read it when it is finished."
            )
        return comparison.with_range(done)


class _TooLongError(Exception):
    """A range was not compared within its time."""


class _Size:
    """How many rows a range has: as many as are compared in a few seconds, unless somebody said how many."""

    def __init__(self, comparison: Comparison) -> None:
        self._fixed = comparison.range_rows
        self.rows = self._fixed or ROWS_FIRST

    def took(self, took_s: float) -> None:
        """A range of that many rows took that long."""
        if not self._fixed:
            factor = min(4.0, RANGE_AIM_S / max(took_s, 0.001))
            self.rows = max(ROWS_MIN, min(ROWS_MAX, int(self.rows * factor)))

    def fewer(self) -> bool:
        """A range took too long; False when it cannot have fewer rows."""
        if self.rows <= ROWS_MIN:
            return False
        self.rows = max(ROWS_MIN, self.rows // 4)
        return True


async def _compare(comparison: Comparison, snapshot: Snapshot, rows: int, limit_s: float) -> Range:
    """The next range, in the snapshot. _TooLongError."""
    began_s = time.monotonic()
    after = comparison.ranges[-1].last if comparison.ranges else None
    try:
        # Ended by the server too, should the caller be gone.
        await snapshot.connection.execute(f"set local statement_timeout = {max(1, int(limit_s * 1000))}")
        last, totals, samples = await _read(comparison, snapshot.connection, after, rows, limit_s)
    except (asyncpg.QueryCanceledError, TimeoutError):
        raise _TooLongError from None
    return Range(
        number=len(comparison.ranges),
        after=after,
        last=last,
        aligned=snapshot.aligned,
        exact=compare.exact(snapshot.old, snapshot.new),
        why=snapshot.why,
        old=stood(snapshot.old),
        new=stood(snapshot.new),
        cut_time=snapshot.at,
        held_s=snapshot.held_s,
        took_s=time.monotonic() - began_s,
        totals=totals,
        samples=samples,
    )


async def _read(
    comparison: Comparison, connection: Any, after: Key | None, rows: int, limit_s: float
) -> tuple[Key | None, Totals, tuple[bytes, ...]]:
    """Where the range ends, what was found in it, and samples."""
    plan, last = comparison.plan, None
    if not plan.projected:
        row = await connection.fetchrow(plan.last_key(after), rows, timeout=limit_s)
        last = None if row is None else tuple(row.values())
    totals = compare.totals_of(plan, await connection.fetchrow(plan.totals(after, last), timeout=limit_s))
    room = comparison.sample_size - len(comparison.samples)
    if not room or not totals.differing:
        return last, totals, ()
    found = await connection.fetch(plan.samples(after, last), room, timeout=limit_s)
    return last, totals, tuple(row_difference(plan, one).SerializeToString() for one in found)


def _check(asked: Question) -> None:
    text(asked.request_id, "request_id", ID_MAX)
    if asked.old == asked.new:
        raise InvalidInput(
            "SAME_VERSION", f"{asked.old} cannot differ from itself: name two different versions to compare."
        )
    if asked.sample_size < 0:
        raise InvalidInput(
            "INVALID_SAMPLE_SIZE", f"sample_size is {asked.sample_size}; give 0 to {compare.SAMPLES_MAX}."
        )
    if asked.range_rows < 0:
        raise InvalidInput("INVALID_RANGE_ROWS", f"range_rows is {asked.range_rows}; give rows, or 0 for the default.")
    if not 0 <= asked.align_within_s <= WITHIN_MAX_S:
        raise InvalidInput(
            "INVALID_ALIGN_WITHIN",
            f"The runs may be held for 0 s to {WITHIN_MAX_S:g} s, until both stand at one cut (align_within); "
            f"{asked.align_within_s:g} s were asked for.",
        )


def _same(known: Comparison, asked: Question) -> Comparison:
    if (known.old, known.new, known.contract) != (asked.old, asked.new, asked.contract):
        raise InvalidInput(
            "REQUEST_ID_REUSED",
            f"The request id {asked.request_id!r} belongs to the comparison of {known.old} with {known.new}; use a new "
            f"one.",
        )
    return known


def _cut_text(cut: tuple[Stood, ...]) -> str:
    shown = ", ".join(f"{one.tp.topic}/{one.tp.partition} to {one.next_offset:,}" for one in cut[:_SHOWN])
    more = len(cut) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
