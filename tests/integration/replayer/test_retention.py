"""The retention guard on real topics: told in the run, and in the log once."""

from __future__ import annotations

import itertools
import logging
from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.replayer.stage import Stage, aggregate_source, flights
from tests.support.eventually import eventually
from turnout.replayer.v1 import run_pb2

GUARD = "services.replayer.guard"


async def _paused_with_records_ahead(stage: Stage, topic: str, ahead: int) -> str:
    await stage.kafka.produce(topic, flights(100, partitions=1))
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.begin(v1.name)
    await stage.in_state(v1.name, "TAILING")
    await stage.pause(v1.name)
    await stage.kafka.produce(topic, flights(ahead, first=100, partitions=1))
    return v1.name


async def _at_risk(stage: Stage, version: str) -> run_pb2.Run:
    async def there() -> run_pb2.Run | None:
        run = await stage.get(version)
        return run if run.HasField("retention_risk") else None

    run = await eventually(there, 60.0)
    assert run is not None
    return run


async def test_a_paused_run_that_time_will_overtake_is_told_of(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, GUARD)
    topic = await stage.kafka.create(1, config={"retention.ms": str(2 * 3_600_000)})
    began = datetime.now(UTC)
    version = await _paused_with_records_ahead(stage, topic, 50)
    run = await _at_risk(stage, version)
    risk = run.retention_risk
    assert (risk.topic, risk.partition) == (topic, 0)
    crossing = risk.crossing_time.ToDatetime(UTC) - began
    assert timedelta(hours=2) - timedelta(minutes=1) < crossing < timedelta(hours=2) + timedelta(minutes=3)
    assert "resume it" in risk.message
    assert risk.message in run.status_message
    [told] = [record.getMessage() for record in caplog.records if record.name == GUARD]
    assert told.startswith("punctuality v1: ")
    assert "URGENT" not in told

    await stage.resume(version)
    await stage.applied(version, 150)

    async def over() -> bool:
        return not (await stage.get(version)).HasField("retention_risk")

    assert await eventually(over)


async def test_what_is_due_soon_is_urgent(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, GUARD)
    topic = await stage.kafka.create(1, config={"retention.ms": "600000"})
    await _at_risk(stage, await _paused_with_records_ahead(stage, topic, 50))
    [told] = [record.getMessage() for record in caplog.records if record.name == GUARD]
    assert told.startswith("URGENT: ")


async def test_a_start_that_moves_is_projected(stage: Stage) -> None:
    topic = await stage.kafka.create(1)  # kept for ever, as far as time goes
    version = await _paused_with_records_ahead(stage, topic, 1000)
    starts = itertools.count(1)

    async def moved_until_told() -> run_pb2.Run | None:
        await stage.kafka.delete_records_before(topic, {0: next(starts)})
        run = await stage.get(version)
        return run if run.HasField("retention_risk") else None

    run = await eventually(moved_until_told, 60.0, every_s=1.0)
    assert run is not None
    assert "has moved so of late" in run.retention_risk.message
    crossing = run.retention_risk.crossing_time.ToDatetime(UTC)
    assert crossing < datetime.now(UTC) + timedelta(minutes=10)


async def test_a_tail_that_keeps_up_is_not_at_risk(stage: Stage, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, GUARD)
    topic = await stage.kafka.create(1, config={"retention.ms": "600000"})
    await stage.kafka.produce(topic, flights(100, partitions=1))
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.begin(v1.name)
    for round_number in range(1, 20):
        await stage.kafka.produce(topic, flights(100, first=100 * round_number, partitions=1))
        run = await stage.applied(v1.name, 100 * (round_number + 1))
        assert not run.HasField("retention_risk")
    assert [record for record in caplog.records if record.name == GUARD] == []
