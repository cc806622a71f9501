"""A worker that is alive, says so, and no longer reads: it is ended and replaced, and nothing is doubled."""

from __future__ import annotations

from pathlib import Path

import pytest

from services.replayer import stuck
from tests.integration.replayer.stage import Stage, aggregate_source, flights
from tests.support.eventually import eventually

# At its first record the job kills the worker's own reader, once: what is left answers, renews its leases, tells how
# far the log goes, and never reads again.
SABOTAGE = """
import asyncio
import pathlib

def _sabotage(marker=pathlib.Path({marker!r})):
    if not marker.exists():
        marker.touch()
        for task in asyncio.all_tasks():
            if "_fetch_requests_routine" in str(task.get_coro()):
                task.cancel()
                marker.write_text("done")
    return True
"""


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(stuck, "STANDS_MIN_S", 3.0)


async def _with_short_leases(stage: Stage) -> None:
    await stage.stop()
    stage.run_lease_s = 1.0
    await stage.start()


@pytest.mark.usefixtures("impatient")
async def test_a_worker_that_no_longer_reads_is_replaced(stage: Stage, tmp_path: Path) -> None:
    await _with_short_leases(stage)
    topic = await stage.kafka.create(2)
    records, more = flights(100, partitions=2), flights(100, first=100, partitions=2)
    await stage.kafka.produce(topic, records)
    marker = tmp_path / "sabotaged"
    source = aggregate_source(topic, on_time="_sabotage() and (flight.delay or 0) < 15")
    source = source.replace("class Flight", SABOTAGE.format(marker=str(marker)) + "\nclass Flight", 1)
    v1 = stage.registry.register(source, 1)
    marker.touch()  # not while the artefact is looked at
    marker.unlink()
    await stage.begin(v1.name, workers=1)

    async def sabotaged() -> bool:
        return marker.exists() and marker.read_text() == "done"

    assert await eventually(sabotaged)
    await stage.kafka.produce(topic, more)

    async def told() -> bool:
        return "stood still for" in (await stage.get(v1.name)).status_message

    assert await eventually(told)
    run = await stage.applied(v1.name, 200)
    assert (run.stuck_restarts, run.worker_restarts) == (1, 1)
    await stage.in_state(v1.name, "TAILING")
    await stage.table_is_that_of(v1, [*records, *more])


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
