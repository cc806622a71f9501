"""Many keys in one request and many rows in one answer, by column: without an object for each value. Pure."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from datetime import date
from itertools import repeat
from typing import Any, TypeAlias
from uuid import UUID

from turnout.client import convert
from turnout.client.values import Key, from_row, to_key
from turnout.column_values import values_of
from turnout.kind_values import days
from turnout.query.v1 import query_pb2
from turnout.reading.tokens import token_of_version
from turnout.results import Read

Values: TypeAlias = tuple[Any, ...]

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1

# Types whose values travel by column as they are, or by what makes a list's elements of them. Keys of others travel as
# messages, which know all types.
_LISTS: dict[type, tuple[str, Callable[[Any], Any] | None]] = {
    bool: ("bool_values", None),
    bytes: ("bytes_values", None),
    date: ("date_days", days),
    int: ("int64_values", None),
    str: ("string_values", None),
    UUID: ("uuid_values", str),
}


def parts(key: Key) -> tuple[tuple[str, ...], Values]:
    """The names of a key's columns, none where it has them in the table's order, and its values.

    Raises what sending it would raise: InvalidInput for a value that no column holds, ValueError for a text that is
    none.
    """
    names: tuple[str, ...] = ()
    values: Values
    if isinstance(key, Mapping):
        names, values = tuple(key), tuple(key.values())
    else:
        values = tuple(key) if isinstance(key, Sequence) and not isinstance(key, str | bytes) else (key,)
    if not all(map(_is_plain, values)):
        to_key(key)
    return names, values


def _is_plain(value: Any) -> bool:
    kind = type(value)
    if kind is str:
        return bool(value.isascii())  # any other is made a message of once, to see whether it can be sent
    if kind is int:
        return bool(_INT64_MIN <= value <= _INT64_MAX)
    return kind in _LISTS


def put_keys(request: query_pb2.BatchGetRequest, names: Sequence[str], keys: Sequence[Values]) -> None:
    """Write keys of the same names into a request: by column where that can be, else as messages."""
    columns = _columns(keys)
    if columns is not None:
        request.key_columns.extend(columns)
        request.key_column_names.extend(names)
    else:
        request.keys.extend(to_key(dict(zip(names, key, strict=True)) if names else key) for key in keys)


def _columns(keys: Sequence[Values]) -> list[query_pb2.Column] | None:
    if len(set(map(len, keys))) != 1:
        return None
    columns = []
    for values in zip(*keys, strict=True):
        kinds = set(map(type, values))
        kind = kinds.pop()
        if kinds or kind not in _LISTS or (kind is int and not _INT64_MIN <= min(values) <= max(values) <= _INT64_MAX):
            return None
        name, convert_one = _LISTS[kind]
        columns.append(query_pb2.Column(**{name: values if convert_one is None else [*map(convert_one, values)]}))
    return columns or None


def reads_of(answer: query_pb2.BatchGetResponse, job: str, keys: int, seen: bytes) -> list[Read]:
    """The reads of a batch, in the order of its keys. seen: the request's token."""
    whose = [_who(answer, served, job, seen) for served in answer.served]
    if not answer.blocks:
        found = []
        for result in answer.results:
            who = whose[result.served_index]
            row = from_row(answer.served[result.served_index].columns, result.row) if result.HasField("row") else None
            found.append(read_of(row, who))
        return found
    reads: list[Read | None] = [None] * keys
    for block in answer.blocks:
        who = whose[block.served_index]
        places: Sequence[int] = block.key_indexes or range(keys)
        rows = iter(rows_of(answer.served[block.served_index].columns, block.columns))
        missing = set(block.missing)
        for at, place in enumerate(places):
            reads[place] = read_of(None if at in missing else next(rows), who)
    return [read for read in reads if read is not None]


def rows_of(names: Sequence[str], columns: Sequence[query_pb2.Column]) -> list[dict[str, Any]]:
    """Rows that came by column."""
    lists = [values_of(column) for column in columns]
    return [dict(pairs) for pairs in map(zip, repeat(tuple(names)), zip(*lists, strict=True))]


def read_of(row: Mapping[str, object] | None, who: Read) -> Read:
    """A row of whoever answered `who`."""
    return Read(row, who.version, who.epoch, who.applied_positions, who.cause, who.token)


def _who(answer: query_pb2.BatchGetResponse, served: query_pb2.ServedVersion, job: str, seen: bytes) -> Read:
    token = answer.token
    if len(answer.served) > 1:
        positions = ((one.topic, one.partition, one.next_offset) for one in served.applied_positions)
        token = token_of_version(job, served.epoch, positions, answer.token, seen)
    return convert.read(served, None, token)
