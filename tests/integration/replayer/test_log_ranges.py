"""Versions made of a part of the log: where they begin and end, what they say of it, and what may be done with them."""

from __future__ import annotations

import re
from datetime import UTC, datetime, timedelta

import pytest

from tests.integration.replayer.stage import ON_TIME, Stage, aggregate_source, flights, refused
from tests.support.eventually import eventually
from tests.support.topics import Record
from turnout.errors import FailedPrecondition
from turnout.log_range import LogRange, PartitionOffset
from turnout.replayer.v1 import run_pb2, table_pb2

MARCH = datetime(2026, 3, 1, tzinfo=UTC)


def _dated(count: int, partitions: int = 2) -> list[Record]:
    """Records of which the n-th was written n seconds after the begin of March; 5 ms later in odd partitions."""
    first_ms = round(MARCH.timestamp() * 1000)
    return [
        record._replace(timestamp_ms=first_ms + n * 1000 + record.partition * 5)
        for n, record in enumerate(flights(count, partitions=partitions))
    ]


def _until(topic: str, *ends: int) -> LogRange:
    return LogRange(end_offsets=tuple(PartitionOffset(topic, n, end) for n, end in enumerate(ends)))


def _of(records: list[Record], *bounds: tuple[int, int]) -> list[Record]:
    """The records in the offsets [start, end) of each partition, in a log without gaps."""
    by_partition = [[record for record in records if record.partition == n] for n in range(len(bounds))]
    return [record for one, (start, end) in zip(by_partition, bounds, strict=True) for record in one[start:end]]


async def test_it_begins_between_records_at_a_time(stage: Stage) -> None:
    topic = await stage.kafka.create(2)
    records = _dated(200)
    await stage.kafka.produce(topic, records)
    whole = stage.registry.register(aggregate_source(topic), 1)
    # The 100th second's record is in partition 0; partition 1 has the one before and the one after.
    late = stage.registry.register(aggregate_source(topic), 2, LogRange(start_time=MARCH + timedelta(seconds=100)))
    estimate = await stage.call("EstimateRun", run_pb2.EstimateRunRequest(version=late.name))
    assert estimate.records == 100
    assert any(one == "only its range of the log is read: from 2026-03-01 00:01:40 UTC on" for one in estimate.remarks)
    for version in (whole, late):
        await stage.begin(version.name)
        await stage.in_state(version.name, "TAILING")
    run = await stage.applied(late.name, 100)
    assert [one.start_offset for one in run.partitions] == [50, 50]
    assert not any(one.HasField("range_end_offset") for one in run.partitions)
    more = flights(100, first=200, partitions=2)
    await stage.kafka.produce(topic, more)  # a start alone does not end anything
    await stage.applied(late.name, 200)
    await stage.table_is_that_of(late, [*_of(records, (50, 100), (50, 100)), *more], 2)
    coverage = (await stage.gates(late.name, whole.name))["coverage"]
    assert not coverage.passed
    assert coverage.evidence[0] == (
        f"Partition {topic}/0: version 1 begins at offset 0, version 2 only at 50: readers would lose 50 offsets, "
        f"written from 2026-03-01 00:00:00 to 2026-03-01 00:01:40 UTC."
    )
    assert (await stage.gates(whole.name, late.name))["coverage"].passed


