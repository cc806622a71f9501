"""The budget that all copies of the log share: which queued runs may begin, what the others wait for. Pure.

Theory of operation. A copy is a run that is REPLAYING. Tails cost little and are not counted. Queued runs stand in one
line, the higher priority first, then the one that has waited longest. The first one is admitted when fewer copies run
than may, and when its table fits into the storage that is free: what all tables have now, and what the copies under
way are expected to add, is taken.

The head of the line blocks. When a large table does not fit, the small ones behind it wait too: passed by, it would
never find the room that they take away. What can never fit, because it needs more than the whole limit, blocks nobody.

A run that had caught up before goes on at once, whatever the budget says: it is the target of a rollback that was
stopped meanwhile, and a rollback is the emergency exit. It counts as a copy until it is at the end again. A copy under
way is never sent back.

What a table will need is judged by its job's other tables (the 2x rule: old and new stand side by side until the old
one is dropped), or by the part of it that is there. What cannot be judged counts as nothing, and still asks that
something is free.
"""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from typing import Final

from services.replayer.progress import WINDOW_S
from services.replayer.protocol import TopicPartition
from services.replayer.run import LogEnds, Positions, Run, Sample
from services.replayer.states import State
from turnout.names import VersionId

PRIORITY_MAX = 100  # and as far below 0
TELLING_SHARE = 0.1  # of what is to be read: a table that holds less says little about the whole


@dataclass(frozen=True, slots=True)
class Capacity:
    """The one row of replayer.capacity. A limit of 0 is none."""

    copies_max: int = 2
    rows_per_s_max: int = 0  # written by all copies together
    storage_bytes_max: int = 0  # of all output tables, what copies will add included
    read_p99_ratio_max: float = 1.3  # to their quiet value; beyond it copies slow down
    revision: int = 1

    @property
    def etag(self) -> str:
        return str(self.revision)


@dataclass(frozen=True, slots=True)
class Copy:
    """A run that copies the log or waits to. `returns`: it had caught up before. `bytes_to_come`: what its table is
    expected to grow by, 0 when there is nothing to judge it by, None as long as the end of its log is not known."""

    version: VersionId
    state: State
    priority: int
    queue_time: datetime
    returns: bool = False
    bytes_to_come: int | None = 0


@dataclass(frozen=True, slots=True)
class Books:
    """Everything that counts against the budget at one moment. `storage_bytes`: of all output tables."""

    copies: tuple[Copy, ...]
    storage_bytes: int = 0

    @property
    def under_way(self) -> tuple[Copy, ...]:
        return tuple(copy for copy in self.copies if copy.state is State.REPLAYING)

    @property
    def queue(self) -> tuple[Copy, ...]:
        """Those that wait, in the order in which they are admitted."""
        waiting = (copy for copy in self.copies if copy.state is State.QUEUED)
        return tuple(sorted(waiting, key=lambda copy: (-copy.priority, copy.queue_time, copy.version)))

    @property
    def storage_bytes_expected(self) -> int:
        """What the copies under way are expected to add."""
        return sum(copy.bytes_to_come or 0 for copy in self.under_way)


@dataclass(frozen=True, slots=True)
class Waiting:
    """Why a run is still queued. `position`: in the queue, from 1. `for_storage`: no copy that ends makes it go on."""

    position: int
    reason: str
    for_storage: bool = False


@dataclass(frozen=True, slots=True)
class Decision:
    """`admitted`: in the order of the queue. `waiting`: all others of the queue."""

    admitted: tuple[VersionId, ...]
    waiting: Mapping[VersionId, Waiting]


# --- admission ------------------------------------------------------------------------------------------------------


