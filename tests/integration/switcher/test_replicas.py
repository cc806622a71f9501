"""Two switchers on one database, fronts at the one or the other, and one of them killed at every step of a change."""

import asyncio
import random
from collections.abc import AsyncIterator, Awaitable
from contextlib import AsyncExitStack
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import asyncpg
import grpc
import pytest

from services.switcher.requests import RequestStore
from tests.integration.query.fronts import FrontProcess
from tests.integration.switcher.conftest import ROUTE, V1, StartSwitcher, Switcher, refused
from tests.integration.switcher.front import Front
from tests.integration.switcher.patience import LEASE_S
from tests.integration.switcher.processes import SwitcherProcess, once_available
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.support.eventually import eventually
from turnout.channel import connect
from turnout.client import Client
from turnout.replayer.v1 import run_pb2
from turnout.switcher.v1 import change_pb2, front_pb2, route_pb2
from turnout.switcher.v1 import switcher_pb2_grpc as rpc

LEASE = timedelta(seconds=LEASE_S)
CUT_OVER_2 = {"request_id": "cut-over-2", "claimed_actor": "ada"}


@dataclass
class Pair:
    """A switcher that is to die, the one that stays, and a front at the latter."""

    doomed: Switcher
    process: SwitcherProcess
    staying: Switcher
    front: Front


@pytest.fixture
async def pair(
    postgres: str, replayer: ReplayerOnDemand, start_switcher: StartSwitcher, tmp_path: Path
) -> AsyncIterator[Pair]:
    """Version 1 serves, at epoch 1."""
    async with AsyncExitStack() as ending:
        process = SwitcherProcess(postgres, replayer.target, str(tmp_path))
        await process.start()
        ending.push_async_callback(process.kill)
        staying = await start_switcher(reader_lease_s=LEASE_S)
        doomed = Switcher(process.target, rpc.SwitcherStub(await ending.enter_async_context(connect(process.target))))
        await once_available(lambda: doomed.stub.ListRoutes(route_pb2.ListRoutesRequest(), timeout=5))
        front = await Front(staying.target, "front-1").start()
        ending.push_async_callback(front.die)
        await staying.cut_over(1)
        yield Pair(doomed, process, staying, front)


async def lost(call: Awaitable[Any]) -> None:
    """The call of a caller whose switcher dies."""
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await call
    assert caught.value.code() == grpc.StatusCode.UNAVAILABLE


async def repeated(pair: Pair) -> change_pb2.RouteChange:
    """The answer to the same request at the replica that stays."""
    return await pair.staying.cut_over(2, **CUT_OVER_2)


async def made_once(pair: Pair, change: change_pb2.RouteChange) -> None:
    """The change was carried out once, whole, and its answer is the answer from then on."""
    assert (change.changed, change.route.epoch, change.route.active_version) == (True, 2, 2)
    assert [one.front for one in change.adoptions if one.HasField("adoption_time")] == ["front-1"]
    assert pair.front.routes[ROUTE].epoch == 2
    changes = (await pair.staying.changes()).route_changes
    assert [(one.route.epoch, one.claimed_actor) for one in changes] == [(2, "ada"), (1, "")]
    assert await repeated(pair) == change


@pytest.mark.parametrize("call", [1, 2], ids=["while the gates are asked", "while they are asked again"])
async def test_killed_at_the_gates(pair: Pair, replayer: ReplayerOnDemand, call: int) -> None:
    held = replayer.hold("CheckGates", call)
    change = asyncio.create_task(lost(pair.doomed.cut_over(2, **CUT_OVER_2)))
    await held.wait()
    await pair.process.kill()
    await change
    assert (await pair.staying.route()).epoch == 1
    await made_once(pair, await repeated(pair))


async def test_killed_while_the_fronts_prepare(pair: Pair) -> None:
    pair.front.prepares = False
    change = asyncio.create_task(lost(pair.doomed.cut_over(2, **CUT_OVER_2)))
    proposal = await pair.front.until_proposed(2)
    await pair.process.kill()
    await change
    assert (await pair.staying.route()).epoch == 1
    pair.front.prepares = True
    await made_once(pair, await repeated(pair))
    assert pair.front.cancelled == [proposal.proposal], "nobody proposes it any more"