async def test_a_bounded_range_is_read_to_its_end_and_no_further(stage: Stage) -> None:
    topic = await stage.kafka.create(2)
    records = flights(2000, partitions=2)
    await stage.kafka.produce(topic, records)
    log_range = LogRange(
        start_offsets=(PartitionOffset(topic, 1, 10),),
        end_offsets=(PartitionOffset(topic, 0, 700), PartitionOffset(topic, 1, 11)),
    )
    source = aggregate_source(topic, options=', indexes=["flights"]')
    version = stage.registry.register(source, 1, log_range)
    await stage.begin(version.name)
    run = await stage.in_state(version.name, "COMPLETED")
    assert (run.records, run.lag, run.progress, run.HasField("eta")) == (701, 0, 1.0, False)
    assert [(one.start_offset, one.next_offset, one.range_end_offset) for one in run.partitions] == [
        (0, 700, 700),
        (10, 11, 11),
    ]
    assert run.HasField("catch_up_time")
    await stage.table_is_that_of(version, _of(records, (0, 700), (10, 11)))
    indexes = await stage.query("select indexdef from pg_indexes where tablename = 'punctuality__v1'")
    assert any("(flights)" in row["indexdef"] for row in indexes)

    # It wants no workers, before and after the service starts again.
    async def without_workers() -> bool:
        return (await stage.get(version.name)).live_workers == 0

    await eventually(without_workers)
    await stage.stop()
    await stage.start()
    await stage.kafka.produce(topic, flights(100, partitions=2))
    assert (await stage.in_state(version.name, "COMPLETED")).live_workers == 0
    await stage.table_is_that_of(version, _of(records, (0, 700), (10, 11)))


async def test_what_may_be_done_with_a_completed_run(stage: Stage) -> None:
    topic = await stage.kafka.create(1)
    await stage.kafka.produce(topic, flights(10, partitions=1))
    version = stage.registry.register(aggregate_source(topic), 1, _until(topic, 5))
    await stage.begin(version.name)
    await stage.in_state(version.name, "COMPLETED")
    for attempt in (stage.resume, stage.pause):
        error = await refused(attempt(version.name))
        assert (type(error), error.reason) == (FailedPrecondition, "RUN_STATE")
        assert "it has read the whole range of its version, and its table stays as it is" in error.message
    assert (await stage.begin(version.name)).state == run_pb2.Run.COMPLETED
    assert (await stage.end(version.name)).state == run_pb2.Run.COMPLETED  # what a retirement asks for is so already
    # What becomes of its topic does not touch the table.
    await stage.kafka.delete(topic)

    async def gone() -> bool:
        estimate = stage.call("EstimateRun", run_pb2.EstimateRunRequest(version=version.name))
        return (await refused(estimate)).reason == "TOPIC_NOT_FOUND"

    await eventually(gone)
    assert (await stage.gates(version.name))["catch-up"].passed
    assert (await stage.get(version.name)).state == run_pb2.Run.COMPLETED
    assert (await stage.call("DropTable", table_pb2.DropTableRequest(version=version.name))).dropped
    error = await refused(stage.resume(version.name))
    assert "its table was dropped" in error.message


@pytest.mark.parametrize(
    ("log_range", "reason", "says"),
    [
        (
            LogRange(start_offsets=(PartitionOffset("T", 0, 119),)),
            "RANGE_NOT_RETAINED",
            "T/0=119: the log begins at 120",
        ),
        (LogRange(start_offsets=(PartitionOffset("T", 1, 501),)), "RANGE_NOT_RETAINED", "T/1=501: .* ends at 500"),
        (LogRange(start_offsets=(PartitionOffset("T", 2, 0),)), "RANGE_NOT_RETAINED", "T has the partitions 0 to 1"),
        (_until("T", 500), "RANGE_INCOMPLETE", r"T/1 \(the log ends at 500\)"),
        (LogRange(end_time=datetime(2100, 1, 1, tzinfo=UTC)), "RANGE_NOT_PASSED", "ends at 2100-01-01 00:00:00 UTC"),
        (
            LogRange(start_offsets=(PartitionOffset("T", 0, 300),), end_time=MARCH),
            "RANGE_BACKWARDS",
            "T/0: it begins at 300 and ends at 120",
        ),
    ],
)
async def test_a_range_that_the_log_cannot_give_starts_nothing(
    stage: Stage, log_range: LogRange, reason: str, says: str
) -> None:
    topic = await stage.kafka.create(2)
    await stage.kafka.produce(topic, flights(1000, partitions=2))
    await stage.kafka.delete_records_before(topic, {0: 120})

    def there(offsets: tuple[PartitionOffset, ...]) -> tuple[PartitionOffset, ...]:
        return tuple(PartitionOffset(topic, one.partition, one.offset) for one in offsets)

    asked = LogRange(
        log_range.start_time, there(log_range.start_offsets), log_range.end_time, there(log_range.end_offsets)
    )
    version = stage.registry.register(aggregate_source(topic), 1, asked)
    for work in (
        stage.begin(version.name),
        stage.call("EstimateRun", run_pb2.EstimateRunRequest(version=version.name)),
    ):
        error = await refused(work)
        assert (type(error), error.reason) == (FailedPrecondition, reason)
        assert re.search(says.replace("T/", f"{topic}/").replace("T has", f"{topic} has"), error.message), error.message
    assert (await refused(stage.get(version.name))).reason == "RUN_NOT_FOUND"
    assert await stage.query("select to_regclass('serving.punctuality__v1') as found") == [(None,)]


