"""The SQL of a version's table: its shape, and how a batch of rows becomes part of it. Pure: definitions in, text out.

Theory of operation. A worker copies its batch into a temporary *staging* table and merges that into the output table
with one statement, rows in key order so that two workers cannot deadlock. What the merge does follows from the kind:

    aggregate                  column by column (sum, min, max, last by)
    map keyed by partition     the newer row replaces (keep last) or is ignored (keep first); deletes remove the row
    fold                       the newer row replaces; deletes remove the row
    map ordered by a column    of two rows the one greater (keep last) or smaller (keep first) in (order_by, topic,
                               partition, offset) stays; a delete stays too, as a hidden tombstone, or an older row
                               would come back

Where no key of the batch is in the table yet, every kind comes to the same: the rows are added. `insert_columns` are
those of a batch copied straight into the output table, which is half the work; the primary key refuses a batch that is
not new.

Hidden columns begin with "_" and are never shown to readers; a row whose `_deleted` is true does not exist for them.
Statements that merge rows keyed by partition touch only rows of the same `_partition`: fewer rows touched than staged
means that some key came from another partition, and `conflicts` names it.

Identifiers were checked when the definition was validated; they are quoted all the same.
"""
# ruff: noqa: S608 - composing SQL from quoted names is what this file is for; values are always parameters

from collections.abc import Mapping, Sequence
from typing import Final

from turnout.schema import Column, ColumnType, JobDefinition, JobKind, Keep, Merge
from turnout.sql import DELETED_COLUMN, SCHEMA, literal, quoted, serving

STAGING: Final = "pg_temp.staging"

# What follows the columns in a change, in its order (see turnout.job.compiled).
CHANGE_COLUMNS: Final = {
    "_offset": "bigint",
    "_partition": "integer",
    DELETED_COLUMN: "boolean",
    "_event_time_ms": "bigint",
    "_topic": 'text collate "C"',
}
TOMBSTONES_KEPT_S: Final = 7 * 24 * 3600  # of event time, in every partition; for how late an older record may come
_FILLFACTOR: Final = 80  # room on each page, so that an update of an unindexed column stays in it


def hidden_columns(definition: JobDefinition) -> tuple[str, ...]:
    """Names of the output table's hidden columns, in the order of CHANGE_COLUMNS."""
    if definition.kind is JobKind.AGGREGATE:
        return ()
    source = ("_topic",) if len(definition.topics) > 1 else ()
    if definition.keyed_by_partition:
        return ("_offset", "_partition", *source)
    return ("_offset", "_partition", DELETED_COLUMN, "_event_time_ms", *source)


def has_tombstones(definition: JobDefinition) -> bool:
    """Whether deleted rows stay in the table, hidden, so that every reader must leave out rows with `_deleted`."""
    return DELETED_COLUMN in hidden_columns(definition)


def visible_columns(definition: JobDefinition) -> tuple[str, ...]:
    """Names of the columns that readers see, stored ones first: the select list of the view."""
    return (*(column.name for column in definition.columns), *(derived.name for derived in definition.derived))


# --- the table ------------------------------------------------------------------------------------------------------


def derived_types(definition: JobDefinition) -> str | None:
    """A query for one row that holds, by the name of each derived column, the type of its expression; None if there
    is no derived column. To be run as a prepared statement, which also refuses text that is more than an expression."""
    if not definition.derived:
        return None
    nulls = ", ".join(f"null::{_type(column)} as {quoted(column.name)}" for column in definition.columns)
    types = ",\n  ".join(
        f"pg_typeof((\n{derived.expression}\n))::text as {quoted(derived.name)}" for derived in definition.derived
    )
    return f"select {types}\nfrom (select {nulls}) as one_row"


def create_table(definition: JobDefinition, table: str, types: Mapping[str, str]) -> str:
    """CREATE TABLE for a version; `types` is the answer to `derived_types` (empty without derived columns)."""
    tombstones = has_tombstones(definition)
    lines = []
    for column in definition.columns:
        may_be_null = column.nullable or (tombstones and not _names_row(definition, column.name))
        lines.append(f"{quoted(column.name)} {_type(column)}{'' if may_be_null else ' not null'}")
    for derived in definition.derived:
        generated = f"generated always as (\n{derived.expression}\n) stored"
        lines.append(f"{quoted(derived.name)} {types[derived.name]} {generated}")
    lines += [f"{quoted(name)} {CHANGE_COLUMNS[name]} not null" for name in hidden_columns(definition)]
    lines.append(f"primary key ({_names(definition.key)})")
    required = [
        f"{quoted(c.name)} is not null"
        for c in definition.columns
        if not c.nullable and not _names_row(definition, c.name)
    ]
    if tombstones and required:
        lines.append(f"check (_deleted or ({' and '.join(required)}))")
    body = ",\n  ".join(lines)
    return f"create table {serving(table)} (\n  {body}\n) with (fillfactor = {_fillfactor(definition)})"


def _fillfactor(definition: JobDefinition) -> int:
    inserted_only = definition.keyed_by_partition and definition.keep is Keep.FIRST
    return 100 if inserted_only else _FILLFACTOR


