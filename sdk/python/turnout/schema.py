"""What the table of a version is: plain values, the same in the SDK, the registry and the replay engine.

Theory of operation. A job file is code; loading it (`turnout.job.load`) yields a `JobDefinition`, which is data: it is
stored with the version as JSON (`encode`, `decode`), creates the table, and says how two rows of one key become one.
Nothing here runs a user's code, talks to a server, or knows SQL beyond the PostgreSQL type of a column.

Rules that hold for every table, so that a value orders and compares alike in Python and in PostgreSQL:
- text columns (STRING, ENUM) are created with COLLATE "C": code point order, as Python compares `str`;
- a key column is never null, never FLOAT64 or JSON;
- SUM, MIN and MAX take a null as "nothing to add"; two nulls stay null;
- LAST_BY: of two rows the one with the greater value in the ordering column gives *all* LAST_BY columns. Equal ordering
  values are decided by comparing the tuple of all LAST_BY columns in column order, null smaller than any value, so that
  the result does not depend on the order in which rows arrive. The ordering column itself is a MAX column, not null.

Names: a table is `<job with - as _>__v<n>`, the view `<job with - as _>`. A job id has no two hyphens in a row, hence
no view can be named like a table. Column names starting with an underscore are the engine's own.
"""

from __future__ import annotations

import enum
import re
from collections.abc import Iterator

import msgspec

JOB_ID = re.compile(r"[a-z]([a-z0-9-]{0,40}[a-z0-9])?", re.ASCII)
RESERVED_JOB_IDS = frozenset({"dead-letters", "positions"})
"""Their views would have the names of Turnout's own tables in the schema `serving`."""
COLUMN_NAME = re.compile(r"[a-z][a-z0-9_]{0,62}", re.ASCII)
TOPIC_NAME = re.compile(r"[A-Za-z0-9._-]{1,249}", re.ASCII)
IDENTIFIER_BYTES_MAX = 63  # PostgreSQL cuts longer names without a word
COLUMNS_MAX = 400
SYSTEM_COLUMNS = frozenset({"tableoid", "xmin", "cmin", "xmax", "cmax", "ctid"})  # PostgreSQL refuses these names


class SchemaError(ValueError):
    """A definition that cannot become a table. The text says what is wrong and what to do."""


class ColumnType(enum.Enum):
    """The type of a column. The value is its name in stored definitions."""

    INT64 = "int64"
    FLOAT64 = "float64"
    BOOL = "bool"
    STRING = "string"
    BYTES = "bytes"
    DATE = "date"
    TIMESTAMP = "timestamp"  # with time zone, UTC
    DECIMAL = "decimal"
    UUID = "uuid"
    ENUM = "enum"  # one of `Column.enum_values`, stored as text
    JSON = "json"

    @property
    def postgres(self) -> str:
        """The PostgreSQL type. STRING and ENUM columns are declared with COLLATE "C" besides."""
        return _POSTGRES[self]

    @property
    def is_text(self) -> bool:
        """Whether the column is text, declared COLLATE "C"."""
        return self in (ColumnType.STRING, ColumnType.ENUM)


_POSTGRES = {
    ColumnType.INT64: "bigint",
    ColumnType.FLOAT64: "double precision",
    ColumnType.BOOL: "boolean",
    ColumnType.STRING: "text",
    ColumnType.BYTES: "bytea",
    ColumnType.DATE: "date",
    ColumnType.TIMESTAMP: "timestamptz",
    ColumnType.DECIMAL: "numeric",
    ColumnType.UUID: "uuid",
    ColumnType.ENUM: "text",
    ColumnType.JSON: "jsonb",
}


class Merge(enum.Enum):
    """How the values of one column in two rows of the same key become one."""

    KEY = "key"
    SUM = "sum"
    MIN = "min"
    MAX = "max"
    LAST_BY = "last_by"
    NONE = "none"  # map and fold: the row is replaced as a whole


class JobKind(enum.Enum):
    """What the function of a job does with a record."""

    MAP = "map"  # record -> rows that replace or delete rows of the same key
    AGGREGATE = "aggregate"  # record -> rows that merge column by column, in any order
    FOLD = "fold"  # (row of the key, record) -> new row of the key


