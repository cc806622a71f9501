"""The SQL of a version's table: which columns it has, and what its statements say. PostgreSQL itself judges them in
tests/integration/engine."""

import pytest

from services.replayer import ddl
from turnout.schema import (
    Column,
    ColumnType,
    DerivedColumn,
    Expiry,
    Index,
    JobDefinition,
    JobKind,
    Keep,
    Merge,
    TopicSource,
    validate,
)

KEY = Column("id", ColumnType.INT64, merge=Merge.KEY)
NAME = Column("name", ColumnType.STRING, nullable=True)
AT = Column("at", ColumnType.TIMESTAMP)
ONE, TWO = (TopicSource("a"),), (TopicSource("a"), TopicSource("b"))

AGGREGATE = JobDefinition(
    "j",
    JobKind.AGGREGATE,
    ONE,
    (
        KEY,
        Column("day", ColumnType.DATE, merge=Merge.KEY),
        Column("n", ColumnType.INT64, merge=Merge.SUM),
        Column("sum", ColumnType.DECIMAL, nullable=True, merge=Merge.SUM),
        Column("low", ColumnType.INT64, merge=Merge.MIN),
        Column("newest", ColumnType.INT64, merge=Merge.MAX),
        Column("last", ColumnType.STRING, nullable=True, merge=Merge.LAST_BY, last_by="newest"),
    ),
    ("id", "day"),
    derived=(DerivedColumn("mean", "sum / n -- per record"),),
    indexes=(Index(("low", "n")),),
    expiry=Expiry("day", 86_400),
)
KEYED = JobDefinition("j", JobKind.MAP, ONE, (KEY, NAME), ("id",), keyed_by_partition=True, keep=Keep.LAST)
FIRST = JobDefinition("j", JobKind.MAP, ONE, (KEY, NAME), ("id",), keyed_by_partition=True, keep=Keep.FIRST)
ORDERED = JobDefinition(
    "j",
    JobKind.MAP,
    TWO,
    (KEY, NAME, AT, Column("rank", ColumnType.INT64)),
    ("id",),
    order_by="at",
    keep=Keep.LAST,
    indexes=(Index(("rank",)),),
    expiry=Expiry("at", 60),
)
FOLD = JobDefinition("j", JobKind.FOLD, TWO, (KEY, NAME), ("id",), keyed_by_partition=True)
ALL = (AGGREGATE, KEYED, FIRST, ORDERED, FOLD)


@pytest.mark.parametrize("definition", ALL)
def test_the_examples_are_valid_definitions(definition: JobDefinition) -> None:
    validate(definition)


@pytest.mark.parametrize(
    ("definition", "hidden"),
    [
        (AGGREGATE, ()),
        (KEYED, ("_offset", "_partition")),
        (FIRST, ("_offset", "_partition")),
        (FOLD, ("_offset", "_partition", "_topic")),
        (ORDERED, ("_offset", "_partition", "_deleted", "_event_time_ms", "_topic")),
    ],
)
def test_hidden_columns(definition: JobDefinition, hidden: tuple[str, ...]) -> None:
    assert ddl.hidden_columns(definition) == hidden
    assert ddl.has_tombstones(definition) == (definition is ORDERED)
    assert all(name.startswith("_") for name in hidden)
    assert not any(name.startswith("_") for name in ddl.visible_columns(definition))


def test_a_table_with_everything() -> None:
    assert ddl.create_table(AGGREGATE, "j__v1", {"mean": "numeric"}) == (
        'create table serving."j__v1" (\n'
        '  "id" bigint not null,\n  "day" date not null,\n  "n" bigint not null,\n  "sum" numeric,\n'
        '  "low" bigint not null,\n  "newest" bigint not null,\n  "last" text collate "C",\n'
        '  "mean" numeric generated always as (\nsum / n -- per record\n) stored,\n'
        '  primary key ("id", "day")\n) with (fillfactor = 80)'
    )
    assert ddl.visible_columns(AGGREGATE) == ("id", "day", "n", "sum", "low", "newest", "last", "mean")


def test_rows_that_are_updated_find_room_on_their_page() -> None:
    full = {
        definition: "fillfactor = 100" in ddl.create_table(definition, "j__v1", {"mean": "numeric"})
        for definition in ALL
    }
    assert [definition for definition, is_full in full.items() if is_full] == [FIRST]


def test_a_tombstone_has_key_and_order_only() -> None:
    table = ddl.create_table(ORDERED, "j__v1", {})
    assert '"at" timestamptz not null' in table
    assert '"rank" bigint,' in table
    assert 'check (_deleted or ("rank" is not null))' in table
    assert '"_event_time_ms" bigint not null' in table