async def test_killed_within_the_commit(pair: Pair, database: Any) -> None:
    transaction = database.transaction()
    await transaction.start()
    await database.execute("lock table switcher.route_changes in access exclusive mode")
    change = asyncio.create_task(lost(pair.doomed.cut_over(2, **CUT_OVER_2)))

    async def waits() -> bool:
        waiting = "select count(*) from pg_locks where not granted and relation = 'switcher.route_changes'::regclass"
        return bool(await database.fetchval(waiting))

    await eventually(waits)
    await pair.process.kill()
    await change
    await transaction.rollback()
    await made_once(pair, await repeated(pair))


async def test_killed_before_the_fronts_have_adopted(pair: Pair, database: Any) -> None:
    pair.front.serves = pair.front.drains = False
    change = asyncio.create_task(lost(pair.doomed.cut_over(2, **CUT_OVER_2)))

    async def committed() -> bool:
        return pair.front.committed[-1].route.epoch == 2

    await eventually(committed)
    await pair.process.kill()
    await change
    answer = asyncio.create_task(repeated(pair))
    # It was committed, and stays so. Nobody is told that it is adopted before it is.
    await pair.front.report(pair.front.committed[-1].proposal, front_pb2.Report.SERVING)
    await made_once(pair, await answer)


async def test_killed_while_the_view_moves(pair: Pair, replayer: ReplayerOnDemand) -> None:
    held = replayer.hold("MoveView")
    change = asyncio.create_task(lost(pair.doomed.cut_over(2, **CUT_OVER_2)))
    await held.wait()
    await pair.process.kill()
    await change
    answer = await repeated(pair)
    await made_once(pair, answer)

    async def moved() -> bool:
        return (await pair.staying.route()).view.state == route_pb2.View.MOVED

    await eventually(moved)
    assert replayer.views["carrier-punctuality"] == (2, 2)


async def test_killed_while_a_rollback_wakes_its_run(pair: Pair, replayer: ReplayerOnDemand) -> None:
    await pair.staying.cut_over(2)
    run = f"{V1}/run"
    replayer.runs[run] = run_pb2.Run(name=run, state=run_pb2.Run.STOPPED)
    held = replayer.hold("ResumeRun")
    change = asyncio.create_task(lost(pair.doomed.roll_back(request_id="back")))
    await held.wait()
    await pair.process.kill()
    await change

    async def resumed() -> bool:
        return replayer.resumed == [run]

    await eventually(resumed)
    answer = await pair.staying.roll_back(request_id="back")
    assert (answer.route.epoch, answer.route.active_version) == (3, 1)
    assert (await pair.staying.route()).epoch == 3


async def test_frozen_past_its_proposal(pair: Pair) -> None:
    """A replica that wakes late finds that its proposal was given up, and commits nothing."""
    pair.front.prepares = False
    request = change_pb2.CutOverRouteRequest(name=ROUTE, version=2)
    call = asyncio.ensure_future(pair.doomed.stub.CutOverRoute(request, timeout=60))
    proposal = await pair.front.until_proposed(2)
    pair.process.freeze()
    pair.front.prepares = True
    await pair.front.report(proposal.proposal, front_pb2.Report.PREPARED)
    answer = await once_available(lambda: pair.staying.cut_over(3), grpc.StatusCode.ABORTED)
    assert answer.route.active_version == 3
    pair.process.thaw()
    refusal = await refused(call)
    # Unavailable: it slept in the middle of a statement for longer than it waits for one.
    assert (refusal.code, refusal.reason) in {
        (grpc.StatusCode.ABORTED, "PROPOSAL_EXPIRED"),
        (grpc.StatusCode.UNAVAILABLE, "POSTGRES_UNAVAILABLE"),
    }
    route = await pair.staying.route()
    assert (route.epoch, route.active_version) == (2, 3)


async def test_a_request_repeated_elsewhere_while_it_is_carried_out(pair: Pair) -> None:
    pair.front.prepares = False
    first = asyncio.ensure_future(pair.doomed.cut_over(2, **CUT_OVER_2))
    proposal = await pair.front.until_proposed(2)
    second = asyncio.create_task(repeated(pair))
    await pair.front.report(proposal.proposal, front_pb2.Report.PREPARED)
    assert await first == await second
    await made_once(pair, await second)


