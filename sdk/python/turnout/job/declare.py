"""`map`, `aggregate` and `fold`: a function becomes a job.

The function is pure: no clock, no randomness, no input or output. It may be called again for a record it has seen, in
another process, and must return an equal row. What it needs besides the record's value it takes as `meta: Meta`.
"""

from __future__ import annotations

import functools
import re
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from datetime import datetime, timedelta
from typing import Any, Generic, Literal, ParamSpec, TypeVar, get_type_hints
from uuid import UUID

import msgspec

from turnout.job import codegen
from turnout.job.columns import Field, fields_of
from turnout.job.compiled import CompiledAggregate, CompiledFold, CompiledJob, CompiledMap
from turnout.job.errors import JobDefinitionError
from turnout.job.rows import Record, Row
from turnout.job.signature import Signature, signature_of, takes_meta
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
    validate,
)

P = ParamSpec("P")
R = TypeVar("R")

Decode = Callable[[bytes], Any]
Malformed = Literal["fail", "set_aside"]
_REQUIREMENT = re.compile(r"[A-Za-z0-9]([A-Za-z0-9._-]*[A-Za-z0-9])?==[A-Za-z0-9.!+_-]+", re.ASCII)


class Job(Generic[P, R]):
    """A declared job. Called, it is the user's function; `definition` is its table, `compile()` what an engine runs."""

    def __init__(self, function: Callable[P, R], parts: codegen.Parts) -> None:
        functools.update_wrapper(self, function)
        self._function = function
        self._parts = parts

    def __call__(self, *args: P.args, **kwargs: P.kwargs) -> R:
        return self._function(*args, **kwargs)

    def __repr__(self) -> str:
        return f"<{self.definition.kind.value} job {self.definition.job!r}>"

    @property
    def definition(self) -> JobDefinition:
        """The table and its rules."""
        return self._parts.definition

    @property
    def row_type(self) -> type[Row]:
        """The class of the job's rows."""
        return self._parts.row_type

    def compile(self) -> CompiledJob:
        """The functions for an engine; a new set each time, sharing nothing."""
        parts, definition = self._parts, self._parts.definition
        to_row = codegen.row_builder(parts)

        def each(make: Callable[[codegen.Parts, codegen.Source], Callable[..., Any]]) -> Callable[..., Any]:
            return codegen.dispatch({source.topic: make(parts, source) for source in parts.sources})

        if definition.kind is JobKind.AGGREGATE:
            return CompiledAggregate(definition, each(codegen.aggregate_collect), codegen.merger(parts), to_row)
        if definition.kind is JobKind.MAP:
            return CompiledMap(definition, each(codegen.map_collect), to_row)
        return CompiledFold(definition, each(codegen.fold_collect), codegen.fold_step(parts), to_row)


def aggregate(
    job: str,
    *,
    topic: str | None = None,
    topics: Mapping[str, type[Record]] | None = None,
    decode: Decode | Mapping[str, Decode] | None = None,
    event_time: str | None = None,
    last_by: str | None = None,
    derived: Mapping[str, str] | None = None,
    indexes: Sequence[str | Sequence[str]] = (),
    expire_after: tuple[str, timedelta] | None = None,
    on_malformed: Malformed = "fail",
    requirements: Sequence[str] = (),
) -> Callable[[Callable[P, R]], Job[P, R]]:
    """Declares a job whose rows merge column by column, in any order: `record -> row, None, or rows`.

    topic: the topic it reads; or topics: {topic: record type} for several. decode: bytes -> record, for values that
    are not JSON (for several topics a mapping). event_time: the record field with the event time, a datetime or int
    milliseconds; else Kafka's timestamp. last_by: the Max column that orders the LastBy columns. derived: {column: SQL
    over the other columns}, computed by PostgreSQL. indexes: column names, or sequences of them. expire_after: (column,
    age) deletes rows that far behind the job's event time. on_malformed: a record that does not decode or map fails
    the run, or is set aside with its reason. requirements: "name==version" of what the code imports besides the
    standard library. Raises JobDefinitionError.
    """

    def declare(function: Callable[P, R]) -> Job[P, R]:
        signature = signature_of(function, JobKind.AGGREGATE)
        fields = _ordered(fields_of(signature.row_type), last_by)
        sources = _sources(signature, topic, topics, decode, event_time)
        definition = _definition(
            job,
            JobKind.AGGREGATE,
            fields,
            sources,
            signature,
            derived,
            indexes,
            expire_after,
            on_malformed,
            requirements,
        )
        return Job(function, _parts(function, definition, fields, sources, signature))

    return declare


