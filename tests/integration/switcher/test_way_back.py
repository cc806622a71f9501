"""A cutover whose way back is not proven is refused; how ready a rollback is, is told; the way out is never blocked."""

import asyncio
from datetime import UTC, datetime

import grpc
import pytest

from tests.integration.switcher.conftest import V1, V2, MakeFront, Switcher, refused
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.support.eventually import eventually
from turnout.replayer.v1 import comparison_pb2, gate_pb2, run_pb2
from turnout.switcher.v1 import change_pb2, front_pb2

RUN = f"{V1}/run"


@pytest.mark.parametrize("state", ["STOPPED", "FAILED", "PAUSED", "QUEUED"])
async def test_a_run_that_is_not_alive_is_no_way_back(
    switcher: Switcher, replayer: ReplayerOnDemand, state: str
) -> None:
    await switcher.cut_over(1)
    replayer.runs[RUN] = run_pb2.Run(name=RUN, state=run_pb2.Run.State.Value(state))
    for validate_only in (True, False):
        refusal = await refused(switcher.cut_over(2, validate_only=validate_only))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "GATES_FAILED")
        assert [(kind, subject) for kind, subject, _ in refusal.violations] == [("rollback", V2)]
        assert f"The run of carrier-punctuality v1 is {state}" in refusal.message
    change = await switcher.cut_over(2, override_gates=["rollback"])
    assert [(gate.passed, gate.overridden) for gate in change.gates if gate.gate == "rollback"] == [(False, True)]
    (audit, _) = (await switcher.changes()).route_changes
    assert [gate.overridden for gate in audit.gates if gate.gate == "rollback"] == [True]


@pytest.mark.usefixtures("impatient")
async def test_a_replayer_that_is_slow_is_waited_for_as_long_as_with_any_gate(
    switcher: Switcher, replayer: ReplayerOnDemand
) -> None:
    await switcher.cut_over(1)
    assert (await switcher.cut_over(2)).changed
    assert max(replayer.patience_s) > 1.0, "no longer than a rollback would wait, which it does not depend on"


async def test_a_front_that_cannot_read_it_back_refuses(switcher: Switcher, make_front: MakeFront) -> None:
    good, blind = await make_front("front-good"), await make_front("front-blind")
    await switcher.cut_over(1)
    blind.way_back_problem = "carrier-punctuality v1 has no table"
    refusal = await refused(switcher.cut_over(2))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.FAILED_PRECONDITION, "GATES_FAILED")
    assert refusal.violations == [
        (
            "rollback",
            V2,
            "The front front-blind cannot read what a rollback would return to: carrier-punctuality v1 has no table.",
        )
    ]
    assert list(good.proposals[-1].way_back_versions) == [1]
    assert (await switcher.route()).epoch == 1
    assert (await switcher.cut_over(2, override_gates=["rollback"])).changed
    assert not good.proposals[-1].way_back_versions, "who passes it over is not asked"


async def test_a_front_that_comes_late_is_asked_too(switcher: Switcher, make_front: MakeFront) -> None:
    """What fronts say is looked at once more within the commit."""
    front = await make_front("front-1")
    await switcher.cut_over(1)
    front.prepares = False
    change = asyncio.create_task(refused(switcher.cut_over(2)))
    proposal = await front.until_proposed(2)
    late = await make_front("front-late")
    await late.until_proposed()
    await late.report(proposal.proposal, front_pb2.Report.PREPARED, "carrier-punctuality v1 has no table")
    await front.report(proposal.proposal, front_pb2.Report.PREPARED)
    assert (await change).reason == "GATES_FAILED"
    assert (await switcher.route()).epoch == 1


async def test_the_comparison_is_a_gate_where_it_is_demanded(switcher: Switcher, replayer: ReplayerOnDemand) -> None:
    await switcher.cut_over(1)
    refusal = await refused(switcher.cut_over(2, require_gates=["comparison"]))
    assert [(kind, said) for kind, _, said in refusal.violations] == [
        ("comparison", "The replayer gave no answer for this gate.")
    ]
    replayer.comparison = gate_pb2.Gate(gate="comparison", passed=False, evidence=["3 keys differ in `on_time`."])
    refusal = await refused(switcher.set_traffic({1: 9000, 2: 1000}, require_gates=["comparison"]))
    assert [said for _, _, said in refusal.violations] == ["3 keys differ in `on_time`."]
    assert (await switcher.set_traffic({1: 9000, 2: 1000})).changed, "nobody demanded it"
    change = await switcher.cut_over(2, require_gates=["comparison"], override_gates=["comparison"])
    assert [gate.overridden for gate in change.gates if gate.gate == "comparison"] == [True]
    unknown = await refused(switcher.cut_over(3, require_gates=["luck"]))
    assert (unknown.code, unknown.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "UNKNOWN_GATE")