class Reading:
    """Stops the first reader of earlier requests after its first or second read, until it is let go on."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch, reads: int) -> None:
        self.reached = asyncio.Event()
        self.go_on = asyncio.Event()
        self._reads = reads
        self._reader: asyncio.Task[Any] | None = None
        for name in ("find", "in_flight"):
            monkeypatch.setattr(RequestStore, name, self._stopping(getattr(RequestStore, name)))

    def _stopping(self, read: Any) -> Any:
        async def stopping(store: RequestStore, intent: Any) -> Any:
            self._reader = self._reader or asyncio.current_task()
            answer = await read(store, intent)
            if self._reader is asyncio.current_task():
                self._reads -= 1
                if self._reads == 0:
                    self.reached.set()
                    await self.go_on.wait()
            return answer

        return stopping


async def asked(command: str, at: Switcher) -> change_pb2.RouteChange:
    if command == "cut over":
        return await at.cut_over(3, request_id="again")
    return await at.roll_back(request_id="again")


@pytest.fixture
async def two(start_switcher: StartSwitcher) -> AsyncIterator[tuple[Switcher, Switcher, Front]]:
    """Two replicas, and a front at the one; version 2 serves, at epoch 2."""
    one, other = await start_switcher(reader_lease_s=LEASE_S), await start_switcher(reader_lease_s=LEASE_S)
    front = await Front(one.target, "front-1").start()
    await one.cut_over(1)
    await one.cut_over(2)
    yield one, other, front
    await front.die()


@pytest.mark.parametrize("command", ["cut over", "roll back"])
@pytest.mark.parametrize("reads", [1, 2], ids=["between two reads", "before it is decided"])
async def test_a_repeat_that_the_commit_overtakes(
    two: tuple[Switcher, Switcher, Front], monkeypatch: pytest.MonkeyPatch, command: str, reads: int
) -> None:
    """It is decided on no route that the request itself has made, and waits for the adoption like the first."""
    one, other, front = two
    front.prepares = front.serves = front.drains = False
    if reads == 1:
        first = asyncio.create_task(asked(command, one))
        await front.until_proposed(3)
    reading = Reading(monkeypatch, reads)
    second = asyncio.create_task(asked(command, other))
    await reading.reached.wait()
    if reads == 2:
        first = asyncio.create_task(asked(command, one))
    proposal = await front.until_proposed(3)
    await front.report(proposal.proposal, front_pb2.Report.PREPARED)

    async def committed() -> bool:
        return front.committed[-1].route.epoch == 3

    await eventually(committed)
    reading.go_on.set()
    await front.report(proposal.proposal, front_pb2.Report.SERVING)
    assert await first == await second
    assert [one.front for one in (await second).adoptions if one.HasField("adoption_time")] == ["front-1"]
    assert (await one.route()).epoch == 3


async def test_a_repeat_that_finds_another_route_behind_its_own_is_not_carried_out_again(
    two: tuple[Switcher, Switcher, Front], monkeypatch: pytest.MonkeyPatch
) -> None:
    one, other, _ = two
    reading = Reading(monkeypatch, 2)
    second = asyncio.create_task(asked("cut over", other))
    await reading.reached.wait()
    first = await asked("cut over", one)
    await one.cut_over(1)
    reading.go_on.set()
    assert await second == first
    route = await one.route()
    assert (route.epoch, route.active_version) == (4, 1)


async def test_fronts_at_either_replica_adopt_in_one_order(start_switcher: StartSwitcher) -> None:
    one, other = await start_switcher(reader_lease_s=LEASE_S), await start_switcher(reader_lease_s=LEASE_S)
    fronts = [await Front(at.target, f"front-{n}").start() for n, at in enumerate((one, other, one, other))]
    for version in range(1, 9):
        answer = await (one, other)[version % 2].cut_over(version)
        assert [adoption.front for adoption in answer.adoptions] == [f"front-{n}" for n in range(4)]
        assert {front.routes[ROUTE].active_version for front in fronts} == {version}
    for front in fronts:
        assert [committed.route.epoch for committed in front.committed] == list(range(1, 9))
        await front.die()


async def test_a_front_whose_replica_dies_goes_to_the_other(pair: Pair, start_switcher: StartSwitcher) -> None:
    front = await Front(f"{pair.process.target},{pair.staying.target}", "front-2").start()
    await pair.process.kill()

    async def ended() -> bool:
        return front.ended_with is not None

    await eventually(ended)
    await front.die()
    again = Front(f"{pair.process.target},{pair.staying.target}", "front-2")
    await again.start()
    answer = await pair.staying.cut_over(2)
    assert [adoption.front for adoption in answer.adoptions] == ["front-1", "front-2"]
    await again.die()


async def test_a_front_of_a_frozen_replica_goes_to_the_other(pair: Pair, postgres: str, database: Any) -> None:
    """Its connection stays open, and nothing comes over it any more."""
    with TemporaryDirectory() as data_dir:
        front = FrontProcess(postgres, f"{pair.process.target},{pair.staying.target}", Path(data_dir))
        await front.start()
        expires = "select expires from switcher.reader_leases where front = $1"
        name = front.settings.instance

        async def present() -> Any:
            return await database.fetchval(expires, name)

        await eventually(present)
        pair.process.freeze()
        frozen = await database.fetchval("select clock_timestamp()")

        async def renewed() -> bool:
            return bool(await present() > frozen + 2 * LEASE)

        await eventually(renewed, 90)  # after the silence of a lease
        await front.stop()


async def test_a_client_that_knows_both_does_not_notice(pair: Pair, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("turnout.client.connection.random.sample", lambda some, _: list(some))
    async with Client(targets={"switcher": (pair.process.target, pair.staying.target)}, actor="ada") as client:
        assert (await client.route("carrier-punctuality")).epoch == 1
        pair.front.serves = pair.front.drains = False
        change = asyncio.create_task(client.cut_over("carrier-punctuality", 2))

        async def committed() -> bool:
            return pair.front.committed[-1].route.epoch == 2

        await eventually(committed)
        await pair.process.kill()
        await pair.front.report(pair.front.committed[-1].proposal, front_pb2.Report.SERVING)
        answer = await change
        assert (answer.changed, answer.route.epoch) == (True, 2)
        assert [one.front for one in answer.adoptions if one.adoption_time is not None] == ["front-1"]
        assert (await client.route("carrier-punctuality")).epoch == 2


@pytest.mark.parametrize("seed", range(3))
async def test_whatever_races_no_route_names_a_released_version(
    start_switcher: StartSwitcher, database: asyncpg.Connection, seed: int
) -> None:
    """Retire, un-retire and every change of the route at once, at two replicas."""
    rng = random.Random(seed)
    replicas = [await start_switcher(reader_lease_s=LEASE_S) for _ in range(2)]
    fronts = [await Front(at.target, f"front-{n}").start() for n, at in enumerate(replicas)]
    await replicas[0].cut_over(1)

    def command(at: Switcher) -> Awaitable[Any]:
        version, other = rng.sample((1, 2, 3), 2)
        name = f"jobs/carrier-punctuality/versions/{version}"
        return rng.choice(
            (
                lambda: at.cut_over(version, request_id=f"r-{rng.random()}"),
                lambda: at.set_traffic({version: 6000, other: 4000}),
                lambda: at.roll_back(),
                lambda: at.release(name, forgo_rollback=True),
                lambda: at.reinstate(name),
                lambda: at.cut_over_many({"carrier-punctuality": version, "other-job": other}),
            )
        )()

    outcomes: set[str] = set()
    for _ in range(25):
        answers = await asyncio.gather(*(command(rng.choice(replicas)) for _ in range(3)), return_exceptions=True)
        for answer in answers:
            if isinstance(answer, grpc.aio.AioRpcError):
                assert answer.code() in (
                    grpc.StatusCode.ABORTED,
                    grpc.StatusCode.FAILED_PRECONDITION,
                    grpc.StatusCode.INVALID_ARGUMENT,  # traffic that leaves out the active version
                ), answer
                outcomes.add(answer.code().name)
            else:
                assert not isinstance(answer, BaseException), answer
                outcomes.add(type(answer).__name__)
        route = await replicas[0].route()
        released = await database.fetch("select version from switcher.released_versions where job = $1", ROUTE[5:-6])
        assert not {arm.version for arm in route.arms} & {row["version"] for row in released}
    assert {"RouteChange", "Release", "ABORTED", "FAILED_PRECONDITION"} <= outcomes
    epochs = await database.fetch("select epoch from switcher.route_changes where job = $1 order by epoch", ROUTE[5:-6])
    assert [row["epoch"] for row in epochs] == list(range(1, (await replicas[1].route()).epoch + 1))
    last = await replicas[0].route()

    async def all_have_it() -> bool:
        return all(front.routes[ROUTE].epoch == last.epoch for front in fronts)

    await eventually(all_have_it)
    for front in fronts:
        assert front.routes[ROUTE] == fronts[0].routes[ROUTE]
        await front.die()
