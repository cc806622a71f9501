"""Several replicas of the replayer on one database: they share a run, and lose nothing when one of them is lost."""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator
from pathlib import Path

import asyncpg
import pytest

from tests.integration.replayer.registry import Registered
from tests.integration.replayer.replayers import Replica, replica
from tests.integration.replayer.stage import Stage, aggregate_source, flights
from tests.support.eventually import eventually
from tests.support.topics import Record
from turnout.replayer.v1 import run_pb2, table_pb2

SLOW = 400  # records a second: a replay that lasts until the test has seen enough
RECORDS = 8000

Pair = tuple[Replica, Replica]


@pytest.fixture
async def pair(stage: Stage) -> AsyncIterator[Pair]:
    """Two replicas in processes of their own; none in this one."""
    await stage.stop()
    stage.run_lease_s = 3.0
    async with replica(stage, "east") as east, replica(stage, "west") as west:
        yield east, west


async def _begin(stage: Stage, at: Replica, **changes: int) -> tuple[Registered, list[Record]]:
    """A replay of four partitions that goes on for a while."""
    topic = await stage.kafka.create()
    records = flights(RECORDS)
    await stage.kafka.produce(topic, records)
    version = stage.registry.register(aggregate_source(topic), 1)
    await at.begin(version.name, **{"workers": 1, "rate_limit": SLOW, **changes})
    return version, records


async def _held(ask: Replica, version: str, *shares: tuple[Replica, int]) -> run_pb2.Run:
    """The run once each replica holds so many of its partitions, as `ask` tells it."""

    async def so() -> run_pb2.Run:
        run = await ask.get(version)
        for one, count in shares:
            assert sum(one.holds(p.owner) for p in run.partitions) == count, run
        return run

    return await eventually(so)


async def _finish(stage: Stage, ask: Replica, version: Registered, records: list[Record]) -> run_pb2.Run:
    """At full speed to the end of the log: one worker is left, and the table is exact."""
    await ask.call("SetRunRate", run_pb2.SetRunRateRequest(name=f"{version.name}/run", rate_limit=0))
    await ask.applied(version.name, len(records))
    await ask.in_state(version.name, "TAILING")

    async def one_worker() -> run_pb2.Run:
        run = await ask.get(version.name)
        assert (run.live_workers, run.live_replicas) == (1, 1), run
        assert all(p.owner for p in run.partitions), run
        return run

    run = await eventually(one_worker)
    await stage.table_is_that_of(version, records)
    return run


async def test_a_second_replica_shares_a_replay(stage: Stage) -> None:
    await stage.stop()
    async with replica(stage, "east") as east:
        version, records = await _begin(stage, east)
        await _held(east, version.name, (east, 4))
        async with replica(stage, "west") as west:
            for ask in (east, west):
                await _held(ask, version.name, (east, 2), (west, 2))

                async def both_live(ask: Replica = ask) -> bool:
                    run = await ask.get(version.name)
                    return (run.workers, run.live_workers, run.live_replicas) == (1, 2, 2)

                await eventually(both_live)
            run = await _finish(stage, west, version, records)
            assert run.worker_restarts == 0


async def test_a_killed_replica_is_taken_over(stage: Stage, pair: Pair) -> None:
    east, west = pair
    version, records = await _begin(stage, east)
    await _held(west, version.name, (east, 2), (west, 2))
    workers = east.workers
    await east.kill()
    await _held(west, version.name, (west, 4))
    await _finish(stage, west, version, records)

    async def workers_are_gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in workers)

    assert await eventually(workers_are_gone)


@pytest.mark.parametrize("whole", [False, True], ids=["the replica alone", "with its workers"])
async def test_a_frozen_replica_is_taken_over_and_shares_again_once_it_wakes(
    stage: Stage, pair: Pair, whole: bool
) -> None:
    east, west = pair
    version, records = await _begin(stage, east)
    await _held(west, version.name, (east, 2), (west, 2))
    east.signal(signal.SIGSTOP, workers=whole)
    await _held(west, version.name, (west, 4))
    east.signal(signal.SIGCONT, workers=whole)
    for ask in pair:
        await _held(ask, version.name, (east, 2), (west, 2))
    await _finish(stage, east, version, records)