def decide(capacity: Capacity, books: Books) -> Decision:
    """Which queued runs begin now, and what each of the others waits for. The same books give the same decision."""
    returning = [copy for copy in books.queue if copy.returns]
    room = _Room(capacity, books)
    for copy in returning:
        room.take(copy)
    admitted = [copy.version for copy in returning]
    waiting: dict[VersionId, Waiting] = {}
    blocked = ""
    blocked_by_storage = False
    for copy in books.queue:
        if copy.returns:
            continue
        place = len(waiting) + 1
        hopeless = room.never_fits(copy)
        if hopeless:
            waiting[copy.version] = Waiting(place, f"{hopeless}; {_ordinal(place)} in the queue", for_storage=True)
        elif blocked:
            waiting[copy.version] = Waiting(place, f"{blocked}; {_ordinal(place)} in the queue", blocked_by_storage)
        elif room.copies_taken:
            blocked = room.copies_taken
            waiting[copy.version] = Waiting(place, f"{blocked}; {_ordinal(place)} in the queue")
        elif lacking := room.does_not_fit(copy):
            blocked, blocked_by_storage = f"waits behind {copy.version}, which {lacking}", True
            waiting[copy.version] = Waiting(place, f"{lacking}; {_ordinal(place)} in the queue", for_storage=True)
        else:
            room.take(copy)
            admitted.append(copy.version)
    return Decision(tuple(admitted), waiting)


@dataclass(frozen=True, slots=True)
class Place:
    """Where a run would stand. `waiting`: None when it would be admitted at once. `peak_bytes`: of all output tables,
    once it and all that are admitted before it have written what they are expected to."""

    waiting: Waiting | None
    peak_bytes: int


def place(capacity: Capacity, books: Books, copy: Copy) -> Place:
    """Where a copy would stand if it joined the books as it is given; in place of what they say of that version."""
    others = tuple(one for one in books.copies if one.version != copy.version)
    joined = Books((*others, copy), books.storage_bytes)
    ahead = [one.bytes_to_come or 0 for one in joined.under_way]
    for one in joined.queue:
        ahead.append(one.bytes_to_come or 0)
        if one.version == copy.version:
            break
    waiting = decide(capacity, joined).waiting.get(copy.version)
    if copy.state is State.REPLAYING:
        ahead = ahead[: len(joined.under_way)]
    return Place(waiting, books.storage_bytes + sum(ahead))


class _Room:
    """What is left of the budget while the queue is gone through."""

    def __init__(self, capacity: Capacity, books: Books) -> None:
        self._capacity = capacity
        self._copies = len(books.under_way)
        self._bytes = books.storage_bytes + books.storage_bytes_expected

    def take(self, copy: Copy) -> None:
        """The copy runs."""
        self._copies += 1
        self._bytes += copy.bytes_to_come or 0

    @property
    def copies_taken(self) -> str:
        """Why no other copy may run; empty when one may."""
        most = self._capacity.copies_max
        if most == 0 or self._copies < most:
            return ""
        return f"{self._copies} of {most} {'copy runs' if self._copies == most == 1 else 'copies run'}"

    def never_fits(self, copy: Copy) -> str:
        """Why the table would not even fit alone; empty when it would."""
        most = self._capacity.storage_bytes_max
        if most == 0 or copy.bytes_to_come is None or copy.bytes_to_come <= most:
            return ""
        return (
            f"needs {size(copy.bytes_to_come)} for its table, more than the {size(most)} that all tables together may "
            f"take: raise that limit"
        )

    def does_not_fit(self, copy: Copy) -> str:
        """Why the table does not fit beside the others; empty when it does."""
        most = self._capacity.storage_bytes_max
        free = max(0, most - self._bytes)
        if most == 0:
            return ""
        if copy.bytes_to_come is None:
            return "needs to know from Kafka first how far its log goes, to tell the size of its table"
        if free > 0 and copy.bytes_to_come <= free:
            return ""
        needs = size(copy.bytes_to_come) if copy.bytes_to_come else "storage"
        return (
            f"needs {needs} for its table, {size(free)} of {size(most)} are free: retire a version that nobody reads, "
            f"or raise the limit"
        )


# --- what the tables take -------------------------------------------------------------------------------------------