def map(  # noqa: A001 - the standard term of the field; users import it by name
    job: str,
    *,
    topic: str | None = None,
    topics: Mapping[str, type[Record]] | None = None,
    decode: Decode | Mapping[str, Decode] | None = None,
    event_time: str | None = None,
    order_by: str | None = None,
    keyed_by_partition: bool = False,
    keep: Literal["last", "first"] = "last",
    tombstone_key: Callable[[bytes], Any] | None = None,
    derived: Mapping[str, str] | None = None,
    indexes: Sequence[str | Sequence[str]] = (),
    expire_after: tuple[str, timedelta] | None = None,
    on_malformed: Malformed = "fail",
    requirements: Sequence[str] = (),
) -> Callable[[Callable[P, R]], Job[P, R]]:
    """Declares a job whose rows replace one another: `record -> row, Delete(...), None, or an iterable of them`.

    Rows of one key need an order, one of:
    - keyed_by_partition=True: the row key is the key by which the topic is partitioned; the order in the partition
      decides, and a Kafka tombstone deletes the row whose key is the record key. The record key is read as text of the
      key column's type; tombstone_key=(bytes -> key value, or tuple of them) reads any other, and is needed for a key
      of several columns if tombstones are to delete.
    - order_by: a column whose greater value wins; equal ones are decided by (topic, partition, offset). Delete(...)
      names the key and this column. Tombstones are malformed records.
    keep: "last" replaces the row (upsert), "first" ignores all but the first row of a key (insert).
    The other parameters are those of `aggregate`. Raises JobDefinitionError.
    """

    def declare(function: Callable[P, R]) -> Job[P, R]:
        signature = signature_of(function, JobKind.MAP)
        fields = fields_of(signature.row_type)
        sources = _sources(signature, topic, topics, decode, event_time)
        if tombstone_key is not None and (not keyed_by_partition or keep == "first"):
            raise JobDefinitionError(
                "tombstone_key is given, but Kafka tombstones delete only where keyed_by_partition=True and the last "
                "row is kept",
                "remove it, or declare keyed_by_partition=True",
                subject=_name(function),
            )
        read_key = tombstone_key
        if read_key is None and keyed_by_partition and keep == "last":
            read_key = _default_tombstone_key(fields)
        definition = _definition(
            job,
            JobKind.MAP,
            fields,
            sources,
            signature,
            derived,
            indexes,
            expire_after,
            on_malformed,
            requirements,
            keyed_by_partition=keyed_by_partition,
            order_by=order_by,
            keep=_enum(Keep, keep, "keep"),
            tombstones=read_key is not None,
        )
        return Job(function, replace(_parts(function, definition, fields, sources, signature), tombstone_key=read_key))

    return declare


def fold(
    job: str,
    *,
    topic: str | None = None,
    topics: Mapping[str, type[Record]] | None = None,
    decode: Decode | Mapping[str, Decode] | None = None,
    event_time: str | None = None,
    key: Callable[..., Any] | None = None,
    derived: Mapping[str, str] | None = None,
    indexes: Sequence[str | Sequence[str]] = (),
    expire_after: tuple[str, timedelta] | None = None,
    on_malformed: Malformed = "fail",
    requirements: Sequence[str] = (),
) -> Callable[[Callable[P, R]], Job[P, R]]:
    """Declares a job that keeps one row per key of its topic: `(row so far or None, record) -> row, or None to delete`.

    The row key is the key by which the topics are partitioned; several topics have the same number of partitions. It
    is known before the row is loaded: the record's fields named like the row's key columns, or key=(record -> value, or
    tuple of them; a second parameter gets `Meta`). A record whose key is None belongs to no row and is passed over.
    The other parameters are those of `aggregate`. Raises JobDefinitionError.
    """

    def declare(function: Callable[P, R]) -> Job[P, R]:
        signature = signature_of(function, JobKind.FOLD)
        fields = fields_of(signature.row_type)
        sources = _sources(signature, topic, topics, decode, event_time)
        definition = _definition(
            job,
            JobKind.FOLD,
            fields,
            sources,
            signature,
            derived,
            indexes,
            expire_after,
            on_malformed,
            requirements,
            keyed_by_partition=True,
        )
        if key is None:
            _check_key_fields(definition, signature)
        parts = _parts(function, definition, fields, sources, signature)
        return Job(function, replace(parts, key=key, key_takes_meta=key is not None and takes_meta(key)))

    return declare


