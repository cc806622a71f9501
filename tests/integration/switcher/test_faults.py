"""The switcher, its database or its caller goes away in the middle of a change."""

import asyncio
from typing import Any
from urllib.parse import urlsplit, urlunsplit

import asyncpg
import grpc
from grpc_health.v1 import health_pb2, health_pb2_grpc
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from tests.integration.switcher.conftest import ROUTE, MakeFront, StartSwitcher, Switcher, lease_is_over, refused
from tests.integration.switcher.front import Front
from tests.integration.switcher.patience import LEASE_S
from tests.integration.switcher.processes import SwitcherProcess, once_available
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.support.eventually import eventually
from tests.support.proxy import TcpProxy
from turnout.channel import connect
from turnout.switcher.v1 import change_pb2, front_pb2, route_pb2
from turnout.switcher.v1 import switcher_pb2_grpc as rpc


async def test_a_switcher_killed_between_proposal_and_commit_changed_nothing(
    postgres: str, replayer: ReplayerOnDemand, tmp_path: Any
) -> None:
    process = SwitcherProcess(postgres, replayer.target, str(tmp_path))
    await process.start()
    async with connect(process.target) as channel:
        stub: Any = rpc.SwitcherStub(channel)
        try:
            await once_available(lambda: stub.ListRoutes(route_pb2.ListRoutesRequest(), timeout=5))
            front = await Front(process.target, "front-1").start()
            await stub.CutOverRoute(change_pb2.CutOverRouteRequest(name=ROUTE, version=1), timeout=20)
            front.prepares = False
            request = change_pb2.CutOverRouteRequest(name=ROUTE, version=2, request_id="cut-over-2")
            change = asyncio.create_task(refused_or_lost(stub.CutOverRoute(request, timeout=20)))
            proposal = await front.until_proposed(2)
            await process.kill()
            assert await change == grpc.StatusCode.UNAVAILABLE
            await front.die()

            await process.start()
            page = await once_available(lambda: stub.ListRoutes(route_pb2.ListRoutesRequest(), timeout=5))
            assert [route.epoch for route in page.routes] == [1]
            again = await Front(process.target, "front-1").start()
            await eventually(lambda: is_cancelled(postgres, proposal.proposal))
            answer = await stub.CutOverRoute(request, timeout=20)
            assert (answer.changed, answer.route.epoch) == (True, 2), "the same request may be made again"
            await again.die()
        finally:
            await process.kill()


async def is_cancelled(postgres: str, proposal: str) -> bool:
    """By the database: a front that comes later is not told."""
    connection = await asyncpg.connect(postgres)
    try:
        state = await connection.fetchval("select state from switcher.proposals where proposal = $1", proposal)
    finally:
        await connection.close()
    return bool(state == "CANCELLED")


async def refused_or_lost(call: Any) -> grpc.StatusCode:
    try:
        await call
    except grpc.aio.AioRpcError as error:
        return error.code()
    raise AssertionError("the change was answered by a switcher that is dead")


async def test_a_caller_that_gives_up_before_the_commit_cancels(switcher: Switcher, make_front: MakeFront) -> None:
    front = await make_front("front-1")
    front.prepares = False
    call = switcher.stub.CutOverRoute(change_pb2.CutOverRouteRequest(name=ROUTE, version=1), timeout=20)
    proposal = await front.until_proposed()
    call.cancel()

    async def cancelled() -> bool:
        return front.cancelled == [proposal.proposal]

    await eventually(cancelled)
    front.prepares = True
    assert (await switcher.cut_over(1)).changed


async def test_a_second_change_meanwhile_is_told_of_the_first(switcher: Switcher, make_front: MakeFront) -> None:
    front = await make_front("front-1")
    front.prepares = False
    first = asyncio.create_task(switcher.cut_over(1, claimed_actor="ada"))
    proposal = await front.until_proposed()
    refusal = await refused(switcher.cut_over(2))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "CHANGE_IN_FLIGHT")
    assert "cutover by ada" in refusal.message
    await front.report(proposal.proposal, front_pb2.Report.PREPARED)
    assert (await first).route.active_version == 1