def create_upkeep_indexes(definition: JobDefinition, table: str) -> tuple[str, ...]:
    """Indexes that the writes themselves need, made with the table: for the deletion of what expired, and of
    tombstones."""
    statements = []
    if definition.expiry is not None:
        statements.append(f"create index on {serving(table)} ({quoted(definition.expiry.column)})")
    if has_tombstones(definition):
        statements.append(f"create index on {serving(table)} (_event_time_ms) where _deleted")
    return tuple(statements)


def create_indexes(definition: JobDefinition, table: str, *, concurrently: bool = True) -> tuple[str, ...]:
    """The declared indexes, each to be run on its own outside a transaction, after the copy. CONCURRENTLY, so that the
    live tail goes on; one that failed half-way is left invalid and is to be dropped first (`index_name`). Otherwise for
    a transaction, to try them."""
    how = "concurrently if not exists " if concurrently else ""
    where = " where not _deleted" if has_tombstones(definition) else ""
    return tuple(
        f"create index {how}{quoted(index_name(table, number))} on {serving(table)} ({_names(index.columns)}){where}"
        for number, index in enumerate(definition.indexes)
    )


def index_name(table: str, number: int) -> str:
    """Name of the declared index with that number, counted from 0; within 63 bytes, as table names have 50 at most."""
    return f"{table}__i{number}"


def _type(column: Column) -> str:
    return column.type.postgres + (' collate "C"' if column.type.is_text else "")


def _names_row(definition: JobDefinition, name: str) -> bool:
    """Whether a tombstone, too, has a value in the column."""
    return name in definition.key or name == definition.order_by


def _names(names: Sequence[str], prefix: str = "") -> str:
    return ", ".join(prefix + quoted(name) for name in names)


# --- staging --------------------------------------------------------------------------------------------------------


def staged_columns(definition: JobDefinition) -> tuple[str, ...]:
    """Columns of the staging table in the order of a group's columns (aggregate) or of a change (map, fold), of which
    they are the first: what a change holds beyond them the output table does not store."""
    stored, hidden = tuple(column.name for column in definition.columns), hidden_columns(definition)
    count = max((number for number, name in enumerate(CHANGE_COLUMNS, 1) if name in hidden), default=0)
    return (*stored, *tuple(CHANGE_COLUMNS)[:count])


def insert_columns(definition: JobDefinition) -> tuple[str, ...] | None:
    """Columns of the output table in the order of a group's columns or of a change, of which they are the first; None
    if a change holds something in between that the table does not store."""
    staged = staged_columns(definition)
    stored = (*(column.name for column in definition.columns), *hidden_columns(definition))
    return staged if staged == stored else None


def create_staging(definition: JobDefinition) -> str:
    """The session's staging table, emptied at every commit. No column refuses null: the output table judges."""
    lines = [f"{quoted(column.name)} {_type(column)}" for column in definition.columns]
    lines += [f"{quoted(name)} {CHANGE_COLUMNS[name]}" for name in staged_columns(definition)[len(lines) :]]
    return f"create temporary table staging ({', '.join(lines)}) on commit delete rows"


# --- merging --------------------------------------------------------------------------------------------------------


def merge(definition: JobDefinition, table: str) -> str:
    """INSERT ... SELECT from staging with the kind's merge on conflict. Its row count is that of rows inserted or
    updated. Deletions of jobs keyed by partition are not staged but `delete`d."""
    columns = (*(column.name for column in definition.columns), *hidden_columns(definition))
    return (
        f"insert into {serving(table)} as t ({_names(columns)})\n"
        f"select {_names(columns)} from {STAGING} order by {_names(definition.key)}\n"
        f"on conflict ({_names(definition.key)}) {_on_conflict(definition, columns)}"
    )


def _on_conflict(definition: JobDefinition, columns: Sequence[str]) -> str:
    if definition.kind is JobKind.AGGREGATE:
        merged = _merged(definition)
        if not merged:
            return "do nothing"
        return "do update set " + ",\n  ".join(f"{quoted(name)} = {how}" for name, how in merged.items())
    if definition.keyed_by_partition and definition.keep is Keep.FIRST:
        return "do nothing"
    others = [name for name in columns if name not in definition.key]
    replaced = "do update set " + ", ".join(f"{quoted(name)} = excluded.{quoted(name)}" for name in others)
    if definition.keyed_by_partition:
        return f"{replaced}\nwhere t._partition = excluded._partition"
    assert definition.order_by is not None
    rank = (definition.order_by, *(name for name in ("_topic", "_partition", "_offset") if name in columns))
    wins = "<" if definition.keep is Keep.FIRST else ">"
    return f"{replaced}\nwhere ({_names(rank, 'excluded.')}) {wins} ({_names(rank, 't.')})"


