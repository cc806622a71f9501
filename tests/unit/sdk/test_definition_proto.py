"""A definition on the wire: the JSON is the truth, the fields beside it say the same."""

from __future__ import annotations

from datetime import timedelta
from typing import Any

import pytest
from google.protobuf.duration_pb2 import Duration

from turnout.definition_proto import check_projection, from_proto, to_proto
from turnout.registry.v1 import registry_pb2 as pb
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
    OnMalformed,
    SchemaError,
    TopicSource,
    encode,
    validate,
)

MAP = JobDefinition(
    job="flights",
    kind=JobKind.MAP,
    topics=(TopicSource("flights", event_time="at"),),
    columns=(
        Column("id", ColumnType.INT64, merge=Merge.KEY),
        *(
            Column(type_.value, type_, nullable=True, enum_values=("a",) if type_ is ColumnType.ENUM else ())
            for type_ in ColumnType
        ),
        Column("at", ColumnType.TIMESTAMP),
    ),
    key=("id",),
    derived=(DerivedColumn("twice", "id * 2"),),
    indexes=(Index(("at", "id")), Index(("date",))),
    on_malformed=OnMalformed.SET_ASIDE,
    order_by="at",
    keep=Keep.LAST,
    expiry=Expiry("at", 86_400),
    python="3.11",
    requirements=("numpy==2.1.0",),
)
AGGREGATE = JobDefinition(
    job="sums",
    kind=JobKind.AGGREGATE,
    topics=(TopicSource("flights"),),
    columns=(
        Column("id", ColumnType.STRING, merge=Merge.KEY),
        Column("total", ColumnType.INT64, merge=Merge.SUM),
        Column("least", ColumnType.INT64, merge=Merge.MIN),
        Column("last_at", ColumnType.TIMESTAMP, merge=Merge.MAX),
        Column("last", ColumnType.STRING, nullable=True, merge=Merge.LAST_BY, last_by="last_at"),
    ),
    key=("id",),
)
FOLD = JobDefinition(
    job="state",
    kind=JobKind.FOLD,
    topics=(TopicSource("a", event_time="at"), TopicSource("b")),
    columns=(Column("id", ColumnType.STRING, merge=Merge.KEY), Column("seen", ColumnType.INT64)),
    key=("id",),
    keyed_by_partition=True,
)
ALL = [MAP, AGGREGATE, FOLD]


@pytest.mark.parametrize("definition", ALL, ids=lambda definition: definition.job)
def test_it_comes_back(definition: JobDefinition) -> None:
    validate(definition)
    wire = pb.Definition.FromString(to_proto(definition).SerializeToString())
    assert from_proto(wire) == definition
    assert check_projection(wire) == definition


def test_the_projection() -> None:
    wire = to_proto(MAP)
    assert (wire.kind, wire.map_write, wire.malformed_policy) == (
        pb.Definition.MAP,
        pb.Definition.UPSERT,
        pb.Definition.SET_ASIDE,
    )
    assert list(wire.topics) == ["flights"]
    assert (wire.event_time_column, wire.order_by, wire.expire_column) == ("at", "at", "at")
    assert wire.expire_after.ToTimedelta() == timedelta(days=1)
    assert [column.name for column in wire.columns] == [column.name for column in MAP.columns]
    assert (wire.columns[0].type, wire.columns[0].merge) == (pb.Column.INT64, pb.Column.KEY)
    assert {column.type for column in wire.columns} == set(pb.Column.Type.values()) - {pb.Column.TYPE_UNSPECIFIED}
    assert {column.merge for column in to_proto(AGGREGATE).columns} == set(pb.Column.Merge.values()) - {
        pb.Column.MERGE_UNSPECIFIED
    }
    assert to_proto(AGGREGATE).columns[4].last_by == "last_at"
    assert to_proto(FOLD).event_time_column == ""  # the topics differ
    assert not to_proto(FOLD).HasField("expire_after")


OTHER: dict[str, Any] = {
    "kind": pb.Definition.FOLD,
    "topics": ["other"],
    "columns": [pb.Column(name="x", type=pb.Column.BOOL)],
    "derived_columns": [pb.DerivedColumn(name="x", expression="1")],
    "indexes": [],
    "malformed_policy": pb.Definition.FAIL_RUN,
    "event_time_column": "other",
    "order_by": "id",
    "map_write": pb.Definition.INSERT_FIRST,
    "expire_after": Duration(seconds=1),
    "expire_column": "id",
    "requirements": [],
    "python_version": "3.14",
}


@pytest.mark.parametrize("field", [field.name for field in pb.Definition.DESCRIPTOR.fields])
def test_a_field_that_says_something_else_is_named(field: str) -> None:
    if field == "definition_json":
        return  # the truth itself
    wire = to_proto(MAP)
    wire.ClearField(field)  # type: ignore[arg-type]  # a name from the descriptor
    pb_other = pb.Definition(**{field: OTHER[field]})
    wire.MergeFrom(pb_other)
    with pytest.raises(SchemaError, match=f"disagree in {field}:"):
        check_projection(wire)


def test_an_unset_policy_is_the_default() -> None:
    wire = to_proto(AGGREGATE)
    wire.ClearField("malformed_policy")
    assert check_projection(wire) == AGGREGATE
    wire = to_proto(MAP)
    wire.ClearField("malformed_policy")
    with pytest.raises(SchemaError, match="malformed_policy"):
        check_projection(wire)


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ("", "not a job definition"),
        ("{}", "not a job definition"),
        (encode(AGGREGATE).decode().replace('"job":"sums"', '"job":"Sums"'), "not a job id"),
        (encode(AGGREGATE).decode().replace(",", ", ", 1), "canonical"),
        (encode(AGGREGATE).decode().replace('"job":', '"from_tomorrow":1,"job":'), "canonical"),
    ],
)
def test_json_that_is_no_definition_is_refused(text: str, words: str) -> None:
    wire = to_proto(AGGREGATE)
    wire.definition_json = text
    with pytest.raises(SchemaError, match=words):
        check_projection(wire)
