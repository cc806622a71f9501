"""Whoever drives a rollout dies, or freezes, at every step of it: it goes on, and nothing is done twice."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import grpc
import pytest

from tests.integration.switcher.conftest import ROUTE
from tests.integration.switcher.processes import SwitcherProcess, once_available
from tests.integration.switcher.registry import RegistryOnDemand
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.integration.switcher.rolling import ALL, APPROVE, COMPARE, REPLAY, RETIRE, Rolling, ready, soak, traffic
from tests.support.eventually import eventually
from turnout.channel import connect
from turnout.switcher.v1 import switcher_pb2 as pb
from turnout.switcher.v1 import switcher_pb2_grpc as rpc

EVERYTHING = [REPLAY, COMPARE, traffic(500), traffic(2500), APPROVE, ALL, soak(), RETIRE]


async def patient(call: Any) -> Any:
    """The answer, once a switcher is there to give it."""
    return await once_available(call, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


class Replica:
    """A switcher in a process of its own, and how it is called."""

    def __init__(self, process: SwitcherProcess) -> None:
        self.process = process
        self.channel = connect(process.target)
        self.stub: Any = rpc.SwitcherStub(self.channel)

    @property
    def rolling(self) -> Rolling:
        return Rolling(lambda: self.stub, patient)

    async def again(self) -> None:
        """Kill it, and start another one in its place."""
        await self.process.kill()
        await self.process.start()

    async def serving(self) -> None:
        await patient(lambda: self.stub.ListRoutes(pb.ListRoutesRequest(), timeout=5))


@pytest.fixture
async def replicas(
    postgres: str, replayer: ReplayerOnDemand, registry: RegistryOnDemand, tmp_path: Path
) -> AsyncIterator[list[Replica]]:
    """Two switchers on one database, of which the first one runs; v1 has all readers, and v2 is ready."""
    ready(replayer)
    async with AsyncExitStack() as ending:
        made = []
        for name in ("one", "two"):
            process = SwitcherProcess(postgres, replayer.target, str(tmp_path / name), registry.target)
            made.append(Replica(process))
            ending.push_async_callback(made[-1].channel.close)
        await made[0].process.start()
        ending.push_async_callback(made[0].process.kill)
        await made[0].serving()
        await made[0].stub.CutOverRoute(pb.CutOverRouteRequest(name=ROUTE, version=1), timeout=20)
        yield made


async def told_at(rolling: Rolling, step: int) -> None:
    """What it waits for at this step of everything comes."""
    if step == 3:
        await rolling.read()
    elif step == 5:
        await rolling.say("Promote", step=5)


async def driven(replica: Replica) -> pb.Rollout:
    """The rollout at its end; its driver has died at every place of it at which it was seen.

    Which these are is a matter of luck; deaths between a commit and its answer are those of `test_rollouts`.
    """
    rolling, seen = replica.rolling, set[tuple[int, int, int]]()

    async def over() -> pb.Rollout | None:
        found = await rolling.get()
        place = (found.state, found.step, found.phase)
        if found.state not in (pb.Rollout.PENDING, pb.Rollout.RUNNING, pb.Rollout.ROLLING_BACK):
            return found
        if place not in seen:
            seen.add(place)
            if found.phase == pb.Rollout.WATCHING:
                await told_at(rolling, found.step)
            await replica.again()
        return None

    found = await eventually(over, 240.0)
    assert found is not None
    assert len(seen) >= 4, "it was killed on the way"
    return found


@pytest.mark.long
async def test_it_goes_on_after_every_death(
    replicas: list[Replica], replayer: ReplayerOnDemand, registry: RegistryOnDemand
) -> None:
    replica, _ = replicas
    rolling = replica.rolling
    await rolling.create(EVERYTHING, request_id="one")
    ended = await driven(replica)
    assert (ended.state, ended.sentence) == (pb.Rollout.SUCCEEDED, "All steps are done.")
    assert registry.retired == {1}
    assert (len(set(registry.asked)), len({one.request_id for one in replayer.compare_requests})) == (1, 1)
    assert await rolling.moves() == [
        ("CUT_OVER", 1, 0),
        *[("ROLL_OUT", 1, weight) for weight in (0, 500, 2500)],
        *[("ROLL_OUT", 2, 10_000)] * 2,
    ]
    route = await rolling.route()
    assert (route.active_version, route.owner) == (2, "")
    assert await rolling.unequal() == []


@pytest.mark.parametrize("step", [1, 3])
async def test_an_abort_survives_the_death_of_whom_it_was_told(replicas: list[Replica], step: int) -> None:
    replica, _ = replicas
    rolling = replica.rolling
    await rolling.create([traffic(500), ALL, soak(24 * 3600)] if step == 3 else [traffic(500, seconds=24 * 3600), ALL])
    if step == 3:
        await rolling.read()
    await rolling.until_step(step)
    await rolling.say("Abort")
    await replica.again()
    await rolling.until(pb.Rollout.ABORTED)
    assert (await rolling.moves())[-1] == ("WITHDRAW", 1, 0)
    assert (await rolling.route()).owner == ""


async def test_a_driver_that_wakes_up_late_changes_nothing(replicas: list[Replica]) -> None:
    first, second = replicas
    await first.rolling.create([traffic(500, seconds=24 * 3600), ALL])
    await first.rolling.until_step(1)
    first.process.freeze()
    await second.process.start()
    try:
        await second.rolling.say("Abort")
        await second.rolling.until(pb.Rollout.ABORTED)
        before = await second.rolling.moves()
        assert before[-1] == ("WITHDRAW", 1, 0)
        first.process.thaw()
        await first.rolling.until(pb.Rollout.ABORTED)
        assert await first.rolling.moves() == before
    finally:
        await second.process.kill()


async def test_another_replica_takes_over(replicas: list[Replica]) -> None:
    first, second = replicas
    await second.process.start()
    try:
        await first.rolling.create([traffic(500, seconds=24 * 3600), ALL])
        await first.rolling.until_step(1)
        await first.process.kill()
        await second.rolling.say("Promote", step=1)
        await second.rolling.until(pb.Rollout.SUCCEEDED)
        assert [weight for _, _, weight in await second.rolling.moves()] == [0, 0, 500, 10_000, 10_000]
    finally:
        await second.process.kill()
