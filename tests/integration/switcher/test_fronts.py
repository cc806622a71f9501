"""What fronts say decides whether a change is committed, and who is waited for."""

import asyncio
import time
from datetime import timedelta
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from core.postgres import migrate, open_pool
from services.switcher.feed import Feed
from services.switcher.hint import Hint
from services.switcher.intervals import whole
from services.switcher.records import CommandKind, Intent, Proposal
from services.switcher.rows import MIGRATIONS
from services.switcher.store import RouteStore, Terms
from services.switcher.switch import Change
from tests.integration.switcher.conftest import (
    ROUTE,
    TIMEOUT_S,
    MakeFront,
    StartSwitcher,
    Switcher,
    lease_is_over,
    refused,
)
from tests.integration.switcher.front import Front
from tests.support.eventually import eventually
from turnout.channel import connect
from turnout.routing import WHOLE, Arm, Route
from turnout.switcher.v1 import front_pb2
from turnout.switcher.v1 import switcher_pb2_grpc as rpc

LATE_MAX = 5  # a busy machine lets a front be late now and then, and never each time


def hello(front: str, address: str = "", seconds: int = 60) -> front_pb2.WatchRoutesRequest:
    said = front_pb2.Hello(front=front, address=address, may_serve_for=Duration(seconds=seconds))
    return front_pb2.WatchRoutesRequest(hello=said)


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


async def test_a_front_that_says_nothing_stops_a_change(
    impatient: None, switcher: Switcher, make_front: MakeFront
) -> None:
    await make_front("front-1")
    await switcher.cut_over(1)
    silent = await make_front("front-silent")
    silent.prepares = False
    refusal = await refused(switcher.cut_over(2))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "NOT_PREPARED")
    assert "front-silent: has not said that it is prepared" in refusal.message
    assert (await switcher.route()).epoch == 1


async def test_a_front_that_refuses_stops_a_change_by_the_limits_of_the_product(
    impatient: None, switcher: Switcher, make_front: MakeFront
) -> None:
    await switcher.cut_over(1)
    bad = await make_front("front-bad")
    bad.nack = "table serving.carrier_punctuality__v2 does not exist"
    refusal = await refused(switcher.cut_over(2))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "NOT_PREPARED")
    assert "front-bad: " in refusal.message  # and why, unless it stood still meanwhile
    assert (await switcher.route()).epoch == 1


async def test_the_limits_of_the_product_leave_a_front_time_to_answer(
    impatient: None, switcher: Switcher, make_front: MakeFront
) -> None:
    await switcher.cut_over(1)
    await make_front("front-1")
    complaints: list[str] = []
    while len(complaints) < LATE_MAX:
        try:
            assert (await switcher.cut_over(2)).changed
            break
        except grpc.aio.AioRpcError as error:
            complaints.append(str(error.details()))
            await asyncio.sleep(1.0)
    assert len(complaints) < LATE_MAX
    assert all("front-1: has not said that it is prepared" in complaint for complaint in complaints)


async def test_a_front_that_dies_before_the_commit_is_waited_for_until_its_lease_expires(
    switcher: Switcher, make_front: MakeFront, database: Any
) -> None:
    survivor, dying = await make_front("front-1"), await make_front("front-dying")
    await switcher.cut_over(1)
    dying.prepares = False
    change = asyncio.create_task(switcher.cut_over(2))
    await dying.until_proposed(2)
    await dying.die()
    await lease_is_over(database, "front-dying")
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
    answer = await switcher.cut_over(2)
    assert answer.changed
    assert [a.front for a in answer.adoptions if not a.HasField("adoption_time")] == ["front-late"]
    assert not answer.HasField("adoption_time")
    assert answer.warnings == ["Not serving the new route yet: front-late."]


async def test_a_front_that_comes_back_behind_the_commit_is_late_like_any_other(
    switcher: Switcher, make_front: MakeFront
) -> None:
    """Its lease had expired at the commit, so that nobody asked it, and it still serves the epoch before."""
    front, back = await make_front("front-1"), Front(switcher.target, "front-back")
    await switcher.cut_over(1)
    front.serves = front.drains = back.serves = back.drains = False
    change = asyncio.create_task(switcher.cut_over(2))

    async def committed() -> bool:
        return front.committed[-1].route.epoch == 2

    await eventually(committed)
    await back.start()
    await front.report(front.committed[-1].proposal, front_pb2.Report.SERVING)
    answer = await change
    assert [(a.front, a.HasField("adoption_time")) for a in answer.adoptions] == [
        ("front-1", True),
        ("front-back", False),
    ]
    assert answer.warnings == ["Not serving the new route yet: front-back."]
    await back.die()


async def test_who_says_goodbye_before_it_serves_is_not_late(switcher: Switcher, make_front: MakeFront) -> None:
    front, leaving = await make_front("front-1"), await make_front("front-leaving")
    await switcher.cut_over(1)
    leaving.serves = leaving.drains = False
    change = asyncio.create_task(switcher.cut_over(2))

    async def committed() -> bool:
        return leaving.committed[-1].route.epoch == 2

    await eventually(committed)
    await leaving.goodbye()
    answer = await change
    assert [adoption.front for adoption in answer.adoptions] == [front.name]
    assert not answer.warnings
    assert not answer.fronts_not_counted