async def test_what_the_route_demands_is_asked_of_every_change(switcher: Switcher, replayer: ReplayerOnDemand) -> None:
    await switcher.cut_over(1)
    demand = await switcher.require_gates("comparison")
    assert (demand.route.epoch, demand.command) == (2, change_pb2.RouteChange.REQUIRE_GATES)
    assert (await switcher.route()).required_gates == ["comparison"]
    assert not (await switcher.require_gates("comparison")).changed
    replayer.comparison = gate_pb2.Gate(gate="comparison", passed=False, evidence=["3 keys differ in `on_time`."])
    for change in (switcher.set_traffic({1: 9000, 2: 1000}), switcher.cut_over(2)):
        refusal = await refused(change)
        assert [said for _, _, said in refusal.violations] == ["3 keys differ in `on_time`."]
    assert (await switcher.cut_over(2, override_gates=["comparison"])).changed
    assert list((await switcher.roll_back()).route.required_gates) == ["comparison"]
    await switcher.require_gates()
    assert (await switcher.cut_over(2)).changed


async def test_gates_are_asked_at_every_growth(switcher: Switcher, replayer: ReplayerOnDemand) -> None:
    await switcher.cut_over(1)
    await switcher.set_traffic({1: 9000, 2: 1000})
    replayer.failing[2, "catch-up"] = ["Fell behind."]
    refusal = await refused(switcher.set_traffic({1: 8000, 2: 2000}))
    assert refusal.violations == [("catch-up", V2, "Fell behind.")]
    assert (await switcher.set_traffic({1: 9500, 2: 500})).changed, "less asks nothing"
    assert (await switcher.set_traffic({1: 10000})).changed


async def test_the_way_out_takes_the_place_of_what_is_on_its_way(switcher: Switcher, make_front: MakeFront) -> None:
    front = await make_front("front-1")
    await switcher.cut_over(1)
    await switcher.cut_over(2)
    front.prepares = False
    change = asyncio.create_task(refused(switcher.set_traffic({2: 9000, 3: 1000}, claimed_actor="eve")))
    proposal = await front.until_proposed(3)
    back = asyncio.create_task(switcher.roll_back(claimed_actor="ada"))
    emergency = await front.until_proposed(4)
    second = await refused(switcher.roll_back())
    assert (second.reason, "rollback by ada" in second.message) == ("CHANGE_IN_FLIGHT", True)
    await front.report(emergency.proposal, front_pb2.Report.PREPARED)
    assert (await back).route.active_version == 1
    await front.report(proposal.proposal, front_pb2.Report.PREPARED)
    refusal = await change
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.ABORTED, "PROPOSAL_EXPIRED")
    assert "rollback by ada took its place" in refusal.message
    assert front.cancelled[0] == proposal.proposal
    route = await switcher.route()
    assert (route.epoch, route.active_version) == (3, 1)


async def test_a_rollback_overtakes_another_emergency_too(switcher: Switcher, make_front: MakeFront) -> None:
    front = await make_front("front-1")
    await switcher.cut_over(1)
    await switcher.cut_over(2)
    await switcher.set_traffic({2: 9000, 3: 1000})
    front.prepares = False
    given_up = asyncio.create_task(refused(switcher.set_traffic({2: 10000}, claimed_actor="eve")))
    emergency = await front.until_proposed(4)
    back = asyncio.create_task(switcher.roll_back(claimed_actor="ada"))
    rollback = await front.until_proposed(5)
    await front.report(emergency.proposal, front_pb2.Report.PREPARED)
    await front.report(rollback.proposal, front_pb2.Report.PREPARED)
    assert (await back).route.active_version == 1
    refusal = await given_up
    assert (refusal.reason, "rollback by ada took its place" in refusal.message) == ("PROPOSAL_EXPIRED", True)


async def test_giving_up_a_split_does_not_wait_for_a_front_that_cannot(
    switcher: Switcher, make_front: MakeFront
) -> None:
    good, bad = await make_front("front-good"), await make_front("front-bad")
    await switcher.cut_over(1)
    await switcher.set_traffic({1: 5000, 2: 5000})
    bad.nack = "out of connections"
    bad.serves = bad.drains = False
    change = await switcher.cut_over(1)
    assert [(arm.version, arm.weight) for arm in change.route.arms] == [(1, 10000)]
    assert "The front front-bad was not waited for: out of connections." in change.warnings
    assert good.routes[change.route.name].epoch == 3


