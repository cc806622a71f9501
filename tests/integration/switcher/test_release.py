"""A released version is named by nobody, and is drained only when no front can still read it."""

import asyncio
from datetime import timedelta
from typing import Any

import grpc

from tests.integration.switcher.conftest import (
    ROUTE,
    V1,
    V2,
    V3,
    MakeFront,
    StartSwitcher,
    Switcher,
    refused,
)
from tests.integration.switcher.front import Front
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.support.eventually import eventually
from turnout.replayer.v1 import run_pb2
from turnout.switcher.v1 import change_pb2, front_pb2, release_pb2


async def test_a_version_in_use_is_not_released(switcher: Switcher) -> None:
    await switcher.cut_over(1)
    await switcher.set_traffic({1: 9000, 2: 1000})
    for version, said in ((V1, "is the active version"), (V2, "has 10 % of the units")):
        refusal = await refused(switcher.release(version, forgo_rollback=True))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_IN_USE")
        assert said in refusal.message


async def test_the_way_back_is_protected(switcher: Switcher) -> None:
    await switcher.cut_over(1)
    await switcher.cut_over(2)
    refusal = await refused(switcher.release(V1))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "ROLLBACK_WINDOW")
    await switcher.release(V1, forgo_rollback=True)
    assert (await switcher.route()).rollback_version == 0
    for call in (switcher.roll_back(), switcher.cut_over(1), switcher.set_traffic({1: 1000, 2: 9000})):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "VERSION_RELEASED")
    await switcher.reinstate(V1)
    await switcher.reinstate(V1)
    assert (await switcher.route()).rollback_version == 1
    assert (await switcher.roll_back()).route.active_version == 1


async def test_releases_are_audited_with_their_actor(switcher: Switcher, database: Any) -> None:
    await switcher.cut_over(1)
    await switcher.cut_over(2)
    await refused(switcher.release(V1, claimed_actor="eve"))
    await switcher.release(V1, forgo_rollback=True, claimed_actor="ada")
    await switcher.release(V1, claimed_actor="repeats it")
    await switcher.reinstate(V1, claimed_actor="bob")
    await switcher.reinstate(V1, claimed_actor="repeats it")
    rows = await database.fetch(
        "select version, command, claimed_actor, forgo_rollback from switcher.release_changes order by id"
    )
    assert [tuple(row) for row in rows] == [(1, "RELEASE", "ada", True), (1, "REINSTATE", "bob", False)]


async def test_a_front_is_waited_for_as_long_as_it_says(switcher: Switcher, database: Any) -> None:
    front = Front(switcher.target, "front-patient")
    front.may_serve_for, front.drains = timedelta(hours=1), False
    await front.start()
    await switcher.cut_over(1)
    await switcher.cut_over(2)
    await front.die()
    await database.execute("update switcher.reader_leases set expires = now() - interval '59 minutes'")
    assert (await switcher.release(V1, forgo_rollback=True)).undrained_fronts == ["front-patient"]
    assert (await switcher.cut_over(3)).fronts_not_counted == ["front-patient"]
    await database.execute("update switcher.reader_leases set expires = now() - interval '61 minutes'")
    assert (await switcher.release(V1)).drained
    assert not (await switcher.cut_over(4)).fronts_not_counted


async def test_protection_ends_by_itself(start_switcher: StartSwitcher) -> None:
    switcher = await start_switcher(rollback_protection_s=0.01)
    await switcher.cut_over(1)
    await switcher.cut_over(2)

    async def released() -> bool:
        return (await switcher.release(V1)).drained

    await eventually(released)


async def test_a_release_waits_for_the_reads_of_every_front(switcher: Switcher, make_front: MakeFront) -> None:
    quick, slow = await make_front("front-quick"), await make_front("front-slow")
    slow.drains = False
    await switcher.cut_over(1)
    await switcher.cut_over(2)
    release = await switcher.release(V1, forgo_rollback=True)
    first_time = release.release_time
    assert quick.routes[ROUTE].active_version == 2

    async def only_slow() -> bool:
        return list((await switcher.release(V1)).undrained_fronts) == ["front-slow"]

    await eventually(only_slow)
    # Drained of what it served before epoch 3 is drained of version 1 too.
    slow.drains = True
    await switcher.set_traffic({2: 9000, 3: 1000})

    async def drained() -> bool:
        return (await switcher.release(V1)).drained

    await eventually(drained)
    again = await switcher.release(V1)
    assert again.release_time == first_time, "repeating it changes nothing"
    assert not again.view_pending


