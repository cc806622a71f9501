"""Cutover, traffic and rollback, as clients and fronts see them."""

import asyncio

import grpc

from tests.integration.switcher.conftest import (
    ROUTE,
    TIMEOUT_S,
    V1,
    V2,
    MakeFront,
    Switcher,
    refused,
)
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.support.eventually import eventually
from turnout.replayer.v1 import run_pb2
from turnout.switcher.v1 import change_pb2, front_pb2, route_pb2


def weights(route: route_pb2.Route) -> dict[int, int]:
    return {arm.version: arm.weight for arm in route.arms}


async def test_the_first_cutover_creates_the_route(
    switcher: Switcher, replayer: ReplayerOnDemand, make_front: MakeFront
) -> None:
    absent = await refused(switcher.route())
    assert (absent.code, absent.reason) == (grpc.StatusCode.NOT_FOUND, "ROUTE_NOT_FOUND")
    front = await make_front("front-1")
    change = await switcher.cut_over(1, claimed_actor="ada", reason="first")
    assert change.changed
    assert (change.route.epoch, change.route.active_version, weights(change.route)) == (1, 1, {1: 10000})
    assert [adoption.front for adoption in change.adoptions] == ["front-1"]
    assert change.adoption_time.ToTimedelta().total_seconds() < TIMEOUT_S
    assert not change.warnings
    assert not change.fronts_not_counted
    assert replayer.asked == [(1, 0)] * 2, "first, and again before the commit"
    assert [(gate.gate, gate.passed) for gate in change.gates] == [
        ("catch-up", True),
        ("coverage", True),
        ("schema", True),
        ("rollback", True),
    ]
    assert change.route.view.state == route_pb2.View.MOVED
    assert replayer.views == {"carrier-punctuality": (1, 1)}
    assert front.routes[ROUTE].etag == change.route.etag == (await switcher.route()).etag
    assert front.committed[0].proposal == front.proposals[0].proposal


async def test_a_change_without_fronts_is_allowed_with_a_warning(switcher: Switcher) -> None:
    change = await switcher.cut_over(1)
    assert change.changed
    assert change.warnings == ["No query front is live: the route stands, and nobody reads by it yet."]


async def test_split_then_cutover_then_rollback_then_cutover(
    switcher: Switcher, replayer: ReplayerOnDemand, make_front: MakeFront
) -> None:
    fronts = [await make_front(name) for name in ("front-1", "front-2")]
    await switcher.cut_over(1)
    split = await switcher.set_traffic({1: 9000, 2: 1000})
    assert weights(split.route) == {1: 9000, 2: 1000}
    cut = await switcher.cut_over(2)
    assert (cut.route.rollback_version, weights(cut.route)) == (1, {2: 10000})
    assert cut.route.HasField("rollback_protected_until")
    back = await switcher.roll_back(claimed_actor="ada", reason="wrong sums")
    assert weights(back.route) == {1: 9000, 2: 1000}
    assert back.route.intervals == split.route.intervals
    assert (back.route.epoch, back.route.rollback_version) == (4, 0)
    nothing = await refused(switcher.roll_back())
    assert (nothing.code, nothing.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "NOTHING_TO_RETURN_TO")
    again = await switcher.cut_over(2)
    assert (again.route.epoch, weights(again.route)) == (5, {2: 10000})
    assert {front.routes[ROUTE].epoch for front in fronts} == {5}
    assert [committed.route.epoch for committed in fronts[0].committed] == [1, 2, 3, 4, 5]
    assert [c.revision for c in fronts[0].committed] == sorted(c.revision for c in fronts[0].committed)
    assert replayer.asked == [(1, 0)] * 2 + [(2, 1)] * 6, "a rollback asks no gate"
    assert replayer.views == {"carrier-punctuality": (2, 5)}
    audit = (await switcher.changes()).route_changes
    assert [(c.route.epoch, change_pb2.RouteChange.Command.Name(c.command)) for c in audit] == [
        (5, "CUT_OVER"),
        (4, "ROLL_BACK"),
        (3, "CUT_OVER"),
        (2, "SET_TRAFFIC"),
        (1, "CUT_OVER"),
    ]
    assert (audit[1].claimed_actor, audit[1].reason) == ("ada", "wrong sums")


