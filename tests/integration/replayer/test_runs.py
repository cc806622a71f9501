"""The life of a run: start, copy, tail, pause, resume, stop, limit, and what is refused."""

from __future__ import annotations

import asyncio

import pytest

from tests.integration.replayer.stage import ON_TIME, Stage, aggregate_source, flights, refused
from tests.support.eventually import eventually
from turnout import definition_proto, log_range_proto
from turnout.errors import FailedPrecondition, InvalidInput, NotFound
from turnout.log_range import LogRange, PartitionOffset
from turnout.registry.v1 import registry_pb2
from turnout.replayer.v1 import run_pb2


async def test_a_run_copies_the_log_and_tails_it(stage: Stage) -> None:
    topic = await stage.kafka.create()
    records = flights(2000)
    await stage.kafka.produce(topic, records)
    v1 = stage.registry.register(aggregate_source(topic), 1)

    started = await stage.begin(v1.name)
    assert started.state == run_pb2.Run.REPLAYING  # the budget of copies is empty
    assert started.workers == 2
    assert [p.end_offset for p in started.partitions] == [p.start_offset for p in started.partitions] or started.lag > 0

    run = await stage.in_state(v1.name, "TAILING")
    assert run.records == 2000
    assert run.HasField("catch_up_time")
    assert run.progress == 1.0
    await stage.table_is_that_of(v1, records)

    more = flights(300, first=2000)
    await stage.kafka.produce(topic, more)
    await stage.applied(v1.name, 2300)
    await stage.table_is_that_of(v1, records + more)

    async def one_worker() -> bool:
        now = await stage.get(v1.name)
        return now.live_workers == 1 and all(p.owner for p in now.partitions)

    assert await eventually(one_worker)


async def test_declared_indexes_are_built_before_the_run_tails(stage: Stage) -> None:
    topic = await stage.kafka.create()
    await stage.kafka.produce(topic, flights(1000))
    v1 = stage.registry.register(aggregate_source(topic, options=', indexes=["on_time", ("flights", "on_time")]'), 1)
    await stage.begin(v1.name)
    await stage.in_state(v1.name, "TAILING")
    built = await stage.query(
        "select count(*) as n from pg_index where indisvalid and indrelid = 'serving.punctuality__v1'::regclass"
    )
    assert built[0]["n"] == 3  # and the primary key


async def test_starting_again_answers_the_run(stage: Stage) -> None:
    topic = await stage.kafka.create(1)
    v1 = stage.registry.register(aggregate_source(topic), 1)
    v2 = stage.registry.register(aggregate_source(topic, on_time=ON_TIME), 2)
    first = await stage.begin(v1.name, request_id="one", workers=1)
    again = await asyncio.gather(*(stage.begin(v1.name, request_id="one", workers=3) for _ in range(3)))
    assert {(run.create_time.ToMicroseconds(), run.workers) for run in again} == {
        (first.create_time.ToMicroseconds(), 1)
    }
    error = await refused(stage.begin(v2.name, request_id="one"))
    assert (type(error), error.reason) == (InvalidInput, "REQUEST_ID_REUSED")


async def test_what_cannot_be_started(stage: Stage) -> None:
    missing = stage.registry.register(aggregate_source("test-no-such-topic"), 1)
    error = await refused(stage.begin(missing.name))
    assert (type(error), error.reason) == (FailedPrecondition, "TOPIC_NOT_FOUND")
    assert "test-no-such-topic" in error.message
    assert (await refused(stage.get(missing.name))).reason == "RUN_NOT_FOUND"

    error = await refused(stage.begin("jobs/unknown/versions/1"))
    assert (type(error), error.reason) == (NotFound, "VERSION_NOT_FOUND")
    assert (await refused(stage.begin("jobs/unknown"))).reason == "INVALID_NAME"
    assert (await refused(stage.begin(missing.name, workers=-1))).reason == "INVALID_WORKERS"
    assert (await refused(stage.begin(missing.name, rate_limit=-1))).reason == "INVALID_RATE"
    for request_id in ("nul\0", "x" * 10_000):
        error = await refused(stage.begin(missing.name, request_id=request_id))
        assert (type(error), error.reason) == (InvalidInput, "INVALID_TEXT")

    missing.state = registry_pb2.Version.RETIRED
    assert (await refused(stage.begin(missing.name))).reason == "VERSION_RETIRED"

    topic = await stage.kafka.create(1)
    wrong = stage.registry.register(aggregate_source(topic, share="no_such_column + 1"), 2)
    error = await refused(stage.begin(wrong.name))
    assert error.reason == "TABLE_REFUSED"
    assert 'column "no_such_column" does not exist. Mend' in error.message
    assert (await refused(stage.get(wrong.name))).reason == "RUN_NOT_FOUND"