async def test_a_report_about_an_older_route_does_not_drain(switcher: Switcher, make_front: MakeFront) -> None:
    front = await make_front("front-1")
    await switcher.cut_over(1)
    front.drains = False
    await switcher.cut_over(2)
    without_v1 = front.committed[-1].proposal
    await switcher.set_traffic({2: 9000, 1: 1000})  # version 1 again
    await switcher.cut_over(2)  # and not any more
    await front.report(without_v1, front_pb2.Report.DRAINED)
    release = await switcher.release(V1, forgo_rollback=True)
    assert release.undrained_fronts == ["front-1"]
    await front.report(front.committed[-1].proposal, front_pb2.Report.DRAINED)

    async def drained() -> bool:
        return (await switcher.release(V1)).drained

    await eventually(drained)


async def test_a_dead_front_counts_as_drained_once_it_cannot_serve(
    switcher: Switcher, make_front: MakeFront, database: Any
) -> None:
    front = await make_front("front-dead")
    front.drains = False
    await switcher.cut_over(1)
    await switcher.cut_over(2)
    await front.die()
    await database.execute("update switcher.reader_leases set expires = now() - interval '60 seconds'")
    assert (await switcher.release(V1, forgo_rollback=True)).undrained_fronts == ["front-dead"]
    await database.execute("update switcher.reader_leases set expires = now() - interval '121 seconds'")
    assert (await switcher.release(V1)).drained


async def test_a_restarted_front_need_not_drain_what_it_never_served(switcher: Switcher, make_front: MakeFront) -> None:
    await switcher.cut_over(1)
    await switcher.cut_over(2)
    front = await make_front("front-new")
    front.drains = False
    assert (await switcher.release(V1, forgo_rollback=True)).drained


async def test_a_pending_view_blocks_the_drop(switcher: Switcher, replayer: ReplayerOnDemand) -> None:
    await switcher.cut_over(1)
    replayer.view_blocked_by = "session 4711"
    await switcher.cut_over(2)
    assert (await switcher.release(V1, forgo_rollback=True)).view_pending
    replayer.view_blocked_by = ""

    async def free() -> bool:
        return not (await switcher.release(V1)).view_pending

    await eventually(free)


async def test_a_version_that_never_served_is_released_at_once(switcher: Switcher) -> None:
    release = await switcher.release(V3)
    assert (release.version, release.drained, release.view_pending) == (V3, True, False)


async def test_retire_raced_against_rollback(
    switcher: Switcher, replayer: ReplayerOnDemand, make_front: MakeFront
) -> None:
    """Whoever wins, no released version is ever active."""
    await make_front("front-1")
    await switcher.cut_over(1)
    run = f"{V1}/run"
    outcomes = set()

    async def release_after(looks: int) -> release_pb2.Release:
        for _ in range(looks):
            await switcher.route()
        return await switcher.release(V1, forgo_rollback=True)

    for round_ in range(60):
        await switcher.cut_over(2)
        replayer.runs[run] = run_pb2.Run(name=run, state=run_pb2.Run.STOPPED)
        released, rolled_back = await asyncio.gather(
            release_after(round_ % 15), switcher.roll_back(), return_exceptions=True
        )
        route = await switcher.route()
        outcomes.add(route.active_version)
        if isinstance(released, release_pb2.Release):
            assert isinstance(rolled_back, grpc.aio.AioRpcError)
            assert rolled_back.code() == grpc.StatusCode.FAILED_PRECONDITION
            assert {arm.version for arm in route.arms} == {2}
            assert replayer.runs[run].state == run_pb2.Run.STOPPED, "a released version's run stays as it is"
            await switcher.reinstate(V1)
            await switcher.roll_back()
        else:
            assert isinstance(rolled_back, change_pb2.RouteChange)
            assert route.active_version == 1
            assert replayer.runs[run].state == run_pb2.Run.REPLAYING
        if round_ >= 30 and len(outcomes) == 2:
            break
    assert outcomes == {1, 2}, "the race was won by each"


async def test_retire_hits_a_rollback_that_is_already_proposed(switcher: Switcher, make_front: MakeFront) -> None:
    front = await make_front("front-1")
    await switcher.cut_over(1)
    await switcher.cut_over(2)
    front.prepares = False
    rollback = asyncio.create_task(refused(switcher.roll_back()))
    proposal = await front.until_proposed(3)
    await switcher.release(V1, forgo_rollback=True)
    await front.report(proposal.proposal, front_pb2.Report.PREPARED)
    assert (await rollback).reason == "VERSION_RELEASED"
    assert (await switcher.route()).active_version == 2
