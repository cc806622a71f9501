"""Comparing tables while both go on: at one cut, as expected or not, in ranges, stored, as evidence of a gate."""

from __future__ import annotations

import asyncio
import itertools
import os
import signal
import threading
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from typing import Any

import asyncpg
from confluent_kafka import Producer

from services.replayer.aligning import Hold
from services.replayer.protocol import TopicPartition
from tests.integration.replayer.registry import Registered
from tests.integration.replayer.replayers import replica
from tests.integration.replayer.stage import ON_TIME, Stage, aggregate_source, flights, refused
from tests.integration.replayer.test_tables import RECORDS, two_tables
from tests.support.eventually import eventually
from tests.support.topics import Record
from tests.support.workers import worker_pids
from turnout import testing
from turnout.errors import TurnoutError
from turnout.names import parse_version
from turnout.replayer.v1 import comparison_pb2, gate_pb2

EXPECTED = {
    "columns": [{"column": "on_time"}, {"column": "share", "expected": {"optional": True}}],
}


@dataclass
class Moving:
    """Two tails on a topic to which records come all the time."""

    stage: Stage
    old: Registered
    new: Registered
    topic: str
    records: list[Record] = field(default_factory=list)

    @asynccontextmanager
    async def fed(self) -> AsyncIterator[None]:
        """Records come all the time, some hundred a second."""
        ended = threading.Event()
        feeding = asyncio.create_task(asyncio.to_thread(self._feed, ended))
        try:
            yield
        finally:
            ended.set()
            await feeding

    def _feed(self, ended: threading.Event) -> None:
        producer = Producer({"bootstrap.servers": self.stage.kafka.bootstrap, "linger.ms": 0})
        while not ended.wait(0.01):
            batch = flights(7, first=len(self.records))
            self.records += batch  # before they are there: the reference may know more than the log, never less
            for record in batch:
                producer.produce(self.topic, record.value, partition=record.partition)
            producer.poll(0)
        assert producer.flush(10.0) == 0

    async def produce(self, count: int) -> None:
        batch = flights(count, first=len(self.records))
        self.records += batch
        await self.stage.kafka.produce(self.topic, batch)

    def rows_at(self, version: Registered, cut: dict[TopicPartition, int]) -> dict[str, Any]:
        """The rows that the records before the cut give, by carrier."""
        values = []
        for tp, end in cut.items():
            of_partition = [record.value for record in self.records if record.partition == tp.partition]
            assert len(of_partition) >= end
            values += of_partition[:end]
        rows = testing.run(version.job, [value for value in values if value is not None])
        return {row.carrier: row for row in rows}  # type: ignore[attr-defined]


async def moving(stage: Stage) -> Moving:
    topic = await stage.kafka.create()
    old = stage.registry.register(aggregate_source(topic), 1)
    new = stage.registry.register(aggregate_source(topic, on_time=ON_TIME), 2)
    made = Moving(stage, old, new, topic)
    await made.produce(2_000)
    for version in (old, new):
        await stage.begin(version.name)
        await stage.in_state(version.name, "TAILING")
    await made.produce(100)
    for version in (old, new):
        await stage.tailed(version.name)
        await stage.applied(version.name, len(made.records))
    return made


def cut_of(compared: comparison_pb2.ComparedRange) -> dict[TopicPartition, int]:
    old, new = (
        {TopicPartition(p.topic, p.partition): p.next_offset for p in positions}
        for positions in (compared.positions_old, compared.positions_new)
    )
    assert old == new
    return old


