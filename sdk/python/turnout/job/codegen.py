"""Generates the batch functions of a job: the loop a careful person would write by hand for just that row type.

A call per record and column would cost more than the rest of the work, so the checks of the columns and the merge are
written out as source and compiled once. Only names and positions of columns enter the source, both checked before.
"""

from __future__ import annotations

import decimal
from collections.abc import Callable, Hashable, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime
from typing import Any
from uuid import UUID

from turnout.job.columns import Field, check_of, needs_check, restore_of
from turnout.job.compiled import DELETED, OFFSET, PARTITION, TOPIC, Failure, Waiting
from turnout.job.errors import PartitionConflictError
from turnout.job.failures import TombstoneError, epoch_ms, explain, items_of, moved, unexpected
from turnout.job.rows import Delete, Meta, Row
from turnout.schema import ColumnType, JobDefinition, Keep, Merge

# Sums of Decimals are exact: enough digits for any sum of values within DECIMAL_EXPONENT_MAX.
_EXACT = decimal.Context(prec=4096, Emax=decimal.MAX_EMAX, Emin=decimal.MIN_EMIN, traps=[decimal.Inexact])
_TIME_FLOOR = -(1 << 63)


@dataclass(frozen=True, slots=True)
class Source:
    """One topic of a job as the generated code reads it. `event_time` is a field of the records, None = Kafka's
    timestamp."""

    topic: str
    decode: Callable[[bytes | None], Any]
    event_time: str | None
    event_time_is_datetime: bool


@dataclass(frozen=True, slots=True)
class Parts:
    """Everything that a job's generated functions are made of."""

    definition: JobDefinition
    fields: tuple[Field, ...]
    row_type: type[Row]
    function: Callable[..., Any]
    takes_meta: bool
    sources: tuple[Source, ...]
    key: Callable[..., Any] | None = None  # fold: record -> key; None = the fields named like the key columns
    key_takes_meta: bool = False
    tombstone_key: Callable[[bytes], Any] | None = None  # map: record key -> row key

    @property
    def call(self) -> str:
        """The call of the user's function on a record."""
        return "function(record, Meta(message))" if self.takes_meta else "function(record)"


# --- pieces of source -------------------------------------------------------------------------------------------------


def _indent(lines: Sequence[str], depth: int) -> str:
    return "\n".join("    " * depth + line for line in lines)


def _read(parts: Parts, row: str) -> list[str]:
    """Lines that read the columns of `row` into v0, v1, ... as the table holds them."""
    lines = []
    for i, field in enumerate(parts.fields):
        lines.append(f"v{i} = {row}.{field.column.name}")
        lines.append(f"if {needs_check(field, f'v{i}')}: v{i} = check{i}(v{i})")
    return lines


def _values(parts: Parts) -> str:
    return "".join(f"v{i}, " for i in range(len(parts.fields)))


def _key(definition: JobDefinition, value: str = "v{}") -> str:
    texts = [value.format(i) for i in definition.key_positions]
    return texts[0] if len(texts) == 1 else f"({', '.join(texts)})"


def _event_time(source: Source, *, before_decode: bool) -> list[str]:
    if before_decode != (source.event_time is None):
        return []
    if source.event_time is None:
        read = "message.timestamp"
    elif source.event_time_is_datetime:
        read = f"epoch_ms(record.{source.event_time})"
    else:
        read = f"record.{source.event_time}"
    return [f"at = {read}", "if at > newest: newest = at"]


def merge_lines(definition: JobDefinition, into: str, value: str) -> list[str]:
    """Lines that merge the values (`value` formatted with the position) into the list `into`, by the rules of
    `turnout.schema`."""
    lines = _last_by_lines(definition, into, value)
    for i, column in enumerate(definition.columns):
        held, new = f"{into}[{i}]", value.format(i)
        guard = f"{new} is not None and ({held} is None or {{}})" if column.nullable else "{}"
        if column.merge is Merge.MIN:
            lines.append(f"if {guard.format(f'{new} < {held}')}: {held} = {new}")
        elif column.merge is Merge.MAX:
            lines.append(f"if {guard.format(f'{new} > {held}')}: {held} = {new}")
        elif column.merge is Merge.SUM:
            added = f"add({held}, {new})" if column.type is ColumnType.DECIMAL else f"{held} + {new}"
            lines.append(
                f"if {new} is not None: {held} = {new} if {held} is None else {added}"
                if column.nullable
                else f"{held} = {added}"
            )
    return lines or ["pass"]


