"""Records as the consumer makes them, with nothing that no job sees.

aiokafka makes a dataclass of eleven fields of each record, in Python, which is as much work as everything that a job
does with it. It has no setting for another kind, so the one method that makes them is overridden; `unit` tests hold it
to the records that aiokafka itself makes.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import msgspec
from aiokafka.consumer import fetcher


class Record(msgspec.Struct, frozen=True, gc=False):
    """A `turnout.job.rows.Message`. timestamp: Unix milliseconds; headers: pairs of name and value."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: Sequence[tuple[str, bytes]]


class SmallRecords(fetcher.PartitionRecords):  # type: ignore[misc]  # aiokafka ships no type information
    """The records of one partition in one answer of the broker."""

    def __iter__(self) -> Iterator[Record]:
        iterator: Iterator[Record] = self._records_iterator  # spares a call for each record
        return iterator

    def _consumer_record(self, tp: Any, record: Any) -> Record:
        return Record(tp.topic, tp.partition, record.offset, record.timestamp, record.key, record.value, record.headers)


def use_small_records() -> None:
    """From now on every consumer of this process makes them."""
    fetcher.PartitionRecords = SmallRecords
