"""A worker of a bounded range applies what is before its end, nothing else, and rests there."""

from __future__ import annotations

import pytest

from services.replayer.protocol import Stop, TopicPartition
from tests.integration.engine.conftest import Make
from tests.integration.engine.test_aggregate import SALES, sales, values
from tests.integration.engine.workers import Version, WorkerProcess
from tests.support.eventually import eventually
from tests.support.topics import Record, Topics


def _of(partition: int, records: list[Record]) -> list[Record]:
    return [record._replace(partition=partition, key=None) for record in records]


async def _rests(version: Version, worker: WorkerProcess, ends: dict[TopicPartition, int]) -> None:
    """The worker stands exactly at the ends, says so, and is told to stop there."""
    await worker.at(ends)
    assert {tp: row["next_offset"] for tp, row in (await version.positions()).items()} == ends
    assert {tp: state.end_offset for tp, state in worker.states.items()} == ends
    await worker.say(Stop())
    await worker.stopped()


@pytest.mark.parametrize("end", [0, 1, 499])
async def test_it_applies_what_is_before_the_end(kafka: Topics, make: Make, end: int) -> None:
    topic = await kafka.create(1)
    records = _of(0, sales(500))
    await kafka.produce(topic, records)
    tp = TopicPartition(topic, 0)
    version = await make(SALES.format(topic=topic), [topic], range_ends={tp: end})
    worker = await version.worker()
    await worker.at({tp: end})
    await kafka.produce(topic, _of(0, sales(500, first=500)))  # what comes behind the end is not its business
    await _rests(version, worker, {tp: end})
    assert await version.rows() == version.reference(values(records[:end]))
    assert worker.states[tp].records == end


async def test_partitions_that_are_done_do_not_hold_up_the_others(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(3)
    records = [_of(n, sales(20_000, first=20_000 * n)) for n in range(3)]
    await kafka.produce(topic, [record for three in zip(*records, strict=True) for record in three])
    ends = {TopicPartition(topic, n): end for n, end in enumerate((10, 20_000, 12_345))}
    version = await make(SALES.format(topic=topic), [topic], range_ends=ends)
    await _rests(version, await version.worker(), ends)
    kept = [record for (tp, end) in ends.items() for record in records[tp.partition][:end]]
    assert await version.rows() == version.reference(values(kept))


async def test_transactions_in_the_way(kafka: Topics, make: Make) -> None:
    """The same log in forty partitions, each with an end of its own: before, in and after committed and aborted records
    and the markers between them."""
    topic, offsets = await kafka.create(40), 0
    applied: list[tuple[int, Record]] = []
    for number in range(6):
        batch = sales(5, first=number * 5)
        everywhere = [record for partition in range(40) for record in _of(partition, batch)]
        async with kafka.transaction(topic, everywhere, commit=number % 2 == 0):
            pass
        applied += [(offsets + n, record) for n, record in enumerate(batch) if number % 2 == 0]
        offsets += 6  # with the marker
    last = sales(4, first=900)
    await kafka.produce(topic, [record for partition in range(40) for record in _of(partition, last)])
    applied += [(offsets + n, record) for n, record in enumerate(last)]
    ends = {TopicPartition(topic, end): end for end in range(40)}
    version = await make(SALES.format(topic=topic), [topic], range_ends=ends)
    worker = await version.worker()
    await _rests(version, worker, ends)
    kept = {end: [record for at, record in applied if at < end] for end in range(40)}
    assert {tp.partition: state.records for tp, state in worker.states.items()} == {
        n: len(one) for n, one in kept.items()
    }
    assert await version.rows() == version.reference(values([record for one in kept.values() for record in one]))


async def test_an_end_behind_an_open_transaction_is_waited_for(kafka: Topics, make: Make) -> None:
    topic, tp = await kafka.create(1), None
    records = _of(0, sales(20))
    await kafka.produce(topic, records[:5])
    async with kafka.transaction(topic, records[5:15], commit=True):
        await kafka.produce(topic, records[15:])
        tp = TopicPartition(topic, 0)
        version = await make(SALES.format(topic=topic), [topic], range_ends={tp: 18})
        worker = await version.worker()
        await worker.at({tp: 5})  # the end of what is readable
        assert worker.states[tp].next_offset == 5
    await _rests(version, worker, {tp: 18})
    assert await version.rows() == version.reference(values(records[:18]))


async def test_what_retention_deletes_behind_the_end_is_not_missed(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(2)
    await kafka.produce(topic, [*_of(0, sales(100)), *_of(1, sales(100, first=100))])
    done, other = TopicPartition(topic, 0), TopicPartition(topic, 1)
    ends = {done: 40, other: 150}
    version = await make(SALES.format(topic=topic), [topic], range_ends=ends)
    worker = await version.worker()
    await worker.at({done: 40, other: 100})
    await kafka.delete_records_before(topic, {0: 90})

    async def seen() -> bool:
        return worker.states[done].log_start == 40

    await eventually(seen)
    await kafka.produce(topic, _of(1, sales(100, first=200)))
    await _rests(version, worker, ends)
    await _rests(version, await version.worker(), ends)  # nor by a worker that takes it up again


async def test_what_it_deletes_before_the_end_is(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    await kafka.produce(topic, _of(0, sales(100)))
    await kafka.delete_records_before(topic, {0: 50})
    tp = TopicPartition(topic, 0)
    version = await make(SALES.format(topic=topic), [topic], range_ends={tp: 40})
    async with version.connection() as connection:
        await connection.execute("update serving.positions set start_offset = 10, next_offset = 10")
    assert (await (await version.worker()).fault()).reason == "LOG_TRUNCATED"


async def test_a_bad_record_is_found_inside_the_range_and_not_behind_it(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    good = _of(0, sales(60))
    bad = Record(b"{}", partition=0)
    await kafka.produce(topic, [*good[:30], bad, *good[30:], bad])
    tp = TopicPartition(topic, 0)
    source = SALES.format(topic=topic).replace('last_by="newest"', 'last_by="newest", on_malformed="set_aside"')
    version = await make(source, [topic], range_ends={tp: 61})
    await _rests(version, await version.worker(), {tp: 61})
    assert await version.rows() == version.reference(values(good))
    assert [letter["offset"] for letter in await version.dead_letters()] == [30]
