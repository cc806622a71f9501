"""What a job file is written with: records, rows, and how rows merge.

`Key[T]`, `Sum[T]` ... are `T` to a type checker; the mark beside it is read when the job is declared. The structs are
not frozen (a frozen base fails mypy in subclasses that give fields defaults) and not tracked by the garbage collector:
they hold no cycles.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import UTC, datetime, timedelta
from typing import Annotated, Protocol, TypeVar

import msgspec

from turnout.schema import Merge

T = TypeVar("T")


class Record(msgspec.Struct, gc=False):
    """Base of a record type: the fields that a job reads from a record's value. Other fields are ignored."""


class Row(msgspec.Struct, gc=False):
    """Base of a row type: the columns of the table. Each is a Key, and in an aggregate otherwise a measure."""


class Approximate:
    """Marks a sum of floats, whose last digits depend on the order of the records."""


Key = Annotated[T, Merge.KEY]
"""Part of what identifies a row. The key columns, in the order written, are the table's primary key."""

Sum = Annotated[T, Merge.SUM]
"""The sum of an int or Decimal. A bool counts as 0 or 1. None adds nothing."""

ApproximateSum = Annotated[T, Merge.SUM, Approximate]
"""The sum of a float: compared between versions with a tolerance, because it depends on the order of the records."""

Min = Annotated[T, Merge.MIN]
"""The smallest value; None counts as no value."""

Max = Annotated[T, Merge.MAX]
"""The greatest value; None counts as no value."""

LastBy = Annotated[T, Merge.LAST_BY]
"""The value of the row whose ordering column (`last_by=` of the job, a Max column) is greatest."""


class Delete:
    """Returned by a map's function instead of a row: deletes the row with that key.

    Name every key column, and the order_by column where the job declares one: `Delete(order_id=7, updated_at=when)`.
    """

    __slots__ = ("columns",)

    def __init__(self, **columns: object) -> None:
        self.columns = columns

    def __repr__(self) -> str:
        return f"Delete({', '.join(f'{name}={value!r}' for name, value in self.columns.items())})"


class Message(Protocol):
    """One record as Kafka hands it over; aiokafka's ConsumerRecord is one."""

    @property
    def topic(self) -> str: ...
    @property
    def partition(self) -> int: ...
    @property
    def offset(self) -> int: ...
    @property
    def timestamp(self) -> int:
        """Milliseconds since 1970."""

    @property
    def key(self) -> bytes | None: ...
    @property
    def value(self) -> bytes | None: ...
    @property
    def headers(self) -> Sequence[tuple[str, bytes]]: ...


_EPOCH = datetime(1970, 1, 1, tzinfo=UTC)


class Meta:
    """What Kafka knows of a record besides its value. A job's function gets one if it has a second (in a fold, third)
    parameter annotated `Meta`; a job that does not ask pays nothing."""

    __slots__ = ("_message",)

    def __init__(self, message: Message) -> None:
        self._message = message

    @property
    def key(self) -> bytes | None:
        """The record key as stored, None if it has none."""
        return self._message.key

    @property
    def topic(self) -> str:
        """The topic the record was read from."""
        return self._message.topic

    @property
    def partition(self) -> int:
        """The partition the record was read from."""
        return self._message.partition

    @property
    def offset(self) -> int:
        """The record's offset in its partition."""
        return self._message.offset

    @property
    def time(self) -> datetime:
        """Kafka's timestamp of the record, UTC, to the millisecond."""
        return _EPOCH + timedelta(milliseconds=self._message.timestamp)

    @property
    def headers(self) -> tuple[tuple[str, bytes], ...]:
        """The record's headers in order; a name may come twice."""
        return tuple(self._message.headers)