async def test_an_answer_that_names_late_fronts_is_not_the_last_word(switcher: Switcher, make_front: MakeFront) -> None:
    front = await make_front("front-late")
    await switcher.cut_over(1)
    front.serves = front.drains = False
    first = await switcher.cut_over(2, request_id="cut-over-2")
    assert first.warnings == ["Not serving the new route yet: front-late."]
    await front.report(front.committed[-1].proposal, front_pb2.Report.SERVING)
    whole = await switcher.cut_over(2, request_id="cut-over-2")
    assert (whole.changed, whole.commit_time, list(whole.warnings)) == (True, first.commit_time, [])
    assert [a.front for a in whole.adoptions if a.HasField("adoption_time")] == ["front-late"]
    await front.goodbye()
    assert await switcher.cut_over(2, request_id="cut-over-2") == whole, "this one is kept"


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
    await waiting.report(proposal.proposal, front_pb2.Report.PREPARED)
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


async def test_the_read_load_is_what_live_fronts_last_said(switcher: Switcher, make_front: MakeFront) -> None:
    began_s = time.monotonic()
    busy, idle = await make_front("front-busy"), await make_front("front-idle")
    busy.read_load = front_pb2.ReadLoad(reads=120)
    busy.read_load.window.FromMilliseconds(1000)
    busy.read_load.p50.FromMicroseconds(800)
    busy.read_load.p99.FromMicroseconds(4500)

    async def told() -> list[front_pb2.FrontReadLoad]:
        answer = await switcher.stub.GetReadLoad(front_pb2.GetReadLoadRequest(), timeout=TIMEOUT_S)
        return sorted(answer.fronts, key=lambda one: one.front)

    async def both() -> bool:
        fronts = await told()
        return [one.front for one in fronts] == ["front-busy", "front-idle"] and fronts[0].HasField("read_load")

    await eventually(both)
    loaded, unread = await told()
    assert loaded.read_load == busy.read_load
    assert timedelta() <= loaded.age.ToTimedelta() <= timedelta(seconds=time.monotonic() - began_s)
    assert not unread.HasField("read_load")
    busy.read_load = None

    async def silent() -> bool:
        return not (await told())[0].HasField("read_load")

    await eventually(silent)  # an answered read is told once
    await idle.goodbye()

    async def gone() -> bool:
        return [one.front for one in await told()] == ["front-busy"]

    await eventually(gone)


async def test_a_stream_without_a_hello_is_refused(switcher: Switcher) -> None:
    async with connect(switcher.target) as channel:
        stub: Any = rpc.SwitcherStub(channel)
        call = stub.WatchRoutes()
        with pytest.raises(grpc.aio.AioRpcError, match="names the front") as caught:
            await call.read()
    assert caught.value.code() == grpc.StatusCode.INVALID_ARGUMENT


async def test_no_heartbeat_is_acknowledged_before_what_was_committed(
    switcher: Switcher, make_front: MakeFront, postgres: str, database: Any
) -> None:
    """A front that hears of no change must not be told that it is up to date."""
    front = await make_front("front-1")
    async with database.transaction():
        await database.execute("lock table switcher.proposals in access exclusive mode")  # the feed cannot read
        other = await asyncpg.connect(postgres)
        await other.execute("update switcher.revision set value = value + 1")
        # Heartbeats before this moment may be acknowledged still; those sent after it may not.
        sent, renewed = front.beats, "select expires from switcher.reader_leases"

        async def beaten() -> bool:
            return front.beats >= sent + 2

        await eventually(beaten)
        expires = await other.fetchval(renewed)

        async def renewed_again() -> bool:
            return bool(await other.fetchval(renewed) > expires)

        await eventually(renewed_again)
        await other.close()
        assert front.acknowledged <= sent

    async def goes_on() -> bool:
        return front.acknowledged > sent

    await eventually(goes_on)


async def test_what_is_proposed_before_the_feed_first_reads_is_fed(postgres: str) -> None:
    """A registration may come between the start of the feed and its first look."""
    pool = await open_pool(postgres, application_name="test")
    await migrate(pool, "switcher", MIGRATIONS)
    store = RouteStore(pool)
    feed = Feed(store, Hint())
    await feed.begin()
    with feed.subscribe() as subscription:
        first = Route("j", 1, 1, (Arm(1, WHOLE),), "salt", whole(1, 1))
        intent = Intent(CommandKind.CUT_OVER, "", "", "", b"")
        proposal = await store.propose([Change(first, None, None)], intent, Terms(timedelta(minutes=1), "", ""))
        running = asyncio.create_task(feed.run())
        item = await subscription.next()
        running.cancel()
        await asyncio.wait([running])
    assert isinstance(item, Proposal)
    assert item.proposal == proposal
    await pool.close()


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
        ([front_pb2.WatchRoutesRequest(heartbeat=front_pb2.Heartbeat(sequence=1))], "names the front"),
        ([front_pb2.WatchRoutesRequest(hello=front_pb2.Hello())], "names the front"),
        ([hello(front="x" * 201)], "at most 200"),
        ([hello(front="f", address="nul \0")], "NUL"),
        ([front_pb2.WatchRoutesRequest(hello=front_pb2.Hello(front="f"))], "may_serve_for"),
        ([hello(front="f", seconds=31 * 86_400)], "at most 30 days"),
        ([hello(front="f")] * 2, "After hello"),
        (
            [
                hello(front="f"),
                front_pb2.WatchRoutesRequest(
                    heartbeat=front_pb2.Heartbeat(sequence=1, read_load=front_pb2.ReadLoad(reads=-1))
                ),
            ],
            "below 0",
        ),
        (
            [
                hello(front="f"),
                front_pb2.WatchRoutesRequest(report=front_pb2.Report(proposal="p")),
            ],
            "one of the states",
        ),
        (
            [
                hello(front="f"),
                front_pb2.WatchRoutesRequest(
                    report=front_pb2.Report(proposal="nul \0", state=front_pb2.Report.SERVING)
                ),
            ],
            "NUL",
        ),
    ],
)
async def test_a_stream_that_says_nonsense_is_refused(
    switcher: Switcher, messages: list[front_pb2.WatchRoutesRequest], reason: str
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
