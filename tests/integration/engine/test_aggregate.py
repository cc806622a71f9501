"""An aggregate's table equals the reference, whatever happens to its workers."""

from __future__ import annotations

import signal

from services.replayer.engine.session import session_name
from services.replayer.protocol import Progress, Stop, TopicPartition
from tests.integration.engine.conftest import Make
from tests.integration.engine.workers import Version, value
from tests.support.eventually import eventually
from tests.support.topics import Record, Topics

SALES = """
    from datetime import datetime
    from turnout import Key, LastBy, Max, Min, Record, Row, Sum, aggregate

    class Sale(Record):
        shop: str
        number: int
        amount: int | None

    class Shop(Row):
        shop: Key[str]
        sales: Sum[int] = 1
        amount: Sum[int | None] = None
        smallest: Min[int | None] = None
        largest: Max[int | None] = None
        newest: Max[int] = 0
        last_amount: LastBy[int | None] = None

    @aggregate("tested", topic="{topic}", last_by="newest", derived={{"mean": "amount::float8 / sales"}})
    def shops(sale: Sale) -> Shop:
        return Shop(shop=sale.shop, amount=sale.amount, smallest=sale.amount, largest=sale.amount,
                    newest=sale.number, last_amount=sale.amount)
"""


def sales(count: int, shops: int = 97, first: int = 0) -> list[Record]:
    """Sales, of which each thirteenth has no amount and neighbours share a number, spread over partitions by key."""
    return [
        Record(
            value(shop=f"shop-{i * 31 % shops}", number=i // 5 * 5, amount=None if i % 13 == 0 else i % 1009),
            f"{i % 17}".encode(),
        )
        for i in range(first, first + count)
    ]


async def _sold(
    kafka: Topics, make: Make, count: int, partitions: int, lease_s: float = 3.0
) -> tuple[Version, list[Record]]:
    topic = await kafka.create(partitions)
    records = sales(count)
    await kafka.produce(topic, records)
    return await make(SALES.format(topic=topic), [topic], lease_s=lease_s), records


async def test_the_time_of_a_write_that_fails_counts(kafka: Topics, make: Make) -> None:
    version, records = await _sold(kafka, make, 2_000, 2)
    async with version.connection() as blocking, blocking.transaction():
        await blocking.execute(f"lock table serving.{version.table} in exclusive mode")
        worker = await version.worker()

        async def counted() -> bool:
            return any(progress.write_s > version.lease_s / 8 for progress in worker.all_of(Progress))

        assert await eventually(counted)
    await worker.at(await make.ends(version.partitions[0].topic))
    assert await version.rows() == version.reference(values(records))


def values(records: list[Record]) -> list[bytes]:
    return [record.value for record in records if record.value is not None]


async def test_table_equals_the_reference_and_follows_the_log(kafka: Topics, make: Make) -> None:
    version, records = await _sold(kafka, make, 20_000, 3)
    topic = version.partitions[0].topic
    worker = await version.worker()
    await worker.at(await make.ends(topic))
    assert await version.rows() == version.reference(values(records))
    more = sales(50, first=20_000)
    await kafka.produce(topic, more)
    await worker.at(await make.ends(topic))
    assert await version.rows() == version.reference(values(records + more))
    assert sum(state.records for state in worker.states.values()) == len(records + more)
    assert all(state.event_time_ms is not None for state in worker.states.values())
    await worker.say(Stop())
    await worker.stopped()
    assert await version.unowned()


async def test_two_workers_share_the_partitions(kafka: Topics, make: Make) -> None:
    version, records = await _sold(kafka, make, 60_000, 4)
    first = await version.worker(version.partitions[:2])
    second = await version.worker(version.partitions[2:])
    ends = await make.ends(version.partitions[0].topic)
    await first.at({tp: ends[tp] for tp in version.partitions[:2]})
    await second.at({tp: ends[tp] for tp in version.partitions[2:]})
    assert await version.rows() == version.reference(values(records))


async def test_killed_in_the_middle_another_finishes(kafka: Topics, make: Make) -> None:
    version, records = await _sold(kafka, make, 60_000, 2, lease_s=1.0)
    for kill_at in (1, 10_000, 30_000):
        worker = await version.worker(rate_per_s=20_000.0)
        await worker.until(kill_at)
        await worker.kill()
    worker = await version.worker()
    await worker.at(await make.ends(version.partitions[0].topic))
    assert await version.rows() == version.reference(values(records))
    assert sum(row["records"] for row in (await version.positions()).values()) == len(records)


async def test_a_stopped_worker_that_wakes_up_doubles_nothing(kafka: Topics, make: Make) -> None:
    version, records = await _sold(kafka, make, 40_000, 2, lease_s=1.0)
    zombie = await version.worker(rate_per_s=20_000.0)
    await zombie.until(5_000)
    zombie.signal(signal.SIGSTOP)
    heir = await version.worker()
    ends = await make.ends(version.partitions[0].topic)
    await heir.at(ends)
    zombie.signal(signal.SIGCONT)

    async def knows() -> bool:
        return zombie.waiting == "LEASE_HELD"

    await eventually(knows)
    assert await version.rows() == version.reference(values(records))
    assert {row["owner"] for row in (await version.positions()).values()} == {heir.start.owner}


async def test_a_takeover_ends_the_transaction_of_an_expired_owner(kafka: Topics, make: Make) -> None:
    version, records = await _sold(kafka, make, 1_000, 1, lease_s=1.0)
    tp = version.partitions[0]
    async with version.connection() as zombie:
        # What a worker that was stopped inside its transaction looks like to the server, without its time limits.
        await zombie.execute(f"set application_name = '{session_name('zombie')}'")
        await zombie.execute(
            "update serving.positions set owner = 'zombie', owner_pid = pg_backend_pid(), fence = 7, "
            "lease_expires = clock_timestamp()"
        )
        await zombie.execute("begin")
        await zombie.execute("update serving.positions set records = records + 1000000")
        worker = await version.worker()
        await worker.at(await make.ends(tp.topic))
    assert await version.rows() == version.reference(values(records))
    assert (await version.positions())[tp]["fence"] == 8


async def test_a_position_moved_under_its_feet_aborts_the_batch(kafka: Topics, make: Make) -> None:
    version, records = await _sold(kafka, make, 3_000, 1)
    tp = version.partitions[0]
    worker = await version.worker()
    await worker.at(await make.ends(tp.topic))
    # As if the server had forgotten the last commit in a crash: rows and position of an earlier moment.
    async with version.connection() as connection, connection.transaction():
        await connection.execute("update serving.positions set next_offset = 0, records = 0")
        await connection.execute(f"delete from serving.{version.table}")
    more = sales(10, first=3_000)
    await kafka.produce(tp.topic, more)
    expected = version.reference(values(records + more))

    async def recovered() -> bool:
        return await version.rows() == expected

    await eventually(recovered)
    assert (await version.positions())[tp]["records"] == 3_010


async def test_idle_and_empty_partitions_stand_at_the_end(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(4)
    await kafka.produce(topic, [record._replace(partition=1) for record in sales(10)])
    version = await make(SALES.format(topic=topic), [topic])
    worker = await version.worker()
    await worker.at(await make.ends(topic))
    assert worker.states[TopicPartition(topic, 0)].event_time_ms is None
    assert worker.states[TopicPartition(topic, 1)].records == 10
