"""Whoever drives a rollout dies, or freezes, at every act of it: it goes on, and nothing is done twice."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any, Final

import grpc
import pytest

from services.switcher.rollouts.acts import ActKind, due
from services.switcher.rollouts.record import decode_rollout
from tests.integration.switcher.conftest import ROUTE
from tests.integration.switcher.processes import SwitcherProcess, once_available
from tests.integration.switcher.registry import RegistryOnDemand
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.integration.switcher.rollouts.rolling import (
    ALL,
    COMPARE,
    REPLAY,
    RETIRE,
    Rolling,
    Step,
    ready,
    shadow,
    soak,
    traffic,
)
from tests.support.eventually import eventually
from turnout.channel import connect
from turnout.switcher.v1 import change_pb2, rollout_pb2, route_pb2
from turnout.switcher.v1 import switcher_pb2_grpc as rpc


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
        await patient(lambda: self.stub.ListRoutes(route_pb2.ListRoutesRequest(), timeout=5))


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
        await made[0].stub.CutOverRoute(change_pb2.CutOverRouteRequest(name=ROUTE, version=1), timeout=20)
        yield made


_LOSES: Final = """
create schema tests;
create sequence tests.lost;
create table tests.heard (place text);
create function tests.place(rollout jsonb) returns text language sql as $$
    select concat_ws(' ', rollout ->> 'state', rollout ->> 'step', rollout ->> 'attempt')
$$;
create function tests.lose() returns trigger language plpgsql as $$
begin
    if tests.place(old.rollout) not in (select place from tests.heard) then
        perform nextval('tests.lost');
        raise exception 'What became of the act is not stored.';
    end if;
    return new;
end $$;
create trigger lose before update on switcher.rollouts for each row when (
    new.over
    or old.rollout ->> 'state' = 'PENDING' and new.rollout ->> 'state' = 'RUNNING'
    or old.rollout ->> 'phase' = 'TAKING' and new.rollout ->> 'phase' = 'WATCHING'
        and old.rollout -> 'step' = new.rollout -> 'step'
    or new.rollout -> 'taken_back' = 'true' and old.rollout -> 'taken_back' = 'false'
) execute function tests.lose();
"""
"""No result of an act is stored before its place was heard of: a driver carries it out again and again until then."""


class Losses:
    """Kills the driver of a rollout between the commit of each of its acts and the storing of that."""

    def __init__(self, replica: Replica, database: Any) -> None:
        self._replica = replica
        self._database = database
        self._lost = 0
        self.kinds: list[ActKind] = []

    async def through(self, urged: Callable[[rollout_pb2.Rollout], Awaitable[None]]) -> rollout_pb2.Rollout:
        """The rollout at its end. urged: does what it waits for of others."""
        await self._database.execute(_LOSES)
        while await self._another(urged):
            await self._replica.process.kill()
            place, stored = await self._database.fetchrow("select tests.place(rollout), rollout from switcher.rollouts")
            act = due(decode_rollout(stored))
            assert act is not None
            self.kinds.append(act.kind)
            await self._database.execute("insert into tests.heard values ($1)", place)
            self._lost = await self._count()
            await self._replica.process.start()
        return await self._replica.rolling.get()

    async def _another(self, urged: Callable[[rollout_pb2.Rollout], Awaitable[None]]) -> bool:
        """Whether another act's result was lost before the rollout was over."""

        async def lost_or_over() -> bool:
            found = await self._replica.rolling.get()
            if found.HasField("end_time"):
                return True
            await urged(found)
            return await self._count() > self._lost

        await eventually(lost_or_over, 240.0)
        return await self._count() > self._lost

    async def _count(self) -> int:
        count = "select case when is_called then last_value else 0 end from tests.lost"
        return int(await self._database.fetchval(count))


@pytest.mark.long
async def test_it_goes_on_after_a_death_between_each_act_and_its_answer(
    replicas: list[Replica], replayer: ReplayerOnDemand, registry: RegistryOnDemand, database: Any
) -> None:
    [replica, _], losses = replicas, Losses(replicas[0], database)
    rolling = replica.rolling

    async def urged(found: rollout_pb2.Rollout) -> None:
        if found.phase == rollout_pb2.Rollout.WATCHING and found.plan.steps[found.step - 1].kind == Step.SHADOW:
            await rolling.shadowed()
        if found.phase == rollout_pb2.Rollout.WATCHING and 0 < found.weight < 10_000:
            await rolling.read()

    await rolling.create([REPLAY, COMPARE, shadow(), traffic(500), ALL, RETIRE], request_id="one")
    ended = await losses.through(urged)
    assert losses.kinds == [
        ActKind.CLAIM,
        ActKind.START_RUN,
        ActKind.COMPARE,
        ActKind.SHADOW,
        ActKind.EXPOSE,
        ActKind.CUT_OVER,
        ActKind.RETIRE,
        ActKind.RELEASE,
    ]
    assert (ended.state, ended.sentence) == (rollout_pb2.Rollout.SUCCEEDED, "All steps are done.")
    assert registry.retired == {1}
    assert (len(set(registry.asked)), len({one.request_id for one in replayer.compare_requests})) == (1, 1)
    assert await rolling.moves() == [
        ("CUT_OVER", 1, 0),
        *[("ROLL_OUT", 1, weight) for weight in (0, 0, 500)],
        *[("ROLL_OUT", 2, 10_000)] * 2,
    ]
    route = await rolling.route()
    assert (route.active_version, route.owner) == (2, "")
    assert await rolling.unequal() == []


@pytest.mark.long
async def test_it_goes_back_after_a_death_between_each_act_and_its_answer(
    replicas: list[Replica], registry: RegistryOnDemand, database: Any
) -> None:
    [replica, _], losses = replicas, Losses(replicas[0], database)
    rolling = replica.rolling
    registry.refuses = ("ROLLBACK_WINDOW", "A rollback would return to v1 for 3 more minutes.")

    async def urged(found: rollout_pb2.Rollout) -> None:
        if found.waiting_for == "A rollback would return to v1 for 3 more minutes.":
            await rolling.say("Abort")

    await rolling.create([ALL, RETIRE])
    ended = await losses.through(urged)
    assert losses.kinds == [ActKind.CLAIM, ActKind.CUT_OVER, ActKind.TAKE_BACK, ActKind.WITHDRAW]
    assert (ended.state, registry.reinstated) == (rollout_pb2.Rollout.ABORTED, [1] * len(registry.reinstated))
    assert await rolling.moves() == [
        ("CUT_OVER", 1, 0),
        ("ROLL_OUT", 1, 0),
        ("ROLL_OUT", 2, 10_000),
        ("WITHDRAW", 1, 0),
    ]
    assert (await rolling.route()).owner == ""
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
    await rolling.until(rollout_pb2.Rollout.ABORTED)
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
        await second.rolling.until(rollout_pb2.Rollout.ABORTED)
        before = await second.rolling.moves()
        assert before[-1] == ("WITHDRAW", 1, 0)
        first.process.thaw()
        await first.rolling.until(rollout_pb2.Rollout.ABORTED)
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
        await second.rolling.until(rollout_pb2.Rollout.SUCCEEDED)
        assert [weight for _, _, weight in await second.rolling.moves()] == [0, 0, 500, 10_000, 10_000]
    finally:
        await second.process.kill()
