"""Many keys in one request and many rows in one answer, by column: without an object for each value. Pure."""

from __future__ import annotations

import struct
from collections.abc import Iterable, Mapping, Sequence
from copy import deepcopy
from datetime import date
from typing import Any, TypeAlias
from uuid import UUID

from turnout.client import convert
from turnout.client.values import Key, from_row, to_key
from turnout.column_values import UNREADABLE, column_of, unreadable, values_of
from turnout.kinds import Kind
from turnout.query.v1 import query_pb2
from turnout.reading.tokens import token_of_version
from turnout.results import Read

Values: TypeAlias = tuple[Any, ...]
Row: TypeAlias = dict[str, object]

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1

# Types whose values travel by column. Keys of others travel as messages, which know all types.
_KINDS: dict[type, Kind] = {
    bool: Kind.BOOL,
    bytes: Kind.BYTES,
    date: Kind.DATE,
    int: Kind.INT64,
    str: Kind.STRING,
    UUID: Kind.UUID,
}


def parts(key: Key) -> tuple[tuple[str, ...], Values]:
    """The names of a key's columns, none where it has them in the table's order, and its values.

    Raises what sending it would raise: InvalidInput for a value that no column holds.
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
    return kind in _KINDS


def put_keys(request: query_pb2.BatchGetRequest, keys: Sequence[Key]) -> None:
    """Write keys into a request: by column where all are of one form, else as messages. Raises as `parts` does."""
    names, rows = _of_one_form(keys)
    columns = None if rows is None else _columns(rows)
    if columns is None:
        request.keys.extend(map(to_key, keys))
    else:
        request.key_columns.extend(columns)
        request.key_column_names.extend(names)


def put_values(request: query_pb2.BatchGetRequest, names: Sequence[str], keys: Sequence[Values]) -> None:
    """The same for keys whose `parts` are known, and all of whose names are these."""
    columns = _columns([*zip(*keys, strict=True)]) if len(set(map(len, keys))) == 1 else None
    if columns is None:
        request.keys.extend(to_key(key_of(names, key)) for key in keys)
    else:
        request.key_columns.extend(columns)
        request.key_column_names.extend(names)


def key_of(names: Sequence[str], values: Values) -> Key:
    """A key of its parts."""
    return dict(zip(names, values, strict=True)) if names else values


def _of_one_form(keys: Sequence[Any]) -> tuple[tuple[str, ...], list[Values] | None]:
    """The names of the keys' columns, and the values by column; None where the keys differ in form."""
    kinds = set(map(type, keys))
    if len(kinds) != 1:
        return (), None
    kind = kinds.pop()
    if kind in _KINDS:
        return (), [tuple(keys)]
    if kind is dict:
        orders: set[tuple[str, ...]] = set(map(tuple, keys))
        if len(orders) == 1:
            return orders.pop(), [*zip(*map(dict.values, keys), strict=True)]
    elif kind in (tuple, list) and len(set(map(len, keys))) == 1:
        return (), [*zip(*keys, strict=True)]
    return (), None


def _columns(by_column: Sequence[Values]) -> list[query_pb2.Column] | None:
    """The columns of a request; None where one holds values that do not travel so."""
    columns = []
    for values in by_column:
        kinds = set(map(type, values))
        kind = _KINDS.get(kinds.pop())
        if kinds or kind is None:
            return None
        try:
            columns.append(column_of(kind, values))
        except (struct.error, ValueError):  # one of them is too large, or no text
            return None
    return columns or None


def reads_of(answer: query_pb2.BatchGetResponse, job: str, keys: int, seen: bytes) -> list[Read]:
    """The reads of a batch, in the order of its keys. seen: the request's token.

    FailedPrecondition (VALUE_UNREADABLE).
    """
    whose = [_who(answer, served, job, seen) for served in answer.served]
    if not answer.blocks:
        found: list[Read] = []
        for result in answer.results:
            who = whose[result.served_index]
            row = from_row(answer.served[result.served_index].columns, result.row) if result.HasField("row") else None
            found += who.with_rows([row], [result.exposure_id] if result.exposure_id else ())
        return found
    reads: list[Read | None] = [None] * keys
    for block in answer.blocks:
        rows = _in_order(rows_of(answer.served[block.served_index].columns, block.columns), block.rows)
        found = whose[block.served_index].with_rows(rows, block.exposure_ids)
        if not block.key_indexes:
            return found
        for place, read in zip(block.key_indexes, found, strict=True):
            reads[place] = read
    return [read for read in reads if read is not None]


def rows_of(names: Sequence[str], columns: Sequence[query_pb2.Column]) -> list[Row]:
    """Rows that came by column. FailedPrecondition (VALUE_UNREADABLE)."""
    if not columns:
        return []
    by_column = [*map(_values, names, columns)]
    # Copies that are filled column by column, in half of the time that it takes to make each of its pairs.
    blank: Row = dict.fromkeys(names)
    rows = [blank.copy() for _ in by_column[0]]
    for name, values in zip(names, by_column, strict=True):
        for row, value in zip(rows, values, strict=True):
            row[name] = value
    return rows


def _values(name: str, column: query_pb2.Column) -> Sequence[Any]:
    try:
        return values_of(column)
    except UNREADABLE as error:
        raise unreadable(name, error) from None


def _in_order(rows: Sequence[Row], order: Iterable[int]) -> list[Row | None]:
    """The row of each key: `order` counts from 1, 0 = there is none. What several keys share is copied for each."""
    places, known = [*order], [None, *rows]
    found = [known[place] for place in places]
    missing = places.count(0)
    if len(set(places)) - bool(missing) < len(places) - missing:
        seen: set[int] = set()
        for at, place in enumerate(places):
            if place in seen and (row := known[place]) is not None:
                found[at] = {name: _copied(value) for name, value in row.items()}
            seen.add(place)
    return found


def _copied(value: Any) -> Any:
    return deepcopy(value) if isinstance(value, dict | list) else value  # other values cannot be changed


def _who(answer: query_pb2.BatchGetResponse, served: query_pb2.ServedVersion, job: str, seen: bytes) -> Read:
    token = answer.token
    if len(answer.served) > 1:
        positions = ((one.topic, one.partition, one.next_offset) for one in served.applied_positions)
        token = token_of_version(job, served.epoch, positions, answer.token, seen)
    return convert.read(served, None, token, answer.exposure_id)