async def test_what_is_so_already_changes_nothing(switcher: Switcher, make_front: MakeFront) -> None:
    front = await make_front("front-1")
    await switcher.cut_over(1)
    same = await switcher.cut_over(1)
    assert not same.changed
    assert same.route.epoch == 1
    assert not (await switcher.set_traffic({1: 10000})).changed
    assert len(front.proposals) == 1


async def test_a_failed_gate_refuses_with_its_evidence(switcher: Switcher, replayer: ReplayerOnDemand) -> None:
    await switcher.cut_over(1)
    replayer.failing[2, "catch-up"] = [
        "Partition 3 of flights is 40,112 offsets behind.",
        "Partition 0 of flights is 7 offsets behind.",
    ]
    refusal = await refused(switcher.cut_over(2))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "GATES_FAILED")
    assert refusal.message == (
        "v2 of carrier-punctuality is not caught up: Partition 3 of flights is 40,112 offsets behind (and 1 more). "
        "Watch it with `turnout run watch carrier-punctuality v2`, "
        "or pass over it by name (`--override-gates catch-up`)."
    )
    assert refusal.violations == [("catch-up", V2, sentence) for sentence in replayer.failing[2, "catch-up"]]
    assert (await switcher.route()).epoch == 1


async def test_a_missing_answer_is_a_failed_gate(switcher: Switcher, replayer: ReplayerOnDemand) -> None:
    replayer.silent = {"catch-up", "coverage", "schema"}
    refusal = await refused(switcher.cut_over(1))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "GATES_FAILED")
    assert [violation[0] for violation in refusal.violations] == ["catch-up", "coverage", "schema"]
    replayer.silent = {"schema"}
    assert [violation[0] for violation in (await refused(switcher.cut_over(1))).violations] == ["schema"]
    change = await switcher.cut_over(1, override_gates=["schema"])
    assert [(gate.gate, gate.overridden) for gate in change.gates] == [
        ("catch-up", False),
        ("coverage", False),
        ("schema", True),
        ("rollback", False),
    ]


async def test_a_run_stopped_while_the_fronts_prepare_stops_the_change(
    switcher: Switcher, replayer: ReplayerOnDemand, make_front: MakeFront
) -> None:
    front = await make_front("front-1")
    await switcher.cut_over(1)
    front.prepares = False
    change = asyncio.create_task(refused(switcher.cut_over(2)))
    proposal = await front.until_proposed(2)
    replayer.failing[2, "catch-up"] = ["The run of v2 is STOPPED."]
    await front.report(proposal.proposal, front_pb2.Report.PREPARED)
    refusal = await change
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "GATES_FAILED")
    assert refusal.violations == [("catch-up", V2, "The run of v2 is STOPPED.")]
    assert (await switcher.route()).active_version == 1

    async def cancelled() -> bool:
        return front.cancelled == [proposal.proposal]

    await eventually(cancelled)


async def test_the_audit_keeps_the_evidence_at_the_commit(
    switcher: Switcher, replayer: ReplayerOnDemand, make_front: MakeFront
) -> None:
    front = await make_front("front-1")
    front.prepares = False
    replayer.evidence = "0 offsets behind, at first."
    change = asyncio.create_task(switcher.cut_over(1))
    proposal = await front.until_proposed()
    replayer.evidence = "3 offsets behind, at the commit."
    await front.report(proposal.proposal, front_pb2.Report.PREPARED)
    assert (await change).gates[0].evidence == ["3 offsets behind, at the commit."]
    (audit,) = (await switcher.changes()).route_changes
    assert audit.gates[0].evidence == ["3 offsets behind, at the commit."]


