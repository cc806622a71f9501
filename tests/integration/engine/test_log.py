"""The log under a run: cut off by retention, created again, or shorter than the run's position."""

from __future__ import annotations

from services.replayer.engine.ingest import Log, fetch_bytes
from services.replayer.protocol import Stop, TopicPartition
from tests.integration.engine.conftest import Make
from tests.integration.engine.test_aggregate import SALES, sales
from tests.integration.engine.workers import Version
from tests.support.eventually import eventually
from tests.support.topics import Topics


async def _created_again(kafka: Topics, topic: str) -> None:
    await kafka.delete(topic)

    async def made() -> bool:
        try:
            await kafka.create(1, name=topic)
        except Exception:
            return False  # the broker is still deleting the old one
        return True

    await eventually(made)


async def test_many_partitions_share_the_memory_for_what_is_fetched_ahead(kafka: Topics) -> None:
    topic = await kafka.create(32)
    log = Log({"bootstrap.servers": kafka.bootstrap})
    await log.start()
    try:
        fetcher = log._consumer._fetcher  # what the consumer sends in each request, if it is still called so
        assert fetcher._max_partition_fetch_bytes == fetch_bytes(1)
        for partitions in (32, 1):
            log.assign({TopicPartition(topic, n): 0 for n in range(partitions)}, {})
            assert fetcher._max_partition_fetch_bytes == fetch_bytes(partitions)
    finally:
        await log.close()


async def _run_once(version: Version, make: Make, topic: str) -> None:
    worker = await version.worker()
    await worker.at(await make.ends(topic))
    await worker.say(Stop())
    await worker.stopped()


async def test_a_topic_created_again_is_refused_at_resume(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    await kafka.produce(topic, sales(100))
    version = await make(SALES.format(topic=topic), [topic])
    await _run_once(version, make, topic)
    await _created_again(kafka, topic)
    await kafka.produce(topic, sales(300, first=5_000))
    fault = await (await version.worker()).fault()
    assert (fault.reason, fault.offset) == ("TOPIC_RECREATED", 99)
    assert sum(row.sales for row in await version.rows()) == 100


async def test_the_same_topic_is_taken_up_again(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    await kafka.produce(topic, sales(100))
    version = await make(SALES.format(topic=topic), [topic])
    await _run_once(version, make, topic)
    await _run_once(version, make, topic)
    await kafka.delete_records_before(topic, {0: 100})  # the last applied record is gone, and nothing unread
    await _run_once(version, make, topic)


async def test_a_position_beyond_the_end_fails_the_run(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    await kafka.produce(topic, sales(100))
    version = await make(SALES.format(topic=topic), [topic])
    await _run_once(version, make, topic)
    await _created_again(kafka, topic)
    await kafka.produce(topic, sales(10))
    fault = await (await version.worker()).fault()
    assert (fault.reason, fault.offset) == ("POSITION_BEYOND_END", 100)


async def test_a_log_cut_off_before_the_position_fails_the_run(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    await kafka.produce(topic, sales(100))
    version = await make(SALES.format(topic=topic), [topic])
    await _run_once(version, make, topic)
    await kafka.produce(topic, sales(100))
    await kafka.delete_records_before(topic, {0: 150})
    fault = await (await version.worker()).fault()
    assert (fault.reason, fault.offset) == ("LOG_TRUNCATED", 100)


async def test_retention_that_overtakes_a_slow_run_fails_it(kafka: Topics, make: Make) -> None:
    topic = await kafka.create(1)
    await kafka.produce(topic, sales(20_000))
    version = await make(SALES.format(topic=topic), [topic])
    worker = await version.worker(rate_per_s=200.0)
    await worker.until(1)
    await kafka.delete_records_before(topic, {0: 19_000})
    fault = await worker.fault()
    assert fault.reason == "LOG_TRUNCATED"
    assert fault.offset is not None
    assert (await version.positions())[TopicPartition(topic, 0)]["next_offset"] <= fault.offset