def _merged(definition: JobDefinition) -> dict[str, str]:
    """Column -> SQL of its merged value, by the rules of turnout.schema. Every expression reads the old row."""
    merged = {}
    for column in definition.columns:
        old, new = f"t.{quoted(column.name)}", f"excluded.{quoted(column.name)}"
        if column.merge is Merge.SUM:
            merged[column.name] = f"coalesce({old} + {new}, {old}, {new})" if column.nullable else f"{old} + {new}"
        elif column.merge is Merge.MIN:
            merged[column.name] = f"least({old}, {new})"
        elif column.merge is Merge.MAX:
            merged[column.name] = f"greatest({old}, {new})"
        elif column.merge is Merge.LAST_BY:
            assert column.last_by is not None
            merged[column.name] = f"case when {_newer(definition, column.last_by)} then {new} else {old} end"
    return merged


def _newer(definition: JobDefinition, ordering: str) -> str:
    """Whether the staged row wins the LAST_BY columns of that ordering column. Ties compare all of them, null smallest:
    the cast makes it a comparison of records, where two nulls are equal (between row constructors they are unknown)."""
    followers = [c.name for c in definition.columns if c.merge is Merge.LAST_BY and c.last_by == ordering]
    old, new = (
        ", ".join(f"{side}{quoted(name)} is not null, {side}{quoted(name)}" for name in followers)
        for side in ("t.", "excluded.")
    )
    order = quoted(ordering)
    return (
        f"(excluded.{order} > t.{order} or (excluded.{order} = t.{order} and row({new})::record > row({old})::record))"
    )


def delete(definition: JobDefinition, table: str) -> str:
    """For jobs keyed by partition: deletes rows by key and answers those that another partition had written, as key
    columns, `was` and `now`. Parameters: one array for each key column, then the array of partitions."""
    keys = [definition.column(name) for name in definition.key]
    arrays = ", ".join(f"${number}::{column.type.postgres}[]" for number, column in enumerate(keys, 1))
    names = ", ".join(f"k{number}" for number in range(1, len(keys) + 1))
    matches = " and ".join(f"t.{quoted(column.name)} = d.k{number}" for number, column in enumerate(keys, 1))
    return (
        f"with gone as (delete from {serving(table)} as t\n"
        f"  using (select * from unnest({arrays}, ${len(keys) + 1}::integer[]) as d({names}, now)\n"
        f"         order by {names}) as d\n"
        f"  where {matches} returning {_names(definition.key, 't.')}, t._partition as was, d.now)\n"
        f"select * from gone where was <> now limit 1"
    )


def conflicts(definition: JobDefinition, table: str) -> str:
    """One staged row whose key another partition had written: key columns, `was` and `now`."""
    return (
        f"select {_names(definition.key, 't.')}, t._partition as was, s._partition as now\n"
        f"from {STAGING} as s join {serving(table)} as t using ({_names(definition.key)})\n"
        f"where t._partition <> s._partition limit 1"
    )


def load_states(definition: JobDefinition, table: str) -> str:
    """A fold's rows by key: columns, then what makes them a change. Parameters: one array for each key column."""
    keys = [definition.column(name) for name in definition.key]
    arrays = ", ".join(f"${number}::{column.type.postgres}[]" for number, column in enumerate(keys, 1))
    names = ", ".join(f"k{number}" for number in range(1, len(keys) + 1))
    matches = " and ".join(f"t.{quoted(column.name)} = k.k{number}" for number, column in enumerate(keys, 1))
    columns = _names([column.name for column in definition.columns], "t.")
    # in the order of CHANGE_COLUMNS
    topic = "t._topic" if "_topic" in hidden_columns(definition) else f"{literal(definition.topics[0].topic)}::text"
    return (
        f"select {columns}, t._offset, t._partition, false, 0::bigint, {topic}\n"
        f"from unnest({arrays}) as k({names}) join {serving(table)} as t on {matches}"
    )


# --- upkeep ---------------------------------------------------------------------------------------------------------


def expire(definition: JobDefinition, table: str) -> str | None:
    """Deletes what lies too far behind the run's event time; None if nothing expires. Parameter: the version."""
    if definition.expiry is None:
        return None
    column = quoted(definition.expiry.column)
    limit = (
        f"(select max(event_time) from {SCHEMA}.positions where version = $1)"
        f" - interval '{definition.expiry.after_s} seconds'"
    )
    if definition.column(definition.expiry.column).type is ColumnType.DATE:
        limit = f"(({limit}) at time zone 'UTC')::date"
    return f"delete from {serving(table)} where {column} < {limit}"


def purge_tombstones(definition: JobDefinition, table: str) -> str | None:
    """Deletes tombstones that every partition's event time has left far behind; None if the job leaves none. Rows that
    another worker holds are left for the next time. Parameter: the version."""
    if not has_tombstones(definition):
        return None
    return (
        f"delete from {serving(table)} where ctid = any(array(\n"
        f"  select ctid from {serving(table)} where _deleted and _event_time_ms < (\n"
        f"    select (extract(epoch from min(coalesce(event_time, '-infinity'))) - {TOMBSTONES_KEPT_S}) * 1000\n"
        f"    from {SCHEMA}.positions where version = $1)\n"
        f"  limit 10000 for update skip locked))"
    )
