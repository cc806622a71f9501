"""Our records beside those that aiokafka makes, out of the bytes of one answer of the broker."""

import struct
from typing import Any

import pytest
from aiokafka import TopicPartition
from aiokafka.consumer import fetcher
from aiokafka.record.default_records import DefaultRecordBatchBuilder
from aiokafka.record.memory_records import MemoryRecords

from services.replayer.engine.records import Record, SmallRecords

STOCK = fetcher.PartitionRecords
FIELDS = ("topic", "partition", "offset", "timestamp", "key", "value")
RECORDS: list[tuple[bytes | None, bytes | None, list[tuple[str, bytes | None]]]] = [
    (b"a", b"1", []),
    (None, b"2", [("trace", b"x"), ("trace", b"y"), ("empty", None)]),
    (b"c", None, []),
    (b"", b"", []),
]


def _answer(compression: int) -> bytes:
    """Two batches, at offsets 10 and 20."""
    answer = b""
    for base in (10, 20):
        builder = DefaultRecordBatchBuilder(2, compression, 0, -1, -1, -1, 1 << 20)
        for number, (key, value, headers) in enumerate(RECORDS):
            assert builder.append(number, 1_700_000_000_000 + base + number, key, value, headers) is not None
        batch = bytearray(builder.build())
        struct.pack_into(">q", batch, 0, base)
        answer += bytes(batch)
    return answer


def _records(kind: Any, answer: bytes, offset: int) -> Any:
    return kind(TopicPartition("t", 3), MemoryRecords(answer), [], offset, None, None, True, 1)


@pytest.mark.parametrize("compression", [0, 1, 3])
@pytest.mark.parametrize("offset", [10, 12])
def test_they_hold_the_same(compression: int, offset: int) -> None:
    answer = _answer(compression)
    ours, theirs = _records(SmallRecords, answer, offset), _records(STOCK, answer, offset)
    made, expected = list(ours), list(theirs)
    assert [record.offset for record in expected][:1] == [offset]
    assert all(type(record) is Record for record in made)
    for field in FIELDS:
        assert [getattr(record, field) for record in made] == [getattr(record, field) for record in expected]
    assert [tuple(record.headers) for record in made] == [tuple(record.headers) for record in expected]
    assert ours.next_fetch_offset == theirs.next_fetch_offset


def test_reading_can_stop_in_between() -> None:
    ours = _records(SmallRecords, _answer(0), 10)
    for record in ours:
        if record.offset == 12:
            break
    assert ours.next_fetch_offset == 13
    assert next(iter(ours)).offset == 13