_PAGE_BYTES: Final = 8192
_TABLE_PAGES: Final = 6  # one of rows, three of the map of free space, one of what is visible, the index of TOAST
_INDEX_PAGES: Final = 2  # its head and its root


@dataclass(frozen=True, slots=True)
class Table:
    """An output table as it is. `offsets`: of the log that it reflects. `complete`: it has reflected all of it."""

    label: str  # the version as people write it
    size_bytes: int
    offsets: int
    complete: bool
    fixed_bytes: int = 0  # what it takes with its first row, which does not grow with the offsets

    def at(self, offsets: int) -> int:
        """Its bytes once it reflects so many offsets; never fewer than now, it may have grown for other reasons."""
        fixed = min(self.fixed_bytes, self.size_bytes)
        return fixed + round((self.size_bytes - fixed) * max(1.0, offsets / self.offsets))


@dataclass(frozen=True, slots=True)
class TableSize:
    """What a whole table is expected to take, None = unknown, and what that rests on, as a remark for a person."""

    size_bytes: int | None
    basis: str


def expected_size(offsets: int, own: Table | None, others: Sequence[Table]) -> TableSize:
    """The size of a table once it reflects so many offsets. `others`: of the job, the most telling first."""
    for table in others:
        if table.offsets > 0 and (table.complete or table.offsets >= TELLING_SHARE * offsets):
            return TableSize(
                table.at(offsets),
                f"the size of the table is judged by that of {table.label}, {table.size_bytes:,} bytes for "
                f"{table.offsets:,} offsets",
            )
    if own is not None and own.offsets > 0 and own.offsets >= TELLING_SHARE * offsets:
        return TableSize(
            own.at(offsets),
            f"the size of the table is judged by the part that is there, {own.size_bytes:,} bytes for "
            f"{own.offsets:,} offsets",
        )
    return TableSize(
        None, "the size of the table is unknown: the job has no other table to judge it by, and it counts as nothing"
    )


def table_of(run: Run, positions: Positions, size_bytes: int) -> Table:
    """The run's table as it is."""
    read = sum(position.next_offset - position.start_offset for position in positions.values())
    pages = _TABLE_PAGES + _INDEX_PAGES * (1 + len(run.definition.indexes))
    return Table(run.label, size_bytes, read, run.catch_up_time is not None, pages * _PAGE_BYTES)


def offsets_to_read(positions: Positions, ends: Mapping[TopicPartition, LogEnds]) -> int | None:
    """From where the run began to the end of its log, all partitions; None while an end is not known."""
    total = 0
    for tp, position in positions.items():
        if tp not in ends:
            return None
        end = ends[tp].end if position.range_end is None else min(ends[tp].end, position.range_end)
        total += max(end, position.next_offset) - position.start_offset
    return total


def books_of(
    runs: Collection[Run],
    positions: Mapping[VersionId, Positions],
    ends: Mapping[TopicPartition, LogEnds],
    sizes: Mapping[VersionId, int],
    missing: Collection[str] = (),
) -> Books:
    """The books from what was measured. `sizes`: bytes of each version's table with its indexes.

    `missing`: topics that Kafka does not know. A run that reads one needs nothing: once admitted it fails and says why.
    """
    tables = {run.version: table_of(run, positions.get(run.version, {}), sizes.get(run.version, 0)) for run in runs}
    copies = []
    for run in runs:
        if run.state not in (State.QUEUED, State.REPLAYING):
            continue
        offsets = offsets_to_read(positions.get(run.version, {}), ends)
        own = tables[run.version]
        to_come: int | None = 0
        if offsets is not None:
            whole = expected_size(offsets, own, beside(run.version, runs, tables)).size_bytes or 0
            to_come = max(0, whole - own.size_bytes)
        elif not run.topic_ids.keys() & set(missing):
            to_come = None
        copies.append(copy_of(run, to_come))
    return Books(tuple(copies), sum(sizes.values()))