async def test_two_tails_are_compared_at_one_cut_while_both_go_on(stage: Stage) -> None:
    both = await moving(stage)
    cuts, held = [], []
    async with both.fed():
        for _ in range(100):  # on a busy machine both may stand still for a while
            found = await stage.compare(both.old.name, both.new.name, sample_size=100)
            assert (found.state, found.aligned, found.exact) == (comparison_pb2.Comparison.FINISHED, True, True)
            (compared,) = found.ranges
            cut = cut_of(compared)
            old, new = both.rows_at(both.old, cut), both.rows_at(both.new, cut)
            changed = {carrier for carrier in old if old[carrier].on_time != new[carrier].on_time}
            assert {one.key[0].string_value for one in found.samples} == changed
            for one in found.samples:
                carrier = one.key[0].string_value
                assert one.old_values[0].int64_value == old[carrier].on_time
                assert one.new_values[0].int64_value == new[carrier].on_time
            cuts.append(sum(cut.values()))
            held.append(found.held_max.ToTimedelta().total_seconds())
            if len(cuts) >= 10 and len(set(cuts)) > 5 and any(held):
                break
    assert cuts == sorted(cuts)
    assert len(set(cuts)) > 5, "both went on"
    assert any(held)
    for version in (both.old, both.new):
        run = await stage.applied(version.name, len(both.records))
        assert run.worker_restarts == 0
    await stage.table_is_that_of(both.old, both.records)
    await stage.table_is_that_of(both.new, both.records, 2)


async def test_a_worker_that_dies_in_between_is_replaced_and_the_cut_stays_what_it_was(stage: Stage) -> None:
    both = await moving(stage)
    before = [0, 0]
    async with both.fed():
        for attempt in itertools.count():
            await _further(stage, both, before)  # deaths without any progress in between would fail the runs
            before = [(await stage.get(version.name)).records for version in (both.old, both.new)]
            comparing = asyncio.create_task(
                stage.compare(both.old.name, both.new.name, sample_size=100, align_within={"seconds": 30})
            )
            await asyncio.sleep(0.01 * (attempt % 5))
            for pid in worker_pids(os.getpid()):
                os.kill(pid, signal.SIGKILL)
            found = await comparing
            cut = cut_of(found.ranges[0])
            old, new = both.rows_at(both.old, cut), both.rows_at(both.new, cut)
            assert found.rows_changed == sum(old[carrier].on_time != new[carrier].on_time for carrier in old)
            if found.held_max.ToTimedelta().total_seconds() > 0.3 or attempt == 9:
                break  # it had to wait for a worker that took over
    for version in (both.old, both.new):
        await stage.applied(version.name, len(both.records))


async def _further(stage: Stage, both: Moving, before: Sequence[int]) -> None:
    async def both_are() -> bool:
        now = [(await stage.get(version.name)).records for version in (both.old, both.new)]
        return all(one > other for one, other in zip(now, before, strict=True))

    await eventually(both_are, 60.0)


async def test_a_run_that_does_not_come_to_the_cut_holds_nobody_for_longer_than_it_may(stage: Stage) -> None:
    both = await moving(stage)
    frozen = [await stage.tailed(version.name) for version in (both.old, both.new)]
    for pid in frozen:
        os.kill(pid, signal.SIGSTOP)
    try:
        await both.produce(40)
        await _move_on(stage, both.old)  # as if one of them had read it
        late = await refused(stage.compare(both.old.name, both.new.name, align_within={"nanos": 300_000_000}))
        assert late.reason == "ALIGNMENT_EXPIRED"
        assert "version 2 stood at offset" in late.message
        held = await stage.query("select count(*) as n from serving.positions where hold_until > clock_timestamp()")
        assert held[0]["n"] == 0
        listed = await stage.call("ListComparisons", comparison_pb2.ListComparisonsRequest(parent="jobs/punctuality"))
        assert not listed.comparisons, "nothing was compared, so there is nothing to resume"
    finally:
        for pid in frozen:
            with suppress(ProcessLookupError):
                os.kill(pid, signal.SIGCONT)


async def test_who_waits_for_a_transaction_holds_for_no_longer_than_it_may(stage: Stage) -> None:
    both = await moving(stage)
    hold = Hold(parse_version(both.old.name), parse_version(both.new.name), 20.0)
    ends: list[datetime] = []

    async def held(_: object) -> None:
        rows = await stage.query("select hold_until from serving.positions where hold_by is not null")
        ends.extend(row["hold_until"] for row in rows)

    async def waits() -> bool:
        found = await stage.query(
            "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock' "
            "and application_name = 'turnout alignment'"
        )
        return bool(found)

    async with hold.connected(stage.postgres):
        connection = await asyncpg.connect(stage.postgres)
        moving_on = connection.transaction()
        await moving_on.start()
        await connection.execute(
            "update serving.positions set next_offset = next_offset where version = $1", both.old.name
        )
        holding = asyncio.create_task(hold.at_one_cut(held))
        await eventually(waits)
        waited = await connection.fetchval("select clock_timestamp()")
        await asyncio.sleep(0.5)  # so much longer it would be held
        await moving_on.commit()
        await connection.close()
        await holding
    assert ends
    assert max(ends) <= waited + timedelta(seconds=20)


