"""Keys that come as Python values. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any
from uuid import UUID

from turnout.client.values import Key, to_key
from turnout.kinds import Kind
from turnout.reading.columns import Table
from turnout.reading.values import key_of, transposed

_INT64_MIN, _INT64_MAX = -(2**63), 2**63 - 1

# Kinds of a key's columns whose values go to the driver as they are, if they are of exactly this type.
_AS_IT_IS: dict[Kind, type] = {Kind.INT64: int, Kind.STRING: str, Kind.BYTES: bytes, Kind.BOOL: bool, Kind.UUID: UUID}


class PythonKeys:
    """The keys of a read as its caller gave them.

    A value of the column's own type goes to the driver as it is. Any other takes the way over the contract's message,
    so that it is converted, or refused, as a front would.
    """

    __slots__ = ("_keys", "_names", "_types", "_values")

    def __init__(self, keys: Sequence[Key]) -> None:
        self._keys = keys
        self._names: tuple[str, ...] = ()
        self._types: tuple[type | None, ...] = ()
        self._values: list[tuple[Any, ...]] | None = None

    def __len__(self) -> int:
        return len(self._keys)

    def of(self, table: Table) -> list[tuple[Any, ...]]:
        """Each key in the order of the table's key, read once for all tables whose key looks the same. InvalidInput."""
        names = tuple(column.name for column in table.key)
        types = tuple(_AS_IT_IS.get(column.kind) for column in table.key)
        if self._values is None or names != self._names or types != self._types:
            self._names, self._types = names, types
            self._values = [self._plain(key) or key_of(table, to_key(key)) for key in self._keys]
        return self._values

    def by_column(self, table: Table) -> Sequence[Sequence[Any]]:
        """The same by column. InvalidInput."""
        return transposed(table, self.of(table))

    def _plain(self, key: Key) -> tuple[Any, ...] | None:
        """The values of a key that needs no conversion; None for any other."""
        values: tuple[Any, ...]
        if isinstance(key, Mapping):
            if len(key) != len(self._names):
                return None
            try:
                values = tuple([key[name] for name in self._names])
            except KeyError:
                return None
        elif isinstance(key, tuple | list):
            values = tuple(key)
        else:
            values = (key,)
        return values if _fit(values, self._types) else None


def _fit(values: Sequence[Any], types: Sequence[type | None]) -> bool:
    if len(values) != len(types):
        return False
    for value, expected in zip(values, types, strict=True):
        kind = type(value)
        if kind is not expected:
            return False
        if expected is int and not _INT64_MIN <= value <= _INT64_MAX:
            return False
        if expected is str and ("\0" in value or not (value.isascii() or _is_text(value))):
            return False
    return True


def _is_text(value: str) -> bool:
    try:
        value.encode()
    except UnicodeEncodeError:
        return False
    return True