def _last_by_lines(definition: JobDefinition, into: str, value: str) -> list[str]:
    """Stand before all other lines: the ordering column must still hold its old value."""
    lines = []
    followers: dict[str, list[int]] = {}
    for i, column in enumerate(definition.columns):
        if column.merge is Merge.LAST_BY and column.last_by is not None:
            followers.setdefault(column.last_by, []).append(i)
    for name, positions in followers.items():
        order = definition.position(name)
        new, held = value.format(order), f"{into}[{order}]"
        # (is not None, value) orders a null before every value without ever comparing it
        rank = [
            ", ".join(f"{text} is not None, {text}" for text in texts)
            for texts in ([value.format(i) for i in positions], [f"{into}[{i}]" for i in positions])
        ]
        lines.append(f"if {new} > {held} or ({new} == {held} and ({rank[0]}) > ({rank[1]})):")
        lines.extend(f"    {into}[{i}] = {value.format(i)}" for i in positions)
    return lines


def _compile(parts: Parts, name: str, source: str, **names: Any) -> Callable[..., Any]:
    namespace: dict[str, Any] = {
        "function": parts.function,
        "RowType": parts.row_type,
        "Meta": Meta,
        "Delete": Delete,
        "Failure": Failure,
        "Waiting": Waiting,
        "PartitionConflictError": PartitionConflictError,
        "add": _EXACT.add,
        "epoch_ms": epoch_ms,
        "explain": explain,
        "items_of": items_of,
        "unexpected": unexpected,
        "moved": moved,
        "date": date,
        "datetime": datetime,
        "UTC": UTC,
        "UUID": UUID,
        "FLOOR": _TIME_FLOOR,
        **{f"check{i}": check_of(field) for i, field in enumerate(parts.fields)},
        **{f"restore{i}": restore_of(field) for i, field in enumerate(parts.fields)},
        **names,
    }
    code = compile(source, f"<turnout {parts.definition.job} {name}>", "exec")
    exec(code, namespace)  # noqa: S102 - generated above from checked names; this is the point of the file
    made: Callable[..., Any] = namespace[name]
    return made


def dispatch(by_topic: dict[str, Callable[..., Any]]) -> Callable[..., Any]:
    """One function over all topics; a job with one topic calls its function directly."""
    if len(by_topic) == 1:
        return next(iter(by_topic.values()))
    return lambda topic, *arguments: by_topic[topic](topic, *arguments)


def row_reader(parts: Parts) -> Callable[[Any], tuple[Any, ...]]:
    """row -> columns."""
    return _compile(
        parts,
        "columns_of",
        f"""
def columns_of(row):
    if type(row) is not RowType: raise unexpected(row, RowType)
{_indent(_read(parts, "row"), 1)}
    return ({_values(parts)})
""",
    )


def row_builder(parts: Parts) -> Callable[[Sequence[Any]], Row]:
    """columns -> row."""
    return _compile(
        parts,
        "to_row",
        f"""
def to_row(c):
    return {_build(parts, "c")}
""",
    )


def _build(parts: Parts, columns: str) -> str:
    arguments = []
    for i, field in enumerate(parts.fields):
        value = f"{columns}[{i}]"
        if restore_of(field) is not None:
            value = f"None if {value} is None else restore{i}({value})"
        arguments.append(f"{field.column.name}={value}")
    return f"RowType({', '.join(arguments)})"


# --- aggregate --------------------------------------------------------------------------------------------------------


def merger(parts: Parts) -> Callable[[list[Any], Sequence[Any]], None]:
    """(into, columns): the merge of two rows, in place."""
    return _compile(
        parts,
        "merge",
        f"""
def merge(into, c):
{_indent(merge_lines(parts.definition, "into", "c[{}]"), 1)}
""",
    )


def aggregate_collect(parts: Parts, source: Source) -> Callable[..., int | None]:
    """`CompiledAggregate.collect` for one topic."""
    return _compile(
        parts,
        "collect",
        f"""
def collect(topic, partition, messages, groups, failures):
    newest = FLOOR
    get = groups.get
    for message in messages:
{_indent(_event_time(source, before_decode=True), 2)}
        try:
            record = decode(message.value)
{_indent(_event_time(source, before_decode=False), 3)}
            row = {parts.call}
            if type(row) is RowType:
{_indent(_read(parts, "row"), 4)}
                key = {_key(parts.definition)}
                group = get(key)
                if group is None:
                    groups[key] = [{_values(parts)}]
                else:
{_indent(merge_lines(parts.definition, "group", "v{}"), 5)}
            elif row is not None:
                for c in [columns_of(item) for item in items_of(row, RowType)]:
                    key = {_key(parts.definition, "c[{}]")}
                    group = get(key)
                    if group is None:
                        groups[key] = list(c)
                    else:
                        merge(group, c)
        except Exception as error:
            failures.append(Failure(message, explain(error, message)))
    return None if newest == FLOOR else newest
""",
        decode=source.decode,
        columns_of=row_reader(parts),
        merge=merger(parts),
    )


