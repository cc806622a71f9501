"""Several jobs are cut over together: all or none, in one step at every front."""

import asyncio

import grpc
import pytest

from tests.integration.switcher.conftest import TIMEOUT_S, MakeFront, StartSwitcher, Switcher, refused
from tests.integration.switcher.replayer import ReplayerOnDemand
from turnout.switcher.v1 import change_pb2, route_pb2

A, B = "jobs/a/route", "jobs/b/route"


async def versions(switcher: Switcher) -> dict[str, int]:
    page = await switcher.stub.ListRoutes(route_pb2.ListRoutesRequest(), timeout=TIMEOUT_S)
    return {route.name.split("/")[1]: route.active_version for route in page.routes}


async def test_all_are_committed_in_one_step(
    switcher: Switcher, replayer: ReplayerOnDemand, make_front: MakeFront
) -> None:
    front = await make_front("front-1")
    first = await switcher.cut_over_many({"b": 1, "a": 1})
    assert [change.route.name for change in first] == [A, B]
    changes = await switcher.cut_over_many({"a": 2, "b": 3}, claimed_actor="ada", reason="both at once")
    assert [(change.route.active_version, change.route.epoch) for change in changes] == [(2, 2), (3, 2)]
    group = changes[0].group
    assert group > 0
    assert [change.group for change in changes] == [change.route.group for change in changes] == [group] * 2
    assert [len(change.adoptions) for change in changes] == [1, 1]
    step = front.committed[-1]
    assert (step.revision, step.route.name, [other.name for other in step.others]) == (group, A, [B])
    assert (step.route.group, step.others[0].group) == (group, group)
    assert {front.routes[A].active_version, front.routes[B].active_version} == {2, 3}
    assert replayer.views == {"a": (2, 2), "b": (3, 2)}, "the SQL views of all of them follow"
    for name in (A, B):
        page = await switcher.stub.ListRouteChanges(change_pb2.ListRouteChangesRequest(parent=name), timeout=TIMEOUT_S)
        assert (page.route_changes[0].group, page.route_changes[0].reason) == (group, "both at once")
    late = await make_front("front-late")
    assert {one.route.group for one in late.snapshot.routes} == {group}
    alone = await switcher.stub.CutOverRoute(change_pb2.CutOverRouteRequest(name=A, version=4), timeout=TIMEOUT_S)
    assert (alone.group, (await switcher.route(A)).group) == (0, group), "what it was part of last is remembered"


async def test_a_gate_of_one_refuses_all(switcher: Switcher, replayer: ReplayerOnDemand, make_front: MakeFront) -> None:
    front = await make_front("front-1")
    await switcher.cut_over_many({"a": 1, "b": 1})
    replayer.failing[7, "schema"] = ["Column x is gone."]
    refusal = await refused(switcher.cut_over_many({"a": 2, "b": 7}))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "GATES_FAILED")
    assert refusal.violations == [("schema", "jobs/b/versions/7", "Column x is gone.")]
    assert await versions(switcher) == {"a": 1, "b": 1}
    assert len(front.proposals) == 1, "nothing was proposed"
    await switcher.cut_over_many({"a": 2, "b": 7}, override_gates=["schema"])
    assert await versions(switcher) == {"a": 2, "b": 7}


async def test_a_front_that_cannot_serve_one_refuses_all(switcher: Switcher, make_front: MakeFront) -> None:
    front = await make_front("front-1")
    await switcher.cut_over_many({"a": 1, "b": 1})
    front.nack = "b v2 has no table"
    refusal = await refused(switcher.cut_over_many({"a": 2, "b": 2}))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "NOT_PREPARED")
    assert await versions(switcher) == {"a": 1, "b": 1}