async def _move_on(stage: Stage, version: Registered) -> None:
    await stage.query(
        "update serving.positions set next_offset = next_offset + 1 where version = $1 and partition = 0", version.name
    )


async def test_copies_whose_partitions_two_replicas_share(stage: Stage) -> None:
    await stage.stop()
    stage.run_lease_s = 3.0
    topic = await stage.kafka.create()
    both = Moving(
        stage,
        stage.registry.register(aggregate_source(topic), 1),
        stage.registry.register(aggregate_source(topic, on_time=ON_TIME), 2),
        topic,
    )
    await both.produce(20_000)
    async with replica(stage, "east") as east, replica(stage, "west") as west:
        for version in (both.old, both.new):
            await east.begin(version.name, workers=1, rate_limit=200)

        async def shared() -> bool:
            for version in (both.old, both.new):
                run = await west.get(version.name)
                assert (run.live_replicas, run.records > 0) == (2, True), run
            return True

        await eventually(shared)
        for ask in (east, west):
            found = await ask.compare(both.old.name, both.new.name, sample_size=100, align_within={"seconds": 20})
            assert (found.aligned, found.exact) == (True, True)
            cut = cut_of(found.ranges[0])
            assert 0 < sum(cut.values()) < len(both.records), "both still copy"
            old, new = both.rows_at(both.old, cut), both.rows_at(both.new, cut)
            changed = {carrier for carrier in old if old[carrier].on_time != new[carrier].on_time}
            assert {one.key[0].string_value for one in found.samples} == changed
        await eventually(shared)


async def test_what_cannot_be_aligned_is_said_and_compared_as_it_stands_if_asked(stage: Stage) -> None:
    both = await moving(stage)
    await stage.pause(both.new.name)
    await both.produce(400)
    await stage.applied(both.old.name, len(both.records))
    error = await refused(stage.compare(both.old.name, both.new.name))
    assert error.reason == "CANNOT_ALIGN"
    assert "version 2 is PAUSED and 100 offsets behind version 1" in error.message
    found = await stage.compare(both.old.name, both.new.name, allow_unaligned=True, contract=EXPECTED)
    assert (found.aligned, found.exact) == (False, False)
    assert found.ranges[0].unaligned_reason == error.message
    # The other way round the one that moves comes to where the paused one stands.
    await stage.pause(both.old.name)
    await stage.resume(both.new.name)
    await stage.applied(both.new.name, len(both.records))
    assert (await stage.compare(both.old.name, both.new.name)).exact


# --- contracts and the gate -----------------------------------------------------------------------------------------


async def _gate(stage: Stage, candidate: str, baseline: str, age_max_s: int | None = None) -> gate_pb2.Gate:
    request = gate_pb2.CheckGatesRequest(candidate=candidate, baseline=baseline, comparison=True)
    if age_max_s is not None:
        request.comparison_age_max.seconds = age_max_s
    answer = await stage.call("CheckGates", request)
    assert [one.gate for one in answer.gates] == ["catch-up", "coverage", "schema", "comparison"]
    gate = answer.gates[-1]
    assert isinstance(gate, gate_pb2.Gate)
    return gate


