"""Faults of runs: dead workers, restarts of the service, topics that change underneath, records that are refused."""

from __future__ import annotations

import functools
import json
import os
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from urllib.parse import urlsplit, urlunsplit

import pytest
from confluent_kafka import KafkaException

from core.kafka import KafkaConfig, TopicAdmin
from services.replayer import slots
from services.replayer.protocol import Start
from tests.integration.replayer.replayers import replica
from tests.integration.replayer.stage import Stage, aggregate_source, flights, refused
from tests.support.eventually import eventually
from tests.support.proxy import TcpProxy
from tests.support.topics import Record
from tests.support.workers import worker_pids
from turnout.errors import TurnoutError, Unavailable
from turnout.replayer.v1 import gate_pb2, run_pb2


async def _reading(stage: Stage, version: str, records: int) -> run_pb2.Run:
    async def there() -> run_pb2.Run | None:
        run = await stage.get(version)
        return run if run.records >= records else None

    run = await eventually(there)
    assert run is not None
    return run


async def test_a_killed_worker_is_replaced_at_once(stage: Stage) -> None:
    stage.run_lease_s = 600.0  # nobody could wait for this lease to run out
    await stage.stop()
    await stage.start()
    topic = await stage.kafka.create()
    records = flights(20_000)
    await stage.kafka.produce(topic, records)
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.begin(v1.name, rate_limit=400)  # so that both are at it until they are killed
    await _reading(stage, v1.name, 1)

    async def both() -> list[int]:
        pids = worker_pids(os.getpid())
        assert len(pids) == 2, pids
        return pids

    for pid in await eventually(both):
        os.kill(pid, signal.SIGKILL)
    await stage.call("SetRunRate", run_pb2.SetRunRateRequest(name=f"{v1.name}/run", rate_limit=0))
    run = await stage.applied(v1.name, len(records))
    assert run.worker_restarts == 2
    await stage.in_state(v1.name, "TAILING")
    await stage.table_is_that_of(v1, records)


async def test_a_frozen_worker_is_replaced_and_doubles_nothing(stage: Stage) -> None:
    stage.run_lease_s = 3.0
    await stage.stop()
    await stage.start()
    topic = await stage.kafka.create()
    records = flights(6000)
    await stage.kafka.produce(topic, records)
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.begin(v1.name, rate_limit=1000)
    await _reading(stage, v1.name, 500)
    frozen = worker_pids(os.getpid())[0]
    os.kill(frozen, signal.SIGSTOP)

    async def told() -> bool:
        return "gave no sign of life" in (await stage.get(v1.name)).status_message

    assert await eventually(told)
    run = await stage.applied(v1.name, 6000)
    assert run.worker_restarts == 1
    assert not Path(f"/proc/{frozen}").exists()
    await stage.in_state(v1.name, "TAILING")
    await stage.table_is_that_of(v1, records)


# Lets no other thread in, as one long call does, for a time that does not depend on the machine: longer than a silent
# worker is given that does not compute, and much shorter than the job's function is.
COMPUTES = """
import sys
import time

def _computes():
    usual = sys.getswitchinterval()
    sys.setswitchinterval(600.0)
    ends_s = time.monotonic() + 6.0
    while time.monotonic() < ends_s:
        pass
    sys.setswitchinterval(usual)
    return True
"""


async def test_a_worker_whose_job_computes_for_long_is_left_alone(stage: Stage) -> None:
    stage.run_lease_s = 0.5
    await stage.stop()
    await stage.start()
    topic = await stage.kafka.create(1)
    records = flights(1, partitions=1)
    await stage.kafka.produce(topic, records)
    source = aggregate_source(topic, on_time="_computes()").replace("class Flight", COMPUTES + "\nclass Flight", 1)
    v1 = stage.registry.register(source, 1)
    await stage.begin(v1.name)
    run = await stage.applied(v1.name, 1)
    assert run.worker_restarts == 0


