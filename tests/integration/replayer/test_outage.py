"""Kafka away for a while, on a stack that may be broken."""

from __future__ import annotations

from pathlib import Path

from deploy.local.stack import LocalStack
from tests.integration.replayer.stage import Stage, aggregate_source, flights, refused
from tests.support.databases import fresh_database
from tests.support.eventually import eventually
from tests.support.topics import Topics
from turnout.replayer.v1 import run_pb2


async def test_runs_wait_while_kafka_is_away_and_go_on(fault_stack: LocalStack, tmp_path: Path) -> None:
    async with fresh_database(fault_stack.postgres) as postgres:
        stage = Stage(postgres, Topics(fault_stack.kafka), tmp_path)
        await stage.registry.start()
        await stage.start()
        try:
            await _outage(stage, fault_stack)
        finally:
            await stage.stop()
            await stage.registry.stop()


async def _outage(stage: Stage, stack: LocalStack) -> None:
    topic = await stage.kafka.create()
    records = flights(2000)
    await stage.kafka.produce(topic, records)
    v1 = stage.registry.register(aggregate_source(topic), 1)
    v2 = stage.registry.register(aggregate_source(topic), 2)
    await stage.begin(v1.name)
    await stage.in_state(v1.name, "TAILING")
    await stack.kill_kafka()

    async def waits() -> run_pb2.Run | None:
        run = await stage.get(v1.name)
        assert run.state == run_pb2.Run.TAILING, run
        return run if "Kafka" in run.status_message else None

    assert await eventually(waits)
    assert (await refused(stage.begin(v2.name))).reason == "KAFKA_UNAVAILABLE"
    assert (await refused(stage.gates(v1.name))).reason == "KAFKA_UNAVAILABLE"

    await stack.start_kafka()
    more = flights(500, first=2000)
    await stage.kafka.produce(topic, more)
    run = await stage.applied(v1.name, 2500)
    assert run.state == run_pb2.Run.TAILING
    assert run.worker_restarts == 0
    await stage.table_is_that_of(v1, records + more)