async def test_a_contract_is_evidence_for_the_gate(stage: Stage) -> None:
    v1, v2 = await two_tables(stage)
    assert "comparison" not in await stage.gates(v2, v1)
    missing = await _gate(stage, v2, v1)
    assert (missing.passed, "has not been compared" in missing.evidence[0]) == (False, True)

    await stage.compare(v1, v2)
    assert not (await _gate(stage, v2, v1)).passed, "without a contract it says nothing"
    found = await stage.compare(v1, v2, contract={})
    assert found.verdict == comparison_pb2.Comparison.FAILED
    assert len(found.findings) == 2
    refused_by = await _gate(stage, v2, v1)
    assert not refused_by.passed
    assert "on_time differs" in refused_by.evidence[0]

    found = await stage.compare(v1, v2, contract=EXPECTED)
    assert found.verdict == comparison_pb2.Comparison.PASSED, found.findings
    passed = await _gate(stage, v2, v1)
    assert passed.passed
    assert found.name in passed.evidence[-1]
    assert "/0 to 500" in passed.evidence[-1]
    assert not (await _gate(stage, v1, v2)).passed, "the other way round it was not compared"
    assert not (await _gate(stage, v2, v1, age_max_s=0)).passed

    # One that expects what does not appear fails too.
    found = await stage.compare(v1, v2, contract={**EXPECTED, "only_new": {}})
    assert found.verdict == comparison_pb2.Comparison.FAILED
    assert list(found.findings) == [
        "The new table alone was expected to show a difference, and there is none in 13 rows."
    ]
    found = await stage.compare(v1, v2, contract={**EXPECTED, "tolerances": [{"column": "on_time", "absolute": 1e6}]})
    assert [one.rows for one in found.columns if one.column == "share"] == [found.rows_changed]
    assert "on_time was expected to show a difference" in found.findings[0]


async def test_comparisons_are_listed_newest_first_and_read_with_their_ranges(stage: Stage) -> None:
    v1, v2 = await two_tables(stage)
    first = await stage.compare(v1, v2, contract=EXPECTED, request_id="once")
    again = await stage.compare(v1, v2, contract=EXPECTED, request_id="once")
    assert again == first
    other = await refused(stage.compare(v2, v1, request_id="once"))
    assert other.reason == "REQUEST_ID_REUSED"
    second, third = await stage.compare(v2, v1), await stage.compare(v1, v2)

    async def names(**asked: Any) -> tuple[list[str], str]:
        answer = await stage.call(
            "ListComparisons", comparison_pb2.ListComparisonsRequest(parent="jobs/punctuality", **asked)
        )
        return [one.name for one in answer.comparisons], answer.next_page_token

    assert (await names())[0] == [third.name, second.name, first.name]
    assert (await names(versions=[v1, v2]))[0] == [third.name, second.name, first.name]
    assert (await names(versions=[v1]))[0] == []
    page, token = await names(page_size=2)
    rest, end = await names(page_size=2, page_token=token)
    assert (page, rest, end) == ([third.name, second.name], [first.name], "")
    assert await stage.call("GetComparison", comparison_pb2.GetComparisonRequest(name=first.name)) == first
    absent = comparison_pb2.GetComparisonRequest(name="jobs/punctuality/comparisons/0123456789ab")
    assert (await refused(stage.call("GetComparison", absent))).reason == "COMPARISON_NOT_FOUND"


# --- several callers ------------------------------------------------------------------------------------------------


@asynccontextmanager
async def _nothing_is_stored(stage: Stage) -> AsyncIterator[Any]:
    """Comparisons come no further than to the storing of a range, until the block is left."""
    connection = await asyncpg.connect(stage.postgres)
    try:
        async with connection.transaction():
            await connection.execute("lock table replayer.comparison_ranges in share mode")
            yield connection
    finally:
        await connection.close()


async def _storing(stage: Stage, count: int) -> None:
    """Wait until so many comparisons would store a range."""

    async def there() -> bool:
        rows = await stage.query(
            "select 1 from pg_locks where relation = 'replayer.comparison_ranges'::regclass and not granted"
        )
        return len(rows) == count

    assert await eventually(there)


async def _listed(stage: Stage) -> list[comparison_pb2.Comparison]:
    answer = await stage.call("ListComparisons", comparison_pb2.ListComparisonsRequest(parent="jobs/punctuality"))
    return list(answer.comparisons)


