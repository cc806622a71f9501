"""A job's definition on the wire: `turnout.schema.JobDefinition` <-> `registry.v1.Definition`.

`definition_json` is the truth, in the canonical form of `turnout.schema.encode`; the other fields are a projection of
it for readers in other languages. Who writes the JSON writes the projection by `to_proto`; who stores it asks
`check_projection`, so that no stored version says two things.
"""

from __future__ import annotations

from google.protobuf.duration_pb2 import Duration

from turnout.registry.v1 import registry_pb2
from turnout.schema import (
    Column,
    ColumnType,
    JobDefinition,
    JobKind,
    Keep,
    Merge,
    OnMalformed,
    SchemaError,
    decode,
    encode,
)

_Definition = registry_pb2.Definition
_Column = registry_pb2.Column

_KINDS = {
    JobKind.MAP: _Definition.MAP,
    JobKind.AGGREGATE: _Definition.AGGREGATE,
    JobKind.FOLD: _Definition.FOLD,
}
_TYPES = {
    ColumnType.INT64: _Column.INT64,
    ColumnType.FLOAT64: _Column.FLOAT64,
    ColumnType.BOOL: _Column.BOOL,
    ColumnType.STRING: _Column.STRING,
    ColumnType.BYTES: _Column.BYTES,
    ColumnType.DATE: _Column.DATE,
    ColumnType.TIMESTAMP: _Column.TIMESTAMP,
    ColumnType.DECIMAL: _Column.DECIMAL,
    ColumnType.UUID: _Column.UUID,
    ColumnType.ENUM: _Column.ENUM,
    ColumnType.JSON: _Column.JSON,
}
_MERGES = {
    Merge.NONE: _Column.MERGE_UNSPECIFIED,
    Merge.KEY: _Column.KEY,
    Merge.SUM: _Column.SUM,
    Merge.MIN: _Column.MIN,
    Merge.MAX: _Column.MAX,
    Merge.LAST_BY: _Column.LAST_BY,
}
_WRITES = {
    None: _Definition.MAP_WRITE_UNSPECIFIED,
    Keep.LAST: _Definition.UPSERT,
    Keep.FIRST: _Definition.INSERT_FIRST,
}
_POLICIES = {
    OnMalformed.FAIL: _Definition.FAIL_RUN,
    OnMalformed.SET_ASIDE: _Definition.SET_ASIDE,
}


def to_proto(definition: JobDefinition) -> registry_pb2.Definition:
    """The message: the canonical JSON and its projection."""
    expiry = definition.expiry
    return registry_pb2.Definition(
        kind=_KINDS[definition.kind],
        topics=[source.topic for source in definition.topics],
        columns=[_column(column) for column in definition.columns],
        derived_columns=[
            registry_pb2.DerivedColumn(name=derived.name, expression=derived.expression)
            for derived in definition.derived
        ],
        indexes=[registry_pb2.Index(columns=index.columns) for index in definition.indexes],
        malformed_policy=_POLICIES[definition.on_malformed],
        event_time_column=_event_time(definition),
        order_by=definition.order_by or "",
        map_write=_WRITES[definition.keep],
        expire_after=None if expiry is None else Duration(seconds=expiry.after_s),
        expire_column="" if expiry is None else expiry.column,
        requirements=definition.requirements,
        python_version=definition.python,
        definition_json=encode(definition).decode(),
    )


def from_proto(message: registry_pb2.Definition) -> JobDefinition:
    """The definition in `definition_json`. SchemaError if it is not one."""
    return decode(message.definition_json)


def check_projection(message: registry_pb2.Definition) -> JobDefinition:
    """The definition, if the message says one thing only.

    SchemaError if `definition_json` is no definition, is not in canonical form, or says something else than the fields
    beside it, which are then named. An unset malformed_policy stands for FAIL_RUN.
    """
    definition = from_proto(message)
    expected = to_proto(definition)
    given = registry_pb2.Definition()
    given.CopyFrom(message)
    if given.malformed_policy == _Definition.MALFORMED_POLICY_UNSPECIFIED:
        given.malformed_policy = _Definition.FAIL_RUN
    if given.definition_json != expected.definition_json:
        raise SchemaError(
            "definition_json is not in the canonical form of turnout.schema.encode: was it written by another version "
            "of the SDK? Use the SDK of the server's version"
        )
    names = [
        field.name
        for field in _Definition.DESCRIPTOR.fields
        if _comparable(given, field.name) != _comparable(expected, field.name)
    ]
    if names:
        raise SchemaError(
            f"definition_json and the fields beside it disagree in {', '.join(names)}: write both from one definition, "
            f"as turnout.definition_proto.to_proto does"
        )
    return definition


def _column(column: Column) -> registry_pb2.Column:
    return registry_pb2.Column(
        name=column.name,
        type=_TYPES[column.type],
        nullable=column.nullable,
        merge=_MERGES[column.merge],
        last_by=column.last_by or "",
    )


def _event_time(definition: JobDefinition) -> str:
    fields = {source.event_time or "" for source in definition.topics}
    return fields.pop() if len(fields) == 1 else ""


def _comparable(message: registry_pb2.Definition, field: str) -> object:
    value = getattr(message, field)
    if field == "expire_after":
        return message.expire_after.ToNanoseconds() if message.HasField("expire_after") else None
    return value