class OnMalformed(enum.Enum):
    """What becomes of a record that cannot be decoded, or that the function or the table refuses."""

    FAIL = "fail"  # the run fails, naming the record
    SET_ASIDE = "set_aside"  # the record goes to the dead-letter table with its reason, and the run goes on


class Keep(enum.Enum):
    """Which of several rows of one key a map keeps."""

    LAST = "last"  # upsert
    FIRST = "first"  # insert: a later row of the key is ignored


class Column(msgspec.Struct, frozen=True, omit_defaults=True):
    """One stored column."""

    name: str
    type: ColumnType
    nullable: bool = False
    merge: Merge = Merge.NONE
    last_by: str | None = None  # LAST_BY only: the ordering column
    enum_values: tuple[str, ...] = ()  # ENUM only: the texts that may be stored
    approximate: bool = False  # a float sum: compared with a tolerance, never exactly


class DerivedColumn(msgspec.Struct, frozen=True):
    """A column that PostgreSQL computes from the others (generated, stored).

    `expression` is immutable SQL over the stored columns; guarding a division by zero is up to its author. Its type is
    what PostgreSQL says of the expression when the table is created.
    """

    name: str
    expression: str


class Index(msgspec.Struct, frozen=True):
    """An index besides the primary key, built after the copy phase."""

    columns: tuple[str, ...]


class Expiry(msgspec.Struct, frozen=True):
    """Rows whose `column` (DATE or TIMESTAMP) lies more than `after_s` seconds behind the job's event time are deleted
    in the data transaction. The job's event time is the newest event time applied from any partition, hence it never
    goes back, and two runs that stand at equal positions hold equal rows."""

    column: str
    after_s: int


class TopicSource(msgspec.Struct, frozen=True):
    """One topic a job reads. `event_time` is the field of its records that holds event time, as a timestamp or as
    integer milliseconds since 1970; None = Kafka's timestamp."""

    topic: str
    event_time: str | None = None


class JobDefinition(msgspec.Struct, frozen=True, omit_defaults=True):
    """A version's table and the rules by which records become its rows.

    job: the job's id. columns: in the order of every row tuple. key: names of the key columns, in column order.
    keyed_by_partition: the row key is the key by which the topics are partitioned (map where declared, fold always):
    order within the partition decides, and a row met from a second partition fails the run. order_by (other maps): the
    column whose greater value wins, ties by (topic, partition, offset). keep: map only. tombstones: a Kafka tombstone
    deletes the row; otherwise it is a malformed record. python: "major.minor" the definition was loaded with.
    requirements: "name==version" of each distribution the code imports besides the standard library and turnout.
    """

    job: str
    kind: JobKind
    topics: tuple[TopicSource, ...]
    columns: tuple[Column, ...]
    key: tuple[str, ...]
    derived: tuple[DerivedColumn, ...] = ()
    indexes: tuple[Index, ...] = ()
    on_malformed: OnMalformed = OnMalformed.FAIL
    keyed_by_partition: bool = False
    order_by: str | None = None
    keep: Keep | None = None
    tombstones: bool = False
    expiry: Expiry | None = None
    python: str = ""
    requirements: tuple[str, ...] = ()

    def column(self, name: str) -> Column:
        """The stored column of that name; KeyError if there is none."""
        for column in self.columns:
            if column.name == name:
                return column
        raise KeyError(name)

    def position(self, name: str) -> int:
        """Where the column stands in a row tuple; KeyError if there is none."""
        for position, column in enumerate(self.columns):
            if column.name == name:
                return position
        raise KeyError(name)

    @property
    def key_positions(self) -> tuple[int, ...]:
        """Where the key columns stand in a row tuple."""
        return tuple(self.position(name) for name in self.key)

    @property
    def co_partitioned(self) -> bool:
        """Whether the topics must have the same number of partitions, by the same key."""
        return self.keyed_by_partition and len(self.topics) > 1


def encode(definition: JobDefinition) -> bytes:
    """The definition as JSON, equal bytes for equal definitions."""
    return msgspec.json.encode(definition)


def decode(text: bytes | str) -> JobDefinition:
    """The definition written by `encode`, checked. SchemaError if it is not one."""
    try:
        definition = msgspec.json.decode(text, type=JobDefinition)
    except msgspec.MsgspecError as error:
        raise SchemaError(f"not a job definition: {error}") from None
    validate(definition)
    return definition


