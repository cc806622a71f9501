"""A run that is held for a moment: no worker goes further, whoever it is, and all go on as if nothing had been."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import pytest

from services.replayer.protocol import TopicPartition
from tests.integration.engine.conftest import Make
from tests.integration.engine.test_map_and_fold import FOLD, KEYED
from tests.integration.engine.workers import Version, value
from tests.support.eventually import eventually
from tests.support.topics import Record, Topics
from turnout.testing import Message

SUMS = """
    from turnout import Key, Record, Row, Sum, aggregate

    class Move(Record):
        account: str
        amount: int

    class Balance(Row):
        account: Key[str]
        moves: Sum[int] = 1
        balance: Sum[int] = 0

    @aggregate("tested", topic="{topic}")
    def balances(move: Move) -> Balance:
        return Balance(account=move.account, balance=move.amount)
"""
_HOLD = """
update serving.positions set hold_by = 'test', hold_at = $2, hold_until = clock_timestamp() + $3 * interval '1 s'
where topic = any($1::text[])"""
PARTITIONS = 2


def _records(first: int, count: int) -> list[Record]:
    return [
        Record(
            value(account=f"a{n % 7}", day=n % 3, amount=n % 11 - 5, order_id=f"o{n % 7}", state=f"s{n}"),
            key=f"a{n % 7}".encode(),
            partition=n % 7 % PARTITIONS,
        )
        for n in range(first, first + count)
    ]


async def _hold(version: Version, offset: int, seconds: float) -> None:
    topics = sorted({tp.topic for tp in version.partitions})
    async with version.connection() as connection:
        await connection.execute(_HOLD, topics, offset, seconds)


async def _let_go(version: Version) -> None:
    async with version.connection() as connection:
        await connection.execute("update serving.positions set hold_by = null, hold_until = '-infinity'")


async def _stands(version: Version, offsets: Mapping[TopicPartition, int]) -> None:
    async def there() -> bool:
        return {tp: row["next_offset"] for tp, row in (await version.positions()).items()} == dict(offsets)

    await eventually(there)


def _before(records: Sequence[Record], offsets: Mapping[TopicPartition, int]) -> list[Message]:
    """What the log holds before these offsets, partition by partition."""
    found = []
    for tp, end in sorted(offsets.items()):
        of_partition = [record for record in records if record.partition == tp.partition]
        found += [
            Message(value=record.value, key=record.key, partition=tp.partition, offset=offset, topic=tp.topic)
            for offset, record in enumerate(of_partition[:end])
        ]
    return found


@pytest.mark.parametrize("source", [SUMS, FOLD, KEYED.replace("{keep}", "last")], ids=["aggregate", "fold", "map"])
async def test_nobody_goes_beyond_the_cut_and_the_table_is_that_of_the_records_before_it(
    kafka: Topics, make: Make, source: str
) -> None:
    topic = await kafka.create(PARTITIONS)
    records = _records(0, 200)
    await kafka.produce(topic, records)
    version = await make(source.replace("{topic}", topic), [topic])
    worker = await version.worker()
    await worker.at(await make.ends(topic))

    cut = dict.fromkeys(version.partitions, 150)
    await _hold(version, 150, 600.0)
    more = _records(200, 2_000)
    records += more
    await kafka.produce(topic, more)
    await _stands(version, cut)
    assert await version.rows() == version.reference(_before(records, cut))

    await worker.kill()  # while it is held; its lease runs out
    other = await version.worker()
    await other.until(300)
    assert {tp: row["next_offset"] for tp, row in (await version.positions()).items()} == cut
    assert await version.rows() == version.reference(_before(records, cut))

    further = dict.fromkeys(version.partitions, 300)
    await _hold(version, 300, 600.0)
    await _stands(version, further)
    assert await version.rows() == version.reference(_before(records, further))

    await _let_go(version)
    ends = await make.ends(topic)
    await other.at(ends)
    assert await version.rows() == version.reference(_before(records, ends))
    assert sum(row["records"] for row in (await version.positions()).values()) == len(records)


async def test_a_hold_ends_by_itself(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(PARTITIONS)
    version = await make(SUMS.replace("{topic}", topic), [topic])
    worker = await version.worker()
    await worker.at(await make.ends(topic))
    await _hold(version, 10, 2.0)
    records = _records(0, 500)
    await kafka.produce(topic, records)
    await worker.at(await make.ends(topic))
    assert await version.rows() == version.reference(_before(records, await make.ends(topic)))
    assert len({row["fence"] for row in (await version.positions()).values()}) == 1  # it never started over


async def test_one_partition_is_held_and_the_other_goes_on_without_starting_over(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(PARTITIONS)
    version = await make(SUMS.replace("{topic}", topic), [topic])
    worker = await version.worker()
    await worker.at(await make.ends(topic))
    fences = {tp: row["fence"] for tp, row in (await version.positions()).items()}
    records: list[Record] = []
    held, free = version.partitions
    for first in range(0, 1_000, 100):
        async with version.connection() as connection:
            await connection.execute(_HOLD + " and partition = 0", [topic], first // 4, 600.0)
        more = _records(first, 100)
        records += more
        await kafka.produce(topic, more)
        await _stands(version, {held: first // 4, free: (await make.ends(topic))[free]})
    await _let_go(version)
    await worker.at(await make.ends(topic))
    assert await version.rows() == version.reference(_before(records, await make.ends(topic)))
    assert {tp: row["fence"] for tp, row in (await version.positions()).items()} == fences, "it never started over"


async def test_a_cut_among_the_markers_of_transactions(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    version = await make(SUMS.replace("{topic}", topic), [topic])
    worker = await version.worker()
    (tp,) = version.partitions
    await _hold(version, 4, 600.0)
    records = [Record(value(account="a", amount=1), partition=0) for _ in range(9)]
    for first in range(0, 9, 3):  # offsets 0-2 and a marker at 3, 4-6 and one at 7, ...
        async with kafka.transaction(topic, records[first : first + 3], commit=True):
            pass
    await _stands(version, {tp: 4})
    await _hold(version, 7, 600.0)  # before a marker, where no record begins
    await _stands(version, {tp: 7})
    await _let_go(version)
    await worker.at(await make.ends(topic))
    rows: list[Any] = await version.rows()
    assert [(row.account, row.moves) for row in rows] == [("a", 9)]
