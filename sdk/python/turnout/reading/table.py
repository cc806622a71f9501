"""Reads of the output tables in PostgreSQL: what a front knows of each, and the statements on it."""

from collections.abc import AsyncGenerator, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import asyncpg

from turnout.column_values import UNREADABLE, Packed, driver_values, taken, unreadable
from turnout.errors import FailedPrecondition, InvalidInput, ResourceExhausted, TurnoutError, Unavailable
from turnout.kinds import Kind
from turnout.names import VersionId
from turnout.postgres import Connection, Pool, load_queries, open_pool, postgres_errors
from turnout.reading.columns import Column, Table, table_of_catalog
from turnout.reading.deadline import Deadline
from turnout.reading.denials import Denial
from turnout.reading.gathering import Gathering
from turnout.reading.limits import READ_S_MAX
from turnout.reading.positions import Positions
from turnout.reading.rights import denied
from turnout.reading.scans import ScanPlaces, too_long
from turnout.reading.statements import Statements
from turnout.schema import SchemaError, table_name

_QUERIES = load_queries(Path(__file__).with_name("queries.sql"))
PAGE_ROWS = 1000
_READERS_MAX = 1000
_CONNECTIONS_MAX = 8
_WARM_S = 10.0

# What PostgreSQL says to a statement made for a table that is gone, or that was made anew with another shape.
_MOVED = (
    asyncpg.UndefinedTableError,
    asyncpg.UndefinedColumnError,
    asyncpg.UndefinedFunctionError,
    asyncpg.DatatypeMismatchError,
    asyncpg.InvalidCachedStatementError,
    # A column is packed as what it was, and is of another type now.
    asyncpg.CannotCoerceError,
    asyncpg.InvalidTextRepresentationError,
    asyncpg.NumericValueOutOfRangeError,
)

Values = tuple[Any, ...]
"""A row's values, in the order of the table's columns."""


class TableMoved(Exception):
    """The table is not the one that the reader was made for: it was dropped, or dropped and made anew."""

    def __init__(self, version: VersionId) -> None:
        super().__init__(f"the table of {version} has been dropped or made anew")
        self.version = version


class TableMissing(TableMoved):
    """The catalog has no table of the version."""


@dataclass(frozen=True, slots=True)
class Page:
    """Rows of a scan, and the positions, which all its pages share."""

    positions: Positions
    rows: list[Values]


@dataclass(frozen=True, slots=True)
class Found:
    """Rows of a batch, packed by column; `order` tells which of them each key has, counted from 1, 0 = none."""

    table: Table
    columns: Sequence[Packed]
    order: Sequence[int]

    @property
    def rows(self) -> list[Values | None]:
        """The row of each key. FailedPrecondition (VALUE_UNREADABLE)."""
        columns = map(_unpacked, self.table.columns, self.columns)
        rows = [None, *zip(*columns, strict=True)]
        return [rows[at] for at in self.order]

    def __len__(self) -> int:
        return len(self.order)

    def at(self, places: Sequence[int]) -> "Found":
        """What was found for the keys at these places, still packed."""
        order = [self.order[place] for place in places]
        kept = {row: number for number, row in enumerate(sorted({*order} - {0}), 1)}
        columns = [
            taken(one.kind, column, [row - 1 for row in kept])
            for one, column in zip(self.table.columns, self.columns, strict=True)
        ]
        return Found(self.table, columns, [kept.get(row, 0) for row in order])


def _unpacked(column: Column, values: Packed) -> Sequence[Any]:
    try:
        return driver_values(column.kind, values)
    except UNREADABLE as error:
        raise unreadable(column.name, error) from None


_OF_ONE_KEY = frozenset({"ANSWER_TOO_LARGE", "VALUE_UNREADABLE"})


class _OfOneKeyError(Exception):
    """A statement for several keys failed for what one of them led to."""


Answer = tuple[Positions, Values | None]
"""The applied positions, and a row or None, of one snapshot."""