# --- names ----------------------------------------------------------------------------------------------------------


def check_job_id(job: str) -> None:
    """SchemaError unless `job` may name a job."""
    if not JOB_ID.fullmatch(job) or "--" in job:
        raise SchemaError(
            f"{job!r} is not a job id: use 1 to 42 of a-z, 0-9 and single hyphens, starting with a letter and not "
            f"ending with a hyphen, for example 'carrier-punctuality'"
        )
    if job in RESERVED_JOB_IDS:
        raise SchemaError(
            f"{job!r} cannot name a job: Turnout's own table serving.{job.replace('-', '_')} has that name, which the "
            f"job's SQL view would need. Choose another name, for example 'my-{job}'"
        )


def check_column_name(name: str) -> None:
    """SchemaError unless `name` may name a column."""
    if not COLUMN_NAME.fullmatch(name) or name in SYSTEM_COLUMNS:
        why = (
            "PostgreSQL keeps that name for itself"
            if name in SYSTEM_COLUMNS
            else (f"use 1 to {IDENTIFIER_BYTES_MAX} of a-z, 0-9 and _, starting with a letter")
        )
        raise SchemaError(f"{name!r} cannot name a column: {why}")


def table_name(job: str, version: int) -> str:
    """The table of a version in the schema `serving`, for example carrier_punctuality__v2."""
    check_job_id(job)
    if version < 1:
        raise SchemaError(f"{version} is not a version: versions count from 1")
    name = f"{job.replace('-', '_')}__v{version}"
    if len(name) > IDENTIFIER_BYTES_MAX:
        raise SchemaError(f"{name!r} is longer than the {IDENTIFIER_BYTES_MAX} bytes PostgreSQL keeps of a name")
    return name


def view_name(job: str) -> str:
    """The view that follows the job's active version, for example carrier_punctuality."""
    check_job_id(job)
    return job.replace("-", "_")


# --- validity -------------------------------------------------------------------------------------------------------

_ORDERING = frozenset({ColumnType.INT64, ColumnType.STRING, ColumnType.DATE, ColumnType.TIMESTAMP, ColumnType.DECIMAL})
_MEASURES = frozenset({Merge.SUM, Merge.MIN, Merge.MAX, Merge.LAST_BY})


def validate(definition: JobDefinition) -> None:
    """SchemaError for the first rule that the definition breaks."""
    for problem in _problems(definition):
        raise SchemaError(problem)


def _problems(d: JobDefinition) -> Iterator[str]:
    check_job_id(d.job)
    if not d.topics:
        yield "a job reads at least one topic: name it with topic="
    for source in d.topics:
        if not TOPIC_NAME.fullmatch(source.topic) or source.topic in (".", ".."):
            yield f"{source.topic!r} is not the name of a Kafka topic: use 1 to 249 of a-z, A-Z, 0-9, '.', '_' and '-'"
    for column in d.columns:
        yield from _column_problems(d, column)
        yield from _measure_problems(d, column)
    if not d.key:
        yield "the row has no key: mark at least one column as Key[...]"
    if d.key != tuple(column.name for column in d.columns if column.merge is Merge.KEY):
        yield "`key` is wrong: it lists the names of the key columns in column order"
    yield from _table_problems(d)
    yield from _order_problems(d)
    yield from _expiry_problems(d)


def _table_problems(d: JobDefinition) -> Iterator[str]:
    names = [column.name for column in d.columns] + [derived.name for derived in d.derived]
    for name in names:
        check_column_name(name)
    if len(names) > COLUMNS_MAX:
        yield f"the table has {len(names)} columns, more than {COLUMNS_MAX}: gather some in one dict column"
    for name in sorted({name for name in names if names.count(name) > 1}):
        yield f"two columns are named {name!r}: rename one"
    for derived in d.derived:
        if not derived.expression.strip() or "\0" in derived.expression:
            yield f"derived column {derived.name!r} has no expression: give SQL over the other columns"
    for index in d.indexes:
        if not index.columns:
            yield "an index has no column: name one"
        for name in index.columns:
            if name not in names:
                yield f"an index names the column {name!r}, which the row does not have: mend the name"


