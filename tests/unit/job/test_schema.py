"""Definitions as data: names, validity, JSON, differences."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout import schema
from turnout.schema import (
    Change,
    Column,
    ColumnType,
    DerivedColumn,
    Expiry,
    Index,
    JobDefinition,
    JobKind,
    Keep,
    Merge,
    OnMalformed,
    SchemaError,
    TopicSource,
)

KEY = Column("carrier", ColumnType.STRING, merge=Merge.KEY)
MONTH = Column("month", ColumnType.DATE, merge=Merge.KEY)
FLIGHTS = Column("flights", ColumnType.INT64, merge=Merge.SUM)
SEEN = Column("seen", ColumnType.TIMESTAMP, merge=Merge.MAX)


def aggregate(*columns: Column, **changes: Any) -> JobDefinition:
    columns = columns or (KEY, MONTH, FLIGHTS)
    key = tuple(column.name for column in columns if column.merge is Merge.KEY)
    return msgspec.structs.replace(
        JobDefinition("punctuality", JobKind.AGGREGATE, (TopicSource("flights"),), columns, key), **changes
    )


def table_map(*columns: Column, **changes: Any) -> JobDefinition:
    columns = columns or (KEY, Column("seen", ColumnType.TIMESTAMP), Column("note", ColumnType.STRING, nullable=True))
    return aggregate(*columns, **{"kind": JobKind.MAP, "keep": Keep.LAST, "order_by": "seen", **changes})


def test_valid_definitions_pass() -> None:
    schema.validate(aggregate())
    schema.validate(table_map())
    schema.validate(table_map(order_by=None, keyed_by_partition=True, tombstones=True))
    schema.validate(aggregate(KEY, Column("n", ColumnType.INT64), kind=JobKind.FOLD, keyed_by_partition=True))


def test_json_round_trip_keeps_everything() -> None:
    definition = aggregate(
        KEY,
        MONTH,
        FLIGHTS,
        SEEN,
        Column("dest", ColumnType.ENUM, True, Merge.LAST_BY, "seen", ("JFK", "EWR")),
        Column("share", ColumnType.FLOAT64, merge=Merge.SUM, approximate=True),
        topics=(TopicSource("flights", "departed"), TopicSource("more")),
        derived=(DerivedColumn("twice", "flights * 2"),),
        indexes=(Index(("month", "flights")),),
        on_malformed=OnMalformed.SET_ASIDE,
        expiry=Expiry("month", 86400),
        python="3.11",
        requirements=("numpy==2.0.0",),
    )
    assert schema.decode(schema.encode(definition)) == definition
    assert schema.encode(schema.decode(schema.encode(definition))) == schema.encode(definition)


@pytest.mark.parametrize("text", ["", "{", "{}", '{"job": 1}', '"x"'])
def test_what_is_no_definition_is_refused(text: str) -> None:
    with pytest.raises(SchemaError, match="not a job definition"):
        schema.decode(text)


def test_a_stored_definition_is_validated() -> None:
    with pytest.raises(SchemaError, match="is not a job id"):
        schema.decode(schema.encode(aggregate(job="Not An Id")))


@pytest.mark.parametrize(
    ("column_type", "postgres"),
    [
        (ColumnType.INT64, "bigint"),
        (ColumnType.FLOAT64, "double precision"),
        (ColumnType.BOOL, "boolean"),
        (ColumnType.STRING, "text"),
        (ColumnType.BYTES, "bytea"),
        (ColumnType.DATE, "date"),
        (ColumnType.TIMESTAMP, "timestamptz"),
        (ColumnType.DECIMAL, "numeric"),
        (ColumnType.UUID, "uuid"),
        (ColumnType.ENUM, "text"),
        (ColumnType.JSON, "jsonb"),
    ],
)
def test_postgres_types(column_type: ColumnType, postgres: str) -> None:
    assert column_type.postgres == postgres
    assert column_type.is_text == (postgres == "text")


# --- names ------------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("job", ["a", "carrier-punctuality", "a1", "a-1-b", "a" * 42])
def test_job_ids(job: str) -> None:
    schema.check_job_id(job)


@pytest.mark.parametrize("job", sorted(schema.RESERVED_JOB_IDS))
def test_a_job_cannot_have_the_name_of_a_table_of_turnouts_own(job: str) -> None:
    with pytest.raises(SchemaError, match="would need"):
        schema.check_job_id(job)


@pytest.mark.parametrize("job", ["", "A", "1a", "-a", "a-", "a--b", "a_b", "a" * 43, "a b", "ä", "a\n", "a٣"])
def test_refused_job_ids(job: str) -> None:
    with pytest.raises(SchemaError, match="is not a job id"):
        schema.check_job_id(job)


JOB_IDS = st.from_regex(schema.JOB_ID, fullmatch=True).filter(lambda job: "--" not in job)


@given(JOB_IDS, JOB_IDS, st.integers(1, 10**15))
def test_tables_and_views_never_collide_and_fit(one: str, other: str, version: int) -> None:
    assert schema.table_name(one, version) != schema.view_name(other)
    assert (schema.view_name(one) == schema.view_name(other)) == (one == other)
    assert (schema.table_name(one, version) == schema.table_name(other, version)) == (one == other)
    assert len(schema.table_name(one, version)) <= schema.IDENTIFIER_BYTES_MAX


def test_table_and_view_name() -> None:
    assert schema.table_name("carrier-punctuality", 2) == "carrier_punctuality__v2"
    assert schema.view_name("carrier-punctuality") == "carrier_punctuality"
    with pytest.raises(SchemaError, match="versions count from 1"):
        schema.table_name("a", 0)
    with pytest.raises(SchemaError, match="longer than the 63 bytes"):
        schema.table_name("a" * 42, 10**18)


@pytest.mark.parametrize("name", ["", "_own", "A", "1a", "a-b", "a" * 64, "é", "xmin", "ctid", "tableoid"])
def test_refused_column_names(name: str) -> None:
    with pytest.raises(SchemaError, match="cannot name a column"):
        schema.check_column_name(name)


@pytest.mark.parametrize("name", ["a", "select", "a_1", "a" * 63])
def test_column_names(name: str) -> None:
    schema.check_column_name(name)


# --- validity ---------------------------------------------------------------------------------------------------------


def last_by(ordering: str | None) -> Column:
    return Column("dest", ColumnType.STRING, merge=Merge.LAST_BY, last_by=ordering)


REFUSED = [
    (aggregate(topics=()), "reads at least one topic"),
    (aggregate(topics=(TopicSource("a b"),)), "not the name of a Kafka topic"),
    (aggregate(topics=(TopicSource(".."),)), "not the name of a Kafka topic"),
    (aggregate(FLIGHTS), "has no key"),
    (aggregate(key=("month", "carrier")), "key columns in column order"),
    (aggregate(KEY, KEY), "two columns are named 'carrier'"),
    (aggregate(derived=(DerivedColumn("flights", "1"),)), "two columns are named 'flights'"),
    (aggregate(derived=(DerivedColumn("_x", "1"),)), "'_x' cannot name a column"),
    (aggregate(derived=(DerivedColumn("x", " "),)), "has no expression"),
    (aggregate(KEY, *(Column(f"c{i}", ColumnType.INT64, merge=Merge.SUM) for i in range(400))), "more than 400"),
    (aggregate(indexes=(Index(()),)), "an index has no column"),
    (aggregate(indexes=(Index(("nothing",)),)), "index names the column 'nothing'"),
    (aggregate(KEY, Column("n", ColumnType.INT64)), "does not say how it merges"),
    (table_map(KEY, FLIGHTS), "rows of a map replace one another"),
    (aggregate(Column("carrier", ColumnType.STRING, nullable=True, merge=Merge.KEY)), "a key is never null"),
    (aggregate(Column("x", ColumnType.FLOAT64, merge=Merge.KEY)), "does not identify a row"),
    (aggregate(Column("x", ColumnType.JSON, merge=Merge.KEY)), "does not identify a row"),
    (aggregate(KEY, Column("x", ColumnType.ENUM, merge=Merge.MAX)), "enum column 'x' has no values"),
    (aggregate(KEY, Column("x", ColumnType.FLOAT64, merge=Merge.SUM)), "declare it ApproximateSum"),
    (aggregate(KEY, Column("x", ColumnType.STRING, merge=Merge.SUM)), "only int and Decimal are summed"),
    (aggregate(KEY, Column("x", ColumnType.BOOL, merge=Merge.SUM)), "count a bool as Sum"),
    (aggregate(KEY, Column("x", ColumnType.INT64, merge=Merge.SUM, approximate=True)), "only a sum of float"),
    (aggregate(KEY, Column("x", ColumnType.JSON, merge=Merge.MIN)), "has no order to merge by"),
    (aggregate(KEY, last_by(None)), "names no ordering column"),
    (aggregate(KEY, last_by("nothing")), "names no ordering column"),
    (aggregate(KEY, FLIGHTS, last_by("flights")), "must be a Max column"),
    (aggregate(KEY, Column("seen", ColumnType.DATE, nullable=True, merge=Merge.MAX), last_by("seen")), "not optional"),
    (aggregate(keyed_by_partition=True), "takes its records in any order"),
    (aggregate(keep=Keep.LAST), "belong to a map"),
    (aggregate(kind=JobKind.FOLD), "column 'flights' is declared to merge"),
    (aggregate(KEY, kind=JobKind.FOLD), "a fold is not keyed"),
    (table_map(keep=None), "does not say which row it keeps"),
    (table_map(order_by=None), "exactly one order"),
    (table_map(keyed_by_partition=True), "exactly one order"),
    (table_map(tombstones=True), "names only the record key"),
    (table_map(order_by=None, keyed_by_partition=True, tombstones=True, keep=Keep.FIRST), "names only the record key"),
    (table_map(order_by="nothing"), "order_by names the column 'nothing'"),
    (table_map(order_by="note"), "cannot order rows"),
    (table_map(order_by="carrier"), "cannot order rows"),
    (aggregate(expiry=Expiry("nothing", 1)), "expire_after names the column 'nothing'"),
    (aggregate(expiry=Expiry("flights", 1)), "has no age"),
    (aggregate(KEY, SEEN, expiry=Expiry("seen", 1)), "a replay could end with another table"),
    (table_map(keep=Keep.FIRST, expiry=Expiry("seen", 1)), "a replay could end with another table"),
    (aggregate(expiry=Expiry("month", 0)), "is no time"),
]


@pytest.mark.parametrize(("definition", "reason"), REFUSED, ids=[reason for _, reason in REFUSED])
def test_refused_definitions(definition: JobDefinition, reason: str) -> None:
    with pytest.raises(SchemaError, match=reason) as error:
        schema.validate(definition)
    assert ": " in str(error.value)  # what is wrong: what to do


def test_expiry_is_taken_where_a_replay_agrees() -> None:
    schema.validate(aggregate(expiry=Expiry("month", 1)))
    schema.validate(table_map(expiry=Expiry("seen", 1)))
    schema.validate(table_map(order_by=None, keyed_by_partition=True, expiry=Expiry("seen", 1)))


def test_lookups() -> None:
    definition = aggregate(FLIGHTS, MONTH, KEY)
    assert definition.column("month") is MONTH
    assert definition.position("carrier") == 2
    assert definition.key_positions == (1, 2)
    with pytest.raises(KeyError):
        definition.column("nothing")
    with pytest.raises(KeyError):
        definition.position("nothing")
    assert not definition.co_partitioned
    two = (TopicSource("a"), TopicSource("b"))
    assert msgspec.structs.replace(definition, kind=JobKind.FOLD, keyed_by_partition=True, topics=two).co_partitioned


# --- differences ------------------------------------------------------------------------------------------------------


def changed(column: Column, **changes: Any) -> tuple[Change, ...]:
    old, new = aggregate(KEY, column), aggregate(KEY, msgspec.structs.replace(column, **changes))
    return tuple(one.change for one in schema.difference(old, new))


def test_no_difference() -> None:
    assert schema.difference(aggregate(), aggregate(job="other", python="3.12")) == ()


def test_changes_of_a_column() -> None:
    assert changed(FLIGHTS, type=ColumnType.DECIMAL) == (Change.TYPE,)
    assert changed(FLIGHTS, nullable=True) == (Change.NULLABILITY,)
    assert changed(FLIGHTS, merge=Merge.KEY) == (Change.KEY,)
    assert changed(FLIGHTS, merge=Merge.MAX) == ()
    assert changed(FLIGHTS, type=ColumnType.STRING, nullable=True) == (Change.TYPE, Change.NULLABILITY)


def test_added_and_removed_columns() -> None:
    old, new = aggregate(KEY, FLIGHTS, SEEN), aggregate(KEY, MONTH, SEEN)
    removed, added = schema.difference(old, new)
    assert (removed.column, removed.change, removed.breaking) == ("flights", Change.REMOVED, True)
    assert (added.column, added.change, added.breaking) == ("month", Change.ADDED, False)
    assert str(removed) == "flights: removed (int64, not null)"
    assert str(added) == "month: added (date, not null, key)"


def test_derived_columns() -> None:
    plain, derived = aggregate(), aggregate(derived=(DerivedColumn("share", "1"),))
    other = aggregate(derived=(DerivedColumn("share", "2"),))
    stored = aggregate(KEY, MONTH, FLIGHTS, Column("share", ColumnType.INT64, merge=Merge.SUM))
    assert [one.change for one in schema.difference(plain, derived)] == [Change.ADDED]
    (changed_expression,) = schema.difference(derived, other)
    assert (changed_expression.change, changed_expression.breaking) == (Change.EXPRESSION, False)
    assert str(changed_expression) == "share: expression changed from 1 to 2"
    assert [one.change for one in schema.difference(derived, stored)] == [Change.DERIVED]
    assert [one.change for one in schema.difference(derived, plain)] == [Change.REMOVED]