class TableReader:
    """Reads of one table, each in one snapshot with the applied positions. Raises TableMoved, Unavailable, and
    FailedPrecondition (POSTGRES_DENIED) where the user of the database may not read it."""

    def __init__(self, pool: Pool, scans: ScanPlaces, table: Table, denial: Denial) -> None:
        self._pool = pool
        self._scans = scans
        self._denial = denial
        self.table = table
        self._statements = Statements(table)
        self._key_at = table.column_names.index(table.key[0].name)
        self._newest = Positions(b"")
        self._gathering: Gathering[Values, Answer] = Gathering(self._one, self._several, (TableMoved, TurnoutError))

    async def warm(self, connection: Connection, timeout_s: float) -> None:
        """Run the statements once without asking for a row, so that a table that cannot be read is found now."""
        with self._reading():
            self._check(await connection.fetchrow(self._statements.positions, timeout=timeout_s))
            await connection.fetch(self._statements.scan(()), 0, timeout=timeout_s)

    async def get(self, key: Values, deadline: Deadline) -> Answer:
        """The applied positions, and the row of that key or None. Reads that come at once share a statement.
        ResourceExhausted (ANSWER_TOO_LARGE)."""
        with self._reading():
            return await self._gathering.send(key, deadline)

    async def _one(self, key: Values, deadline: Deadline) -> Answer:
        with self._reading():
            try:
                async with self._pool.acquire(timeout=deadline.left_s) as connection:
                    record = await connection.fetchrow(self._statements.get, *key, timeout=deadline.left_s)
            except UNREADABLE:  # the driver does not say in which column; packed, they are taken apart one by one
                positions, found = await self.batch([[value] for value in key], deadline)
                return positions, found.rows[0]
        self._check(record)
        return self._positions(record), record[3:] if record["_found"] else None

    async def _several(self, keys: Sequence[Values], deadline: Deadline) -> Sequence[Answer]:
        try:
            positions, found = await self.batch([*zip(*keys, strict=True)], deadline)
            return [(positions, row) for row in found.rows]
        except (FailedPrecondition, ResourceExhausted) as error:
            if error.reason not in _OF_ONE_KEY:
                raise
            raise _OfOneKeyError from error

    async def batch(self, keys: Sequence[Sequence[Any]], deadline: Deadline) -> tuple[Positions, Found]:
        """The applied positions, and the rows of those keys, which are given by column. One statement.
        ResourceExhausted (ANSWER_TOO_LARGE)."""
        with self._reading(len(keys[0])):
            async with self._pool.acquire(timeout=deadline.left_s) as connection:
                record = await connection.fetchrow(self._statements.batch, *keys, timeout=deadline.left_s)
        self._check(record)
        columns, places = self._statements.found(record)
        if self._statements.by_value:
            found = driver_values(self.table.key[0].kind, columns[self._key_at])
            at = dict(zip(found, range(1, len(found) + 1), strict=True))
            order = [at.get(key, 0) for key in keys[0]]
        else:
            order = [0] * len(keys[0])
            for row, place in enumerate(places, 1):
                order[place - 1] = row
        return self._positions(record), Found(self.table, columns, order)

    async def scan(
        self, order: Sequence[tuple[Column, bool]], limit: int, deadline: Deadline
    ) -> AsyncGenerator[Page, None]:
        """Pages of at most PAGE_ROWS rows out of one snapshot; at least one page, be it without rows. Unavailable
        (SCANS_BUSY); ResourceExhausted (SCAN_TOO_LONG, ANSWER_TOO_LARGE); FailedPrecondition (VALUE_UNREADABLE)."""
        with self._reading():
            async with (
                self._scans.place(deadline),
                self._pool.acquire(timeout=deadline.left_s) as connection,
                connection.transaction(isolation="repeatable_read", readonly=True),
            ):
                cursor = await self._cursor(connection, order, limit, deadline)
                # After the cursor, whose lock keeps the table as it is until the transaction ends.
                head = await connection.fetchrow(self._statements.positions, timeout=deadline.left_s)
                self._check(head)
                positions, left = self._positions(head), limit
                rows = await self._rows(cursor, left, deadline)
                yield Page(positions, [tuple(row) for row in rows])
                while len(rows) == PAGE_ROWS and (left := left - len(rows)):
                    try:
                        rows = await self._rows(cursor, left, deadline)
                    except TimeoutError:
                        raise too_long() from None
                    if rows:
                        yield Page(positions, [tuple(row) for row in rows])

    async def _cursor(
        self, connection: Connection, order: Sequence[tuple[Column, bool]], limit: int, deadline: Deadline
    ) -> Any:
        try:
            return await connection.cursor(self._statements.scan(order), limit, timeout=deadline.left_s)
        except asyncpg.UndefinedFunctionError:
            named = ", ".join(f"{column.name} ({column.postgres})" for column, _ in order)
            raise InvalidInput(
                "COLUMN_WITHOUT_ORDER", f"PostgreSQL has no order for the values of every column of {named}."
            ) from None

    async def _rows(self, cursor: Any, left: int, deadline: Deadline) -> Any:
        """The next page's."""
        try:
            return await cursor.fetch(min(PAGE_ROWS, left), timeout=deadline.left_s)
        except UNREADABLE as error:  # the driver does not say in which column
            kinds = Kind.DATE, Kind.TIMESTAMP
            suspects = [column.name for column in self.table.columns if column.kind in kinds]
            raise unreadable(" or ".join(suspects or self.table.column_names), error) from None

    @contextmanager
    def _reading(self, keys: int = 1) -> Iterator[None]:
        """Errors of a statement in the front's words. keys: whose rows PostgreSQL makes one value of; a scan's rows
        are values of their own."""
        try:
            with postgres_errors():
                yield
        except _MOVED as error:
            raise TableMoved(self.table.version) from error
        except asyncpg.InsufficientPrivilegeError as error:
            raise self._denial(self.table, str(error)) from error
        except asyncpg.PostgresError as error:
            if _above_limit(error):
                raise _too_large(keys) from error
            raise

    def _positions(self, record: Any) -> Positions:
        """The positions that came with an answer; those of the one before where they are the same."""
        raw = record["_positions"] or b""
        if self._newest.raw != raw:
            self._newest = Positions(raw)
        return self._newest

    def _check(self, record: Any) -> None:
        if record is None or record["_relation"] != self.table.relation:
            raise TableMoved(self.table.version)