async def test_secrets_are_in_neither_arguments_nor_environment(stage: Stage) -> None:
    topic = await stage.kafka.create(1)
    v1 = stage.registry.register(aggregate_source(topic), 1)
    password = urlsplit(stage.postgres).password or ""
    assert password
    os.environ["TURNOUT_POSTGRES"] = stage.postgres
    try:
        await stage.begin(v1.name)
        await stage.tailed(v1.name)
    finally:
        del os.environ["TURNOUT_POSTGRES"]
    pid = await stage.tailed(v1.name)
    for name in ("cmdline", "environ"):
        content = Path(f"/proc/{pid}/{name}").read_text(encoding="utf-8")
        assert "TURNOUT_POSTGRES" not in content
        assert stage.postgres not in content


async def test_a_restart_of_the_service_takes_the_runs_up(stage: Stage) -> None:
    topic = await stage.kafka.create()
    records = flights(5000)
    await stage.kafka.produce(topic, records)
    v1 = stage.registry.register(aggregate_source(topic), 1)
    v2 = stage.registry.register(aggregate_source(topic), 2)
    await stage.begin(v1.name, rate_limit=3000)
    await stage.begin(v2.name)
    await stage.in_state(v2.name, "TAILING")
    await stage.pause(v2.name)
    await _reading(stage, v1.name, 500)
    await stage.stop()
    assert worker_pids(os.getpid()) == []
    owners = await stage.query("select owner from serving.positions where owner is not null")
    assert owners == []

    await stage.start()
    await stage.applied(v1.name, 5000)
    await stage.in_state(v1.name, "TAILING")
    await stage.table_is_that_of(v1, records)
    run = await stage.get(v2.name)
    assert (run.state, run.live_workers) == (run_pb2.Run.PAUSED, 0)


async def test_a_killed_service_is_replaced_and_its_workers_end(stage: Stage) -> None:
    topic = await stage.kafka.create()
    records = flights(6000)
    await stage.kafka.produce(topic, records)
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.stop()
    async with replica(stage, "killed") as service:
        await service.begin(v1.name, rate_limit=3000)

        async def reading() -> bool:
            return (await service.get(v1.name)).records > 500

        assert await eventually(reading)
        workers = service.workers
        assert len(workers) == 2
        await service.kill()

    await stage.start()  # another process, as far as leases can tell
    await stage.applied(v1.name, 6000)
    await stage.table_is_that_of(v1, records)

    async def workers_are_gone() -> bool:
        return not any(Path(f"/proc/{pid}").exists() for pid in workers)

    assert await eventually(workers_are_gone)


async def test_the_log_running_away_under_a_worker_fails_the_run(stage: Stage) -> None:
    topic = await stage.kafka.create(1)
    # Much more than a worker fetches ahead: what it has fetched already it may still apply.
    wide = [Record((record.value or b"").ljust(20_000), partition=0) for record in flights(5000)]
    await stage.kafka.produce(topic, wide, compression="none")
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.begin(v1.name, rate_limit=20)
    await _reading(stage, v1.name, 5)
    await stage.kafka.delete_records_before(topic, {0: 4990})
    await stage.call("SetRunRate", run_pb2.SetRunRateRequest(name=f"{v1.name}/run", rate_limit=0))
    run = await stage.in_state(v1.name, "FAILED", "TAILING")
    assert run.failure_reason == "LOG_TRUNCATED"


async def test_a_topic_created_again_is_refused_at_resume(stage: Stage) -> None:
    topic = await stage.kafka.create()
    await stage.kafka.produce(topic, flights(100))
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.begin(v1.name)
    await stage.in_state(v1.name, "TAILING")
    await stage.pause(v1.name)

    await stage.kafka.delete(topic)
    error = await refused(_once_deleted(stage, v1.name))
    assert error.reason == "TOPIC_NOT_FOUND"

    await stage.kafka.create(name=topic)
    await stage.kafka.produce(topic, flights(500))
    error = await refused(stage.resume(v1.name))
    assert error.reason == "TOPIC_RECREATED"
    assert topic in error.message
    run = await stage.get(v1.name)
    assert run.state == run_pb2.Run.FAILED

    error = await refused(stage.gates(v1.name))
    assert error.reason == "TOPIC_RECREATED"

    v2 = stage.registry.register(aggregate_source(topic), 2)  # a new version replays the new topic
    await stage.begin(v2.name)
    await stage.applied(v2.name, 500)


