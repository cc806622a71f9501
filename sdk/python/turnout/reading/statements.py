"""The SQL by which a front reads one table. Pure.

Rows and applied positions come from one statement, hence from one snapshot: positions read before or after the rows
would claim too much or too little. So every statement begins with the positions and joins or appends the rows.

Two oddities guard against a table that was dropped and made anew with another shape under the same name, where a
statement prepared for the old one might go on to "work":

- every answer carries the oid of the table as it is now, which the reader compares with the one it was made for;
- the oid stands in each statement's text, so that a new reader shares no prepared statement with an old one.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from struct import unpack
from typing import Any

from turnout.column_values import Packed
from turnout.kinds import Kind
from turnout.reading.columns import Column, Table
from turnout.reading.positions import COLUMNS as POSITION_COLUMNS
from turnout.sql import DELETED_COLUMN, literal, quoted, serving

# Parallel arrays as one value, which nobody has to take apart to see that it is the one before.
_ARRAYS = " || ".join(f"array_send(array_agg({column} order by topic, partition))" for column in POSITION_COLUMNS)
_POSITIONS = f"select {_ARRAYS} as _positions from serving.positions where version = {{version}}"  # noqa: S608

# The contract has one type for these; asking in the wider type finds the same rows.
_ASKED_AS = {"smallint": "bigint", "integer": "bigint", "real": "double precision", "character varying": "text"}

# Kinds whose values come back equal in Python to those that they are asked by, and are soon made of what is packed. (A
# NaN equals nothing, and the first instant comes back as an infinite one, without a time zone.)
_BY_VALUE = frozenset({Kind.INT64, Kind.STRING, Kind.BYTES, Kind.BOOL, Kind.DATE})


@dataclass(frozen=True, slots=True)
class _Wire:
    """How PostgreSQL packs values as the contract's `Column` has them. one: an expression of a value, as bytes; zero:
    what stands for null, as bytes in hexadecimal; ended: a zero byte follows each."""

    one: str
    zero: str = ""
    ended: bool = False


# PostgreSQL sends days and microseconds since 2000. Infinities stay what they are: the largest and the smallest number.
_DATE = "date_send({0} + 10957)"
_TIMESTAMP = "timestamptz_send({0} + interval '946684800 s')"

_TEXT = _Wire("textsend({0}::text)", ended=True)
_WIRES = {
    Kind.INT64: _Wire("int8send({0}::bigint)", "00" * 8),
    Kind.DOUBLE: _Wire("float8send({0}::double precision)", "00" * 8),
    Kind.BOOL: _Wire("boolsend({0})", "00"),
    Kind.BYTES: _Wire("int4send(octet_length({0})) || {0}", "00" * 4),
    Kind.DATE: _Wire(_DATE, "00" * 4),
    Kind.TIMESTAMP: _Wire(_TIMESTAMP, "00" * 8),
}


_NULL = 1


class Statements:
    """The statements for one table."""

    # S608 is silenced: what goes into the text is quoted above, or is a type's name from the catalog.
    def __init__(self, table: Table) -> None:
        self._table = table
        self._from = serving(table.name)
        self._mark = f"/* relation {table.relation} */"
        self._shown = f" and t.{DELETED_COLUMN} is not true" if table.tombstones else ""
        self.by_value = len(table.key) == 1 and table.key[0].kind in _BY_VALUE
        self._positions = _POSITIONS.format(version=literal(table.version.name))
        self._relation = f"to_regclass({literal(self._from)})::oid::bigint"
        self.get = self._get()
        self.batch = self._batch()
        self.positions = f"{self._mark} select {self._relation} as _relation, p.* from ({self._positions}) p"  # noqa: S608

    def _get(self) -> str:
        """One row by key: parameters are the key's values. Always answers one row; `_found` is null without a row."""
        key = " and ".join(
            f"t.{quoted(column.name)} = ${number}::{_asked_as(column)}"
            for number, column in enumerate(self._table.key, 1)
        )
        return f"""{self._mark}
select {self._relation} as _relation, p.*, r.*
from ({self._positions}) p
left join (select true as _found, {self._columns()} from {self._from} t where {key}{self._shown}) r on true"""  # noqa: S608

    def _batch(self) -> str:
        """Rows by keys, as one row: each column of them, packed, which is null where there are none. Behind each column
        that may hold nulls, a byte a row tells where.

        PostgreSQL packs in less time than the driver takes to make as many values, and most of them are only passed on.
        With `by_value`, the parameter is one array of keys, and each row is known by its key. Else parameters are one
        array for each column of the key, and the first of the packed columns, `_places`, holds which keys the rows
        are of, 4 bytes each, counted from 1.
        """
        asked = [f"${number}::{_asked_as(column)}[]" for number, column in enumerate(self._table.key, 1)]
        columns = ", ".join(self._packed())
        if self.by_value:
            (key,) = self._table.key
            rows = f"select {columns} from {self._from} t where t.{quoted(key.name)} = any({asked[0]}){self._shown}"  # noqa: S608
        else:
            names = [f"k{number}" for number in range(len(self._table.key))]
            on = " and ".join(
                f"t.{quoted(column.name)} = k.{name}" for column, name in zip(self._table.key, names, strict=True)
            )
            rows = f"""select string_agg(int4send(k.place::integer), '') as _places, {columns}
from unnest({", ".join(asked)}) with ordinality as k({", ".join(names)}, place)
join {self._from} t on {on}{self._shown}"""  # noqa: S608
        return f"""{self._mark}
select {self._relation} as _relation, p.*, r.* from ({self._positions}) p cross join ({rows}) r"""  # noqa: S608

    def found(self, record: Sequence[Any]) -> tuple[list[Packed], Sequence[int]]:
        """What `batch` has answered: the packed columns, and, unless rows are known `by_value`, which key each row is
        of, counted from 1."""
        values = iter(record[2:])
        places: Sequence[int] = ()
        if not self.by_value:
            raw = next(values) or b""
            places = unpack(f">{len(raw) // 4}i", raw)
        columns = []
        for column in self._table.columns:
            data, nulls = next(values) or b"", (next(values) or b"") if column.nullable else b""
            columns.append(Packed(data, nulls if _NULL in nulls else b""))
        return columns, places

    def scan(self, order: Sequence[tuple[Column, bool]]) -> str:
        """Rows in an order of (column, descending), at most $1: nulls last, then by key."""
        named = {column.name for column, _ in order}
        terms = [f"t.{quoted(column.name)}{' desc' if descending else ''} nulls last" for column, descending in order]
        terms += [f"t.{quoted(column.name)}" for column in self._table.key if column.name not in named]
        return f"""{self._mark}
select {self._columns()} from {self._from} t where true{self._shown}
order by {", ".join(terms)} limit $1::bigint"""  # noqa: S608

    def _packed(self) -> Iterator[str]:
        for column in self._table.columns:
            wire, name = _WIRES.get(column.kind, _TEXT), f"t.{quoted(column.name)}"
            one = wire.one.format(name)
            if column.nullable:
                one = f"coalesce({one}, '\\x{wire.zero}'::bytea)"
            yield f"string_agg({one}, '\\x00') || '\\x00'::bytea" if wire.ended else f"string_agg({one}, '')"
            if column.nullable:
                yield f"string_agg(boolsend({name} is null), '')"

    def _columns(self) -> str:
        return ", ".join(f"{_selected(column)} as {quoted(column.name)}" for column in self._table.columns)


def _asked_as(column: Column) -> str:
    return _ASKED_AS.get(column.postgres, column.postgres)


def _selected(column: Column) -> str:
    return f"t.{quoted(column.name)}{'::text' if column.kind.selected_as_text else ''}"
