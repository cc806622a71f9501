"""Retirement and its undoing over real channels, on real PostgreSQL, with a switcher and a replayer that answer."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import TYPE_CHECKING, cast

import grpc
import pytest

from tests.integration.registry.conftest import DEFINITION, JOB, Registry
from tests.support.eventually import eventually
from turnout import errors
from turnout.channel import connect
from turnout.errors import Aborted, FailedPrecondition, NotFound, Unavailable
from turnout.registry.v1 import registry_pb2 as pb
from turnout.registry.v1.registry_pb2_grpc import RegistryStub
from turnout.replayer.v1 import run_pb2
from turnout.results import RetirementStep, Version, VersionState

if TYPE_CHECKING:
    from turnout.registry.v1.registry_pb2_grpc import RegistryAsyncStub

NOW = timedelta(0)
LONG = timedelta(hours=1)


async def state(registry: Registry, expected: VersionState, number: int = 1) -> Version:
    async def reached() -> Version:
        version = await registry.client.get_version(JOB, number)
        assert version.state is expected, version
        return version

    return await eventually(reached, 60)


async def waiting(registry: Registry, words: str, number: int = 1) -> Version:
    async def reached() -> Version:
        version = await registry.client.get_version(JOB, number)
        assert version.retirement is not None, version
        assert words in version.retirement.waiting_for, version
        return version

    return await eventually(reached, 60)


async def test_a_version_ends_dropped(registry: Registry) -> None:
    name = await registry.new_version()
    version = await registry.client.retire(JOB, 1, retain_for=NOW)
    assert version.state is not VersionState.REGISTERED
    assert version.retirement is not None
    assert version.retirement.claimed_actor == "ann@desk"
    version = await state(registry, VersionState.DROPPED)
    assert version.retirement is not None
    assert version.retirement.step is RetirementStep.DONE
    assert registry.fakes.replayer.dropped == [name]
    assert registry.fakes.calls.made == ["ReleaseVersion", "StopRun", "ReleaseVersion", "DropTable"]
    assert (await registry.client.retire(JOB, 1)).state is VersionState.DROPPED
    with pytest.raises(errors.FailedPrecondition, match="Apply its code again") as refused:
        await registry.client.unretire(JOB, 1)
    assert refused.value.reason == "VERSION_DROPPED"
    again = await registry.client.create_version(JOB, DEFINITION, b"code 1")
    assert (again.created, again.version.number) == (True, 2)


async def test_a_version_without_a_run_ends_dropped(registry: Registry) -> None:
    await registry.client.create_version(JOB, DEFINITION, b"never run")
    await registry.client.retire(JOB, 1, retain_for=NOW)
    await state(registry, VersionState.DROPPED)


@pytest.mark.parametrize("reason", ["VERSION_IN_USE", "ROLLBACK_WINDOW"])
async def test_a_refusal_reaches_the_caller_and_nothing_changes(registry: Registry, reason: str) -> None:
    name = await registry.new_version()
    registry.fakes.switcher.in_use[name] = reason
    with pytest.raises(errors.FailedPrecondition, match=r"nothing has changed.*Cut over to another") as refused:
        await registry.client.retire(JOB, 1)
    assert refused.value.reason == reason
    version = await registry.client.get_version(JOB, 1)
    assert version.state is VersionState.REGISTERED
    assert version.retirement is None
    assert registry.fakes.calls.made == ["ReleaseVersion"]


async def test_the_way_back_can_be_given_up(registry: Registry) -> None:
    registry.fakes.switcher.in_use[await registry.new_version()] = "ROLLBACK_WINDOW"
    await registry.client.retire(JOB, 1, retain_for=NOW, forgo_rollback=True)
    await state(registry, VersionState.DROPPED)


async def test_the_table_is_retained_until_its_time(registry: Registry) -> None:
    await registry.new_version()
    await registry.client.retire(JOB, 1, retain_for=LONG)
    version = await state(registry, VersionState.RETIRED)
    retirement = version.retirement
    assert retirement is not None
    assert retirement.step is RetirementStep.RETAIN
    assert retirement.drop_time is not None
    assert LONG <= retirement.drop_time - retirement.start_time < LONG + timedelta(minutes=1)
    assert "end of the retention" in retirement.waiting_for
    again = await registry.client.retire(JOB, 1, retain_for=NOW)
    assert again == version
    assert registry.fakes.replayer.dropped == []


async def test_it_waits_for_fronts_view_and_locks_and_says_so(registry: Registry) -> None:
    fakes = registry.fakes
    await registry.new_version()
    fakes.switcher.undrained = ["front-a"]
    fakes.switcher.view_pending = True
    fakes.calls.always("DropTable", Aborted("TABLE_BLOCKED", "Session 7 holds a lock."))
    await registry.client.retire(JOB, 1, retain_for=NOW)
    version = await waiting(registry, "front-a")
    assert version.retirement is not None
    assert version.retirement.step is RetirementStep.DROP
    fakes.switcher.undrained = []
    await waiting(registry, "SQL view")
    assert "DropTable" not in fakes.calls.made
    fakes.switcher.view_pending = False
    await waiting(registry, "Session 7")
    fakes.calls.errors.clear()
    await state(registry, VersionState.DROPPED)


@pytest.mark.parametrize("reason", ["VERSION_IN_USE", "ROLLBACK_WINDOW"])
async def test_a_refusal_after_the_switcher_was_away_ends_it(registry: Registry, reason: str) -> None:
    name = await registry.new_version()
    registry.fakes.switcher.in_use[name] = reason
    registry.fakes.calls.always("ReleaseVersion", Unavailable("AWAY", "The switcher is away."))
    assert (await registry.client.retire(JOB, 1)).state is VersionState.RETIRING
    registry.fakes.calls.errors.clear()
    assert (await state(registry, VersionState.REGISTERED)).retirement is None


async def test_a_switcher_that_is_away_is_waited_for(registry: Registry) -> None:
    await registry.new_version()
    registry.fakes.calls.always("ReleaseVersion", Unavailable("AWAY", "The switcher is away."))
    version = await registry.client.retire(JOB, 1, retain_for=NOW)
    assert version.state is VersionState.RETIRING
    assert version.retirement is not None
    assert version.retirement.step is RetirementStep.RELEASE
    assert version.retirement.waiting_for == "The switcher is away."
    registry.fakes.calls.errors.clear()
    await state(registry, VersionState.DROPPED)


async def test_a_replayer_that_is_away_is_waited_for(registry: Registry) -> None:
    await registry.new_version()
    registry.fakes.calls.always("StopRun", Unavailable("AWAY", "The replayer is away."))
    registry.fakes.calls.errors["DropTable"] = [Unavailable("AWAY", "The replayer is away.")] * 3
    await registry.client.retire(JOB, 1, retain_for=NOW)
    await waiting(registry, "The replayer is away.")
    registry.fakes.calls.errors["StopRun"].clear()
    await state(registry, VersionState.DROPPED)
    assert registry.fakes.calls.made.count("DropTable") == 4


async def test_taking_it_back_resumes_the_run(registry: Registry) -> None:
    name = await registry.new_version()
    await registry.client.retire(JOB, 1, retain_for=LONG)
    await state(registry, VersionState.RETIRED)
    registry.fakes.calls.held["ReinstateVersion"] = held = asyncio.Event()
    version = await registry.client.unretire(JOB, 1)
    assert version.state is VersionState.RETIRING
    assert version.retirement is not None
    assert version.retirement.step is RetirementStep.REINSTATE
    held.set()
    version = await state(registry, VersionState.REGISTERED)
    assert version.retirement is None
    assert registry.fakes.switcher.released == set()
    assert registry.fakes.replayer.runs[name] == run_pb2.Run.QUEUED
    assert registry.fakes.calls.made[-2:] == ["ReinstateVersion", "ResumeRun"]
    assert (await registry.client.unretire(JOB, 1)).state is VersionState.REGISTERED


@pytest.mark.parametrize(
    "error", [FailedPrecondition("TOPIC_RECREATED", "Another topic."), NotFound("RUN_NOT_FOUND", "No run.")]
)
async def test_a_run_that_cannot_be_resumed_does_not_hold_it_up(registry: Registry, error: FailedPrecondition) -> None:
    await registry.new_version()
    await registry.client.retire(JOB, 1, retain_for=LONG)
    await state(registry, VersionState.RETIRED)
    registry.fakes.calls.errors["ResumeRun"] = [error]
    await registry.client.unretire(JOB, 1)
    await state(registry, VersionState.REGISTERED)


async def test_retiring_while_it_is_taken_back_is_refused(registry: Registry) -> None:
    await registry.new_version()
    await registry.client.retire(JOB, 1, retain_for=LONG)
    await state(registry, VersionState.RETIRED)
    registry.fakes.calls.held["ReinstateVersion"] = held = asyncio.Event()
    await registry.client.unretire(JOB, 1)
    with pytest.raises(errors.Aborted) as refused:
        await registry.client.retire(JOB, 1)
    assert refused.value.reason == "UNRETIRE_IN_PROGRESS"
    held.set()
    await state(registry, VersionState.REGISTERED)
    await registry.client.retire(JOB, 1, retain_for=NOW)
    await state(registry, VersionState.DROPPED)


async def test_a_repeated_request_gets_the_first_answer(registry: Registry) -> None:
    await registry.new_version()
    channel = connect(registry.target)
    stub = cast("RegistryAsyncStub", RegistryStub(channel))
    request = pb.RetireVersionRequest(name=f"jobs/{JOB}/versions/1", request_id="r1")
    first = await stub.RetireVersion(request, timeout=5)
    await state(registry, VersionState.RETIRED)
    assert await stub.RetireVersion(request, timeout=5) == first
    back = pb.UnretireVersionRequest(name=f"jobs/{JOB}/versions/1", request_id="r2")
    first = await stub.UnretireVersion(back, timeout=5)
    await state(registry, VersionState.REGISTERED)
    assert await stub.UnretireVersion(back, timeout=5) == first
    await channel.close()


async def test_what_the_switcher_has_not_answered_is_asked_again(registry: Registry) -> None:
    name = await registry.new_version()
    registry.fakes.calls.always("ReleaseVersion", Unavailable("AWAY", "The switcher is away."))
    channel = connect(registry.target)
    stub = cast("RegistryAsyncStub", RegistryStub(channel))
    request = pb.RetireVersionRequest(name=name, request_id="r1")
    assert (await stub.RetireVersion(request, timeout=20)).retirement.step == pb.Retirement.RELEASE
    registry.fakes.switcher.in_use[name] = "ROLLBACK_WINDOW"
    registry.fakes.calls.errors.clear()
    await state(registry, VersionState.REGISTERED)
    with pytest.raises(grpc.aio.AioRpcError, match="ROLLBACK_WINDOW"):
        await stub.RetireVersion(request, timeout=20)
    await channel.close()


async def test_retiring_what_is_not_there(registry: Registry) -> None:
    with pytest.raises(errors.NotFound):
        await registry.client.retire(JOB, 9)
    with pytest.raises(errors.NotFound):
        await registry.client.unretire(JOB, 9)
    await registry.new_version()
    with pytest.raises(errors.InvalidInput, match="retain_for"):
        await registry.client.retire(JOB, 1, retain_for=timedelta(seconds=-1))