async def test_a_topic_deleted_under_a_run_fails_it_and_is_said(stage: Stage) -> None:
    topic = await stage.kafka.create()
    await stage.kafka.produce(topic, flights(100))
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.begin(v1.name)
    await stage.applied(v1.name, 100)
    await stage.in_state(v1.name, "TAILING")
    await stage.kafka.delete(topic)
    run = await stage.in_state(v1.name, "FAILED")
    assert run.failure_reason == "TOPIC_NOT_FOUND"
    assert f"The topic {topic} does not exist any more" in run.status_message
    assert "a comment will do, as a new version" in run.status_message


async def test_a_larger_topic_under_a_tail_fails_the_run_within_a_minute(stage: Stage) -> None:
    """Deleted and created again at once, with more records than the tail had read: Kafka reads on without a word."""
    topic = await stage.kafka.create()
    records = flights(100)
    await stage.kafka.produce(topic, records)
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.begin(v1.name)
    await stage.applied(v1.name, 100)
    await stage.in_state(v1.name, "TAILING")
    await _created_again(stage, topic)
    await stage.kafka.produce(topic, flights(5000, first=7))
    run = await stage.in_state(v1.name, "FAILED", deadline_s=60.0)
    assert run.failure_reason in ("TOPIC_RECREATED", "TOPIC_NOT_FOUND")
    assert (await refused(stage.resume(v1.name))).reason == "TOPIC_RECREATED"


async def test_a_smaller_topic_under_a_tail_fails_the_run_within_a_minute(stage: Stage) -> None:
    topic = await stage.kafka.create()
    await stage.kafka.produce(topic, flights(400))
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.begin(v1.name)
    await stage.applied(v1.name, 400)
    await stage.in_state(v1.name, "TAILING")
    await _created_again(stage, topic)
    await stage.kafka.produce(topic, flights(40))
    run = await stage.in_state(v1.name, "FAILED", deadline_s=60.0)
    assert run.failure_reason in ("TOPIC_RECREATED", "TOPIC_NOT_FOUND", "POSITION_BEYOND_END")


@pytest.mark.parametrize("records", [40, 5000])
async def test_without_a_topic_id_the_last_applied_record_tells(stage: Stage, records: int) -> None:
    """Brokers of old have no ids: the run's stands for that of a topic made again in a cluster made again."""
    topic = await stage.kafka.create()
    await stage.kafka.produce(topic, flights(400))
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.begin(v1.name)
    await stage.applied(v1.name, 400)
    await stage.pause(v1.name)
    await _created_again(stage, topic)
    await stage.kafka.produce(topic, flights(records, first=7))
    topic_id = (await TopicAdmin(KafkaConfig.of_bootstrap(stage.kafka.bootstrap)).describe(topic)).topic_id
    ids = json.dumps({topic: topic_id})
    await stage.query("update replayer.runs set topic_ids = $1 where version = $2", ids, v1.name)
    reason = "POSITION_BEYOND_END" if records == 40 else "TOPIC_RECREATED"
    assert (await refused(stage.gates(v1.name))).reason == reason  # before a cutover
    assert (await stage.get(v1.name)).failure_reason == reason
    assert (await refused(stage.resume(v1.name))).reason == reason


async def _created_again(stage: Stage, topic: str) -> None:
    await stage.kafka.delete(topic)

    async def created() -> bool:
        try:
            await stage.kafka.create(name=topic)
        except KafkaException:  # the broker is not done with the deletion yet
            return False
        return True

    assert await eventually(created)


async def _once_deleted(stage: Stage, version: str) -> object:
    """Deleting a topic takes the broker a moment."""

    async def missing() -> bool:
        try:
            await stage.call("EstimateRun", run_pb2.EstimateRunRequest(version=version))
        except TurnoutError as error:
            return error.reason == "TOPIC_NOT_FOUND"
        return False

    await eventually(missing)
    return await stage.resume(version)