async def test_one_that_moved_meanwhile_refuses_all(switcher: Switcher) -> None:
    await switcher.cut_over_many({"a": 1, "b": 1})
    etag = (await switcher.route(B)).etag
    await switcher.stub.SetTraffic(
        change_pb2.SetTrafficRequest(
            name=B, arms=[route_pb2.Arm(version=1, weight=9000), route_pb2.Arm(version=2, weight=1000)]
        ),
        timeout=TIMEOUT_S,
    )
    request = change_pb2.CutOverRoutesRequest(
        cut_overs=[change_pb2.CutOver(name=A, version=2), change_pb2.CutOver(name=B, version=2, etag=etag)]
    )
    refusal = await refused(switcher.stub.CutOverRoutes(request, timeout=TIMEOUT_S))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "STALE_ETAG")
    assert await versions(switcher) == {"a": 1, "b": 1}


async def test_what_is_so_already_stays_and_the_rest_changes(switcher: Switcher, make_front: MakeFront) -> None:
    await make_front("front-1")
    await switcher.cut_over_many({"a": 1, "b": 1})
    a, b = await switcher.cut_over_many({"a": 1, "b": 2}, request_id="r-1")
    assert (a.changed, a.group, b.changed, b.group) == (False, 0, True, 0), "one alone is no group"
    assert await switcher.cut_over_many({"a": 1, "b": 2}, request_id="r-1") == [a, b]
    unchanged = await switcher.cut_over_many({"a": 1, "b": 2}, request_id="r-2")
    assert [change.changed for change in unchanged] == [False, False]
    assert await switcher.cut_over_many({"a": 1, "b": 2}, request_id="r-2") == unchanged


async def test_they_are_rolled_back_together_or_one_by_one(switcher: Switcher, make_front: MakeFront) -> None:
    front = await make_front("front-1")
    await switcher.cut_over_many({"a": 1, "b": 1, "c": 1})
    await switcher.cut_over_many({"a": 2, "b": 2, "c": 2})
    dry = await switcher.roll_back_many("a", "b", validate_only=True)
    told = "was cut over together with c, which stay as they are; to take back all of them: turnout rollback a b c"
    assert [warning for change in dry for warning in change.warnings] == [f"a {told}", f"b {told}"]
    back = await switcher.roll_back_many("b", "a", "c")
    assert [(change.route.active_version, len(change.warnings)) for change in back] == [(1, 0)] * 3
    assert len({change.group for change in back}) == 1
    assert {route.active_version for route in front.routes.values()} == {1}
    refusal = await refused(switcher.roll_back_many("a", "b"))
    assert refusal.reason == "NOTHING_TO_RETURN_TO"


async def test_requests_that_name_no_job_or_one_twice(switcher: Switcher) -> None:
    for cut_overs in ([], [change_pb2.CutOver(name=A, version=1), change_pb2.CutOver(name=A, version=2)]):
        request = change_pb2.CutOverRoutesRequest(cut_overs=cut_overs)
        refusal = await refused(switcher.stub.CutOverRoutes(request, timeout=TIMEOUT_S))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_JOBS")


@pytest.mark.parametrize("round_", range(4))
async def test_groups_that_overlap_at_two_replicas(start_switcher: StartSwitcher, round_: int) -> None:
    """Neither waits for the other for ever, and of each group all or nothing is there."""
    one, other = await start_switcher(), await start_switcher()
    await one.cut_over_many({"a": 1, "b": 1, "c": 1})
    answers = await asyncio.gather(
        one.cut_over_many({"a": 2, "b": 2}), other.cut_over_many({"c": 3, "b": 3}), return_exceptions=True
    )
    failed = [answer for answer in answers if isinstance(answer, BaseException)]
    for answer in failed:
        assert isinstance(answer, grpc.aio.AioRpcError)
        assert answer.code() == grpc.StatusCode.ABORTED
    now = await versions(one)
    if not failed:  # one after the other
        assert now in ({"a": 2, "b": 3, "c": 3}, {"a": 2, "b": 2, "c": 3})
    else:
        assert now in ({"a": 2, "b": 2, "c": 1}, {"a": 1, "b": 3, "c": 3})