def _column_problems(d: JobDefinition, column: Column) -> Iterator[str]:
    name, kind, merge = column.name, column.type, column.merge
    aggregate = d.kind is JobKind.AGGREGATE
    if aggregate and merge is Merge.NONE:
        yield (
            f"column {name!r} does not say how it merges: an aggregate's columns are Key, Sum, Min, Max or LastBy; "
            f"a row replaced as a whole is a map or a fold"
        )
    if not aggregate and merge in _MEASURES:
        yield (
            f"column {name!r} is declared to merge, but the rows of a {d.kind.value} replace one another: "
            f"write the plain type, or make it an aggregate"
        )
    if merge is Merge.KEY and column.nullable:
        yield f"key column {name!r} is optional: a key is never null; filter such records or give them a value"
    if merge is Merge.KEY and kind in (ColumnType.FLOAT64, ColumnType.JSON):
        yield f"key column {name!r} is {kind.value}, which does not identify a row: use an exact, plain type"
    if kind is ColumnType.ENUM and not column.enum_values:
        yield f"enum column {name!r} has no values: give the Enum members"


def _measure_problems(d: JobDefinition, column: Column) -> Iterator[str]:
    name, kind, merge = column.name, column.type, column.merge
    if merge is Merge.SUM and kind is ColumnType.FLOAT64 and not column.approximate:
        yield (
            f"Sum column {name!r} is a float, whose sum depends on the order of the records: use int or Decimal, "
            f"or declare it ApproximateSum[float]"
        )
    if merge is Merge.SUM and kind not in (ColumnType.INT64, ColumnType.DECIMAL, ColumnType.FLOAT64):
        yield f"Sum column {name!r} is {kind.value}: only int and Decimal are summed (count a bool as Sum[int])"
    if column.approximate and (merge is not Merge.SUM or kind is not ColumnType.FLOAT64):
        yield f"column {name!r} is approximate, which only a sum of float is: write Sum[...]"
    if merge in (Merge.MIN, Merge.MAX, Merge.LAST_BY) and kind is ColumnType.JSON:
        yield f"column {name!r} is JSON, which has no order to merge by: use a plain type"
    if merge is Merge.LAST_BY:
        ordering = next((c for c in d.columns if c.name == column.last_by), None)
        if ordering is None:
            yield f"LastBy column {name!r} names no ordering column of the row: give last_by= the name of a Max column"
        elif ordering.merge is not Merge.MAX or ordering.nullable or ordering.type not in _ORDERING:
            yield (
                f"LastBy column {name!r} is ordered by {ordering.name!r}, which cannot order it: "
                f"it must be a Max column of int, str, date, datetime or Decimal and not optional"
            )


def _order_problems(d: JobDefinition) -> Iterator[str]:
    if d.kind is JobKind.FOLD and not d.keyed_by_partition:
        yield "a fold is not keyed by its partition key: set keyed_by_partition"
    if d.kind is JobKind.AGGREGATE and d.keyed_by_partition:
        yield "an aggregate takes its records in any order: only a map or a fold is keyed by partition"
    if d.kind is not JobKind.MAP:
        if d.keep is not None or d.order_by is not None or d.tombstones:
            yield "keep, order_by and tombstones belong to a map: leave them out"
        return
    if d.keep is None:
        yield "a map does not say which row it keeps: set keep"
    if d.keyed_by_partition == (d.order_by is not None):
        yield (
            "rows of one key need exactly one order: declare order_by= (a column whose greater value wins), or "
            "keyed_by_partition=True where the row key is the key by which the topic is partitioned"
        )
    if d.tombstones and (not d.keyed_by_partition or d.keep is Keep.FIRST):
        yield (
            "a Kafka tombstone, which names only the record key, deletes rows where keyed_by_partition=True and the "
            "last row is kept: otherwise let the function return Delete(...)"
        )
    if d.order_by is not None:
        ordering = next((c for c in d.columns if c.name == d.order_by), None)
        if ordering is None:
            yield f"order_by names the column {d.order_by!r}, which the row does not have: mend the name"
        elif ordering.type not in _ORDERING or ordering.nullable or ordering.merge is Merge.KEY:
            yield (
                f"order_by names the column {d.order_by!r}, which cannot order rows: it must be int, str, date, "
                f"datetime or Decimal, not optional and no key"
            )