async def test_a_request_that_is_repeated_while_it_is_answered_takes_nothing_from_the_first(stage: Stage) -> None:
    v1, v2 = await two_tables(stage)
    async with _nothing_is_stored(stage):
        both = [asyncio.ensure_future(stage.compare(v1, v2, request_id="once")) for _ in range(2)]
        await _storing(stage, 2)
    answers = await asyncio.gather(*both, return_exceptions=True)
    (found,) = [one for one in answers if isinstance(one, comparison_pb2.Comparison)]
    (late,) = [one for one in answers if isinstance(one, TurnoutError)]
    assert (found.state, late.reason) == (comparison_pb2.Comparison.FINISHED, "COMPARISON_UNDER_WAY")
    assert await stage.call("GetComparison", comparison_pb2.GetComparisonRequest(name=found.name)) == found


async def test_one_that_finds_no_place_is_not_stored(stage: Stage) -> None:
    v1, v2 = await two_tables(stage)
    async with _nothing_is_stored(stage):
        both = [asyncio.ensure_future(stage.compare(*asked)) for asked in ((v1, v2), (v2, v1))]
        await _storing(stage, 2)
        assert (await refused(stage.compare(v1, v2))).reason == "TOO_MANY_COMPARISONS"
        assert len(await _listed(stage)) == 2
    found = await asyncio.gather(*both)
    assert sorted(one.name for one in found) == sorted(one.name for one in await _listed(stage))


async def test_one_that_is_deleted_while_it_is_compared_is_said_to_be_gone(stage: Stage) -> None:
    v1, v2 = await two_tables(stage)
    async with _nothing_is_stored(stage) as connection:
        comparing = asyncio.ensure_future(stage.compare(v1, v2))
        await _storing(stage, 1)
        await connection.execute("delete from replayer.comparisons")
    assert (await refused(comparing)).reason == "COMPARISON_NOT_FOUND"


PAIRS = '''
"""Flights by carrier and whether they had a delay."""
from turnout import Key, Record, Row, Sum, aggregate

class Flight(Record):
    carrier: str
    delay: int | None

class Pairs(Row):
    carrier: Key[str]
    late: Key[bool]
    flights: Sum[int] = 1
    minutes: Sum[int] = 0

@aggregate("punctuality", topic="{topic}")
def punctuality(flight: Flight) -> Pairs:
    return Pairs(carrier=flight.carrier, late=(flight.delay or 0) >= 15, minutes=flight.delay or 0)
'''


async def test_rows_of_other_keys_are_matched_by_a_projection(stage: Stage) -> None:
    topic = await stage.kafka.create()
    await stage.kafka.produce(topic, RECORDS)
    v1 = stage.registry.register(aggregate_source(topic), 1)
    v2 = stage.registry.register(PAIRS.format(topic=topic), 2)
    for version in (v1, v2):
        await stage.begin(version.name)
        await stage.applied(version.name, len(RECORDS))
    assert (await refused(stage.compare(v1.name, v2.name))).reason == "KEYS_DIFFER"
    projection = {
        "key": [{"old": "carrier"}],
        "measures": [{"column": {"old": "flights"}, "how": "SUM"}],
    }
    found = await stage.compare(v1.name, v2.name, contract={"projection": projection})
    assert (found.rows_old, found.rows_new, found.rows_changed) == (13, 13, 0)
    assert found.verdict == comparison_pb2.Comparison.PASSED
    projection["measures"] = [{"column": {"old": "on_time", "new": "minutes"}, "how": "MAX"}]
    found = await stage.compare(v1.name, v2.name, contract={"projection": projection})
    assert (found.rows_changed, found.columns[0].column) == (13, "minutes")


# --- ranges ---------------------------------------------------------------------------------------------------------

READINGS = '''
"""Readings by meter and hour."""
from turnout import Key, Record, Row, Sum, aggregate

class Reading(Record):
    meter: str
    hour: int

class Load(Row):
    meter: Key[str]
    hour: Key[int]
    readings: Sum[int] = 1
    over: Sum[int] = 0

@aggregate("readings", topic="{topic}")
def load(reading: Reading) -> Load:
    return Load(meter=reading.meter, hour=reading.hour, over={over})
'''


def readings(count: int) -> Sequence[Record]:
    quotes = ("o'clock", 'say "when"', "back\\\\slash", "plain")
    return [
        Record(f'{{"meter": {quote}, "hour": {n - count // 2}}}'.encode(), partition=n % 2)
        for n in range(count)
        for quote in [('"' + quotes[n % 4].replace("\\", "\\\\").replace('"', '\\"') + '"')]
    ]