def _name(function: Callable[..., Any]) -> str:
    return getattr(function, "__name__", repr(function))


def _enum(kind: Any, value: str, parameter: str) -> Any:
    try:
        return kind(value)
    except ValueError:
        choices = ", ".join(repr(member.value) for member in kind)
        raise JobDefinitionError(f"{parameter}={value!r} is unknown", f"use one of {choices}") from None


def _ordered(fields: tuple[Field, ...], last_by: str | None) -> tuple[Field, ...]:
    followers = [field for field in fields if field.column.merge is Merge.LAST_BY]
    if last_by is not None and not followers:
        raise JobDefinitionError(
            f"last_by={last_by!r} orders nothing: the row has no LastBy column",
            "remove it, or declare a column LastBy[...]",
        )
    return tuple(
        replace(field, column=msgspec.structs.replace(field.column, last_by=last_by))
        if field.column.merge is Merge.LAST_BY
        else field
        for field in fields
    )


def _definition(
    job: str,
    kind: JobKind,
    fields: tuple[Field, ...],
    sources: tuple[codegen.Source, ...],
    signature: Signature,
    derived: Mapping[str, str] | None,
    indexes: Sequence[str | Sequence[str]],
    expire_after: tuple[str, timedelta] | None,
    on_malformed: Malformed,
    requirements: Sequence[str],
    **rules: Any,
) -> JobDefinition:
    for requirement in requirements:
        if not _REQUIREMENT.fullmatch(requirement):
            raise JobDefinitionError(
                f"the requirement {requirement!r} is not pinned, but a version runs on what it was checked with",
                "write name==version, for example 'phonenumbers==8.13.55'",
            )
    columns: tuple[Column, ...] = tuple(field.column for field in fields)
    expiry = None if expire_after is None else Expiry(expire_after[0], int(expire_after[1].total_seconds()))
    definition = JobDefinition(
        job=job,
        kind=kind,
        topics=tuple(TopicSource(source.topic, source.event_time) for source in sources),
        columns=columns,
        key=tuple(column.name for column in columns if column.merge is Merge.KEY),
        derived=tuple(DerivedColumn(name, expression) for name, expression in (derived or {}).items()),
        indexes=tuple(Index((index,) if isinstance(index, str) else tuple(index)) for index in indexes),
        on_malformed=_enum(OnMalformed, on_malformed, "on_malformed"),
        expiry=expiry,
        python=f"{sys.version_info.major}.{sys.version_info.minor}",
        requirements=tuple(sorted(requirements)),
        **rules,
    )
    try:
        validate(definition)
    except SchemaError as error:
        raise _refused(error, definition, signature) from None
    return definition


def _refused(error: SchemaError, definition: JobDefinition, signature: Signature) -> JobDefinitionError:
    """The same in two parts, pointing at the row type and the field it names."""
    reason, _, remedy = str(error).rpartition(": ")
    quoted = re.findall(r"column '(\w+)'", str(error))
    return JobDefinitionError(
        reason or str(error), remedy, subject=signature.row_type.__name__, field=quoted[0] if quoted else ""
    )