async def test_what_would_refuse_a_run_is_known_before_there_is_a_version(stage: Stage) -> None:
    topic = await stage.kafka.create(1)

    async def problems(source: str, log_range: LogRange | None = None) -> dict[str, str]:
        definition = stage.registry.register(source, 1).job.definition
        request = run_pb2.CheckDefinitionRequest(
            definition=definition_proto.to_proto(definition), log_range=log_range_proto.to_proto(log_range)
        )
        answer = await stage.call("CheckDefinition", request)
        return {one.reason: one.message for one in answer.problems}

    assert await problems(aggregate_source(topic)) == {}
    wrong = aggregate_source("test-no-such-topic", share="no_such_column + 1")
    found = await problems(wrong)
    assert found.keys() == {"TABLE_REFUSED", "TOPIC_NOT_FOUND"}
    assert 'column "no_such_column" does not exist. Mend' in found["TABLE_REFUSED"]
    many = "".join(f"    n{n}: Sum[int] = 0\n" for n in range(33))  # PostgreSQL indexes 32 at most
    named = ", ".join(f"'n{n}'" for n in range(33))
    indexed = aggregate_source(topic, columns=many, options=f", indexes=[({named})]")
    assert "more than 32 columns" in (await problems(indexed))["INDEX_REFUSED"]
    beyond = LogRange(start_offsets=(PartitionOffset(topic, 0, 7),))
    assert "ends at 0" in (await problems(aggregate_source(topic), beyond))["RANGE_NOT_RETAINED"]
    nothing_left = "select relname from pg_class join pg_namespace n on n.oid = relnamespace where relname ~ '^check__'"
    assert await stage.query(nothing_left) == []


async def test_a_definition_that_is_none_is_not_checked(stage: Stage) -> None:
    empty = run_pb2.CheckDefinitionRequest()
    assert (await refused(stage.call("CheckDefinition", empty))).reason == "INVALID_DEFINITION"
    definition = stage.registry.register(aggregate_source("t"), 1).job.definition
    of_another = run_pb2.CheckDefinitionRequest(
        definition=definition_proto.to_proto(definition),
        log_range=log_range_proto.to_proto(LogRange(start_offsets=(PartitionOffset("other", 0, 7),))),
    )
    assert (await refused(stage.call("CheckDefinition", of_another))).reason == "INVALID_RANGE"


async def test_pause_resume_stop(stage: Stage) -> None:
    topic = await stage.kafka.create()
    records = flights(1000)
    await stage.kafka.produce(topic, records)
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.begin(v1.name)
    await stage.in_state(v1.name, "TAILING")

    paused = await stage.pause(v1.name)
    assert (paused.state, paused.live_workers) == (run_pb2.Run.PAUSED, 0)
    assert not any(p.owner for p in paused.partitions)
    more = flights(500, first=1000)
    await stage.kafka.produce(topic, more)

    resumed = await stage.resume(v1.name)
    assert resumed.state == run_pb2.Run.REPLAYING
    await stage.applied(v1.name, 1500)
    await stage.in_state(v1.name, "TAILING")
    await stage.table_is_that_of(v1, records + more)

    stopped = await stage.end(v1.name)
    assert (stopped.state, stopped.live_workers) == (run_pb2.Run.STOPPED, 0)
    assert (await stage.end(v1.name)).state == run_pb2.Run.STOPPED
    error = await refused(stage.pause(v1.name))
    assert (error.reason, "resume it first" in error.message) == ("RUN_STATE", True)
    await stage.resume(v1.name)
    await stage.in_state(v1.name, "TAILING")