def beside(version: VersionId, runs: Collection[Run], tables: Mapping[VersionId, Table]) -> list[Table]:
    """The other tables of the version's job: whole ones first, of those the newest first."""
    others = [
        run for run in runs if run.version.job == version.job and run.version != version and run.drop_time is None
    ]
    others.sort(key=lambda run: (run.catch_up_time is not None, run.version.number), reverse=True)
    return [tables[run.version] for run in others]


def copy_of(run: Run, bytes_to_come: int | None) -> Copy:
    """A run that copies or waits to, as the books have it."""
    return Copy(
        version=run.version,
        state=run.state,
        priority=run.priority,
        queue_time=run.queue_time or run.create_time,
        returns=run.catch_up_time is not None,
        bytes_to_come=bytes_to_come,
    )


# --- rows a second --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class CopyRates:
    """A copy under way. `rows_per_record`: as measured, above 0. `records_per_s_max`: its own limit, None = none."""

    version: VersionId
    rows_per_record: float = 1.0
    records_per_s_max: float | None = None


def copy_rates(sample: Sample) -> list[CopyRates]:
    """All copies under way in a sample. A copy that has written nothing yet counts one row a record."""
    found = []
    for run in sample.runs.values():
        if run.state is not State.REPLAYING:
            continue
        positions = sample.of(run.version).values()
        records, rows = sum(one.records for one in positions), sum(one.rows_written for one in positions)
        ratio = rows / records if records > 0 and rows > 0 else 1.0
        found.append(CopyRates(run.version, ratio, float(run.rate_limit) if run.rate_limit > 0 else None))
    return found


def row_rate_limits(capacity: Capacity, copies: Collection[CopyRates]) -> Mapping[VersionId, float]:
    """Records a second that each copy may read, so that all together write no more rows than they may.

    Equal shares of the rows; what a copy cannot use because of its own limit goes to the others. Empty = no limit.
    """
    if capacity.rows_per_s_max <= 0:
        return {}
    limits: dict[VersionId, float] = {}
    left = float(capacity.rows_per_s_max)
    by_demand = sorted(copies, key=lambda copy: (_demand(copy), copy.version))
    for number, copy in enumerate(by_demand):
        rows = min(left / (len(by_demand) - number), _demand(copy))
        left -= rows
        limits[copy.version] = rows / copy.rows_per_record
    return limits


def _demand(copy: CopyRates) -> float:
    """Rows a second that the copy could use."""
    return float("inf") if copy.records_per_s_max is None else copy.records_per_s_max * copy.rows_per_record


def rows_per_s(samples: Sequence[Sample]) -> float:
    """Rows a second that all copies under way in the newest of the samples write together, over the last seconds."""
    if not samples:
        return 0.0
    newest, total = samples[-1], 0.0
    for run in newest.runs.values():
        if run.state is not State.REPLAYING:
            continue
        within = (one for one in samples if newest.monotonic_s - one.monotonic_s <= WINDOW_S and one.of(run.version))
        first = next(within, newest)
        span_s = newest.monotonic_s - first.monotonic_s
        if span_s > 0:
            rows = _rows(newest.of(run.version)) - _rows(first.of(run.version))
            total += max(0, rows) / span_s
    return total


def _rows(positions: Positions) -> int:
    return sum(position.rows_written for position in positions.values())


# --- words ----------------------------------------------------------------------------------------------------------


def size(number: int) -> str:
    """Bytes as a person says them, in decimal units: "45.2 MB"."""
    value = float(number)
    for unit in ("bytes", "kB", "MB", "GB"):
        if value < 999.95:
            return f"{value:,.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}".replace(".0 ", " ")
        value /= 1000
    return f"{value:,.1f} TB".replace(".0 ", " ")


def _ordinal(number: int) -> str:
    ending = "th" if number % 100 in (11, 12, 13) else {1: "st", 2: "nd", 3: "rd"}.get(number % 10, "th")
    return f"{number}{ending}"
