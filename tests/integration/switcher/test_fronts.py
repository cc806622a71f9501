"""What fronts say decides whether a change is committed, and who is waited for."""

import asyncio
from typing import Any

import grpc
import pytest

from core.rpc.channel import connect
from tests.integration.switcher.conftest import ROUTE, MakeFront, StartSwitcher, Switcher, refused
from tests.integration.switcher.front import Front
from tests.support.eventually import eventually
from turnout.switcher.v1 import switcher_pb2 as pb
from turnout.switcher.v1 import switcher_pb2_grpc as rpc


async def test_a_nack_cancels_and_nothing_has_changed(switcher: Switcher, make_front: MakeFront) -> None:
    good, bad = await make_front("front-good"), await make_front("front-bad")
    await switcher.cut_over(1)
    bad.nack = "table serving.carrier_punctuality__v2 does not exist"
    refusal = await refused(switcher.cut_over(2))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "NOT_PREPARED")
    assert "front-bad: table serving.carrier_punctuality__v2 does not exist" in refusal.message
    assert "front-good" not in refusal.message

    async def cancelled() -> bool:
        return good.cancelled == [good.proposals[-1].proposal]

    await eventually(cancelled)
    assert (await switcher.route()).epoch == good.routes[ROUTE].epoch == 1
    bad.nack = ""
    assert (await switcher.cut_over(2)).changed


async def test_a_front_that_says_nothing_stops_a_change(switcher: Switcher, make_front: MakeFront) -> None:
    await make_front("front-1")
    await switcher.cut_over(1)
    silent = await make_front("front-silent")
    silent.prepares = False
    refusal = await refused(switcher.cut_over(2))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "NOT_PREPARED")
    assert "front-silent: has not said that it is prepared" in refusal.message
    assert (await switcher.route()).epoch == 1


async def test_a_front_that_dies_before_the_commit_is_waited_for_until_its_lease_expires(
    switcher: Switcher, make_front: MakeFront
) -> None:
    survivor, dying = await make_front("front-1"), await make_front("front-dying")
    await switcher.cut_over(1)
    dying.prepares = False
    change = asyncio.create_task(switcher.cut_over(2))
    await dying.until_proposed(2)
    await dying.die()
    answer = await change
    assert [adoption.front for adoption in answer.adoptions] == ["front-1"]
    assert answer.fronts_not_counted == ["front-dying"], "it may still serve the old epoch, as far as anybody knows"
    assert survivor.routes[ROUTE].active_version == 2


async def test_a_front_that_said_goodbye_counts_no_more(switcher: Switcher, make_front: MakeFront) -> None:
    staying, leaving = await make_front("front-1"), await make_front("front-leaving")
    await switcher.cut_over(1)
    await leaving.goodbye()
    assert leaving.ended_with is None
    answer = await switcher.cut_over(2)
    assert [adoption.front for adoption in answer.adoptions] == [staying.name]
    assert not answer.fronts_not_counted


async def test_a_front_that_adopts_late_is_named(switcher: Switcher, make_front: MakeFront) -> None:
    front = await make_front("front-late")
    await switcher.cut_over(1)
    front.serves = front.drains = False
    answer = await switcher.stub.CutOverRoute(pb.CutOverRouteRequest(name=ROUTE, version=2), timeout=3)
    assert answer.changed
    assert [a.front for a in answer.adoptions if not a.HasField("adoption_time")] == ["front-late"]
    assert not answer.HasField("adoption_time")
    assert answer.warnings == ["Not serving the new route yet: front-late."]


async def test_a_rollback_needs_one_front_that_can_serve_it(switcher: Switcher, make_front: MakeFront) -> None:
    good, bad = await make_front("front-good"), await make_front("front-bad")
    await switcher.cut_over(1)
    await switcher.cut_over(2)
    good.nack = bad.nack = "table serving.carrier_punctuality__v1 does not exist"
    refusal = await refused(switcher.roll_back())
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "NOT_PREPARED")
    good.nack = ""
    bad.serves = bad.drains = False
    back = await switcher.roll_back()
    assert back.route.active_version == 1
    said = "The front front-bad was not waited for: table serving.carrier_punctuality__v1 does not exist."
    assert said in back.warnings