async def test_commands_given_to_one_replica_are_heard_by_all(stage: Stage, pair: Pair) -> None:
    east, west = pair
    version, records = await _begin(stage, east)
    await _held(west, version.name, (east, 2), (west, 2))

    for ask, other in ((west, east), (east, west)):
        paused = await ask.pause(version.name)
        assert (paused.state, paused.live_workers, paused.live_replicas) == (run_pb2.Run.PAUSED, 0, 0)
        assert not any(p.owner for p in paused.partitions)
        await other.resume(version.name)
        run = await _held(ask, version.name, (east, 2), (west, 2))
        assert _offsets(run) >= _offsets(paused)

    await west.call("SetRunRate", run_pb2.SetRunRateRequest(name=f"{version.name}/run", rate_limit=0))
    await west.applied(version.name, RECORDS)
    await stage.table_is_that_of(version, records)

    stopped = await west.end(version.name)
    assert (stopped.state, stopped.live_workers) == (run_pb2.Run.STOPPED, 0)
    dropped = await east.call("DropTable", table_pb2.DropTableRequest(version=version.name))
    assert dropped.dropped

    async def nobody_works() -> bool:
        return not east.workers and not west.workers

    assert await eventually(nobody_works)


def _offsets(run: run_pb2.Run) -> list[int]:
    return [p.next_offset for p in run.partitions]


async def test_a_pause_bars_what_a_frozen_replica_left_behind(stage: Stage, pair: Pair) -> None:
    """Nobody could tell its workers; once their leases are over they may not come back."""
    east, west = pair
    version, records = await _begin(stage, east)
    await _held(west, version.name, (east, 2), (west, 2))
    east.signal(signal.SIGSTOP, workers=True)
    paused = await west.pause(version.name)
    assert (paused.state, paused.live_workers) == (run_pb2.Run.PAUSED, 0)
    east.signal(signal.SIGCONT, workers=True)

    async def workers_are_gone() -> bool:
        return not east.workers

    assert await eventually(workers_are_gone)
    assert _offsets(await east.get(version.name)) == _offsets(paused)
    await west.resume(version.name)
    await _finish(stage, west, version, records)


async def test_a_tail_moves_when_its_replica_stops(stage: Stage, pair: Pair) -> None:
    version, records = await _begin(stage, pair[0], rate_limit=0)
    run = await _finish(stage, pair[0], version, records)
    there, other = sorted(pair, key=lambda one: not one.holds(run.partitions[0].owner))
    assert await there.stop() == 0
    await _held(other, version.name, (other, 4))
    more = flights(500, first=RECORDS)
    await stage.kafka.produce(next(iter({p.topic for p in run.partitions})), more)
    run = await other.applied(version.name, RECORDS + 500)
    assert (run.state, run.worker_restarts) == (run_pb2.Run.TAILING, 0)
    await stage.table_is_that_of(version, records + more)


async def test_every_replica_says_what_one_has_met(stage: Stage, pair: Pair) -> None:
    east, west = pair
    version, records = await _begin(stage, east)
    await _held(west, version.name, (east, 2), (west, 2))
    os.kill(east.workers[0], signal.SIGSTOP)
    for ask in pair:

        async def told(ask: Replica = ask) -> bool:
            return "gave no sign of life" in (await ask.get(version.name)).status_message

        assert await eventually(told)
    run = await _finish(stage, west, version, records)
    assert run.worker_restarts == 1


async def test_indexes_are_built_by_one_replica_at_a_time(stage: Stage) -> None:
    topic = await stage.kafka.create()
    await stage.kafka.produce(topic, flights(1000))
    version = stage.registry.register(aggregate_source(topic, options=', indexes=["on_time"]'), 1)
    another = await asyncpg.connect(stage.postgres)
    try:
        assert await another.fetchval("select pg_try_advisory_lock(1953853284, hashtext('punctuality__v1'))")
        await stage.begin(version.name)
        await stage.applied(version.name, 1000)

        async def waits() -> bool:
            run = await stage.get(version.name)
            assert run.state == run_pb2.Run.REPLAYING
            return "indexes of the table are being built" in run.status_message

        assert await eventually(waits)
    finally:
        await another.close()
    await stage.in_state(version.name, "TAILING")
    built = await stage.query(
        "select 1 from pg_index where indisvalid and indrelid = 'serving.punctuality__v1'::regclass"
    )
    assert len(built) == 2  # and the primary key


async def test_a_replica_restarted_at_once_takes_everything_up(stage: Stage) -> None:
    """The one that was killed is missed at once, whatever is left of its lease."""
    await stage.stop()
    stage.run_lease_s = 600.0
    async with replica(stage, "before") as before:
        version, records = await _begin(stage, before)
        await _held(before, version.name, (before, 4))
        await before.kill()
        async with replica(stage, "after") as after:
            await _held(after, version.name, (after, 4))
            await _finish(stage, after, version, records)