async def test_postgres_away_for_a_while(start_switcher: StartSwitcher, postgres: str, database: Any) -> None:
    parts = urlsplit(postgres)
    assert parts.hostname
    async with TcpProxy(parts.hostname, parts.port or 5432) as proxy:
        netloc = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}"
        switcher = await start_switcher(postgres=urlunsplit(parts._replace(netloc=netloc)), reader_lease_s=LEASE_S)
        front = await Front(switcher.target, "front-1").start()
        await switcher.cut_over(1)
        await proxy.cut()
        refusal = await refused(switcher.cut_over(2))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "POSTGRES_UNAVAILABLE")
        assert "turnout:" not in refusal.message

        async def ended() -> bool:
            return front.ended_with is not None

        await eventually(ended)
        await proxy.restore()
        await front.die()
        await lease_is_over(database, "front-1")

        change = await once_available(lambda: switcher.cut_over(2), grpc.StatusCode.ABORTED)
        assert change.route.active_version == 2
        again = await Front(switcher.target, "front-2").start()
        assert (await switcher.roll_back()).adoptions[0].front == "front-2"
        await again.die()


async def test_a_connection_lost_on_postgres_side_only(start_switcher: StartSwitcher, postgres: str) -> None:
    parts = urlsplit(postgres)
    assert parts.hostname
    async with TcpProxy(parts.hostname, parts.port or 5432) as proxy:
        netloc = f"{parts.netloc.rpartition('@')[0]}@127.0.0.1:{proxy.port}"
        switcher = await start_switcher(postgres=urlunsplit(parts._replace(netloc=netloc)), reader_lease_s=LEASE_S)
        await switcher.cut_over(1)
        proxy.half_open()
        # What waits for the lost ones is given up; everything goes on over new ones, the route watch too.
        front = await once_available(lambda: Front(switcher.target, "front-1").start())
        change = await once_available(lambda: switcher.cut_over(2), grpc.StatusCode.ABORTED)
        assert [adoption.front for adoption in change.adoptions] == ["front-1"]
        assert front.routes[ROUTE].active_version == 2
        await front.die()


async def test_the_watch_outlives_a_cancelled_statement(
    switcher: Switcher, make_front: MakeFront, postgres: str, database: Any
) -> None:
    front = await make_front("front-1")
    await switcher.cut_over(1)
    async with database.transaction():
        await database.execute("lock table switcher.proposals in access exclusive mode")
        cancelled = (
            "select count(*) filter (where pg_cancel_backend(pid)) from pg_stat_activity where datname = "
            "current_database() and application_name = 'turnout switcher' and wait_event_type = 'Lock' "
            "and query like '%proposal_routes%where revision >%'"
        )
        other = await asyncpg.connect(postgres)

        async def hit() -> bool:
            return bool(await other.fetchval(cancelled))

        await eventually(hit)
        await other.close()
    assert (await switcher.cut_over(2)).adoptions[0].front == "front-1"
    assert front.routes[ROUTE].active_version == 2


async def test_a_watch_that_cannot_read_is_not_healthy(switcher: Switcher, database: Any) -> None:
    async with connect(switcher.target) as channel:
        health = health_pb2_grpc.HealthStub(channel)
        request = health_pb2.HealthCheckRequest(service="turnout.switcher.v1.Switcher")

        async def status() -> int:
            return int((await health.Check(request, timeout=5)).status)

        async def serving() -> bool:
            return bool(await status() == health_pb2.HealthCheckResponse.SERVING)

        async def not_serving() -> bool:
            return bool(await status() == health_pb2.HealthCheckResponse.NOT_SERVING)

        await eventually(serving)
        async with database.transaction():
            await database.execute("lock table switcher.proposals in access exclusive mode")
            await eventually(not_serving)
        await eventually(serving)


async def test_the_trace_reaches_the_fronts(switcher: Switcher, make_front: MakeFront) -> None:
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())  # the client then has spans of its own in that trace
    front = await make_front("front-1")
    named = "4bf92f3577b34da6a3ce929d0e0e4736"
    await switcher.stub.CutOverRoute(
        change_pb2.CutOverRouteRequest(name=ROUTE, version=1),
        timeout=20,
        metadata=(("traceparent", f"00-{named}-00f067aa0ba902b7-01"),),
    )
    assert named in front.proposals[0].traceparent
    assert front.committed[0].traceparent == front.proposals[0].traceparent


async def test_a_proposal_that_is_overdue_gives_way(
    switcher: Switcher, make_front: MakeFront, database: asyncpg.Connection
) -> None:
    await switcher.cut_over(1)
    await database.execute(
        "insert into switcher.proposals (proposal, state, revision, deadline, described, traceparent)"
        " values ('left-over', 'OPEN', 1, now() - interval '1 second', '', '')"
    )
    await database.execute(
        "insert into switcher.proposal_routes select 'left-over', job, 2, route, '{}', true from switcher.routes"
    )
    assert (await switcher.cut_over(2)).changed
    state = await database.fetchval("select state from switcher.proposals where proposal = 'left-over'")
    assert state == "CANCELLED"