async def test_a_gate_passed_over_stands_in_the_audit(switcher: Switcher, replayer: ReplayerOnDemand) -> None:
    await switcher.cut_over(1)
    replayer.failing = {(2, "coverage"): ["Readers would lose 2011-01-01 to 2012-12-01."], (2, "schema"): ["No x."]}
    refusal = await refused(switcher.cut_over(2, override_gates=["coverage"]))
    assert [violation[0] for violation in refusal.violations] == ["schema"]
    change = await switcher.cut_over(2, override_gates=["coverage", "schema", "catch-up"], claimed_actor="ada")
    assert change.changed
    (audit, _) = (await switcher.changes()).route_changes
    assert audit.claimed_actor == "ada"
    assert [(gate.gate, gate.passed, gate.overridden) for gate in audit.gates] == [
        ("catch-up", True, False),
        ("coverage", False, True),
        ("schema", False, True),
        ("rollback", True, False),
    ]
    assert audit.gates[1].evidence == ["Readers would lose 2011-01-01 to 2012-12-01."]


async def test_a_dry_run_asks_and_changes_nothing(
    switcher: Switcher, replayer: ReplayerOnDemand, make_front: MakeFront
) -> None:
    front = await make_front("front-1")
    dry = await switcher.cut_over(1, validate_only=True, request_id="dry")
    assert (dry.route.epoch, dry.HasField("commit_time")) == (1, False)
    assert replayer.asked == [(1, 0)]
    assert (await refused(switcher.route())).reason == "ROUTE_NOT_FOUND"
    replayer.failing[1, "catch-up"] = ["Not yet."]
    assert (await refused(switcher.cut_over(1, validate_only=True))).reason == "GATES_FAILED"
    assert not front.proposals


async def test_a_version_without_a_run_gets_no_traffic(switcher: Switcher) -> None:
    await switcher.cut_over(1)
    for call in (
        switcher.set_traffic({1: 9000, 99: 1000}),
        switcher.cut_over(99, override_gates=["catch-up", "coverage", "schema"]),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.NOT_FOUND, "RUN_NOT_FOUND")


async def test_a_stale_etag_is_refused(switcher: Switcher) -> None:
    first = await switcher.cut_over(1)
    await switcher.set_traffic({1: 9000, 2: 1000}, etag=first.route.etag)
    for call in (
        switcher.cut_over(2, etag=first.route.etag),
        switcher.set_traffic({1: 5000, 2: 5000}, etag=first.route.etag),
        switcher.roll_back(etag=first.route.etag),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "STALE_ETAG")
    assert (await switcher.route()).epoch == 2


async def test_a_repeated_request_gets_the_first_answer(switcher: Switcher, make_front: MakeFront) -> None:
    await make_front("front-1")
    first = await switcher.cut_over(1, request_id="r-1")
    await switcher.cut_over(2)
    assert await switcher.cut_over(1, request_id="r-1") == first, "adoptions too, and v2 stays active"
    assert (await switcher.route()).active_version == 2
    reused = await refused(switcher.cut_over(3, request_id="r-1"))
    assert (reused.code, reused.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "REQUEST_ID_REUSED")
    unchanged = await switcher.cut_over(2, request_id="r-2")
    await switcher.cut_over(1)
    assert await switcher.cut_over(2, request_id="r-2") == unchanged


