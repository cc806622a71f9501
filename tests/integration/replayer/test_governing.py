"""Copies make way for live work: what the replayer hears of reads holds a running copy down, and says why."""

from __future__ import annotations

import contextlib
import os
from collections.abc import AsyncIterator
from datetime import timedelta
from pathlib import Path

import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from services.replayer.budget import Capacity
from services.replayer.engine.background import NICE
from services.replayer.governor import Decision
from services.replayer.governor_store import GovernorStore, Learnt
from services.replayer.ladder import Reason, Throttle
from services.replayer.store import Store
from tests.integration.replayer.stage import Stage, aggregate_source, flights
from tests.integration.replayer.switcher import SmallSwitcher
from tests.support.eventually import eventually
from tests.support.topics import Topics
from tests.support.workers import worker_pids
from turnout.names import VersionId
from turnout.replayer.v1 import capacity_pb2, run_pb2

RECORDS = 80_000
QUIET_MS = 5.0


@pytest.fixture
async def switcher() -> AsyncIterator[SmallSwitcher]:
    made = SmallSwitcher()  # type: ignore[abstract]  # the others are UNIMPLEMENTED
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def stage(postgres: str, kafka: Topics, tmp_path: Path, switcher: SmallSwitcher) -> AsyncIterator[Stage]:
    made = Stage(postgres, kafka, tmp_path)
    made.switcher_target = switcher.target
    await made.registry.start()
    await made.start()
    yield made
    await made.stop()
    await made.registry.stop()


async def begun(stage: Stage, kafka: Topics, **changes: object) -> str:
    """A copy that has a good while to go: the name of its version."""
    topic = await kafka.create(4)
    await kafka.produce(topic, flights(RECORDS))
    version = stage.registry.register(aggregate_source(topic), 1).name
    await stage.begin(version, **{"rate_limit": 2_000, **changes})

    async def reads() -> bool:
        return (await stage.get(version)).records > 0

    await eventually(reads, 60)
    return version


async def quiet_value_is_known(stage: Stage) -> None:
    async def known() -> bool:
        (row,) = await stage.query("select quiet_p99_s, quiet_reads from replayer.governor")
        return row["quiet_p99_s"] is not None and row["quiet_reads"] >= 1_000

    await eventually(known, 60)


def reason_of(run: run_pb2.Run) -> str:
    return run_pb2.Throttle.Reason.Name(run.throttle.reason)


async def test_slow_reads_hold_a_copy_down_until_they_are_fast_again(
    stage: Stage, kafka: Topics, switcher: SmallSwitcher
) -> None:
    switcher.p99_ms = QUIET_MS
    await quiet_value_is_known(stage)
    version = await begun(stage, kafka)

    async def limited_by_a_person_alone() -> bool:
        run = await stage.get(version)
        return reason_of(run) == "RATE_LIMIT" and run.throttle.records_per_s == 2_000

    await eventually(limited_by_a_person_alone, 90)  # beside live reads a copy begins slowly

    switcher.p99_ms = 6 * QUIET_MS

    async def held() -> run_pb2.Run:
        run = await stage.get(version)
        assert run.throttle.records_per_s < 1_500, run.throttle
        assert reason_of(run) == "READ_LATENCY", run.throttle
        return run

    run = await eventually(held, 60)
    assert "is 30.0 ms beside a quiet value of 5.0 ms, and 8.0 ms is allowed" in run.throttle.message

    switcher.p99_ms = QUIET_MS
    await eventually(limited_by_a_person_alone, 90)
    await stage.call("SetRunRate", run_pb2.SetRunRateRequest(name=f"{version}/run", rate_limit=0))
    await stage.applied(version, RECORDS)
    run = await stage.in_state(version, "TAILING")  # until then it is a copy
    assert not run.HasField("throttle")


async def test_a_rate_by_hand_counts_at_once_and_is_named(stage: Stage, kafka: Topics) -> None:
    version = await begun(stage, kafka)
    changed = await stage.call("SetRunRate", run_pb2.SetRunRateRequest(name=f"{version}/run", rate_limit=50))
    assert reason_of(changed) == "RATE_LIMIT"
    assert changed.throttle.records_per_s == 50
    assert changed.throttle.message == "its rate limit is 50 records a second"


