"""The gates asked over gRPC, of real runs."""

from __future__ import annotations

import pytest

from tests.integration.replayer.stage import ON_TIME, Stage, aggregate_source, flights, refused
from tests.support.eventually import eventually
from turnout.errors import InvalidInput
from turnout.replayer.v1 import gate_pb2

CANCELLED = {"columns": "    cancelled: Sum[int] = 0\n", "values": ", cancelled=flight.delay is None"}


async def _two_versions(stage: Stage, topic: str, **second: str) -> tuple[str, str]:
    v1 = stage.registry.register(aggregate_source(topic), 1)
    v2 = stage.registry.register(aggregate_source(topic, on_time=ON_TIME, **second), 2)
    await stage.begin(v1.name)
    await stage.in_state(v1.name, "TAILING")
    return v1.name, v2.name


async def _all_pass(stage: Stage, candidate: str, baseline: str = "") -> dict[str, gate_pb2.Gate]:
    async def passed() -> dict[str, gate_pb2.Gate] | None:
        gates = await stage.gates(candidate, baseline)
        assert all(gate.passed for gate in gates.values()), gates
        return gates

    found = await eventually(passed)
    assert found is not None
    return found


async def test_a_candidate_that_has_caught_up_passes_beside_a_live_feed(stage: Stage) -> None:
    topic = await stage.kafka.create()
    await stage.kafka.produce(topic, flights(2000))
    v1, v2 = await _two_versions(stage, topic, **CANCELLED)
    await _all_pass(stage, v1)  # a first version is measured by the log
    await stage.begin(v2)
    fed = 2000

    async def passed_while_fed() -> bool:
        nonlocal fed
        await stage.kafka.produce(topic, flights(100, first=fed))
        fed += 100
        gates = await stage.gates(v2, v1)
        return all(gate.passed for gate in gates.values())

    assert await eventually(passed_while_fed)
    gates = await _all_pass(stage, v2, v1)
    assert list(gates) == ["catch-up", "coverage", "schema"]
    assert gates["catch-up"].evidence[0].startswith("All 4 partitions have been level with version 1")
    assert gates["schema"].evidence == ["Column cancelled: added (int64, not null)."]


async def test_asked_too_early_it_lists_the_partitions_and_their_lag(stage: Stage) -> None:
    topic = await stage.kafka.create()
    await stage.kafka.produce(topic, flights(20_000))
    v1, v2 = await _two_versions(stage, topic)
    await stage.begin(v2, rate_limit=200)

    async def refused_with_a_forecast() -> gate_pb2.Gate | None:
        gate = (await stage.gates(v2, v1))["catch-up"]
        assert not gate.passed
        return gate if any("reaches the end of the log in about" in line for line in gate.evidence) else None

    gate = await eventually(refused_with_a_forecast)
    assert gate is not None
    for partition in range(4):
        assert any(
            line.startswith(f"Partition {topic}/{partition} is ") and "behind version 1" in line
            for line in gate.evidence
        ), gate.evidence


async def test_a_paused_candidate_does_not_pass(stage: Stage) -> None:
    topic = await stage.kafka.create()
    await stage.kafka.produce(topic, flights(100))
    v1, v2 = await _two_versions(stage, topic)
    await stage.begin(v2)
    await _all_pass(stage, v2, v1)
    await stage.pause(v2)
    gate = (await stage.gates(v2, v1))["catch-up"]
    assert gate.evidence == ["The run of version 2 is PAUSED: nothing keeps its table fresh; resume it."]


async def test_the_log_start_has_moved_since_version_1_began(stage: Stage) -> None:
    topic = await stage.kafka.create(2)
    await stage.kafka.produce(topic, flights(1000, partitions=2))
    v1, v2 = await _two_versions(stage, topic)
    await stage.kafka.delete_records_before(topic, {0: 120})
    await stage.begin(v2)
    await stage.in_state(v2, "TAILING")
    gate = (await stage.gates(v2, v1))["coverage"]
    assert not gate.passed
    assert gate.evidence[0].startswith(
        f"Partition {topic}/0: version 1 begins at offset 0, version 2 only at 120: readers would lose 120 offsets, "
    )
    assert "not cut over silently" in gate.evidence[1]
    assert (await stage.gates(v1, v2))["coverage"].passed


async def test_an_aggregate_of_a_compacted_topic(stage: Stage) -> None:
    topic = await stage.kafka.create(1, config={"cleanup.policy": "compact"})
    v1 = stage.registry.register(aggregate_source(topic), 1)
    await stage.begin(v1.name)
    await stage.in_state(v1.name, "TAILING")
    gate = (await stage.gates(v1.name))["coverage"]
    assert not gate.passed
    assert f"{topic} is compacted" in gate.evidence[0]


@pytest.mark.parametrize(
    ("second", "says"),
    [
        ({"share": "on_time::numeric / flights"}, "share: type changed from double precision to numeric"),
        ({"options": ", derived={}"}, "share: removed"),
    ],
)
async def test_what_readers_would_trip_over(stage: Stage, second: dict[str, str], says: str) -> None:
    topic = await stage.kafka.create(1)
    source = aggregate_source(topic, **second)
    if "options" in second:
        source = aggregate_source(topic).replace(', derived={"share": "on_time::float8 / flights"}', "")
    v1 = stage.registry.register(aggregate_source(topic), 1)
    v2 = stage.registry.register(source, 2)
    await stage.begin(v1.name)
    await stage.begin(v2.name)
    gate = (await stage.gates(v2.name, v1.name))["schema"]
    assert not gate.passed
    assert any(says in line for line in gate.evidence), gate.evidence


async def test_what_cannot_be_asked(stage: Stage) -> None:
    topic = await stage.kafka.create(1)
    v1 = stage.registry.register(aggregate_source(topic), 1)
    assert (await refused(stage.gates(v1.name))).reason == "RUN_NOT_FOUND"
    error = await refused(stage.gates(v1.name, "jobs/other/versions/1"))
    assert (type(error), error.reason) == (InvalidInput, "DIFFERENT_JOBS")