async def test_a_rollback_wakes_its_runs_and_tells_how_stale_they_are(
    switcher: Switcher, replayer: ReplayerOnDemand
) -> None:
    await switcher.cut_over(1)
    await switcher.cut_over(2)
    run = f"{V1}/run"
    replayer.runs[run] = run_pb2.Run(name=run, state=run_pb2.Run.STOPPED, lag=1234)
    dry = await switcher.roll_back(validate_only=True)
    found = [
        "carrier-punctuality v1 is 1,234 offsets behind the end of the log.",
        "The run of carrier-punctuality v1 is STOPPED; the rollback resumes it.",
    ]
    assert dry.warnings == found
    assert not replayer.resumed
    change = await switcher.roll_back()
    assert replayer.resumed == [run]
    assert change.warnings[:2] == found
    assert not any("was resumed" in warning for warning in change.warnings), "it has been told once"
    assert (await switcher.changes()).route_changes[0].warnings[:2] == change.warnings[:2]


async def test_a_rollback_does_not_wait_for_a_replayer_that_is_away(
    switcher: Switcher, replayer: ReplayerOnDemand
) -> None:
    await switcher.cut_over(1)
    await switcher.cut_over(2)
    await replayer.stop()
    change = await switcher.roll_back()
    assert change.route.active_version == 1
    assert change.warnings[0].startswith("The run of carrier-punctuality v1 could not be looked at")
    assert (change.route.view.state, change.route.view.version) == (route_pb2.View.PENDING, 2)
    refusal = await refused(switcher.cut_over(2))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.UNAVAILABLE, "REPLAYER_UNAVAILABLE")


async def test_a_run_is_woken_later_when_the_replayer_was_away(switcher: Switcher, replayer: ReplayerOnDemand) -> None:
    await switcher.cut_over(1)
    await switcher.cut_over(2)
    run = f"{V1}/run"
    replayer.runs[run] = run_pb2.Run(name=run, state=run_pb2.Run.STOPPED)
    replayer.runs_away = True
    change = await switcher.roll_back()
    assert change.route.active_version == 1
    assert any("is resumed once the replayer answers" in warning for warning in change.warnings)
    replayer.runs_away = False

    async def resumed() -> bool:
        return replayer.resumed == [run]

    await eventually(resumed)


async def test_a_rollback_that_is_refused_wakes_nothing(
    switcher: Switcher, replayer: ReplayerOnDemand, make_front: MakeFront
) -> None:
    front = await make_front("front-1")
    await switcher.cut_over(1)
    await switcher.cut_over(2)
    run = f"{V1}/run"
    replayer.runs[run] = run_pb2.Run(name=run, state=run_pb2.Run.STOPPED)
    front.nack = "v1 has no table"
    assert (await refused(switcher.roll_back())).reason == "NOT_PREPARED"
    assert not replayer.resumed
    front.nack = ""
    await switcher.roll_back()
    assert replayer.resumed == [run]


async def test_a_blocked_view_follows_later(switcher: Switcher, replayer: ReplayerOnDemand) -> None:
    replayer.view_blocked_by = "session 4711, idle in transaction for 3 minutes"
    change = await switcher.cut_over(1)
    assert change.changed
    assert change.route.view.state == route_pb2.View.PENDING
    assert change.route.view.waiting_for == "session 4711, idle in transaction for 3 minutes"
    replayer.view_blocked_by = ""

    async def moved() -> bool:
        return (await switcher.route()).view.state == route_pb2.View.MOVED

    await eventually(moved)
    assert replayer.views == {"carrier-punctuality": (1, 1)}


async def test_a_rollback_stands_even_if_its_run_cannot_be_resumed(
    switcher: Switcher, replayer: ReplayerOnDemand
) -> None:
    await switcher.cut_over(1)
    await switcher.cut_over(2)
    run = f"{V1}/run"
    replayer.runs[run] = run_pb2.Run(name=run, state=run_pb2.Run.PAUSED, lag=5)
    replayer.resume_fails = "The topic flights was created anew."
    change = await switcher.roll_back()
    assert change.route.active_version == 1
    assert change.warnings[0] == "carrier-punctuality v1 is 5 offsets behind the end of the log."
    assert change.warnings[-1].endswith("could not be resumed: The topic flights was created anew.")


