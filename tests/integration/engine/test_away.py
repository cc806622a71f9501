"""PostgreSQL or Kafka away for a while: the worker waits and goes on, and the table is exact."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from confluent_kafka import Producer

from deploy.local.stack import LocalStack
from services.replayer.engine.faults import LogAwayError, postgres_away
from services.replayer.engine.identity import RecordIdentity
from services.replayer.engine.ingest import Log
from services.replayer.engine.session import Session, open_session
from services.replayer.engine.table import OutputTable
from services.replayer.protocol import TopicPartition
from tests.integration.engine.conftest import Make
from tests.integration.engine.test_aggregate import SALES, sales, values
from tests.integration.engine.test_map_and_fold import FOLD
from tests.integration.engine.workers import Version, WorkerProcess, value
from tests.support.databases import fresh_database
from tests.support.eventually import eventually
from tests.support.proxy import TcpProxy
from tests.support.topics import Record, Topics
from turnout.testing import Message


@pytest.fixture
async def topics(fault_stack: LocalStack) -> Topics:
    return Topics(fault_stack.kafka)


@pytest.fixture
async def make_there(fault_stack: LocalStack, tmp_path: Path) -> AsyncIterator[Make]:
    async with fresh_database(fault_stack.postgres) as dsn:
        maker = Make(dsn, fault_stack.kafka, tmp_path)
        yield maker
        await maker.end()
        await fault_stack.start_postgres()


async def _waits(worker: WorkerProcess, reason: str) -> None:
    async def waits() -> bool:
        return worker.waiting == reason

    await eventually(waits)


async def _reached(version: Version, worker: WorkerProcess, records: list[Record], make: Make) -> None:
    await worker.at(await make.ends(version.partitions[0].topic))
    assert sum(row["records"] for row in (await version.positions()).values()) == len(records)


async def test_postgres_killed_and_started_again(fault_stack: LocalStack, topics: Topics, make_there: Make) -> None:
    topic = await topics.create(2)
    records = sales(60_000)
    await topics.produce(topic, records)
    version = await make_there(SALES.format(topic=topic), [topic])
    worker = await version.worker(rate_per_s=15_000.0)
    for kill_at in (3_000, 20_000):
        await worker.until(kill_at)
        await fault_stack.kill_postgres()
        await _waits(worker, "POSTGRES_UNAVAILABLE")
        await fault_stack.start_postgres()
    await _reached(version, worker, records, make_there)
    assert await version.rows() == version.reference(values(records))


async def test_postgres_killed_under_a_fold(fault_stack: LocalStack, topics: Topics, make_there: Make) -> None:
    topic = await topics.create(1)
    records = [Record(value(account=f"a{i * 7 % 300}", day=0, amount=i % 19 - 9 or 1)) for i in range(40_000)]
    await topics.produce(topic, records)
    version = await make_there(FOLD.format(topic=topic), [topic])
    worker = await version.worker(rate_per_s=12_000.0)
    for kill_at in (3_000, 15_000):
        await worker.until(kill_at)
        await fault_stack.kill_postgres()
        await _waits(worker, "POSTGRES_UNAVAILABLE")
        await fault_stack.start_postgres()
    await _reached(version, worker, records, make_there)
    assert await version.rows() == version.reference(Message(record.value) for record in records)


async def test_kafka_killed_and_started_again(fault_stack: LocalStack, topics: Topics, make_there: Make) -> None:
    topic = await topics.create(2)
    records = sales(40_000)
    await topics.produce(topic, records)
    version = await make_there(SALES.format(topic=topic), [topic])
    worker = await version.worker(rate_per_s=15_000.0)
    await worker.until(3_000)
    await fault_stack.kill_kafka()
    await _waits(worker, "KAFKA_UNAVAILABLE")
    await fault_stack.start_kafka()
    await _reached(version, worker, records, make_there)
    assert await version.rows() == version.reference(values(records))


async def test_a_worker_starts_while_both_are_away(fault_stack: LocalStack, topics: Topics, make_there: Make) -> None:
    topic = await topics.create(1)
    records = sales(500)
    await topics.produce(topic, records)
    version = await make_there(SALES.format(topic=topic), [topic])
    await fault_stack.kill_postgres()
    await fault_stack.kill_kafka()
    worker = await version.worker()
    await _waits(worker, "KAFKA_UNAVAILABLE")
    await fault_stack.start_kafka()
    await _waits(worker, "POSTGRES_UNAVAILABLE")
    await fault_stack.start_postgres()
    await _reached(version, worker, records, make_there)
    assert await version.rows() == version.reference(values(records))


async def test_a_connection_lost_on_the_servers_side_only(kafka: Topics, postgres: str, tmp_path: Path) -> None:
    server = urlsplit(postgres)
    async with TcpProxy(server.hostname or "", server.port or 5432) as proxy:
        credentials = server.netloc.rpartition("@")[0]
        through = urlunsplit(server._replace(netloc=f"{credentials}@127.0.0.1:{proxy.port}"))
        topic = await kafka.create(2)
        records = sales(30_000)
        await kafka.produce(topic, records)
        make = Make(postgres, kafka.bootstrap, tmp_path)
        version = await make(SALES.format(topic=topic), [topic], lease_s=1.0)
        worker = await version.worker(rate_per_s=15_000.0, postgres=through)
        await worker.until(5_000)
        proxy.half_open()
        await _reached(version, worker, records, make)
        assert await version.rows() == version.reference(values(records))
        await make.end()


async def test_a_connection_that_goes_silent_at_once_is_cut(kafka: Topics, postgres: str, tmp_path: Path) -> None:
    """Before anything was said to the server but hello: not even then does a worker wait for an answer for ever."""
    server = urlsplit(postgres)
    make = Make(postgres, kafka.bootstrap, tmp_path)
    version = await make(SALES.format(topic="none"), [])
    async with TcpProxy(server.hostname or "", server.port or 5432) as proxy:
        credentials = server.netloc.rpartition("@")[0]
        through = urlunsplit(server._replace(netloc=f"{credentials}@127.0.0.1:{proxy.port}"))
        opened = await open_session(through, "worker", 1.0)
        session = Session(opened.connection, patience_s=0.5)
        table = OutputTable(session, version.definition, version.table, version.name, "worker")
        proxy.stall()
        with pytest.raises(Exception) as cut:
            await asyncio.wait_for(table.prepare(), 20.0)
        assert postgres_away(cut.value)
        assert session.connection.is_closed()
    await make.end()


async def test_the_log_is_not_known_again_while_kafka_is_away(
    fault_stack: LocalStack, topics: Topics, make_there: Make
) -> None:
    """No answer is no evidence that the last applied record was compacted away."""
    topic = await topics.create(1)
    await topics.produce(topic, sales(100))
    tp = TopicPartition(topic, 0)
    reader = Log({"bootstrap.servers": fault_stack.kafka})
    await reader.start()
    try:
        reader.assign({tp: 100}, {})
        await reader.refresh()
        await fault_stack.kill_kafka()
        with pytest.raises(LogAwayError, match="Kafka does not answer"):
            await reader.check_identity({tp: RecordIdentity(99, 0, 0)})
    finally:
        await reader.close()


async def test_a_last_record_that_was_compacted_away_is_no_other_record(kafka: Topics) -> None:
    """Compaction cannot be commanded; an aborted transaction leaves the same: an offset without a record."""
    topic = await kafka.create(1)
    tp = TopicPartition(topic, 0)
    await kafka.produce(topic, sales(5))
    producer = Producer({"bootstrap.servers": kafka.bootstrap, "transactional.id": topic})
    await asyncio.to_thread(producer.init_transactions, 30)
    producer.begin_transaction()
    producer.produce(topic, b"never", partition=0)
    await asyncio.to_thread(producer.flush, 30)
    await asyncio.to_thread(producer.abort_transaction, 30)
    reader = Log({"bootstrap.servers": kafka.bootstrap})
    await reader.start()
    try:
        reader.assign({tp: 6}, {})
        await reader.refresh()
        await reader.check_identity({tp: RecordIdentity(5, 0, 0)})
    finally:
        await reader.close()
