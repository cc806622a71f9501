"""The budget of copies: who waits for what, live changes, and what an estimate says of it."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncIterator, Mapping
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import asyncpg
import pytest
from google.protobuf.field_mask_pb2 import FieldMask

from core.config import Settings
from core.kafka import KafkaConfig
from services.replayer.admission import Admission
from services.replayer.artifacts import Artifacts
from services.replayer.gates import Limits
from services.replayer.governing import Governing
from services.replayer.guard import RetentionGuard
from services.replayer.indexes import IndexBuilds
from services.replayer.overtaken import overtaken
from services.replayer.presence import Presence
from services.replayer.protocol import TopicPartition
from services.replayer.run import LogEnds, Run
from services.replayer.sampler import Sampler
from services.replayer.sizes import TableSizes
from services.replayer.states import State
from services.replayer.store import Store
from services.replayer.surroundings import Surroundings
from services.replayer.topics import EndsWatch, Topics
from tests.integration.replayer.stage import ON_TIME, Stage, aggregate_source, flights, refused
from tests.support.eventually import eventually
from turnout.channel import connect
from turnout.clock import SystemClock
from turnout.errors import Aborted, FailedPrecondition, InvalidInput, Unavailable
from turnout.replayer.v1 import capacity_pb2, run_pb2


async def _capacity(stage: Stage) -> capacity_pb2.Capacity:
    return cast(
        capacity_pb2.Capacity, await stage.call("GetCapacity", capacity_pb2.GetCapacityRequest(name="capacity"))
    )


async def _change(stage: Stage, etag: str = "", **limits: Any) -> capacity_pb2.Capacity:
    request = capacity_pb2.UpdateCapacityRequest(
        capacity=capacity_pb2.Capacity(etag=etag, **limits), update_mask=FieldMask(paths=list(limits))
    )
    return cast(capacity_pb2.Capacity, await stage.call("UpdateCapacity", request))


async def _set_rate(stage: Stage, version: str, rate: int) -> None:
    await stage.call("SetRunRate", run_pb2.SetRunRateRequest(name=f"{version}/run", rate_limit=rate))


async def _set_priority(stage: Stage, version: str, priority: int) -> run_pb2.Run:
    request = run_pb2.SetRunPriorityRequest(name=f"{version}/run", priority=priority)
    return cast(run_pb2.Run, await stage.call("SetRunPriority", request))


async def _versions(stage: Stage, count: int, records: int = 4000) -> list[str]:
    topic = await stage.kafka.create()
    await stage.kafka.produce(topic, flights(records))
    return [stage.registry.register(aggregate_source(topic), number).name for number in range(1, count + 1)]


async def test_more_copies_than_may_run_wait_in_order_and_take_their_turn(stage: Stage) -> None:
    first, second, third = await _versions(stage, 3)
    await _change(stage, copies_max=1)
    assert (await stage.begin(first, rate_limit=50)).state == run_pb2.Run.REPLAYING

    queued = await stage.begin(second)
    assert (queued.state, queued.queue_position) == (run_pb2.Run.QUEUED, 1)
    assert queued.status_message == "1 of 1 copy runs; 1st in the queue"
    assert (queued.live_workers, queued.records) == (0, 0)
    ahead = await stage.begin(third, priority=5)
    assert (ahead.priority, ahead.queue_position) == (5, 1)
    assert (await stage.get(second)).status_message == "1 of 1 copy runs; 2nd in the queue"
    assert (await _set_priority(stage, second, 6)).queue_position == 1
    assert (await _set_priority(stage, second, 0)).queue_position == 2

    call: Any = stage.stub.WatchRun(run_pb2.WatchRunRequest(name=f"{third}/run"), timeout=60)
    seen: list[run_pb2.Run] = []
    try:
        seen.append(await call.read())  # before its turn can come
        await _set_rate(stage, first, 0)
        while seen[-1].state != run_pb2.Run.TAILING:
            seen.append(await call.read())
    finally:
        call.cancel()
    states = [run.state for run in seen]
    assert states == sorted(states)
    assert (states[0], seen[0].queue_position) == (run_pb2.Run.QUEUED, 1)
    assert all(run.queue_position == 0 for run in seen if run.state != run_pb2.Run.QUEUED)
    await stage.applied(second, 4000)
    tailing = await stage.in_state(second, "TAILING")
    assert (tailing.queue_position, tailing.status_message) == (0, "")
    error = await refused(_set_priority(stage, second, 1))
    assert (type(error), error.reason) == (FailedPrecondition, "RUN_STATE")
    rows = await stage.query("select version, admit_time from replayer.runs order by admit_time")
    assert [row["version"] for row in rows] == [first, third, second]


async def test_the_budget_is_changed_live_and_never_sends_a_copy_back(stage: Stage) -> None:
    versions = await _versions(stage, 3)
    for version in versions:
        await stage.begin(version, rate_limit=50)
    state = await _capacity(stage)
    assert (state.name, state.copies_max, state.copies, state.queued) == ("capacity", 2, 2, 1)
    assert (state.rows_per_s_max, state.storage_bytes_max) == (0, 0)
    assert state.read_p99_ratio_max == pytest.approx(1.3)

    async def measured() -> bool:
        return (await _capacity(stage)).storage_bytes > 0

    assert await eventually(measured)
    narrowed = await _change(stage, copies_max=1)
    assert (narrowed.copies_max, narrowed.copies, narrowed.queued) == (1, 2, 1)
    assert narrowed.etag != state.etag
    assert (await stage.get(versions[2])).status_message == "2 of 1 copies run; 1st in the queue"
    widened = await _change(stage, narrowed.etag, copies_max=0, rows_per_s_max=7000)
    assert (widened.copies, widened.queued, widened.rows_per_s_max) == (3, 0, 7000)
    assert widened.read_p99_ratio_max == pytest.approx(1.3)
    for version in versions:
        await stage.in_state(version, "REPLAYING")

    error = await refused(_change(stage, narrowed.etag, copies_max=9))
    assert (type(error), error.reason, error.metadata["etag"]) == (Aborted, "ETAG_MISMATCH", widened.etag)
    unmasked = await stage.call(
        "UpdateCapacity", capacity_pb2.UpdateCapacityRequest(capacity=capacity_pb2.Capacity(copies_max=4))
    )
    assert (unmasked.copies_max, unmasked.rows_per_s_max, unmasked.read_p99_ratio_max) == (4, 0, 0.0)


@pytest.mark.parametrize(
    ("request_", "reason"),
    [
        (capacity_pb2.UpdateCapacityRequest(), "INVALID_CAPACITY"),
        (capacity_pb2.UpdateCapacityRequest(capacity=capacity_pb2.Capacity(copies_max=-1)), "INVALID_CAPACITY"),
        (capacity_pb2.UpdateCapacityRequest(capacity=capacity_pb2.Capacity(storage_bytes_max=-1)), "INVALID_CAPACITY"),
        (
            capacity_pb2.UpdateCapacityRequest(capacity=capacity_pb2.Capacity(read_p99_ratio_max=0.5)),
            "INVALID_CAPACITY",
        ),
        (
            capacity_pb2.UpdateCapacityRequest(capacity=capacity_pb2.Capacity(read_p99_ratio_max=float("nan"))),
            "INVALID_CAPACITY",
        ),
        (capacity_pb2.UpdateCapacityRequest(capacity=capacity_pb2.Capacity(name="budget")), "INVALID_NAME"),
        (
            capacity_pb2.UpdateCapacityRequest(
                capacity=capacity_pb2.Capacity(), update_mask=FieldMask(paths=["copies"])
            ),
            "INVALID_UPDATE_MASK",
        ),
    ],
)
async def test_a_budget_that_makes_no_sense_is_refused(
    stage: Stage, request_: capacity_pb2.UpdateCapacityRequest, reason: str
) -> None:
    error = await refused(stage.call("UpdateCapacity", request_))
    assert (type(error), error.reason) == (InvalidInput, reason)
    assert (await _capacity(stage)).copies_max == 2
    assert (
        await refused(stage.call("GetCapacity", capacity_pb2.GetCapacityRequest(name="x")))
    ).reason == "INVALID_NAME"


async def test_a_priority_that_makes_no_sense_is_refused(stage: Stage) -> None:
    [version] = await _versions(stage, 1, records=10)
    assert (await refused(stage.begin(version, priority=101))).reason == "INVALID_PRIORITY"
    assert (await refused(_set_priority(stage, version, -101))).reason == "INVALID_PRIORITY"
    assert (await refused(_set_priority(stage, version, 1))).reason == "RUN_NOT_FOUND"


async def test_a_run_that_had_caught_up_goes_on_at_once_whatever_the_budget_says(stage: Stage) -> None:
    """The target of a rollback was stopped: it must not wait behind copies."""
    back, copying, waiting = await _versions(stage, 3)
    await stage.begin(back)
    await stage.in_state(back, "TAILING")
    await stage.end(back)
    await _change(stage, copies_max=1, storage_bytes_max=1)
    await _change(stage, storage_bytes_max=0)
    await stage.begin(copying, rate_limit=50)
    await stage.begin(waiting, rate_limit=50)

    await _change(stage, storage_bytes_max=1)
    assert (await stage.resume(back)).state == run_pb2.Run.REPLAYING
    await stage.in_state(back, "TAILING")
    # One that was paused within its first copy queues again.
    await stage.pause(copying)
    assert (await stage.resume(copying)).state == run_pb2.Run.QUEUED
    assert (await stage.pause(copying)).state == run_pb2.Run.PAUSED
    assert (await stage.get(waiting)).queue_position == 1


async def test_a_locked_table_keeps_its_size_and_holds_nobody_up(stage: Stage) -> None:
    first, second = await _versions(stage, 2)
    await stage.begin(first)
    await stage.applied(first, 4000)
    await stage.in_state(first, "TAILING")  # else it still counts as a copy
    measured = TableSizes(_store_of(stage))
    async with _transaction(stage) as connection:
        before = await measured.known()
        await connection.execute("lock table serving.punctuality__v1 in access exclusive mode")
        assert (await stage.begin(second, rate_limit=50)).state == run_pb2.Run.REPLAYING
        measured.start()

        async def sees_the_new_table() -> bool:
            return len(await measured.known()) == 2

        try:
            await eventually(sees_the_new_table)
        finally:
            await measured.stop()
        now = await measured.known()
        assert {version: now[version] for version in before} == before
        assert all(now.values())
        assert (await _capacity(stage)).copies == 1
        await stage.call("EstimateRun", run_pb2.EstimateRunRequest(version=second))
        assert (await _change(stage, storage_bytes_max=1 << 40)).storage_bytes > 0


def _store_of(stage: Stage) -> Store:
    assert stage.app is not None
    return stage.app._store  # its pool is open


@contextlib.asynccontextmanager
async def _transaction(stage: Stage) -> AsyncIterator[Any]:
    connection = await asyncpg.connect(stage.postgres)
    try:
        async with connection.transaction():
            yield connection
    finally:
        await connection.close()


async def _measured(stage: Stage) -> int:
    """The size of the only table, once it is known as it is."""

    async def there() -> int:
        [row] = await stage.query("select pg_total_relation_size('serving.punctuality__v1') as size")
        return int(row["size"]) if row["size"] == (await _capacity(stage)).storage_bytes else 0

    return await eventually(there)


async def test_a_table_waits_for_storage_and_says_how_much(stage: Stage) -> None:
    old, new = await _versions(stage, 2)
    await stage.begin(old)
    await stage.in_state(old, "TAILING")
    present = await _measured(stage)
    await _change(stage, storage_bytes_max=present + 100)

    queued = await stage.begin(new)
    assert (queued.state, queued.queue_position) == (run_pb2.Run.QUEUED, 1)

    async def told() -> bool:
        return "for its table, " in (await stage.get(new)).status_message

    assert await eventually(told)
    estimate = await stage.call("EstimateRun", run_pb2.EstimateRunRequest(version=new))
    assert estimate.queue_position == 1
    assert "for its table, " in estimate.waits_for
    assert estimate.peak_storage_bytes >= 2 * estimate.table_bytes  # the old table stays beside the new one
    widened = await _change(stage, storage_bytes_max=10 * present)
    assert (widened.copies, widened.queued) == (1, 0)
    await stage.in_state(new, "TAILING")


async def test_the_estimate_tells_time_queue_and_storage(stage: Stage) -> None:
    first, second, third = await _versions(stage, 3)
    unknown = await stage.call("EstimateRun", run_pb2.EstimateRunRequest(version=first))
    assert not unknown.HasField("duration")
    assert not unknown.HasField("peak_storage_bytes")
    assert (unknown.queue_position, unknown.waits_for, unknown.never_catches_up) == (0, "", False)
    assert any("no copy of this job" in remark for remark in unknown.remarks)
    await stage.begin(first)
    await stage.in_state(first, "TAILING")

    await _change(stage, copies_max=1)
    await stage.begin(second, rate_limit=50)
    known = await stage.call("EstimateRun", run_pb2.EstimateRunRequest(version=third))
    assert known.duration_min.ToTimedelta() <= known.duration.ToTimedelta() <= known.duration_max.ToTimedelta()
    assert timedelta(0) < known.duration.ToTimedelta()
    assert (known.queue_position, known.waits_for) == (1, "1 of 1 copy runs; 1st in the queue")
    assert any("punctuality v1 read 4,000 offsets in" in remark for remark in known.remarks)
    assert not known.HasField("retention_risk")
    slow = run_pb2.EstimateRunRequest(version=third, rate_limit=40)
    assert (await stage.call("EstimateRun", slow)).duration.ToTimedelta() == timedelta(seconds=103)
    mine = await stage.call("EstimateRun", run_pb2.EstimateRunRequest(version=second))
    assert mine.queue_position == 0
    assert any("rate limit" in remark for remark in mine.remarks)
    assert mine.duration.ToTimedelta() == timedelta(seconds=83)


async def test_the_estimate_says_when_the_log_is_lost_while_the_run_waits(stage: Stage) -> None:
    topic = await stage.kafka.create(config={"retention.ms": str(3_600_000)})
    await stage.kafka.produce(topic, flights(4000))
    first, second = (stage.registry.register(aggregate_source(topic, on_time=ON_TIME), n).name for n in (1, 2))
    await _change(stage, copies_max=1)
    begun = datetime.now(UTC)
    await stage.begin(first, rate_limit=1)  # more than an hour for 4000 records

    async def at_risk() -> run_pb2.EstimateRunResponse:
        estimate = await stage.call("EstimateRun", run_pb2.EstimateRunRequest(version=second))
        assert estimate.HasField("retention_risk"), estimate
        return cast(run_pb2.EstimateRunResponse, estimate)

    risk = (await eventually(at_risk)).retention_risk
    assert risk.topic == topic
    crossing = risk.crossing_time.ToDatetime(tzinfo=UTC)
    assert begun + timedelta(minutes=50) < crossing < begun + timedelta(minutes=62)
    assert "while the run waits" in risk.message


async def test_a_log_that_grows_faster_than_it_is_read_is_named(stage: Stage) -> None:
    [version] = await _versions(stage, 1)
    topic = stage.registry.versions[version].job.definition.topics[0].topic
    await stage.begin(version, rate_limit=0)
    await stage.in_state(version, "TAILING")
    await _set_rate(stage, version, 1)

    async def grows() -> bool:
        await stage.kafka.produce(topic, flights(400))
        estimate = await stage.call("EstimateRun", run_pb2.EstimateRunRequest(version=version))
        return bool(estimate.never_catches_up) and any("never catches up" in remark for remark in estimate.remarks)

    assert await eventually(grows)


async def test_replicas_that_go_through_the_queue_at_once_admit_no_more_than_may_run(
    stage: Stage, tmp_path: Path
) -> None:
    versions = await _versions(stage, 6)
    await _change(stage, copies_max=1)
    for version in versions:
        await stage.begin(version, rate_limit=50)
    await stage.stop()
    await stage.query("update replayer.capacity set copies_max = 3")

    followed: list[Run] = []
    replicas = [_replica(stage, tmp_path) for _ in range(4)]
    try:
        for around in replicas:
            await around.store.open()
        await asyncio.gather(*(Admission(around, followed.append).admit() for around in replicas))
        runs = await replicas[0].store.standing()
    finally:
        for around in replicas:
            await around.store.close()
    copying = {run.version.name for run in runs if run.state is State.REPLAYING}
    assert copying == set(versions[:3])
    assert sorted(run.version.name for run in followed) == versions[1:3]


class _OneUnread(Topics):
    """Topics of which one cannot be read."""

    def __init__(self, config: KafkaConfig, unread: str) -> None:
        super().__init__(config)
        self._unread = unread

    async def first_times(self, starts: Mapping[TopicPartition, LogEnds]) -> dict[TopicPartition, datetime]:
        if any(tp.topic == self._unread for tp in starts):
            raise Unavailable("KAFKA_UNAVAILABLE", "Kafka does not answer; try again.")
        return await super().first_times(starts)


async def test_a_topic_that_cannot_be_read_holds_up_no_other_run(stage: Stage, tmp_path: Path) -> None:
    topics = [await stage.kafka.create() for _ in range(3)]
    for topic in topics:
        await stage.kafka.produce(topic, flights(4000))
    versions = [stage.registry.register(aggregate_source(topic), n).name for n, topic in enumerate(topics, 1)]
    await _change(stage, copies_max=1)
    for version in versions:
        await stage.begin(version, rate_limit=50)
    await stage.kafka.delete_records_before(topics[1], {0: 400})
    await stage.stop()
    await stage.query("update replayer.capacity set copies_max = 3")

    followed: list[str] = []
    around = _replica(stage, tmp_path, _OneUnread(KafkaConfig.of_bootstrap(stage.kafka.bootstrap), topics[1]))
    admission = Admission(around, lambda run: followed.append(run.version.name))

    async def known() -> bool:
        return around.sampler.newest is not None and bool(overtaken(around.sampler.newest))

    async def admitted() -> bool:
        return versions[2] in followed

    await around.store.open()
    around.sampler.start()
    try:
        await eventually(known)
        admission.start()
        await eventually(admitted)
    finally:
        await admission.stop()
        await around.sampler.stop()
        await around.presence.leave()
        await around.store.close()


async def test_dropped_runs_are_not_measured(stage: Stage, tmp_path: Path) -> None:
    [version] = await _versions(stage, 1)
    await stage.begin(version)
    await stage.in_state(version, "TAILING")
    await stage.query(
        """
        insert into replayer.runs
            (version, job, number, state, artifact_digest, definition, workers, rate_limit, output_table, topic_ids,
             start_times, request_id, drop_time)
        select 'jobs/' || job || '/versions/' || n, job, n, 'STOPPED', '', definition, 1, 0, job || '__v' || n,
               topic_ids, '[]', '', now()
        from replayer.runs, generate_series(2, 4000) n
        """
    )
    around = _replica(stage, tmp_path)
    await around.store.open()
    try:
        sample = (await around.sampler.fresh())[-1]
        assert [run.name for run in sample.runs.values()] == [f"{version}/run"]
        [again] = await around.store.standing()
        assert again is sample.runs[again.version]  # what has not changed is not read again
        await _set_rate(stage, version, 7)
        [changed] = await around.store.standing()
        assert changed.rate_limit == 7
    finally:
        await around.store.close()
    dropped = version.replace("/1", "/4000")
    assert (await stage.get(dropped)).state == run_pb2.Run.STOPPED
    parent = version.partition("/versions")[0]
    listed = await stage.call("ListRuns", run_pb2.ListRunsRequest(parent=parent, page_size=100))
    assert len(listed.runs) == 100


def _replica(stage: Stage, directory: Path, topics: Topics | None = None) -> Surroundings:
    kafka = KafkaConfig.of_bootstrap(stage.kafka.bootstrap)
    settings = Settings(
        listen="127.0.0.1:0",
        kafka=kafka,
        postgres=stage.postgres,
        data_dir=directory,
        registry_target=stage.registry.target,
        replayer_target="",
        switcher_target="",
    )
    topics, store = topics or Topics(kafka), Store(stage.postgres)
    ends, clock = EndsWatch(topics), SystemClock()
    presence = Presence(stage.postgres, store, settings.instance, settings.run_lease_s, clock)
    sampler = Sampler(store, ends, presence, clock)
    return Surroundings(
        settings=settings,
        store=store,
        topics=topics,
        ends=ends,
        sampler=sampler,
        guard=RetentionGuard(topics, sampler, clock),
        presence=presence,
        artifacts=Artifacts(connect(stage.registry.target), directory),
        limits=Limits(),
        governing=Governing(settings, store, sampler, connect("127.0.0.1:1"), clock),
        sizes=TableSizes(store),
        indexes=IndexBuilds(stage.postgres, store),
    )


async def test_a_queued_run_whose_first_records_are_gone_begins_where_the_log_begins(stage: Stage) -> None:
    topic = await stage.kafka.create()
    records = flights(4000)
    await stage.kafka.produce(topic, records)
    first, second = (stage.registry.register(aggregate_source(topic, on_time=ON_TIME), n) for n in (1, 2))
    await _change(stage, copies_max=1)
    await stage.begin(first.name, rate_limit=50)
    assert (await stage.begin(second.name)).state == run_pb2.Run.QUEUED
    before = (await stage.query("select start_times from replayer.runs where number = 2"))[0]["start_times"]
    await stage.kafka.delete_records_before(topic, {0: 400, 2: 10})

    async def moved() -> bool:
        return [p.start_offset for p in (await stage.get(second.name)).partitions] == [400, 0, 10, 0]

    assert await eventually(moved)
    assert (await stage.query("select start_times from replayer.runs where number = 2"))[0]["start_times"] != before
    await stage.end(first.name)
    await stage.applied(second.name, 4000 - 410)
    kept = [one for number, one in enumerate(records) if number // 4 >= {0: 400, 2: 10}.get(one.partition, 0)]
    await stage.table_is_that_of(second, kept, number=2)