def _parts(
    function: Callable[..., Any],
    definition: JobDefinition,
    fields: tuple[Field, ...],
    sources: tuple[codegen.Source, ...],
    signature: Signature,
) -> codegen.Parts:
    return codegen.Parts(
        definition=definition,
        fields=fields,
        row_type=signature.row_type,
        function=function,
        takes_meta=signature.takes_meta,
        sources=sources,
    )


# --- topics -----------------------------------------------------------------------------------------------------------


def _sources(
    signature: Signature,
    topic: str | None,
    topics: Mapping[str, type[Record]] | None,
    decode: Decode | Mapping[str, Decode] | None,
    event_time: str | None,
) -> tuple[codegen.Source, ...]:
    if (topic is None) == (topics is None):
        raise JobDefinitionError(
            "a job says what it reads by topic= or by topics=",
            "give one of the two: topic='orders', or topics={'orders': Order, 'users': User}",
        )
    types = {topic: signature.record_types[0]} if topic is not None else dict(topics or {})
    if set(types.values()) != set(signature.record_types):
        raise JobDefinitionError(
            "the record types of the topics are not those that the function takes",
            "one topic has one record type; for several give topics={'orders': Order, 'users': User} and let the "
            "function take Order | User",
        )
    decoders = decode if isinstance(decode, Mapping) else dict.fromkeys(types, decode) if decode else {}
    if decode is not None and (set(decoders) != set(types) or (len(types) > 1 and not isinstance(decode, Mapping))):
        raise JobDefinitionError(
            "decode= does not say how each topic is decoded",
            "give one function for one topic, or {topic: function} naming every topic",
        )
    return tuple(_source(name, record_type, decoders.get(name), event_time) for name, record_type in types.items())


def _source(topic: str, record_type: type[Record], decode: Decode | None, event_time: str | None) -> codegen.Source:
    name = record_type.__name__
    try:
        typed = msgspec.json.Decoder(record_type)
        hints = get_type_hints(record_type)
    except Exception as error:
        raise JobDefinitionError(
            f"the record type {name} cannot be read: {error}",
            "give its fields types that msgspec decodes, defined at the top level of the file",
            subject=name,
        ) from error
    kind = None
    if event_time is not None:
        kind = hints.get(event_time)
        if kind not in (int, datetime):
            raise JobDefinitionError(
                f"event_time names {event_time!r}, which is not a field of {name} of type datetime or int",
                "name a field that holds a datetime, or milliseconds since 1970 as an int",
                subject=name,
                field=event_time,
            )
    decoded: Callable[[Any], Any] = typed.decode if decode is None else _checked(decode, record_type)
    return codegen.Source(topic, decoded, event_time, kind is datetime)


def _checked(decode: Decode, record_type: type[Record]) -> Callable[[bytes | None], Any]:
    def decode_value(value: bytes | None) -> Any:
        if value is None:
            raise ValueError("no value")
        record = decode(value)
        if type(record) is not record_type:
            raise TypeError(f"decode returned a {type(record).__name__}, not a {record_type.__name__}")
        return record

    return decode_value


# --- keys -------------------------------------------------------------------------------------------------------------


def _default_tombstone_key(fields: tuple[Field, ...]) -> Callable[[bytes], Any] | None:
    """How a record key names a row of one key column, None if it has several or another type."""
    keys = [field for field in fields if field.column.merge is Merge.KEY]
    if len(keys) != 1:
        return None
    by_type: dict[ColumnType, Callable[[bytes], Any]] = {
        ColumnType.STRING: bytes.decode,
        ColumnType.BYTES: bytes,
        ColumnType.INT64: int,
        ColumnType.UUID: lambda key: UUID(key.decode()),
    }
    return by_type.get(keys[0].column.type)


def _check_key_fields(definition: JobDefinition, signature: Signature) -> None:
    for record_type in signature.record_types:
        for name in definition.key:
            if name not in record_type.__struct_fields__:
                raise JobDefinitionError(
                    f"the key column {name!r} of {signature.row_type.__name__} is not a field of "
                    f"{record_type.__name__}, so that the row of a record is not known before the fold",
                    f"add the field {name!r} to {record_type.__name__}, or give key=lambda record: ...",
                    subject=record_type.__name__,
                )
