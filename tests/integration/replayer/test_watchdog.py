"""A worker that is alive, says so, and no longer reads: it is ended and replaced, and nothing is doubled."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.replayer import stuck
from tests.integration.replayer.stage import Stage, aggregate_source, flights
from tests.support.eventually import eventually

# Once, of a worker of the tail: the copy's may have gone before it is missed.
ONCE = """
import asyncio
import os
import pathlib
import sys

def _sabotage(marker=pathlib.Path({marker!r}), copier=pathlib.Path({marker!r} + ".copier")):
    if not marker.exists():
        copier.write_text(str(os.getpid()))
    elif not marker.read_text() and copier.read_text() != str(os.getpid()):
        marker.write_text("begun")
        _do_it()
        marker.write_text("done")
    return True
"""
# The job kills the worker's own reader: what is left answers, renews its leases, tells how far the log goes, and never
# reads again.
READS_NO_LONGER = """
def _do_it():
    for task in asyncio.all_tasks():
        if "_fetch_requests_routine" in str(task.get_coro()):
            task.cancel()
"""
# The part that asks for the ends of the log finds Kafka away for ever, which is there.
FINDS_KAFKA_AWAY = """
def _do_it():
    async def refresh(self):
        raise sys.modules["services.replayer.engine.faults"].LogAwayError("Kafka does not answer (sabotage)")
    sys.modules["services.replayer.engine.ingest"].Log.refresh = refresh
"""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stuck, "STANDS_MIN_S", 8.0)  # longer than Kafka takes on a busy machine


async def _with_short_leases(stage: Stage) -> None:
    await stage.stop()
    stage.run_lease_s = 1.0
    await stage.start()


@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("sabotage", [READS_NO_LONGER, FINDS_KAFKA_AWAY])
async def test_a_worker_that_no_longer_gets_on_is_replaced(stage: Stage, tmp_path: Path, sabotage: str) -> None:
    await _with_short_leases(stage)
    topic = await stage.kafka.create(2)
    records = flights(100, partitions=2)
    await stage.kafka.produce(topic, records)
    marker = tmp_path / "sabotaged"
    source = aggregate_source(topic, on_time="_sabotage() and (flight.delay or 0) < 15")
    source = source.replace("class Flight", ONCE.format(marker=str(marker)) + sabotage + "\nclass Flight", 1)
    v1 = stage.registry.register(source, 1)
    await stage.begin(v1.name, workers=1)
    await stage.in_state(v1.name, "TAILING")
    marker.touch()

    async def sabotaged() -> bool:
        if marker.read_text() != "done":
            await produce(2)  # whoever reads them
        return marker.read_text() == "done"

    async def produce(count: int) -> None:
        more = flights(count, first=len(records), partitions=2)
        await stage.kafka.produce(topic, more)
        records.extend(more)

    assert await eventually(sabotaged, every_s=0.5)
    await produce(100)

    async def told() -> bool:
        return "stood still for" in (await stage.get(v1.name)).status_message

    assert await eventually(told)
    run = await stage.applied(v1.name, len(records))
    assert (run.stuck_restarts, run.worker_restarts) == (1, 1)
    await stage.in_state(v1.name, "TAILING")
    await stage.table_is_that_of(v1, records)


@pytest.mark.usefixtures("impatient")
async def test_a_run_that_is_held_still_or_has_nothing_to_read_is_left_alone(stage: Stage) -> None:
    """Several times the patience of the watchdog: an idle tail, and one that reads a record every few seconds."""
    await _with_short_leases(stage)
    idle, slow = await stage.kafka.create(1), await stage.kafka.create(1)
    await stage.kafka.produce(idle, flights(10, partitions=1))
    await stage.kafka.produce(slow, flights(5, partitions=1))
    v1 = stage.registry.register(aggregate_source(idle), 1)
    v2 = stage.registry.register(aggregate_source(slow), 2)
    await stage.begin(v1.name)
    await stage.begin(v2.name, rate_limit=1)
    for run in (await stage.applied(v1.name, 10), await stage.applied(v2.name, 5)):
        assert (run.stuck_restarts, run.worker_restarts) == (0, 0)