async def test_the_log_running_away_under_a_paused_run_is_said(stage: Stage) -> None:
    topic = await stage.kafka.create(1)
    await stage.kafka.produce(topic, flights(100, partitions=1))
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.begin(v1.name)
    await stage.applied(v1.name, 100)
    await stage.pause(v1.name)
    await stage.kafka.produce(topic, flights(100, first=100, partitions=1))
    await stage.kafka.delete_records_before(topic, {0: 150})
    error = await refused(stage.resume(v1.name))
    assert error.reason == "LOG_TRUNCATED"
    assert "50 offsets are gone for ever" in error.message


async def test_a_malformed_record_fails_the_run_and_names_it(stage: Stage) -> None:
    topic = await stage.kafka.create(2)
    await stage.kafka.produce(topic, flights(100, partitions=2))
    await stage.kafka.produce(topic, [Record(b"no JSON at all", partition=1)])
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.begin(v1.name)
    run = await stage.in_state(v1.name, "FAILED")
    assert run.failure_reason == "MALFORMED_RECORD"
    assert "50" in run.status_message  # the offset
    assert topic in run.status_message
    gate = (await stage.gates(v1.name))["catch-up"]
    assert any("FAILED (MALFORMED_RECORD)" in line for line in gate.evidence)

    async def nobody_works() -> bool:
        return (await stage.get(v1.name)).live_workers == 0

    assert await eventually(nobody_works)
    await stage.resume(v1.name)
    assert (await stage.in_state(v1.name, "FAILED")).failure_reason == "MALFORMED_RECORD"


DEADLY = "flight.carrier != 'deadly' or __import__('os')._exit(9)"


async def test_a_record_that_kills_its_worker_is_set_aside(stage: Stage) -> None:
    topic = await stage.kafka.create(2)
    records = flights(400, partitions=2)
    deadly = Record(b'{"carrier": "deadly", "delay": 1}', partition=1)
    await stage.kafka.produce(topic, [*records[:201], deadly, *records[201:301], deadly, *records[301:]])
    source = aggregate_source(topic, on_time=DEADLY, options=', on_malformed="set_aside"')
    v1 = stage.registry.register(source, 1)
    await stage.begin(v1.name)
    run = await stage.applied(v1.name, 402)
    assert run.records_set_aside == 2
    letters = await stage.query('select "offset", reason from serving.dead_letters order by 1')
    assert [letter["offset"] for letter in letters] == [100, 151]
    assert all(letter["reason"] == "the worker died on it twice: it ended with status 9" for letter in letters)
    assert sum(row[1] for row in await stage.rows("punctuality__v1", ["carrier", "flights"])) == 400


async def test_a_record_that_kills_its_worker_fails_the_run_and_is_named(stage: Stage) -> None:
    topic = await stage.kafka.create(1)
    await stage.kafka.produce(topic, [*flights(50, partitions=1), Record(b'{"carrier": "deadly", "delay": 1}')])
    v1 = stage.registry.register(aggregate_source(topic, on_time=DEADLY), 1)
    await stage.begin(v1.name)
    run = await stage.in_state(v1.name, "FAILED")
    assert run.failure_reason == "MALFORMED_RECORD"
    assert "partition 0, offset 50 is malformed: the worker died on it twice" in run.status_message