async def test_one_request_sent_twice_at_once_has_one_answer(switcher: Switcher, make_front: MakeFront) -> None:
    await make_front("front-1")
    await switcher.cut_over(1)
    calls = [switcher.cut_over(2, request_id="twice") for _ in range(2)]
    answers = await asyncio.gather(*calls, return_exceptions=True)
    stored = await switcher.cut_over(2, request_id="twice")
    for answer in answers:
        if isinstance(answer, grpc.aio.AioRpcError):
            assert answer.code() == grpc.StatusCode.ABORTED
        else:
            assert isinstance(answer, change_pb2.RouteChange)
            assert (answer.changed, answer.commit_time) == (True, stored.commit_time)
    assert (await switcher.route()).epoch == 2


async def test_pages(switcher: Switcher) -> None:
    for version in (1, 2, 3):
        await switcher.cut_over(version)
    first = await switcher.changes(page_size=2)
    rest = await switcher.changes(page_size=2, page_token=first.next_page_token)
    epochs = [change.route.epoch for change in [*first.route_changes, *rest.route_changes]]
    assert (epochs, rest.next_page_token) == ([3, 2, 1], "")
    other = "jobs/another-job/route"
    await switcher.stub.CutOverRoute(change_pb2.CutOverRouteRequest(name=other, version=1), timeout=TIMEOUT_S)
    page = await switcher.stub.ListRoutes(route_pb2.ListRoutesRequest(page_size=1), timeout=TIMEOUT_S)
    assert [route.name for route in page.routes] == [other]
    following = route_pb2.ListRoutesRequest(page_size=1, page_token=page.next_page_token)
    page = await switcher.stub.ListRoutes(following, timeout=TIMEOUT_S)
    assert ([route.name for route in page.routes], page.next_page_token) == ([ROUTE], "")
    for fields, reason in (({"page_size": -1}, "INVALID_PAGE_SIZE"), ({"page_token": "?"}, "INVALID_PAGE_TOKEN")):
        refusal = await refused(switcher.changes(**fields))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


async def test_bad_requests_say_what_is_wrong(switcher: Switcher) -> None:
    await switcher.cut_over(1)
    for call, reason in (
        (switcher.set_traffic({1: 9000, 2: 900}), "INVALID_WEIGHTS"),
        (switcher.set_traffic({2: 10000}), "ACTIVE_VERSION_MISSING"),
        (switcher.cut_over(0), "INVALID_VERSION"),
        (switcher.cut_over(2, override_gates=["luck"]), "UNKNOWN_GATE"),
        (switcher.cut_over(2, reason="x" * 4097), "INVALID_TEXT"),
        (switcher.cut_over(2, reason="nul \0"), "INVALID_TEXT"),
        (switcher.cut_over(2, claimed_actor="nul \0"), "INVALID_TEXT"),
        (switcher.cut_over(2, request_id="nul \0"), "INVALID_TEXT"),
        (switcher.release(V2, claimed_actor="nul \0"), "INVALID_TEXT"),
        (switcher.reinstate(V2, claimed_actor="nul \0"), "INVALID_TEXT"),
    ):
        refusal = await refused(call)
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, reason)


async def test_two_operators_at_once(switcher: Switcher, make_front: MakeFront) -> None:
    await make_front("front-1")
    first = await switcher.cut_over(1)
    for round_ in range(5):
        etag = first.route.etag if round_ == 0 else (await switcher.route()).etag
        calls = [switcher.cut_over(version, etag=etag) for version in (2 + round_ * 2, 3 + round_ * 2)]
        answers = await asyncio.gather(*calls, return_exceptions=True)
        changed = [answer for answer in answers if isinstance(answer, change_pb2.RouteChange)]
        errors = [answer for answer in answers if isinstance(answer, grpc.aio.AioRpcError)]
        assert len(changed) == len(errors) == 1
        assert errors[0].code() == grpc.StatusCode.ABORTED
        assert (await switcher.route()).active_version == changed[0].route.active_version