async def test_readiness_tells_which_fronts_cannot_read_it_back(switcher: Switcher, make_front: MakeFront) -> None:
    front, blind = await make_front("front-1"), await make_front("front-blind")
    await switcher.cut_over(1)
    blind.prepares = False
    change = asyncio.create_task(switcher.cut_over(2))
    proposal = await blind.until_proposed(2)
    await blind.report(proposal.proposal, front_pb2.Report.PREPARED)
    await change
    await blind.report(proposal.proposal, front_pb2.Report.PREPARED, "carrier-punctuality v1 has no table")
    told = "The front front-blind cannot read what a rollback would return to: carrier-punctuality v1 has no table."

    async def known() -> bool:
        ready = await switcher.readiness()
        return (ready.possible, list(ready.problems)) == (True, [told])

    await eventually(known)
    await blind.goodbye()
    assert not (await switcher.readiness()).problems, "who is gone is asked for nothing"
    assert front.ended_with is None


async def test_readiness_in_figures(switcher: Switcher, replayer: ReplayerOnDemand) -> None:
    assert (await refused(switcher.readiness())).reason == "ROUTE_NOT_FOUND"
    await switcher.cut_over(1)
    nothing = await switcher.readiness()
    assert (nothing.possible, nothing.version) == (False, 0)
    await switcher.set_traffic({1: 9000, 2: 1000})
    await switcher.cut_over(2)
    for name, offset, second in ((RUN, 70, 10), (f"{V2}/run", 100, 40)):
        run = run_pb2.Run(name=name, state=run_pb2.Run.TAILING, lag=100 - offset)
        partition = run.partitions.add(topic="flights", partition=0, next_offset=offset)
        partition.event_time.FromDatetime(datetime(2026, 1, 1, 0, 0, second, tzinfo=UTC))
        replayer.runs[name] = run
    ready = await switcher.readiness()
    assert (ready.possible, ready.version, list(ready.problems)) == (True, 1, [])
    assert [(arm.version, arm.weight) for arm in ready.arms] == [(1, 9000), (2, 1000)]
    assert (ready.staleness.offsets, ready.staleness.event_time.ToTimedelta().total_seconds()) == (30, 30)
    assert ready.lag == 30
    assert ready.HasField("protected_until")
    assert not ready.HasField("rows_differing")
    found = comparison_pb2.Comparison(
        name="jobs/carrier-punctuality/comparisons/0123456789ab",
        old_version=V1,
        new_version=V2,
        state=comparison_pb2.Comparison.FINISHED,
        aligned=True,
        rows_old=95,
        rows_new=96,
        rows_only_old=4,
        rows_only_new=5,
        rows_changed=11,
    )
    found.create_time.FromDatetime(datetime(2026, 1, 2, tzinfo=UTC))
    unaligned, unfinished, itself = (comparison_pb2.Comparison() for _ in range(3))
    for other in (unaligned, unfinished, itself):
        other.CopyFrom(found)
    unaligned.aligned = False
    unfinished.state = comparison_pb2.Comparison.UNFINISHED
    itself.old_version = V2
    replayer.comparisons = [unaligned, unfinished, itself, found]
    differing = (await switcher.readiness()).rows_differing
    assert (differing.keys, differing.share) == (20, 0.2)
    assert differing.comparison == found.name
    assert differing.compare_time.ToDatetime(UTC) == datetime(2026, 1, 2, tzinfo=UTC)
    replayer.runs[RUN].state = run_pb2.Run.STOPPED
    replayer.runs[RUN].retention_risk.message = "partition flights/0 loses records in two days"
    replayer.runs[RUN].retention_risk.crossing_time.FromDatetime(datetime(2026, 1, 3, tzinfo=UTC))
    ready = await switcher.readiness()
    assert ready.possible
    assert [problem.split(",")[0] for problem in ready.problems] == [
        "The run of carrier-punctuality v1 is STOPPED",
        "Partition flights/0 loses records in two days.",
    ]
    assert ready.fresh_until.ToDatetime(UTC) == datetime(2026, 1, 3, tzinfo=UTC)
    await switcher.release(V1, forgo_rollback=True)
    gone = await switcher.readiness()
    assert (gone.possible, gone.version, gone.HasField("protected_until")) == (False, 0, False)
    assert "is being retired" in gone.problems[0]