async def test_the_budget_of_rows_holds_a_copy_down_and_is_named(stage: Stage, kafka: Topics) -> None:
    version = await begun(stage, kafka)
    # Of about 26 for a batch of thousands of records.
    capacity = capacity_pb2.Capacity(name="capacity", rows_per_s_max=5)
    await stage.call(
        "UpdateCapacity",
        capacity_pb2.UpdateCapacityRequest(capacity=capacity, update_mask=FieldMask(paths=["rows_per_s_max"])),
    )

    async def held() -> bool:
        run = await stage.get(version)
        return reason_of(run) == "ROWS_BUDGET" and 0 < run.throttle.records_per_s < 2_000

    await eventually(held, 60)


async def test_a_copy_goes_behind_everything_else_on_the_machine_once_there_are_reads_and_the_tail_does_not(
    stage: Stage, kafka: Topics, switcher: SmallSwitcher
) -> None:
    version = await begun(stage, kafka)
    copying = worker_pids(os.getpid())
    assert copying
    ours = os.getpriority(os.PRIO_PROCESS, 0)
    assert all(os.getpriority(os.PRIO_PROCESS, pid) == ours for pid in copying)
    switcher.p99_ms = QUIET_MS

    groups = [Path(f"/proc/{pid}/autogroup") for pid in copying]

    async def stepped_back() -> bool:
        with contextlib.suppress(OSError):  # a thread of it has ended meanwhile
            return behind_everything_else()
        return False

    def behind_everything_else() -> bool:
        # The process first, then its group: between the two only one of them has.
        threads = [int(thread.name) for pid in copying for thread in Path(f"/proc/{pid}/task").iterdir()]
        behind = all(os.getpriority(os.PRIO_PROCESS, thread) == NICE for thread in threads)
        batch = all(os.sched_getscheduler(thread) == os.SCHED_BATCH for thread in threads)
        return (
            behind
            and batch
            and all(group.read_text(encoding="ascii").endswith(f"nice {NICE}\n") for group in groups if group.exists())
        )

    await eventually(stepped_back, 60)
    await stage.call("SetRunRate", run_pb2.SetRunRateRequest(name=f"{version}/run", rate_limit=0))
    await stage.in_state(version, "REPLAYING", "TAILING")

    async def tails() -> bool:
        workers = worker_pids(os.getpid())
        run = await stage.get(version)
        with contextlib.suppress(OSError):  # the one that copied has ended meanwhile
            return (
                run.state == run_pb2.Run.TAILING
                and len(workers) == 1
                and os.getpriority(os.PRIO_PROCESS, workers[0]) == os.getpriority(os.PRIO_PROCESS, 0)
            )
        return False

    await eventually(tails, 60)
    run = await stage.applied(version, RECORDS)
    assert run.worker_restarts == 0


async def test_one_replica_governs_and_another_one_goes_on_where_it_was(stage: Stage, kafka: Topics) -> None:
    version = VersionId("punctuality", 1)
    await begun(stage, kafka)
    await stage.stop()
    store = Store(stage.postgres)
    await store.open()
    one, other = GovernorStore(store, "one"), GovernorStore(store, "other")
    try:
        assert await one.govern() == Learnt(0, None, 0.0, 0.0)
        assert await other.govern() is None
        decision = Decision({version: Throttle(Reason.READ_LATENCY, 500.0, "why")}, 0.05)
        learnt = Learnt(3, 0.005, 1_000.0, 10.0)
        assert await one.keep(learnt, decision, {version: 9_000.0}) == Capacity()
        assert await other.decided() == (decision, {version: 9_000.0})
        assert await other.keep(learnt, Decision(), {}) is None
        assert (await other.decided())[0] == decision

        await one.stop()
        taken = await other.govern()
        assert taken is not None
        assert (taken.rung, taken.quiet_p99_s, taken.quiet_reads) == (3, 0.005, 1_000.0)
        assert 10.0 <= taken.quiet_age_s < 60.0
        assert await one.keep(learnt, Decision(), {}) is None

        await stage.query("update replayer.throttles set at = now() - $1::interval", timedelta(seconds=16))
        assert (await one.decided())[0].throttles == {}
        assert await other.keep(learnt, Decision(), {}) is not None
        assert await stage.query("select * from replayer.throttles") == []
    finally:
        await store.close()


async def test_a_switcher_that_is_away_holds_nobody_up(stage: Stage, kafka: Topics, switcher: SmallSwitcher) -> None:
    await switcher.stop()
    version = await begun(stage, kafka, rate_limit=0)
    run = await stage.applied(version, RECORDS)
    assert not run.HasField("throttle")