async def test_a_record_that_never_ends_is_set_aside(stage: Stage, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(slots, "Start", functools.partial(Start, transform_limit_s=1.0))
    topic = await stage.kafka.create(1)
    records = flights(50, partitions=1)
    await stage.kafka.produce(topic, [*records, Record(b'{"carrier": "hang", "delay": 1}')])
    hangs = "flight.carrier != 'hang' or all(zero == 0 for zero in iter(int, 1))"
    v1 = stage.registry.register(aggregate_source(topic, on_time=hangs, options=', on_malformed="set_aside"'), 1)
    await stage.begin(v1.name)
    run = await stage.applied(v1.name, 51)
    assert run.records_set_aside == 1
    [letter] = await stage.query('select "offset", reason from serving.dead_letters')
    assert letter["offset"] == 50
    assert letter["reason"] == "the worker died on it twice: it ended with TRANSFORM_TIMEOUT"


async def test_malformed_records_set_aside_are_counted(stage: Stage) -> None:
    topic = await stage.kafka.create(2)
    records = flights(100, partitions=2)
    await stage.kafka.produce(topic, [*records, Record(b"no JSON at all", partition=1)])
    v1 = stage.registry.register(aggregate_source(topic, options=', on_malformed="set_aside"'), 1)
    await stage.begin(v1.name)
    await stage.in_state(v1.name, "TAILING")
    run = await stage.applied(v1.name, 101)
    assert run.records_set_aside == 1
    await stage.table_is_that_of(v1, records)


async def test_new_partitions_are_taken_up_from_their_beginning(stage: Stage) -> None:
    topic = await stage.kafka.create(2)
    records = flights(100, partitions=2)
    await stage.kafka.produce(topic, records)
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.begin(v1.name)
    await stage.applied(v1.name, 100)
    await stage.kafka.widen(topic, 3)
    more = [Record(record.value, partition=2) for record in flights(50, first=100)]

    async def produced() -> bool:
        await stage.kafka.produce(topic, more)
        return True

    assert await eventually(produced)
    await stage.pause(v1.name)  # a resume looks at the topic at once; otherwise it is looked at twice a minute
    await stage.resume(v1.name)
    run = await stage.applied(v1.name, 150)
    assert [p.start_offset for p in run.partitions] == [0, 0, 0]
    await stage.table_is_that_of(v1, records + more)


@asynccontextmanager
async def _behind_a_proxy(stage: Stage) -> AsyncIterator[TcpProxy]:
    """The replayer and its workers reach PostgreSQL through the proxy; at the end the replayer is stopped."""
    parts = urlsplit(stage.postgres)
    async with TcpProxy(parts.hostname or "", parts.port or 0) as proxy:
        await stage.stop()
        direct, through = stage.postgres, parts.netloc.rpartition("@")[0]
        stage.postgres = urlunsplit(parts._replace(netloc=f"{through}@127.0.0.1:{proxy.port}"))
        await stage.start()
        yield proxy
        await stage.stop()
        stage.postgres = direct


async def test_runs_wait_while_postgresql_is_away_and_go_on(stage: Stage) -> None:
    records = flights(6000)
    async with _behind_a_proxy(stage) as proxy:
        topic = await stage.kafka.create()
        await stage.kafka.produce(topic, records)
        v1 = stage.registry.register(aggregate_source(topic), 1)
        await stage.begin(v1.name, rate_limit=3000)
        await _reading(stage, v1.name, 500)

        await proxy.cut()
        error = await refused(stage.get(v1.name))
        assert error.reason == "POSTGRES_UNAVAILABLE"
        await proxy.restore()
        await stage.applied(v1.name, 6000)
        await stage.in_state(v1.name, "TAILING")
    await stage.table_is_that_of(v1, records)


@pytest.mark.long
async def test_connections_lost_on_the_servers_side_only_hold_nothing_up(stage: Stage) -> None:
    """Whoever measures and supervises waits for answers that never come, and then goes on over new connections."""
    records, more = flights(1000), flights(500, first=1000)
    stage.run_lease_s = 1.0  # the workers' patience follows from it
    async with _behind_a_proxy(stage) as proxy:
        topic = await stage.kafka.create()
        await stage.kafka.produce(topic, records)
        v1 = stage.registry.register(aggregate_source(topic), 1)
        await stage.begin(v1.name)
        await stage.in_state(v1.name, "TAILING")

        proxy.half_open()
        await stage.kafka.produce(topic, more)

        async def measured_again() -> bool:
            request = gate_pb2.CheckGatesRequest(candidate=v1.name)
            try:
                answer = await stage.call("CheckGates", request)
            except Unavailable:
                return False
            return bool(answer.gates[0].passed) and sum(p.next_offset for p in answer.partitions) == 1500

        assert await eventually(measured_again, 90.0)
        stopped = await stage.end(v1.name)  # which the supervisor does
        assert (stopped.state, stopped.live_workers) == (run_pb2.Run.STOPPED, 0)
    await stage.table_is_that_of(v1, records + more)
