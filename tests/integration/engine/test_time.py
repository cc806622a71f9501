"""Event time: from the record or Kafka, clamped, and what expires by it. And functions that take their time."""

from __future__ import annotations

import time

from services.replayer.protocol import Stop, TopicPartition
from tests.integration.engine.conftest import Make
from tests.integration.engine.workers import value
from tests.support.topics import Record, Topics
from turnout.testing import Message

DAYS = """
    from datetime import date, datetime, timedelta
    from turnout import Key, Record, Row, Sum, aggregate

    class Visit(Record):
        at: datetime

    class Day(Row):
        day: Key[date]
        visits: Sum[int] = 1

    @aggregate("tested", topic="{topic}", event_time="at", expire_after=("day", timedelta(days=3)))
    def days(visit: Visit) -> Day:
        return Day(day=visit.at.date())
"""

SLOW = """
    import time
    from turnout import Key, Record, Row, Sum, aggregate

    class Item(Record):
        group: int
        slow: bool

    class Group(Row):
        group: Key[int]
        items: Sum[int] = 1

    @aggregate("tested", topic="{topic}")
    def groups(item: Item) -> Group:
        if item.slow:
            time.sleep(0.7)
        return Group(group=item.group)
"""


def visit(day: int, partition: int) -> Record:
    return Record(value(at=f"2024-03-{day:02}T12:00:00Z"), None, partition)


async def test_old_rows_expire_and_a_replay_ends_with_the_same_table(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(2)
    # One partition is far ahead of the other, and late visits come for days that are gone.
    records = [visit(1 + i // 200, 0) for i in range(4_000)] + [visit(1 + i // 400, 1) for i in range(4_000)]
    await kafka.produce(topic, records)
    version = await make(DAYS.format(topic=topic), [topic])
    ends = await make.ends(topic)
    workers = [await version.worker([tp]) for tp in version.partitions]
    for worker, tp in zip(workers, version.partitions, strict=True):
        await worker.at({tp: ends[tp]})
    rows = await version.rows()
    assert rows == version.reference(Message(record.value, None, topic, record.partition) for record in records)
    assert [row.day.day for row in rows] == [17, 18, 19, 20]


async def test_event_time_comes_from_the_record_and_is_never_in_the_future(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(3)
    await kafka.produce(topic, [visit(5, 0), visit(4, 0), Record(value(at="2999-01-01T00:00:00Z"), None, 1)])
    version = await make(DAYS.format(topic=topic), [topic])
    worker = await version.worker()
    await worker.at(await make.ends(topic))
    states = worker.states
    assert states[TopicPartition(topic, 0)].event_time_ms == 1_709_640_000_000
    clamped = states[TopicPartition(topic, 1)].event_time_ms
    assert clamped is not None
    assert clamped <= time.time() * 1000
    assert states[TopicPartition(topic, 2)].event_time_ms is None
    stored = (await version.positions())[TopicPartition(topic, 0)]["event_time"]
    assert stored.timestamp() * 1000 == 1_709_640_000_000
    await worker.say(Stop())
    await worker.stopped()


async def test_a_function_slower_than_the_time_limits_of_the_session(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    records = [Record(value(group=i % 7, slow=i % 400 == 399)) for i in range(2_000)]
    await kafka.produce(topic, records)
    version = await make(SLOW.format(topic=topic), [topic], lease_s=1.0)
    worker = await version.worker()
    await worker.at(await make.ends(topic))
    assert sum(row.items for row in await version.rows()) == 2_000
    assert sum(row["records"] for row in (await version.positions()).values()) == 2_000
