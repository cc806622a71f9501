"""Runs of versions that are retired, or become so at a bad moment: nothing feeds a table that will be dropped."""

from __future__ import annotations

import pytest

from tests.integration.replayer.registry import Registered
from tests.integration.replayer.stage import Stage, aggregate_source, flights, refused
from turnout.errors import FailedPrecondition, Unavailable
from turnout.registry.v1 import registry_pb2
from turnout.replayer.v1 import run_pb2, table_pb2


async def _version(stage: Stage) -> Registered:
    topic = await stage.kafka.create(1)
    await stage.kafka.produce(topic, flights(100, partitions=1))
    return stage.registry.register(aggregate_source(topic), 1)


async def _stopped(stage: Stage) -> Registered:
    v1 = await _version(stage)
    await stage.begin(v1.name)
    await stage.in_state(v1.name, "TAILING", "REPLAYING", "QUEUED")
    await stage.end(v1.name)
    return v1


@pytest.mark.parametrize(
    ("state", "step"),
    [
        (registry_pb2.Version.RETIRING, registry_pb2.Retirement.RELEASE),
        (registry_pb2.Version.RETIRING, registry_pb2.Retirement.STOP_RUN),
        (registry_pb2.Version.RETIRED, registry_pb2.Retirement.RETAIN),
        (registry_pb2.Version.RETIRED, registry_pb2.Retirement.DROP),
        (registry_pb2.Version.DROPPED, registry_pb2.Retirement.DONE),
    ],
)
async def test_the_run_of_a_retired_version_is_not_resumed(
    stage: Stage,
    state: registry_pb2.Version.State.ValueType,
    step: registry_pb2.Retirement.Step.ValueType,
) -> None:
    v1 = await _stopped(stage)
    v1.state, v1.step = state, step
    error = await refused(stage.resume(v1.name))
    assert (type(error), error.reason) == (FailedPrecondition, "VERSION_RETIRED")
    assert (await stage.get(v1.name)).state == run_pb2.Run.STOPPED


async def test_a_retirement_that_is_taken_back_resumes_the_run(stage: Stage) -> None:
    v1 = await _stopped(stage)
    v1.state, v1.step = registry_pb2.Version.RETIRING, registry_pb2.Retirement.REINSTATE
    assert (await stage.resume(v1.name)).state == run_pb2.Run.REPLAYING
    await stage.applied(v1.name, 100)


async def test_without_the_registry_no_run_is_resumed(stage: Stage) -> None:
    v1 = await _stopped(stage)
    await stage.registry.stop()
    error = await refused(stage.resume(v1.name))
    assert isinstance(error, Unavailable)
    assert (await stage.get(v1.name)).state == run_pb2.Run.STOPPED


async def _stands_still(stage: Stage, version: str) -> None:
    run = await stage.get(version)
    assert (run.state, run.live_workers) == (run_pb2.Run.STOPPED, 0)


async def test_a_version_retired_while_its_run_is_started(stage: Stage) -> None:
    v1 = await _version(stage)
    v1.asked_before_retired = 1
    assert (await refused(stage.begin(v1.name))).reason == "VERSION_RETIRED"
    await _stands_still(stage, v1.name)
    dropped = await stage.call("DropTable", table_pb2.DropTableRequest(version=v1.name))
    assert dropped.dropped


async def test_a_version_retired_while_its_run_is_resumed(stage: Stage) -> None:
    v1 = await _stopped(stage)
    v1.asked_before_retired = 1
    assert (await refused(stage.resume(v1.name))).reason == "VERSION_RETIRED"
    await _stands_still(stage, v1.name)
