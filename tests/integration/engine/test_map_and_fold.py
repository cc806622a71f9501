"""Maps and folds: replacing, deleting, ordering, and states that outlive a worker."""

from __future__ import annotations

import random

from services.replayer import ddl
from services.replayer.protocol import Stop, TopicPartition
from tests.integration.engine.conftest import Make
from tests.integration.engine.workers import Version, WorkerProcess, value
from tests.support.eventually import eventually
from tests.support.topics import Record, Topics
from turnout.testing import Message

KEYED = """
    from turnout import Key, Record, Row, map

    class Order(Record):
        order_id: str
        state: str

    class OrderRow(Row):
        order_id: Key[str]
        state: str

    @map("tested", topic="{topic}", keyed_by_partition=True, keep="{keep}")
    def orders(order: Order) -> OrderRow:
        return OrderRow(order_id=order.order_id, state=order.state)
"""

ORDERED = """
    from turnout import Delete, Key, Meta, Record, Row, map

    class Change(Record):
        id: int
        at: int
        text: str | None
        time_ms: int = 1_000

    class Latest(Row):
        id: Key[int]
        at: int
        text: str
        offset: int

    @map("tested", topic="{topic}", order_by="at", keep="{keep}"{more})
    def latest(change: Change, meta: Meta) -> Latest | Delete:
        if change.text is None:
            return Delete(id=change.id, at=change.at)
        return Latest(id=change.id, at=change.at, text=change.text, offset=meta.offset)
"""

FOLD = """
    from turnout import Key, Record, Row, fold

    class Move(Record):
        account: str
        day: int
        amount: int

    class Account(Row):
        account: Key[str]
        day: Key[int]
        moves: int
        balance: int
        lowest: int
        recent: list[int]

    @fold("tested", topic="{topic}")
    def accounts(state: Account | None, move: Move) -> Account | None:
        if move.amount == 0:
            return None
        if state is None:
            return Account(move.account, move.day, 1, move.amount, move.amount, [move.amount])
        balance = state.balance + move.amount
        return Account(move.account, move.day, state.moves + 1, balance, min(state.lowest, balance),
                       [*state.recent, move.amount][-3:])
"""


async def _replayed(version: Version, make: Make, topic: str) -> None:
    worker = await version.worker()
    await worker.at(await make.ends(topic))
    await worker.say(Stop())
    await worker.stopped()


def located(topic: str, partition: int, records: list[Record]) -> list[Message]:
    return [Message(record.value, record.key, topic, partition, offset) for offset, record in enumerate(records)]