# --- map --------------------------------------------------------------------------------------------------------------


def map_collect(parts: Parts, source: Source) -> Callable[..., int | None]:
    """`CompiledMap.collect` for one topic."""
    tombstone = ""
    if parts.definition.tombstones:
        tombstone = f"""
            if message.value is None:
                combine(changes, (*tombstone_of(message.key), message.offset, partition, True, {
            "message.timestamp" if source.event_time else "at"
        }, topic))
                continue"""
    return _compile(
        parts,
        "collect",
        f"""
def collect(topic, partition, messages, changes, failures):
    newest = FLOOR
    get = changes.get
    for message in messages:
{_indent(_event_time(source, before_decode=True), 2)}
        try:{tombstone}
            record = decode(message.value)
{_indent(_event_time(source, before_decode=False), 3)}
            row = {parts.call}
            if type(row) is RowType:
{_indent(_read(parts, "row"), 4)}
                key = {_key(parts.definition)}
                change = ({_values(parts)}message.offset, partition, False, at, topic)
{_indent(_combine_lines(parts.definition), 4)}
            elif row is not None:
                for columns, deleted in [change_of(item) for item in ((row,) if type(row) is Delete else
                                                                      items_of(row, RowType))]:
                    combine(changes, (*columns, message.offset, partition, deleted, at, topic))
        except PartitionConflictError:
            raise
        except Exception as error:
            failures.append(Failure(message, explain(error, message)))
    return None if newest == FLOOR else newest
""",
        decode=source.decode,
        combine=combiner(parts),
        change_of=_change_of(parts),
        tombstone_of=_tombstone_of(parts),
    )


def _combine_lines(definition: JobDefinition) -> list[str]:
    """Lines that put `change` under `key` into `changes` (read by `get`) if it wins there."""
    if definition.keyed_by_partition:
        lines = [
            "old = get(key)",
            f"if old is not None and old[{PARTITION}] != partition:",
            f"    raise PartitionConflictError(key, topic, (old[{PARTITION}], partition))",
        ]
        keep_first = definition.keep is Keep.FIRST
        return [*lines, "if old is None: changes[key] = change" if keep_first else "changes[key] = change"]
    assert definition.order_by is not None
    order = definition.position(definition.order_by)
    rank = f"({{0}}[{order}], {{0}}[{TOPIC}], {{0}}[{PARTITION}], {{0}}[{OFFSET}])"
    # ">=": of several rows of one record and key, the last one returned counts; "<": the first one
    wins = f"{rank.format('change')} {'<' if definition.keep is Keep.FIRST else '>='} {rank.format('old')}"
    return ["old = get(key)", f"if old is None or {wins}: changes[key] = change"]


def combiner(parts: Parts) -> Callable[[dict[Hashable, Any], tuple[Any, ...]], None]:
    """(changes, change): keeps the change that wins."""
    return _compile(
        parts,
        "combine",
        f"""
def combine(changes, change):
    get, topic, partition = changes.get, change[{TOPIC}], change[{PARTITION}]
    key = {_key(parts.definition, "change[{}]")}
{_indent(_combine_lines(parts.definition), 1)}
""",
    )


def _deletion(parts: Parts, named: tuple[str, ...]) -> Callable[[dict[str, Any]], tuple[Any, ...]]:
    """The columns of a deletion, from the values of the columns that name it."""
    checks = {field.column.name: check_of(field) for field in parts.fields}
    names = [field.column.name for field in parts.fields]

    def columns(values: dict[str, Any]) -> tuple[Any, ...]:
        if values.keys() != set(named):
            raise ValueError(f"Delete({', '.join(values)}): name exactly {', '.join(named)}")
        return tuple(checks[name](values[name]) if name in values else None for name in names)

    return columns


