"""What the supervisor says, and ends that are orderly."""

from __future__ import annotations

import asyncio

from confluent_kafka import Producer
from msgspec.structs import replace

from services.replayer.protocol import Alive, Assign, Rate, Ready, Stop, TopicPartition
from tests.integration.engine.conftest import Make
from tests.integration.engine.test_aggregate import SALES, sales, values
from tests.support.eventually import eventually
from tests.support.topics import Topics
from turnout import schema


async def test_end_of_file_ends_the_worker_in_order(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(2)
    await kafka.produce(topic, sales(50_000))
    version = await make(SALES.format(topic=topic), [topic])
    worker = await version.worker(rate_per_s=20_000.0)
    await worker.until(1)
    worker.hang_up()
    await worker.stopped()
    assert await version.unowned()


async def test_stop_in_the_middle_loses_and_doubles_nothing(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(2)
    records = sales(50_000)
    await kafka.produce(topic, records)
    version = await make(SALES.format(topic=topic), [topic])
    for _ in range(3):
        worker = await version.worker(rate_per_s=5_000.0)
        await worker.until(sum(row["records"] for row in (await version.positions()).values()) + 1_000)
        await worker.say(Stop())
        await worker.stopped()
        assert await version.unowned()
    worker = await version.worker()
    await worker.at(await make.ends(topic))
    assert await version.rows() == version.reference(values(records))


async def test_stop_ends_a_worker_that_waits(make: Make, kafka: Topics) -> None:
    topic = await kafka.create(1)
    version = await make(SALES.format(topic=topic), [topic])
    worker = await version.worker(kafka={"bootstrap.servers": "127.0.0.1:1"})

    async def waits() -> bool:
        return worker.waiting == "KAFKA_UNAVAILABLE"

    await eventually(waits)
    await worker.say(Stop())
    await worker.stopped()


async def test_rate_changes_while_it_runs(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    records = sales(30_000)
    await kafka.produce(topic, records)
    version = await make(SALES.format(topic=topic), [topic])
    worker = await version.worker(rate_per_s=0.0)
    tp = TopicPartition(topic, 0)

    async def holds() -> bool:
        return tp in worker.states

    await eventually(holds)
    assert worker.states[tp].records == 0
    await worker.say(Rate(per_s=2_000.0))
    await worker.until(1_000)
    assert worker.states[tp].records < 30_000
    await worker.say(Rate(per_s=None))
    await worker.at(await make.ends(topic))
    assert await version.rows() == version.reference(values(records))


async def test_partitions_move_between_workers(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(4)
    records = sales(40_000)
    await kafka.produce(topic, records)
    version = await make(SALES.format(topic=topic), [topic])
    first = await version.worker(rate_per_s=10_000.0)
    await first.until(2_000)
    half = version.partitions[2:]
    second = await version.worker(half)

    async def is_held() -> bool:
        return second.waiting == "LEASE_HELD"

    await eventually(is_held)
    await first.say(Assign(partitions=version.partitions[:2]))
    ends = await make.ends(topic)
    await second.at({tp: ends[tp] for tp in half})
    await second.say(Stop())
    await second.stopped()
    await first.say(Assign(partitions=version.partitions))
    await first.say(Rate(per_s=None))
    await first.at(ends)
    assert await version.rows() == version.reference(values(records))


async def test_a_partition_without_a_position_holds_the_others_up_no_longer_than_it_is_missing(
    kafka: Topics, make: Make
) -> None:
    topic = await kafka.create(2)
    records = sales(2_000)
    await kafka.produce(topic, records)
    version = await make(SALES.format(topic=topic), [topic])
    async with version.connection() as connection:
        await connection.execute("delete from serving.positions where version = $1 and partition = 1", version.name)
        worker = await version.worker()
        ends = await make.ends(topic)
        first, second = sorted(ends)

        async def first_is_read() -> bool:
            return bool((await version.positions())[first]["next_offset"] == ends[first])

        await eventually(first_is_read)
        tried_s = (await version.positions())[first]["lease_expires"]

        async def tried_again() -> bool:  # the leases are renewed less often than what is missing is tried
            return bool((await version.positions())[first]["lease_expires"] > tried_s)

        await eventually(tried_again)
        await connection.execute(
            "insert into serving.positions (version, topic, partition, start_offset, next_offset) "
            "values ($1, $2, 1, 0, 0)",
            version.name,
            topic,
        )
    await worker.at(ends)
    assert (await version.positions())[second]["next_offset"] == ends[second]
    assert await version.rows() == version.reference(values(records))


async def test_gaps_of_transactions_reach_the_end(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    records = sales(30)
    version = await make(SALES.format(topic=topic), [topic])

    def produce() -> None:
        producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic})
        producer.init_transactions(20)
        for number, record in enumerate(records):
            producer.begin_transaction()
            producer.produce(topic, record.value)
            producer.flush()
            if number % 3 == 0:
                producer.abort_transaction(20)
            else:
                producer.commit_transaction(20)

    await asyncio.to_thread(produce)

    async def all_ended() -> bool:  # the marker of the last transaction is written after the producer was answered
        return (await make.ends(topic))[TopicPartition(topic, 0)] == 60  # as many control records as records

    await eventually(all_ended)
    ends = await make.ends(topic)
    worker = await version.worker()
    await worker.at(ends)
    kept = [record for number, record in enumerate(records) if number % 3]
    assert await version.rows() == version.reference(values(kept))
    assert worker.states[TopicPartition(topic, 0)].records == len(kept)


async def test_a_job_that_does_not_load_or_changed_is_refused(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    version = await make(SALES.format(topic=topic), [topic])
    source = (version.directory / "job.py").read_text()
    same = version.definition
    for text, definition, reason in (
        ("import nowhere\n" + source, same, "JOB_DOES_NOT_LOAD"),
        (source.replace("sales: Sum[int] = 1", "sold: Sum[int] = 1"), same, "DEFINITION_CHANGED"),
        (source, replace(same, python="2.7"), "REQUIREMENTS_MISSING"),
        (source, replace(same, requirements=("no-such-thing==1.0",)), "REQUIREMENTS_MISSING"),
    ):
        (version.directory / "job.py").write_text(text)
        worker = await version.worker(definition_json=schema.encode(definition).decode())
        assert (await worker.fault()).reason == reason
        assert not worker.all_of(Ready)


async def test_what_a_job_prints_is_no_message(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    await kafka.produce(topic, sales(10))
    version = await make(
        SALES.format(topic=topic).replace("return Shop(", "print('a line of the job\\'s own'); return Shop("), [topic]
    )
    worker = await version.worker()
    await worker.at(await make.ends(topic))
    assert "a line of the job's own" in version.log.read_text()


async def test_a_worker_left_alone_ends_in_order(kafka: Topics, make: Make) -> None:
    """A supervisor that was frozen cannot tell it anything, and is counted on by nobody."""
    topic = await kafka.create(1)
    version = await make(SALES.format(topic=topic), [topic])
    worker = await version.worker()
    await worker.at({TopicPartition(topic, 0): 0})
    await worker.say(Alive())
    await worker.stopped()
    assert await version.unowned()


async def test_nothing_is_taken_of_a_run_that_wants_no_workers(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    records = sales(1_000)
    await kafka.produce(topic, records)
    version = await make(SALES.format(topic=topic), [topic])
    await version.set_state("PAUSED")
    worker = await version.worker()

    async def waits() -> bool:
        return worker.waiting == "LEASE_HELD"

    await eventually(waits)
    assert await version.unowned()
    await version.set_state("REPLAYING")
    await worker.at(await make.ends(topic))
    assert await version.rows() == version.reference(values(records))


async def test_a_change_of_the_runs_state_sees_every_lease_taken_before(kafka: Topics, make: Make) -> None:
    """Whoever pauses a run looks for leases afterwards; one that is being taken holds the change up."""
    topic = await kafka.create(1)
    version = await make(SALES.format(topic=topic), [topic])
    async with version.connection() as pausing:
        change = pausing.transaction()
        await change.start()
        await pausing.execute("update replayer.runs set state = 'PAUSED' where version = $1", version.name)
        worker = await version.worker()

        async def waits() -> bool:
            return worker.waiting == "LEASE_HELD"

        await eventually(waits)  # for the change, not knowing yet what it will be
        await change.commit()
        assert await version.unowned()
        await worker.say(Stop())
        await worker.stopped()
        assert await version.unowned()