async def test_times_in_a_log_with_transactions(stage: Stage) -> None:
    topic = await stage.kafka.create(1)
    records = _dated(60, partitions=1)
    kept: list[Record] = []
    for first in range(0, 50, 10):
        commit = first % 20 == 0
        async with stage.kafka.transaction(topic, records[first : first + 10], commit=commit):
            pass
        kept += records[first : first + 10] if commit else []
    # Ends within aborted records; the second one behind the newest record, of which some are still in a transaction.
    short = stage.registry.register(aggregate_source(topic), 1, LogRange(end_time=MARCH + timedelta(seconds=33.5)))
    whole = stage.registry.register(aggregate_source(topic), 2, LogRange(end_time=MARCH + timedelta(seconds=1000)))
    await stage.begin(short.name)
    run = await stage.in_state(short.name, "COMPLETED")
    assert run.partitions[0].range_end_offset == 3 * 11 + 4  # three transactions with their markers
    await stage.table_is_that_of(short, [record for record in kept if record in records[:34]])
    async with stage.kafka.transaction(topic, records[50:], commit=True):
        await stage.begin(whole.name)

        async def at_what_is_readable() -> bool:
            run = await stage.get(whole.name)
            return run.records == len(kept) and run.state == run_pb2.Run.REPLAYING and run.lag == 10

        await eventually(at_what_is_readable)
        late = stage.registry.register(aggregate_source(topic), 3, LogRange(start_time=MARCH + timedelta(seconds=58)))
        error = await refused(stage.begin(late.name))
        assert error.reason == "RANGE_IN_TRANSACTION"
    await stage.in_state(whole.name, "COMPLETED")
    await stage.table_is_that_of(whole, [*kept, *records[50:]], 2)
    await stage.begin(late.name)
    await stage.applied(late.name, 2)