def test_types_of_derived_columns_are_asked_of_the_server() -> None:
    assert ddl.derived_types(KEYED) is None
    question = ddl.derived_types(AGGREGATE)
    assert question is not None
    assert 'pg_typeof((\nsum / n -- per record\n))::text as "mean"' in question
    assert 'null::text collate "C" as "last"' in question


def test_indexes_come_after_the_copy_without_stopping_the_tail() -> None:
    assert ddl.create_indexes(AGGREGATE, "j__v1") == (
        'create index concurrently if not exists "j__v1__i0" on serving."j__v1" ("low", "n")',
    )
    assert ddl.create_indexes(ORDERED, "j__v1")[0].endswith('("rank") where not _deleted')
    assert ddl.create_upkeep_indexes(AGGREGATE, "j__v1") == ('create index on serving."j__v1" ("day")',)
    assert len(ddl.create_upkeep_indexes(ORDERED, "j__v1")) == 2
    assert ddl.create_upkeep_indexes(KEYED, "j__v1") == ()


@pytest.mark.parametrize("definition", ALL)
def test_rows_are_merged_in_key_order(definition: JobDefinition) -> None:
    order = ", ".join(f'"{name}"' for name in definition.key)
    assert f"order by {order}\non conflict ({order})" in ddl.merge(definition, "j__v1")


def test_merging_an_aggregate() -> None:
    merge = ddl.merge(AGGREGATE, "j__v1")
    assert '"n" = t."n" + excluded."n"' in merge
    assert '"sum" = coalesce(t."sum" + excluded."sum", t."sum", excluded."sum")' in merge
    assert '"low" = least(t."low", excluded."low")' in merge
    assert '"newest" = greatest(t."newest", excluded."newest")' in merge
    assert (
        '"last" = case when (excluded."newest" > t."newest" or (excluded."newest" = t."newest" and '
        'row(excluded."last" is not null, excluded."last")::record > row(t."last" is not null, t."last")::record)) '
        'then excluded."last" else t."last" end'
    ) in merge


def test_an_aggregate_of_keys_alone_keeps_the_row() -> None:
    distinct = JobDefinition("j", JobKind.AGGREGATE, ONE, (KEY,), ("id",))
    assert ddl.merge(distinct, "j__v1").endswith("do nothing")


def test_merging_rows_that_replace() -> None:
    assert ddl.merge(KEYED, "j__v1").endswith("where t._partition = excluded._partition")
    assert ddl.merge(FOLD, "j__v1").endswith("where t._partition = excluded._partition")
    assert ddl.merge(FIRST, "j__v1").endswith("do nothing")
    assert ddl.merge(ORDERED, "j__v1").endswith(
        'where (excluded."at", excluded."_topic", excluded."_partition", excluded."_offset") > '
        '(t."at", t."_topic", t."_partition", t."_offset")'
    )


def test_staging_takes_a_change_as_it_is() -> None:
    assert ddl.staged_columns(AGGREGATE) == ("id", "day", "n", "sum", "low", "newest", "last")
    assert ddl.staged_columns(KEYED) == ("id", "name", "_offset", "_partition")
    assert ddl.staged_columns(FOLD)[2:] == ("_offset", "_partition", "_deleted", "_event_time_ms", "_topic")
    for definition in ALL:
        staging = ddl.create_staging(definition)
        assert "not null" not in staging
        assert staging.endswith("on commit delete rows")


def test_a_batch_of_new_keys_goes_into_the_table_as_it_is() -> None:
    for definition in ALL:
        inserted, staged = ddl.insert_columns(definition), ddl.staged_columns(definition)
        assert inserted in (None, staged)
        if inserted is not None:
            stored = {column.name for column in definition.columns} | set(ddl.hidden_columns(definition))
            assert set(inserted) == stored, "every column that may not be null gets its value"
    assert ddl.insert_columns(KEYED) == ("id", "name", "_offset", "_partition")
    assert ddl.insert_columns(FOLD) is None, "a change of several topics has more between what the table stores"


def test_expiry_goes_by_the_newest_event_time_of_the_run() -> None:
    assert ddl.expire(KEYED, "j__v1") is None
    by_day, by_time = ddl.expire(AGGREGATE, "j__v1"), ddl.expire(ORDERED, "j__v1")
    assert by_day is not None
    assert by_time is not None
    assert "interval '86400 seconds') at time zone 'UTC')::date" in by_day
    assert "max(event_time)" in by_time


def test_only_tombstones_are_purged() -> None:
    assert ddl.purge_tombstones(KEYED, "j__v1") is None
    purge = ddl.purge_tombstones(ORDERED, "j__v1")
    assert purge is not None
    assert "where _deleted" in purge
    assert "skip locked" in purge