def _expiry_problems(d: JobDefinition) -> Iterator[str]:
    if d.expiry is None:
        return
    name = d.expiry.column
    column = next((c for c in d.columns if c.name == name), None)
    if column is None:
        yield f"expire_after names the column {name!r}, which the row does not have: mend the name"
    elif column.type not in (ColumnType.DATE, ColumnType.TIMESTAMP) or column.nullable:
        yield f"expire_after names the column {name!r}, which has no age: use a date or datetime that is not optional"
    elif column.merge is not Merge.KEY and not (
        d.kind is JobKind.MAP and d.keep is Keep.LAST and (d.keyed_by_partition or name == d.order_by)
    ):
        # Elsewhere a record arriving after its row expired would meet another state in a replay than it met live.
        yield (
            f"expire_after names the column {name!r}, by which a replay could end with another table: use a key "
            f"column (in a map that keeps the last row also the order_by column, or any if keyed_by_partition=True)"
        )
    if d.expiry.after_s <= 0:
        yield "expire_after is no time: give a timedelta of a second or more"


# --- differences ----------------------------------------------------------------------------------------------------


class Change(enum.Enum):
    """In what a column differs between two definitions."""

    ADDED = "added"
    REMOVED = "removed"
    TYPE = "type"
    NULLABILITY = "nullability"
    KEY = "key"
    DERIVED = "derived"  # stored in one, derived in the other
    EXPRESSION = "expression"  # derived in both, by other SQL: its type is compared in the database


class ColumnDifference(msgspec.Struct, frozen=True):
    """One difference; `old` and `new` are for reading, "" where the column does not exist."""

    column: str
    change: Change
    old: str
    new: str

    @property
    def breaking(self) -> bool:
        """Whether a reader of the old table may fail on the new one."""
        return self.change not in (Change.ADDED, Change.EXPRESSION)

    def __str__(self) -> str:
        if self.change is Change.ADDED:
            return f"{self.column}: added ({self.new})"
        if self.change is Change.REMOVED:
            return f"{self.column}: removed ({self.old})"
        return f"{self.column}: {self.change.value} changed from {self.old} to {self.new}"


def difference(old: JobDefinition, new: JobDefinition) -> tuple[ColumnDifference, ...]:
    """What a reader of the table of `old` finds different in that of `new`, in column order, added columns last."""
    before, after = _by_name(old), _by_name(new)
    found: list[ColumnDifference] = []
    for name, was in before.items():
        now = after.get(name)
        if now is None:
            found.append(ColumnDifference(name, Change.REMOVED, _text(was), ""))
        else:
            found.extend(ColumnDifference(name, *one) for one in _changes(was, now))
    found.extend(
        ColumnDifference(name, Change.ADDED, "", _text(now)) for name, now in after.items() if name not in before
    )
    return tuple(found)


def _by_name(definition: JobDefinition) -> dict[str, Column | DerivedColumn]:
    columns: list[Column | DerivedColumn] = [*definition.columns, *definition.derived]
    return {column.name: column for column in columns}


def _changes(was: Column | DerivedColumn, now: Column | DerivedColumn) -> Iterator[tuple[Change, str, str]]:
    if isinstance(was, Column) and isinstance(now, Column):
        if was.type is not now.type:
            yield Change.TYPE, was.type.value, now.type.value
        if was.nullable != now.nullable:
            yield Change.NULLABILITY, _null_text(was), _null_text(now)
        if (was.merge is Merge.KEY) != (now.merge is Merge.KEY):
            yield Change.KEY, _key_text(was), _key_text(now)
    elif isinstance(was, DerivedColumn) and isinstance(now, DerivedColumn):
        if was.expression != now.expression:
            yield Change.EXPRESSION, was.expression, now.expression
    else:
        yield Change.DERIVED, _text(was), _text(now)


def _null_text(column: Column) -> str:
    return "null" if column.nullable else "not null"


def _key_text(column: Column) -> str:
    return "key" if column.merge is Merge.KEY else "no key"


def _text(column: Column | DerivedColumn) -> str:
    if isinstance(column, DerivedColumn):
        return f"derived as {column.expression}"
    return f"{column.type.value}, {_null_text(column)}" + (", key" if column.merge is Merge.KEY else "")