async def test_a_time_in_a_log_whose_timestamps_are_not_in_order(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    topic = await stage.kafka.create(1)
    records = _dated(100, partitions=1)
    async with stage.kafka.transaction(topic, records[:1], commit=True):
        pass  # its marker bears the time of today, behind which the records of March follow
    await stage.kafka.produce(topic, records[1:])
    log_range = LogRange(start_time=MARCH + timedelta(seconds=90))
    version = stage.registry.register(aggregate_source(topic), 1, log_range)
    monkeypatch.setattr("services.replayer.topics.SEARCHED_MAX", 80)
    error = await refused(stage.begin(version.name))
    assert error.reason == "RANGE_NOT_FOUND"
    assert "80 older records follow a later one" in error.message
    monkeypatch.undo()
    await stage.begin(version.name)
    run = await stage.applied(version.name, 10)
    assert run.partitions[0].start_offset == 91
    await stage.table_is_that_of(version, records[90:])


async def test_an_empty_range_completes_at_once(stage: Stage) -> None:
    topic = await stage.kafka.create(2)
    await stage.kafka.produce(topic, flights(100, partitions=2))
    before = stage.registry.register(aggregate_source(topic), 1, LogRange(end_time=MARCH))
    empty = stage.registry.register(
        aggregate_source(topic),
        2,
        LogRange(start_offsets=_until(topic, 7, 50).end_offsets, end_offsets=_until(topic, 7, 50).end_offsets),
    )
    for version, number in ((before, 1), (empty, 2)):
        await stage.begin(version.name)
        run = await stage.in_state(version.name, "COMPLETED")
        assert (run.records, run.progress) == (0, 1.0)
        await stage.table_is_that_of(version, [], number)


async def test_a_bounded_candidate_at_the_gates(stage: Stage) -> None:
    topic = await stage.kafka.create(2)
    records = flights(400, partitions=2)
    await stage.kafka.produce(topic, records)
    ends = _until(topic, 200, 200)
    whole = stage.registry.register(aggregate_source(topic), 1)
    bounded = stage.registry.register(aggregate_source(topic, on_time=ON_TIME), 2, ends)
    same = stage.registry.register(aggregate_source(topic), 3, ends)
    shorter = stage.registry.register(aggregate_source(topic), 4, _until(topic, 200, 199))
    await stage.begin(whole.name)
    await stage.in_state(whole.name, "TAILING")
    for version in (bounded, same, shorter):
        await stage.begin(version.name)
        await stage.in_state(version.name, "COMPLETED")
    # Level at the moment, and yet never caught up: the other one follows the log.
    catch_up = (await stage.gates(bounded.name, whole.name))["catch-up"]
    assert not catch_up.passed
    assert list(catch_up.evidence) == [
        f"Version 2 never catches up: its range ends ({topic}/0 at offset 200, {topic}/1 at offset 200), and that of "
        f"version 1 goes further; it is 0 offsets behind now."
    ]
    for candidate, baseline in ((bounded, None), (same, bounded), (bounded, same), (bounded, shorter)):
        gates = await stage.gates(candidate.name, baseline.name if baseline is not None else "")
        assert all(gate.passed for gate in gates.values()), gates
    catch_up = (await stage.gates(shorter.name, same.name))["catch-up"]
    assert [line.split(" is ")[0] for line in catch_up.evidence] == [f"Partition {topic}/1"]
    for old, new, exact in ((bounded, same, True), (whole, same, True), (shorter, same, False)):
        assert (await stage.compare(old.name, new.name, allow_unaligned=True)).exact is exact
    await stage.kafka.produce(topic, flights(50, first=400, partitions=2))
    await stage.applied(whole.name, 450)
    beyond = await refused(stage.compare(whole.name, same.name))
    assert beyond.reason == "CANNOT_ALIGN"
    assert "gone past the end of the range" in beyond.message


async def test_a_topic_that_is_widened_adds_nothing_to_a_bounded_range(stage: Stage) -> None:
    topic = await stage.kafka.create(1)
    records = flights(3000, partitions=1)
    await stage.kafka.produce(topic, records)
    bounded = stage.registry.register(aggregate_source(topic), 1, _until(topic, 2900))
    late = stage.registry.register(
        aggregate_source(topic), 2, LogRange(start_offsets=(PartitionOffset(topic, 0, 2900),))
    )
    await stage.begin(bounded.name, rate_limit=500)
    await stage.begin(late.name)
    await stage.kafka.widen(topic, 2)
    new = [record._replace(partition=1) for record in flights(40, first=3000)]
    await stage.kafka.produce(topic, new)
    # Restarted, both look at their topics at once.
    await stage.stop()
    await stage.start()
    await stage.applied(late.name, 140)
    await stage.call("SetRunRate", run_pb2.SetRunRateRequest(name=f"{bounded.name}/run", rate_limit=0))
    run = await stage.in_state(bounded.name, "COMPLETED")
    assert [one.partition for one in run.partitions] == [0]
    await stage.table_is_that_of(bounded, records[:2900])
    await stage.table_is_that_of(late, [*records[2900:], *new], 2)