async def test_a_front_that_comes_while_a_change_is_proposed_gets_the_proposal(
    switcher: Switcher, make_front: MakeFront
) -> None:
    waiting = await make_front("front-1")
    waiting.prepares = False
    change = asyncio.create_task(switcher.cut_over(1))
    proposal = await waiting.until_proposed()
    late = await make_front("front-late")
    assert (await late.until_proposed()).proposal == proposal.proposal
    await waiting.report(proposal.proposal, pb.Report.PREPARED)
    answer = await change
    assert [adoption.front for adoption in answer.adoptions] == ["front-1", "front-late"]


async def test_a_stream_starts_with_all_routes(switcher: Switcher, make_front: MakeFront) -> None:
    await switcher.cut_over(1)
    await switcher.cut_over(2)
    front = await make_front("front-1")
    (committed,) = front.snapshot.routes
    assert (committed.route.epoch, committed.route.active_version) == (2, 2)
    assert committed.revision <= front.snapshot.revision
    assert committed.proposal
    await switcher.roll_back()
    (_, delta) = front.committed
    assert delta.revision > front.snapshot.revision


async def test_heartbeats_are_acknowledged_and_keep_the_lease(
    switcher: Switcher, make_front: MakeFront, database: Any
) -> None:
    front = await make_front("front-1")

    async def expires() -> Any:
        return await database.fetchval("select expires from switcher.reader_leases where front = 'front-1'")

    first = await expires()

    async def renewed() -> bool:
        return front.acknowledged > 2 and await expires() > first

    await eventually(renewed)


async def test_a_lost_lease_ends_the_stream(switcher: Switcher, make_front: MakeFront, database: Any) -> None:
    front = await make_front("front-1")
    await database.execute("update switcher.reader_leases set expires = now() - interval '1 second'")

    async def ended() -> bool:
        return front.ended_with is not None

    await eventually(ended)
    assert front.ended_with is not None
    assert front.ended_with.code() == grpc.StatusCode.ABORTED
    assert "open the watch again" in (front.ended_with.details() or "")


async def test_a_newer_stream_of_a_front_has_the_lease(switcher: Switcher, make_front: MakeFront) -> None:
    older = await make_front("front-1")
    await make_front("front-1")

    async def ended() -> bool:
        return older.ended_with is not None

    await eventually(ended)
    assert (await switcher.cut_over(1)).changed


@pytest.mark.parametrize(
    ("messages", "reason"),
    [
        ([pb.WatchRoutesRequest(heartbeat=pb.Heartbeat(sequence=1))], "names the front"),
        ([pb.WatchRoutesRequest(hello=pb.Hello())], "names the front"),
        ([pb.WatchRoutesRequest(hello=pb.Hello(front="x" * 1001))], "at most 1000 characters"),
        ([pb.WatchRoutesRequest(hello=pb.Hello(front="f"))] * 2, "After hello"),
        (
            [
                pb.WatchRoutesRequest(hello=pb.Hello(front="f")),
                pb.WatchRoutesRequest(report=pb.Report(proposal="p")),
            ],
            "one of the states",
        ),
    ],
)
async def test_a_stream_that_says_nonsense_is_refused(
    switcher: Switcher, messages: list[pb.WatchRoutesRequest], reason: str
) -> None:
    async with connect(switcher.target) as channel:
        stub: Any = rpc.SwitcherStub(channel)
        call = stub.WatchRoutes()
        for message in messages:
            await call.write(message)
        with pytest.raises(grpc.aio.AioRpcError, match=reason) as caught:
            async for _ in call:
                pass
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_replicas_see_each_others_fronts(start_switcher: StartSwitcher) -> None:
    one, other = await start_switcher(), await start_switcher()
    front = await Front(other.target, "front-of-the-other").start()
    answer = await one.cut_over(1)
    assert [adoption.front for adoption in answer.adoptions] == ["front-of-the-other"]
    assert front.routes[ROUTE].epoch == 1
    await front.die()


async def test_a_front_registers_before_or_after_a_commit_but_not_within(
    switcher: Switcher, make_front: MakeFront, database: Any
) -> None:
    """A commit in progress holds the revision row: whoever says hello then gets what it commits."""
    await switcher.cut_over(1)
    async with database.transaction():
        await database.execute("update switcher.revision set value = value + 1")
        registering = asyncio.ensure_future(make_front("front-1"))

        async def waits() -> bool:
            query = "select count(*) from pg_locks where not granted and transactionid = pg_current_xact_id()::xid"
            return bool(await database.fetchval(query))

        await eventually(waits)
        await database.execute("update switcher.routes set traceparent = 'of this commit'")
    front = await registering
    assert front.snapshot.routes[0].traceparent == "of this commit"