async def refuse_without_rights(connection: Connection, timeout_s: float) -> None:
    """FailedPrecondition (POSTGRES_DENIED) where the user of the connection could answer no read at all."""
    rights = await connection.fetchrow(_QUERIES.rights, timeout=timeout_s)
    if rights is None or (rights["enters"] and rights["reads"]):
        return
    lacks = "it may not read the positions" if rights["enters"] else "it may not use the schema"
    raise denied(rights["role"], rights["owner"], "the schema serving", lacks)


class Tables:
    """A reader for each version that was asked for, made from the catalog; and the connections that they share.

    denial: how one is told of that may not be read. hidden: the tables as they are, with the columns that no reader
    sees, for who compares rows.
    """

    def __init__(
        self, dsn: str, denial: Denial, *, hidden: bool = False, connections_max: int = _CONNECTIONS_MAX
    ) -> None:
        self._dsn = dsn
        self._denial = denial
        self._hidden = hidden
        self._connections_max = connections_max
        self._opened: Pool | None = None
        self._scans = ScanPlaces()
        self._readers: dict[VersionId, TableReader] = {}

    async def open(self) -> None:
        """Make the pool. Connects to nobody yet, so that a front can start while PostgreSQL is away."""
        self._opened = await open_pool(
            self._dsn,
            application_name="turnout query",
            min_size=0,
            max_size=self._connections_max,
            settings={
                "default_transaction_read_only": "on",
                # Every scan ends by itself before, unless this process is frozen.
                "idle_in_transaction_session_timeout": f"{READ_S_MAX:.0f}s",
            },
        )

    async def close(self) -> None:
        """Close the connections; reads that still run on them fail."""
        if self._opened is not None:
            self._opened.terminate()

    @property
    def _pool(self) -> Pool:
        if self._opened is None:
            raise Unavailable("STARTING", "This front is starting; try again.")
        return self._opened

    async def reader(self, version: VersionId, deadline: Deadline) -> TableReader:
        """The reader of the version's table. TableMissing; FailedPrecondition (TABLE_UNREADABLE); Unavailable."""
        return self._readers.get(version) or await self._load(version, deadline, warm=False)

    async def prepare(self, version: VersionId) -> None:
        """Read the catalog anew and try the statements. TableMissing; FailedPrecondition; Unavailable."""
        await self._load(version, Deadline(_WARM_S), warm=True)

    def forget(self, version: VersionId) -> bool:
        """Drop the reader, so that the next read looks into the catalog; whether there was one."""
        return self._readers.pop(version, None) is not None

    async def _load(self, version: VersionId, deadline: Deadline, *, warm: bool) -> TableReader:
        try:
            name = table_name(version.job, version.number)
        except SchemaError:
            raise TableMissing(version) from None  # a number so long that no table can have the name
        with postgres_errors():
            async with self._pool.acquire(timeout=deadline.left_s) as connection:
                rows = await connection.fetch(_QUERIES.columns_of_table, name, timeout=deadline.left_s)
                if not rows:
                    self._readers.pop(version, None)
                    raise TableMissing(version)
                table = table_of_catalog(version, name, rows, hidden=self._hidden)
                reader = TableReader(self._pool, self._scans, table, self._denial)
                if warm:
                    await reader.warm(connection, deadline.left_s)
        self._readers.pop(version, None)
        while len(self._readers) >= _READERS_MAX:
            del self._readers[next(iter(self._readers))]
        self._readers[version] = reader
        return reader


def _above_limit(error: asyncpg.PostgresError) -> bool:
    """Whether PostgreSQL refuses a row, or what it packs, for its size: it makes them before anybody can tell that."""
    # The sizes of buffers are checked by two parts of it, one of which calls its finding an internal error.
    return isinstance(error, asyncpg.ProgramLimitExceededError) or "invalid memory alloc request size" in str(error)


def _too_large(keys: int) -> ResourceExhausted:
    return ResourceExhausted(
        "ANSWER_TOO_LARGE",
        f"The rows of these {keys} keys are above PostgreSQL's own limit, 1 GiB: ask for fewer keys at a time."
        if keys > 1
        else "The row is above PostgreSQL's own limit, 1 GiB, so that no read can have it: let the job keep so large a "
        "value elsewhere, and in the row where that is.",
    )