async def test_ranges_are_compared_each_at_its_own_cut_and_a_resume_does_the_rest(stage: Stage) -> None:
    topic = await stage.kafka.create(2)
    records = readings(300)
    await stage.kafka.produce(topic, records)
    v1 = stage.registry.register(READINGS.format(topic=topic, over="reading.hour > 0"), 1)
    v2 = stage.registry.register(READINGS.format(topic=topic, over="reading.hour > 9"), 2)
    for version in (v1, v2):
        await stage.begin(version.name)
        await stage.applied(version.name, len(records))
    whole = await stage.compare(v1.name, v2.name)
    assert (whole.rows_old, whole.rows_changed, whole.ranges_done) == (300, 9, 1)

    request = comparison_pb2.CompareTablesRequest(
        old_version=v1.name, new_version=v2.name, range_rows=64, sample_size=100
    )
    stream = stage.stub.CompareTables(request, timeout=30.0)
    begun = await stream.read()
    stream.cancel()
    assert isinstance(begun, comparison_pb2.Comparison)
    assert (begun.state, begun.ranges_done, begun.rows_old) == (comparison_pb2.Comparison.UNFINISHED, 1, 64)

    async def rested() -> comparison_pb2.Comparison:
        """What is done once the call that was broken off has ended; it may have done another range."""
        found = await stage.call("GetComparison", comparison_pb2.GetComparisonRequest(name=begun.name))
        await asyncio.sleep(0.2)
        later = await stage.call("GetComparison", comparison_pb2.GetComparisonRequest(name=begun.name))
        assert found == later
        assert isinstance(found, comparison_pb2.Comparison)
        return found

    stopped = await eventually(rested)
    assert stopped is not None
    assert stopped.state == comparison_pb2.Comparison.UNFINISHED
    steps = await stage.comparing("ResumeComparison", comparison_pb2.ResumeComparisonRequest(name=begun.name))
    done = [one.ranges_done for one in steps]
    assert done == [*range(done[0], 6)]
    assert done[0] > stopped.ranges_done  # the call that was broken off may have done one more meanwhile
    found = await stage.call("GetComparison", comparison_pb2.GetComparisonRequest(name=begun.name))
    assert list(found.ranges[: stopped.ranges_done]) == list(stopped.ranges), "only the unfinished ones were done"
    assert [one.number for one in found.ranges] == [*range(5)]
    assert [list(one.after_key) for one in found.ranges[1:]] == [list(one.last_key) for one in found.ranges[:-1]]
    for name in ("rows_old", "rows_new", "rows_only_old", "rows_only_new", "rows_changed", "aligned", "exact"):
        assert getattr(found, name) == getattr(whole, name), name
    assert list(found.columns) == list(whole.columns)
    assert list(found.samples) == list(whole.samples)
    # Once it is finished there is nothing to resume.
    (finished,) = await stage.comparing("ResumeComparison", comparison_pb2.ResumeComparisonRequest(name=begun.name))
    assert finished.state == comparison_pb2.Comparison.FINISHED


async def test_ranges_of_tables_that_move_have_cuts_of_their_own(stage: Stage) -> None:
    both = await moving(stage)
    async with both.fed():
        for _ in range(50):  # on a busy machine both may stand still through all ranges
            found = await stage.compare(both.old.name, both.new.name, range_rows=3)
            found = await stage.call("GetComparison", comparison_pb2.GetComparisonRequest(name=found.name))
            assert found.aligned
            assert found.ranges_done == 5
            cuts = [cut_of(one) for one in found.ranges]
            if len({sum(cut.values()) for cut in cuts}) > 1:
                break
        else:
            raise AssertionError("all ranges of every comparison have one cut")
    for one, cut in zip(found.ranges, cuts, strict=True):
        carriers = sorted(both.rows_at(both.old, cut))
        within = [c for c in carriers if [c] > list(one.after_key) and (not one.last_key or [c] <= list(one.last_key))]
        assert one.rows_old == one.rows_new == len(within)