def _change_of(parts: Parts) -> Callable[[Any], tuple[tuple[Any, ...], bool]]:
    """item -> columns, and whether it is a deletion."""
    definition, columns_of = parts.definition, row_reader(parts)
    deletion = _deletion(parts, definition.key + ((definition.order_by,) if definition.order_by else ()))

    def change_of(item: Any) -> tuple[tuple[Any, ...], bool]:
        if type(item) is Delete:
            if definition.keep is Keep.FIRST:
                raise ValueError("a map that keeps the first row of a key deletes none: return None instead of Delete")
            return deletion(item.columns), True
        return columns_of(item), False

    return change_of


def _tombstone_of(parts: Parts) -> Callable[[bytes | None], tuple[Any, ...]] | None:
    if parts.tombstone_key is None:
        return None
    names, parse, deletion = parts.definition.key, parts.tombstone_key, _deletion(parts, parts.definition.key)

    def tombstone_of(record_key: bytes | None) -> tuple[Any, ...]:
        if record_key is None:
            raise TombstoneError(record_key, "there is none")
        try:
            key = parse(record_key)
            values = (key,) if len(names) == 1 else tuple(key)
            return deletion(dict(zip(names, values, strict=True)))
        except Exception as error:
            raise TombstoneError(record_key, error) from error

    return tombstone_of


# --- fold -------------------------------------------------------------------------------------------------------------


def fold_collect(parts: Parts, source: Source) -> Callable[..., Waiting]:
    """`CompiledFold.collect` for one topic."""
    names = [f"v{i}" for i in parts.definition.key_positions]
    if parts.key is None:
        lines = [f"v{i} = record.{parts.fields[i].column.name}" for i in parts.definition.key_positions]
    else:
        lines = [
            f"key = read_key(record{', Meta(message)' if parts.key_takes_meta else ''})",
            "if key is None: continue",
            f"{', '.join(names)} = key",
        ]
    for i, name in zip(parts.definition.key_positions, names, strict=True):
        lines.append(f"if {name} is None: continue")
        lines.append(f"if {needs_check(parts.fields[i], name)}: {name} = check{i}({name})")
    return _compile(
        parts,
        "collect",
        f"""
def collect(topic, partition, messages, states, changes, failures, complete):
    newest = FLOOR
    get, absent = states.get, None if complete else MISSING
    waiting = []
    for message in messages:
{_indent(_event_time(source, before_decode=True), 2)}
        try:
            record = decode(message.value)
{_indent(_event_time(source, before_decode=False), 3)}
{_indent(lines, 3)}
            key = {_key(parts.definition)}
            change = get(key, absent)
            if change is MISSING:
                waiting.append((key, record, message, at))
                continue
{_indent(_step_lines(parts), 3)}
        except PartitionConflictError:
            raise
        except Exception as error:
            failures.append(Failure(message, explain(error, message)))
    return Waiting(topic, partition, waiting, None if newest == FLOOR else newest)
""",
        decode=source.decode,
        read_key=parts.key,
        MISSING=object(),
    )


def fold_step(parts: Parts) -> Callable[..., None]:
    """`CompiledFold.step`."""
    return _compile(
        parts,
        "step",
        f"""
def step(waiting, states, changes, failures):
    topic, partition, keyed, _ = waiting
    for key, record, message, at in keyed:
        change = states[key]
        try:
{_indent(_step_lines(parts), 3)}
        except PartitionConflictError:
            raise
        except Exception as error:
            failures.append(Failure(message, explain(error, message)))
""",
    )


def _step_lines(parts: Parts) -> list[str]:
    """Lines of a loop's body that fold `record` into `change`, the last of its key."""
    call = "function(state, record, Meta(message))" if parts.takes_meta else "function(state, record)"
    gone = "".join(
        f"change[{i}], " if i in parts.definition.key_positions else "None, " for i in range(len(parts.fields))
    )
    return [
        "if change is None: state = None",
        "else:",
        f"    if change[{PARTITION}] != partition: "
        f"raise PartitionConflictError(key, topic, (change[{PARTITION}], partition))",
        f"    state = None if change[{DELETED}] else {_build(parts, 'change')}",
        f"row = {call}",
        "if type(row) is RowType:",
        *("    " + line for line in _read(parts, "row")),
        f"    if {_key(parts.definition)} != key: raise moved({_key(parts.definition)}, key)",
        f"    states[key] = changes[key] = ({_values(parts)}message.offset, partition, False, at, topic)",
        "elif row is not None: raise unexpected(row, RowType)",
        f"elif state is not None: states[key] = changes[key] = ({gone}message.offset, partition, True, at, topic)",
    ]