async def test_the_rate_is_limited_and_changed_live(stage: Stage) -> None:
    topic = await stage.kafka.create()
    await stage.kafka.produce(topic, flights(20_000))
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.begin(v1.name, rate_limit=400)

    async def limited() -> bool:
        run = await stage.get(v1.name)
        return run.state == run_pb2.Run.REPLAYING and 0 < run.records_per_s < 2000 and run.HasField("eta")

    assert await eventually(limited)
    gate = (await stage.gates(v1.name))["catch-up"]
    assert not gate.passed
    assert any("offsets behind the end of the log" in line for line in gate.evidence), gate.evidence

    changed = await stage.call("SetRunRate", run_pb2.SetRunRateRequest(name=f"{v1.name}/run", rate_limit=0))
    assert changed.rate_limit == 0
    await stage.applied(v1.name, 20_000)
    await stage.in_state(v1.name, "TAILING")


async def test_watch_sends_the_run_now_and_after_changes(stage: Stage) -> None:
    topic = await stage.kafka.create()
    await stage.kafka.produce(topic, flights(3000))
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.begin(v1.name, rate_limit=3000)
    seen: list[run_pb2.Run] = []
    call = stage.stub.WatchRun(run_pb2.WatchRunRequest(name=f"{v1.name}/run"))
    try:
        async for run in call:
            seen.append(run)
            if run.state == run_pb2.Run.TAILING and run.live_workers == 1:
                break
    finally:
        call.cancel()
    states = [run.state for run in seen]
    assert states == sorted(states)  # REPLAYING, TAILING: never back
    assert [run.records for run in seen] == sorted(run.records for run in seen)
    assert seen[-1].records == 3000


async def test_runs_are_listed_in_pages(stage: Stage) -> None:
    topic = await stage.kafka.create(1)
    versions = [stage.registry.register(aggregate_source(topic), number) for number in (1, 2, 10)]
    for version in versions:
        await stage.begin(version.name)
    names, token = [], ""
    while True:
        request = run_pb2.ListRunsRequest(parent="jobs/-", page_size=2, page_token=token)
        page = await stage.call("ListRuns", request)
        names += [run.name for run in page.runs]
        token = page.next_page_token
        if not token:
            break
    assert names == [f"{version.name}/run" for version in versions]
    of_job = await stage.call("ListRuns", run_pb2.ListRunsRequest(parent="jobs/punctuality"))
    assert len(of_job.runs) == 3
    none = await stage.call("ListRuns", run_pb2.ListRunsRequest(parent="jobs/other"))
    assert not none.runs
    assert (await refused(stage.call("ListRuns", run_pb2.ListRunsRequest(parent="jobs/-", page_size=-1)))).reason


async def test_the_estimate_rests_on_the_log_and_on_the_table_beside(stage: Stage) -> None:
    topic = await stage.kafka.create()
    records = flights(2000)
    await stage.kafka.produce(topic, records)
    v1 = stage.registry.register(aggregate_source(topic), 1)
    v2 = stage.registry.register(aggregate_source(topic, on_time=ON_TIME), 2)
    estimate = await stage.call("EstimateRun", run_pb2.EstimateRunRequest(version=v1.name))
    assert (estimate.records, estimate.partitions) == (2000, 4)
    size = sum(len(record.value or b"") for record in records)
    assert estimate.log_bytes == pytest.approx(size, rel=0.05)
    assert 100 < estimate.sampled_records <= 2000
    assert not estimate.HasField("table_bytes")

    await stage.begin(v1.name)
    await stage.applied(v1.name, 2000)
    estimate = await stage.call("EstimateRun", run_pb2.EstimateRunRequest(version=v2.name))
    assert estimate.table_bytes > 0
    assert any("version 1" in remark for remark in estimate.remarks)
