"""Rows as an Arrow IPC stream, piece by piece. Needs pyarrow: turnout-server[arrow].

Decimal numbers, UUIDs, JSON and types that the contract does not know travel as text, as they do elsewhere: a numeric
of PostgreSQL has no fixed scale, which Arrow's needs.
"""

from collections.abc import Callable, Sequence
from typing import Any, Final

import pyarrow as pa

from turnout.kind_values import micros, plain
from turnout.kinds import Kind
from turnout.reading.columns import Table
from turnout.reading.table import Values

_TYPES: Final[dict[Kind, Any]] = {
    Kind.INT64: pa.int64(),
    Kind.DOUBLE: pa.float64(),
    Kind.BOOL: pa.bool_(),
    Kind.STRING: pa.utf8(),
    Kind.BYTES: pa.binary(),
    Kind.DATE: pa.date32(),
    Kind.TIMESTAMP: pa.timestamp("us", tz="UTC"),
    Kind.DECIMAL: pa.utf8(),
    Kind.UUID: pa.utf8(),
    Kind.JSON: pa.utf8(),
    Kind.OTHER: pa.utf8(),
}
_CONVERTED: Final[dict[Kind, Callable[[Any], Any]]] = {Kind.DECIMAL: plain, Kind.UUID: str, Kind.TIMESTAMP: micros}


class _Written:
    """Keeps what is written until it is taken."""

    def __init__(self) -> None:
        self._pieces: list[bytes] = []
        self.closed = False

    def write(self, piece: Any) -> int:
        self._pieces.append(bytes(piece))
        return len(piece)

    def flush(self) -> None:
        """Nothing is held back."""

    def close(self) -> None:
        self.closed = True

    def take(self) -> bytes:
        """What was written since the last time."""
        pieces, self._pieces = self._pieces, []
        return b"".join(pieces)


class ArrowStream:
    """An Arrow stream of the rows of one table: the schema first, a record batch for each page, an end."""

    def __init__(self, table: Table) -> None:
        self._kinds = [column.kind for column in table.columns]
        self._schema = pa.schema([pa.field(column.name, _TYPES[column.kind]) for column in table.columns])
        self._written = _Written()
        self._writer = pa.ipc.new_stream(pa.PythonFile(self._written, mode="w"), self._schema)

    def batch(self, rows: Sequence[Values]) -> bytes:
        """What the page adds to the stream; the schema too, of the first one."""
        if rows:
            arrays = [_array(kind, values) for kind, values in zip(self._kinds, zip(*rows, strict=True), strict=True)]
            self._writer.write_batch(pa.record_batch(arrays, schema=self._schema))
        return self._written.take()

    def end(self) -> bytes:
        """The end of the stream."""
        self._writer.close()
        return self._written.take()


def _array(kind: Kind, values: Sequence[Any]) -> Any:
    convert = _CONVERTED.get(kind)
    if convert is not None:
        values = [None if value is None else convert(value) for value in values]
    return pa.array(values, _TYPES[kind])
