"""What a front knows of a table: its columns, their types and its key, as the PostgreSQL catalog tells. Pure."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any

from turnout.errors import FailedPrecondition, InvalidInput
from turnout.kinds import Kind, kind_of
from turnout.names import VersionId
from turnout.reading.kept import Kept
from turnout.sql import DELETED_COLUMN, is_hidden

_KEY_KINDS = frozenset(Kind) - {Kind.JSON, Kind.OTHER}


@dataclass(frozen=True, slots=True)
class Column:
    """A column that readers see; `postgres` is its type in PostgreSQL's words. nullable: a value may be null."""

    name: str
    kind: Kind
    postgres: str
    nullable: bool = True


@dataclass(frozen=True, slots=True)
class Table:
    """The table of a version, as it was when the catalog was read.

    `relation` is the table's oid: another one later means that it was dropped and made anew. `columns` are those that
    readers see, in the table's order; `key` are the key's, in the key's order. With `tombstones`, rows whose column
    `_deleted` is true stand for rows that do not exist. role: who reads it; owner: whose it is. What is made of the
    table once is `kept`.
    """

    version: VersionId
    name: str
    relation: int
    columns: tuple[Column, ...]
    key: tuple[Column, ...]
    tombstones: bool
    role: str
    owner: str
    kept: Kept = field(default_factory=Kept, compare=False, repr=False)

    @property
    def column_names(self) -> tuple[str, ...]:
        return tuple(column.name for column in self.columns)

    def column(self, name: str) -> Column:
        """The column of that name. InvalidInput (UNKNOWN_COLUMN) lists those that there are."""
        for column in self.columns:
            if column.name == name:
                return column
        raise InvalidInput(
            "UNKNOWN_COLUMN",
            f"{self.version} has no column {name!r}; its columns are {', '.join(self.column_names)}.",
            metadata={"column": name},
        )

    def in_key_order(self, names: Sequence[str], values: Sequence[Any]) -> list[Any]:
        """The values of a key in the order of the table's key; `names` may be empty. InvalidInput otherwise."""
        if not names:
            if len(values) != len(self.key):
                raise self._refused(f": it needs {len(self.key)} value(s), and {len(values)} came")
            return list(values)
        expected = [column.name for column in self.key]
        if sorted(names) != sorted(expected):
            raise self._refused(f", and the request names {', '.join(names)}")
        if len(values) != len(names):
            raise self._refused(f": the request names {len(names)} column(s) but has {len(values)} value(s)")
        by_name = dict(zip(names, values, strict=True))
        return [by_name[name] for name in expected]

    def _refused(self, what: str) -> InvalidInput:
        key = ", ".join(f"{column.name} ({column.postgres})" for column in self.key)
        return InvalidInput("INVALID_KEY", f"The key of {self.version} is {key}{what}.")


def table_of_catalog(
    version: VersionId, name: str, rows: Iterable[Mapping[str, Any]], *, hidden: bool = False
) -> Table:
    """The table that rows of the query `columns_of_table` describe. hidden: as it is, with the columns that no reader
    sees, and rows that do not exist for them.

    FailedPrecondition (TABLE_UNREADABLE) when it has no key, or one of a type that no key of the contract has.
    """
    rows = list(rows)
    shown = [_column(row) for row in rows if hidden or not is_hidden(row["name"])]
    keyed = sorted((row for row in rows if row["key_position"] is not None), key=lambda row: int(row["key_position"]))
    key = tuple(_column(row) for row in keyed)
    if not key:
        raise _unreadable(version, f"the table serving.{name} has no primary key")
    for column in key:
        if column.kind not in _KEY_KINDS or is_hidden(column.name):
            raise _unreadable(version, f"its key column {column.name} ({column.postgres}) cannot be asked for")
    tombstones = not hidden and any(row["name"] == DELETED_COLUMN and row["type"] == "boolean" for row in rows)
    first = rows[0]
    return Table(
        version, name, int(first["relation"]), tuple(shown), key, tombstones, str(first["role"]), str(first["owner"])
    )


def _column(row: Mapping[str, Any]) -> Column:
    postgres = str(row["type"])
    return Column(str(row["name"]), kind_of(postgres), postgres, bool(row["nullable"]))


def _unreadable(version: VersionId, why: str) -> FailedPrecondition:
    return FailedPrecondition("TABLE_UNREADABLE", f"{version} cannot be read: {why}.")