async def test_map_keyed_by_partition_replaces_and_deletes(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    rng = random.Random(4)
    records = []
    for _ in range(5_000):
        key = f"o{rng.randrange(300)}"
        dead = rng.random() < 0.3
        records.append(Record(None if dead else value(order_id=key, state=f"s{rng.random()}"), key.encode()))
    await kafka.produce(topic, records[:3_000])
    version = await make(KEYED.format(topic=topic, keep="last"), [topic])
    await _replayed(version, make, topic)
    await kafka.produce(topic, records[3_000:])
    await _replayed(version, make, topic)
    rows = await version.rows()
    assert rows == version.reference((record.key, record.value) for record in records)
    assert 0 < len(rows) < 300


async def test_keys_prove_new_then_old_then_new(kafka: Topics, make: Make) -> None:
    """Batches of new keys, of known ones and of both, whichever way they are written."""
    topic = await kafka.create(2)
    parts = [range(3_000), range(2_000, 5_000), range(1_000), range(5_000, 9_000), range(8_000, 9_000)]
    records: list[Record] = []
    version = await make(KEYED.format(topic=topic, keep="last"), [topic])
    worker = await version.worker()
    for number, part in enumerate(parts):
        produced = [Record(value(order_id=f"o{i}", state=f"s{number}"), f"o{i}".encode(), i % 2) for i in part]
        await kafka.produce(topic, produced)
        records += produced
        await worker.at(await make.ends(topic))
    await worker.say(Stop())
    await worker.stopped()
    assert await version.rows() == version.reference(
        Message(record.value, record.key, topic, record.partition) for record in records
    )
    for row in (await version.positions()).values():
        assert row["rows_written"] == row["records"], "no key came twice in a batch"
        assert 20 * row["records"] < row["bytes_written"] < 100 * row["records"]


async def test_map_that_keeps_the_first_row(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    records = [Record(value(order_id=f"o{i % 40}", state=f"s{i}"), f"o{i % 40}".encode()) for i in range(400)]
    await kafka.produce(topic, records)
    version = await make(KEYED.format(topic=topic, keep="first"), [topic])
    await _replayed(version, make, topic)
    await kafka.produce(topic, records[7:])
    await _replayed(version, make, topic)
    assert await version.rows() == version.reference((record.key, record.value) for record in records)


async def test_a_key_from_another_partition_fails_the_run(kafka: Topics, make: Make) -> None:
    for keep in ("last", "first"):
        topic = await kafka.create(2)
        row = Record(value(order_id="o1", state="new"), b"o1", partition=0)
        await kafka.produce(topic, [row])
        version = await make(KEYED.format(topic=topic, keep=keep), [topic])
        await _replayed(version, make, topic)
        await kafka.produce(topic, [row._replace(partition=1)])
        worker = await version.worker()
        fault = await worker.fault()
        assert fault.reason == "KEY_FROM_ANOTHER_PARTITION"
        assert "partition 0" in fault.message
        assert "partition 1" in fault.message
        assert (await version.positions())[TopicPartition(topic, 1)]["next_offset"] == 0


async def test_a_key_from_two_partitions_fails_the_run_of_two_workers(kafka: Topics, make: Make) -> None:
    """Neither of them knows the other's rows, and each takes the key for new."""
    for source in (KEYED, FOLD):
        topic = await kafka.create(2)
        records = [
            Record(value(order_id="o1", state="new", account="a1", day=1, amount=1), b"o1", partition=partition)
            for partition in (0, 1)
        ]
        await kafka.produce(topic, records)
        version = await make(source.format(topic=topic, keep="last"), [topic])
        workers = [await version.worker([tp]) for tp in version.partitions]

        async def one_has_ended(workers: list[WorkerProcess] = workers) -> list[WorkerProcess]:
            return [worker for worker in workers if worker.process.returncode is not None]

        (failed, *_) = await eventually(one_has_ended)
        fault = await failed.fault()
        assert fault.reason == "KEY_FROM_ANOTHER_PARTITION"
        assert "partition 0" in fault.message
        assert "partition 1" in fault.message
        assert len(await version.rows()) == 1
        await version.end()


async def test_a_tombstone_from_another_partition_fails_the_run(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(2)
    await kafka.produce(topic, [Record(value(order_id="o1", state="new"), b"o1", partition=0)])
    version = await make(KEYED.format(topic=topic, keep="last"), [topic])
    await _replayed(version, make, topic)
    await kafka.produce(topic, [Record(None, b"o1", partition=1)])
    fault = await (await version.worker()).fault()
    assert fault.reason == "KEY_FROM_ANOTHER_PARTITION"
    assert len(await version.rows()) == 1


async def test_map_with_an_order_column_needs_no_order_of_records(kafka: Topics, make: Make) -> None:
    for keep in ("last", "first"):
        topic = await kafka.create(3)
        rng = random.Random(5)
        records: list[Message] = []
        offsets = [0, 0, 0]
        for _ in range(3_000):
            partition = rng.randrange(3)
            deleted = keep == "last" and rng.random() < 0.3
            body = value(id=rng.randrange(100), at=rng.randrange(40), text=None if deleted else f"t{rng.random()}")
            records.append(Message(body, None, topic, partition, offsets[partition]))
            offsets[partition] += 1
        # All of one event time: no tombstone has had its time.
        version = await make(ORDERED.format(topic=topic, keep=keep, more=', event_time="time_ms"'), [topic])
        # In two halves and by three workers, so that much is merged in the table rather than in memory.
        for half in (records[:1_500], records[1_500:]):
            await kafka.produce(topic, [Record(message.value, None, message.partition) for message in half])
            ends = await make.ends(topic)
            workers = [await version.worker([tp]) for tp in version.partitions]
            for worker, tp in zip(workers, version.partitions, strict=True):
                await worker.at({tp: ends[tp]})
                await worker.say(Stop())
                await worker.stopped()
        assert await version.rows() == version.reference(records)


async def test_tombstones_stay_for_late_records_and_go_in_the_end(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(2)
    version = await make(ORDERED.format(topic=topic, keep="last", more=', event_time="time_ms"'), [topic])

    async def produce(time_s: int, partition: int, id_: int, at: int, text: str | None = "x") -> None:
        body = value(id=id_, at=at, text=text, time_ms=1_600_000_000_000 + time_s * 1000)
        await kafka.produce(topic, [Record(body, None, partition)])

    async def hidden() -> int:
        async with version.connection() as connection:
            return int(await connection.fetchval(f"select count(*) from serving.{version.table} where _deleted"))

    await produce(0, 0, 1, at=5, text=None)  # deletes
    for partition in (0, 1):
        await produce(3600, partition, 2 + partition, at=1)
    await _replayed(version, make, topic)
    await produce(7200, 1, 1, at=4)  # older than the deletion, and late
    await _replayed(version, make, topic)
    assert await hidden() == 1
    assert [row.id for row in await version.rows()] == [2, 3]

    await produce(ddl.TOMBSTONES_KEPT_S + 1, 0, 2, at=2)
    await _replayed(version, make, topic)
    assert await hidden() == 1, "one partition is not so far yet"
    await produce(ddl.TOMBSTONES_KEPT_S + 1, 1, 3, at=2)
    await _replayed(version, make, topic)
    await version.worker()

    async def gone() -> bool:
        return await hidden() == 0

    await eventually(gone)
    assert [row.id for row in await version.rows()] == [2, 3]


async def test_fold_goes_on_from_the_table_after_a_restart(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    rng = random.Random(6)
    records = [
        Record(value(account=f"a{rng.randrange(50)}", day=rng.randrange(3), amount=rng.randrange(-9, 10)))
        for _ in range(6_000)
    ]
    version = await make(FOLD.format(topic=topic), [topic])
    for part in (records[:2_000], records[2_000:4_000], records[4_000:]):
        await kafka.produce(topic, part)
        await _replayed(version, make, topic)
    assert await version.rows() == version.reference(record.value for record in records if record.value)


async def test_fold_killed_in_the_middle_equals_the_reference(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(2)
    rng = random.Random(7)
    records = []
    for _ in range(30_000):
        account = rng.randrange(400)
        records.append(Record(value(account=f"a{account}", day=0, amount=rng.randrange(-9, 10)), None, account % 2))
    await kafka.produce(topic, records)
    version = await make(FOLD.format(topic=topic), [topic], lease_s=1.0)
    for kill_at in (1, 8_000):
        worker = await version.worker(rate_per_s=15_000.0)
        await worker.until(kill_at)
        await worker.kill()
    worker = await version.worker()
    await worker.at(await make.ends(topic))
    assert await version.rows() == version.reference(
        Message(record.value, None, topic, record.partition) for record in records
    )


JOINED = """
    from turnout import Key, Record, Row, fold

    class Order(Record):
        customer: str
        amount: int

    class Customer(Record):
        customer: str
        name: str

    class Sales(Row):
        customer: Key[str]
        name: str | None
        amount: int

    @fold("tested", topics={{"{orders}": Order, "{customers}": Customer}})
    def sales(state: Sales | None, record: Order | Customer) -> Sales:
        name, amount = (state.name, state.amount) if state else (None, 0)
        if isinstance(record, Order):
            return Sales(record.customer, name, amount + record.amount)
        return Sales(record.customer, record.name, amount)
"""


async def test_fold_over_two_topics_of_equal_partitions(kafka: Topics, make: Make) -> None:
    orders, customers = await kafka.create(2), await kafka.create(2)
    await kafka.produce(orders, [Record(value(customer=f"c{i % 30}", amount=i), None, i % 2) for i in range(3_000)])
    names = [Record(value(customer=f"c{i}", name=f"name-{i}"), None, i % 2) for i in range(30)]
    await kafka.produce(customers, names)
    version = await make(JOINED.format(orders=orders, customers=customers), [orders, customers])
    for _ in range(2):
        worker = await version.worker()
        await worker.at(await make.ends(orders, customers))
        await worker.say(Stop())
        await worker.stopped()
    rows = {row.customer: (row.name, row.amount) for row in await version.rows()}
    assert rows == {f"c{i}": (f"name-{i}", sum(range(i, 3_000, 30))) for i in range(30)}
