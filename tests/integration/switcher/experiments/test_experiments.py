"""Experiments on a real database: who may start, move and end one, and what follows by itself."""

import asyncio
import math
import re
from datetime import UTC, datetime, timedelta
from typing import Any

import asyncpg
import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from services.switcher.experiments.record import recorded
from services.switcher.experiments.situations import STALE_AFTER, asked_situation
from services.switcher.experiments.store import ExperimentStore, fence, opening
from tests.integration.switcher.conftest import ROUTE, V1, V2, MakeFront, StartSwitcher, Switcher, refused
from tests.integration.switcher.experimenting import AT_ONCE, JOB, NAME, Experimenting
from tests.integration.switcher.patience import LEASE_S
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.support.eventually import eventually
from turnout.errors import Aborted
from turnout.replayer.v1 import comparison_pb2
from turnout.routing import WHOLE
from turnout.switcher.v1 import change_pb2, experiment_pb2, front_pb2, outcome_pb2


async def test_an_experiment_starts_on_the_route_which_it_then_owns(lab: Experimenting, switcher: Switcher) -> None:
    created = await lab.create({1: 9500, 2: 500}, reason="is v2 any better?", claimed_actor="ada")
    assert created.name == NAME
    assert created.state == experiment_pb2.Experiment.RUNNING
    route = await switcher.route()
    assert route.owner == route.experiment.name == NAME
    assert [(arm.version, arm.weight) for arm in route.arms] == [(1, 9500), (2, 500)]
    assert lab.route.experiment is not None  # the front has it, too
    [change, _] = (await switcher.changes()).route_changes
    assert change.command == change_pb2.RouteChange.START_EXPERIMENT
    assert (change.claimed_actor, change.reason) == ("ada", "is v2 any better?")
    assert {gate.version for gate in change.gates} == {2}

    assert (await refused(switcher.set_traffic({1: 5000, 2: 5000}))).reason == "ROUTE_OWNED"
    assert (await refused(switcher.cut_over(2))).reason == "ROUTE_OWNED"
    assert (await refused(lab.create({1: 9000, 2: 1000}, "other"))).reason == "EXPERIMENT_RUNS"
    assert (await refused(lab.create({1: 9000, 2: 1000}))).reason == "EXPERIMENT_EXISTS"


async def test_gates_stand_before_it_and_its_name_is_free_again(
    lab: Experimenting, switcher: Switcher, replayer: ReplayerOnDemand
) -> None:
    replayer.failing[(2, "catch-up")] = ["Partition 3 is behind."]
    refusal = await refused(lab.create({1: 9500, 2: 500}))
    assert refusal.reason == "GATES_FAILED"
    assert (await switcher.route()).owner == ""
    del replayer.failing[(2, "catch-up")]
    assert (await lab.create({1: 9500, 2: 500})).state == experiment_pb2.Experiment.RUNNING


async def test_what_is_only_checked_leaves_nothing(lab: Experimenting, switcher: Switcher) -> None:
    checked = await lab.create({1: 9500, 2: 500}, validate_only=True)
    assert checked.name == NAME
    assert (await switcher.route()).owner == ""
    assert (await refused(lab.get())).reason == "EXPERIMENT_NOT_FOUND"


async def test_the_control_is_the_active_version(lab: Experimenting) -> None:
    refusal = await refused(lab.create({2: 9500, 1: 500}))
    assert refusal.reason == "INVALID_EXPERIMENT"
    assert "v1 is the active version" in refusal.message


async def test_the_switcher_itself_refuses_numbers_that_mean_nothing(lab: Experimenting) -> None:
    """Whatever client they come from: none may reach the rules, or the database."""
    endless = Duration(seconds=10**15)
    for named, plan in {
        "margin": experiment_pb2.Plan(margin=1.01),
        "abort_alpha": experiment_pb2.Plan(abort_alpha=math.nan),
        "window": experiment_pb2.Plan(window=endless),
    }.items():
        refusal = await refused(lab.create({1: 9500, 2: 500}, experiment={"plan": plan}))
        assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_EXPERIMENT")
        assert [subject for _, subject, _ in refusal.violations] == [f"experiment.plan.{named}"]
    bandit = experiment_pb2.Bandit(every=endless)
    refusal = await refused(lab.create({1: 9500, 2: 500}, experiment={"bandit": bandit}))
    assert [subject for _, subject, _ in refusal.violations] == ["experiment.bandit.every"]
    widest = await lab.create({1: 9500, 2: 500}, experiment={"plan": experiment_pb2.Plan(margin=1.0)})
    assert widest.plan.margin == 1.0


async def test_a_repeated_request_starts_one_experiment(lab: Experimenting, switcher: Switcher) -> None:
    first = await lab.create({1: 9500, 2: 500}, request_id="one")
    assert (await lab.create({1: 9500, 2: 500}, request_id="one")).create_time == first.create_time
    assert (await switcher.route()).epoch == 2
    assert (await refused(lab.create({1: 9000, 2: 1000}, request_id="one"))).reason == "REQUEST_ID_REUSED"


async def test_whoever_says_so_moves_its_weights_or_ends_it(lab: Experimenting, switcher: Switcher) -> None:
    await lab.create({1: 9500, 2: 500})
    await switcher.set_traffic({1: 5000, 2: 5000}, override_owner=True)
    assert await lab.state() == "RUNNING"
    await switcher.cut_over(2, override_owner=True, claimed_actor="ada", reason="enough seen")
    ended = await lab.get()
    assert ended.state == experiment_pb2.Experiment.STOPPED
    assert ended.end_reason == "Its route was changed over its head (cutover) by ada: enough seen."
    # What is done with the route afterwards is not the experiment's.
    await switcher.set_traffic({1: 1000, 2: 9000})
    assert [(arm.version, arm.weight) for arm in (await lab.get()).standing.arms] == [(1, 5000), (2, 5000)]


@pytest.mark.parametrize(
    ("fields", "active", "weights"),
    [
        ({}, 1, [(1, 10_000)]),
        ({"promote": 2}, 2, [(2, 10_000)]),
        ({"keep_weights": True}, 1, [(1, 9500), (2, 500)]),
    ],
)
async def test_stopping_it_gives_the_route_back(
    lab: Experimenting, switcher: Switcher, fields: dict[str, Any], active: int, weights: list[tuple[int, int]]
) -> None:
    await lab.create({1: 9500, 2: 500})
    stopped = await lab.stop(**fields, claimed_actor="ada")
    assert stopped.state == experiment_pb2.Experiment.STOPPED
    route = await switcher.route()
    assert (route.owner, route.HasField("experiment")) == ("", False)
    assert route.active_version == active
    assert [(arm.version, arm.weight) for arm in route.arms] == weights
    assert (await lab.stop(**fields)).end_time == stopped.end_time
    # The watch may only now keep the one on the epoch that began it, so the newest need not be of the newest epoch.
    last = max(await lab.decisions(), key=lambda one: one.epoch)
    assert (last.action, last.actor, last.carried_out) == ("ASKED", "ada", True)
    assert all(await lab.replay_all())


async def test_a_rollback_of_a_promotion_leads_to_the_control_alone(lab: Experimenting, switcher: Switcher) -> None:
    await lab.create({1: 9500, 2: 500})
    await lab.stop(promote=2)
    ready = await switcher.readiness()
    assert (ready.possible, ready.version) == (True, 1)
    assert [(arm.version, arm.weight) for arm in ready.arms] == [(1, 10_000)]
    await switcher.roll_back()
    route = await switcher.route()
    assert (route.owner, route.HasField("experiment"), route.active_version) == ("", False, 1)
    assert [(arm.version, arm.weight) for arm in route.arms] == [(1, 10_000)]
    assert (await lab.get()).state == experiment_pb2.Experiment.STOPPED


async def test_readiness_tells_that_a_rollback_would_end_it(lab: Experimenting, switcher: Switcher) -> None:
    await switcher.cut_over(2)
    before = await switcher.readiness()
    await lab.create({2: 9500, 3: 500})
    ready = await switcher.readiness()
    assert list(ready.warnings) == ["The experiment e owns the route no more after it, and ends."]
    assert (ready.possible, ready.problems) == (True, before.problems), "nothing speaks against it for that"


async def test_a_harmful_candidate_is_rolled_back_by_itself(lab: Experimenting, switcher: Switcher) -> None:
    await lab.create({1: 9500, 2: 500})
    exposures = list(lab.expose(f"u{n}" for n in range(2000)).values())
    await lab.observe(exposures)
    bad = [one for one in exposures if one.version == 2][:30]
    fair = [one for one in exposures if one.version == 1][:30]
    await lab.report([*bad, *fair])
    ended = await lab.until("ROLLED_BACK")
    assert "30 of 60 first errors are its own" in ended.end_reason
    route = await switcher.route()
    assert [(arm.version, arm.weight) for arm in route.arms] == [(1, 10_000)]
    assert route.owner == ""
    [change, *_] = (await switcher.changes()).route_changes
    assert (change.command, change.claimed_actor) == (change_pb2.RouteChange.ABORT, "guardrails")
    [last, *_] = await lab.decisions()
    assert (last.action, last.carried_out, last.epoch) == ("END", True, route.epoch)
    assert all(await lab.replay_all())
    assert await lab.report(bad[:1]) == ["DUPLICATE"]
    for fields in ({"promote": 2}, {"keep_weights": True}):
        assert (await refused(lab.stop(**fields))).reason == "EXPERIMENT_OVER"


async def test_harm_is_watched_for_while_windows_cannot_be_added_up(lab: Experimenting, database: Any) -> None:
    await lab.create({1: 5000, 2: 5000}, experiment={"plan": AT_ONCE})
    exposures = list(lab.expose(f"u{n}" for n in range(200)).values())
    await database.execute("alter table switcher.experiment_tallies add constraint broken check (closed = 0)")
    await lab.observe(exposures)

    async def told() -> bool:
        return "broken" in (await lab.get()).standing.waiting_for

    await eventually(told)
    await lab.report([one for one in exposures if one.version == 2][:30])
    await lab.until("ROLLED_BACK")


async def test_an_abort_waits_for_no_gate_and_for_no_front_that_cannot_follow(
    lab: Experimenting, switcher: Switcher, replayer: ReplayerOnDemand, make_front: MakeFront
) -> None:
    other = await make_front("other")
    await lab.create({1: 9500, 2: 500})
    replayer.failing[(1, "catch-up")] = replayer.failing[(2, "catch-up")] = ["Partition 3 is behind."]
    other.nack = "no table"
    exposures = list(lab.expose(f"u{n}" for n in range(2000)).values())
    await lab.report([one for one in exposures if one.version == 2][:30])
    await lab.until("ROLLED_BACK")
    assert (await switcher.route()).active_version == 1


async def test_a_comparison_that_fails_its_contract_takes_the_candidate_off(
    lab: Experimenting, switcher: Switcher, replayer: ReplayerOnDemand
) -> None:
    failed = comparison_pb2.Comparison(
        old_version=V1,
        new_version=V2,
        state=comparison_pb2.Comparison.FINISHED,
        verdict=comparison_pb2.Comparison.FAILED,
        findings=["12 rows differ in on_time, which must not."],
    )
    failed.end_time.FromDatetime(datetime(2020, 1, 1, tzinfo=UTC))
    replayer.comparisons = [failed]
    await lab.create({1: 9500, 2: 500})

    async def asked_since() -> bool:
        return replayer.asked.count((2, 1)) > 2  # twice as it began

    await eventually(asked_since)
    assert await lab.state() == "RUNNING"  # what was known before it began is its owner's matter
    failed.end_time.FromDatetime(datetime.now(UTC) + timedelta(minutes=1))
    ended = await lab.until("ROLLED_BACK")
    assert "v2 is refused by a gate: 12 rows differ in on_time, which must not." in ended.end_reason


async def test_of_two_candidates_the_good_one_stays(lab: Experimenting, switcher: Switcher) -> None:
    await lab.create({1: 8000, 2: 1000, 3: 1000})
    exposures = list(lab.expose(f"u{n}" for n in range(2000)).values())
    await lab.observe(exposures)
    await lab.report([one for one in exposures if one.version == 3][:60])

    async def aborted() -> bool:
        return [(arm.version, arm.weight) for arm in (await switcher.route()).arms] == [(1, 9000), (2, 1000)]

    await eventually(aborted)
    assert await lab.state() == "RUNNING"
    [good, gone] = (await lab.get()).standing.candidates
    assert (good.present, gone.present) == (True, False)
    await switcher.set_traffic({1: 5000, 2: 5000}, override_owner=True)

    async def noted() -> bool:
        return "ASKED" in [one.action for one in (await lab.decisions())[:1]]

    await eventually(noted)
    assert await lab.maps_agree() == [True, True, True]  # as it began, the abort, what was asked for
    assert all(await lab.replay_all())


async def test_samples_that_do_not_fit_pause_it_until_a_person_resumes_it(lab: Experimenting) -> None:
    await lab.create({1: 5000, 2: 5000})
    exposures = lab.expose(f"u{n}" for n in range(2000)).values()
    await lab.observe(one for one in exposures if one.version == 1)  # what the candidate answers is lost
    paused = await lab.until("PAUSED")
    assert "not spread as designed" in paused.standing.sentence
    assert paused.standing.waiting_for == "a person: resume or stop the experiment"
    request = experiment_pb2.ResumeExperimentRequest(name=NAME, claimed_actor="ada")
    resumed = await lab.stub.ResumeExperiment(request, timeout=20)
    assert resumed.state == experiment_pb2.Experiment.RUNNING


async def test_a_version_of_which_fewer_units_convert_is_rolled_back_by_itself(lab: Experimenting) -> None:
    await lab.create({1: 5000, 2: 5000})
    assert outcome_pb2.METRIC_CONVERSION in (await lab.get()).plan.harms
    exposures = list(lab.expose(f"u{n}" for n in range(800)).values())
    await lab.observe(exposures)
    of_control = [one for one in exposures if one.version == 1]
    of_candidate = [one for one in exposures if one.version == 2]
    await lab.report([*of_control, *of_candidate[: len(of_control) // 2]], outcome_pb2.METRIC_CONVERSION)
    ended = await lab.until("ROLLED_BACK")
    assert f"v2 does harm (CONVERSION): {len(of_control) // 2} of " in ended.end_reason
    assert all(await lab.replay_all())


async def test_conversions_that_a_bandit_looks_for_are_no_guardrail(lab: Experimenting) -> None:
    await lab.create({1: 5000, 2: 5000}, experiment={"bandit": experiment_pb2.Bandit()})
    assert list((await lab.get()).plan.harms) == [
        outcome_pb2.METRIC_ERROR,
        outcome_pb2.METRIC_FAILURE,
        outcome_pb2.METRIC_NOT_FOUND,
        outcome_pb2.METRIC_SLOW,
    ]


async def test_it_freezes_while_a_front_does_not_tell_what_it_saw(lab: Experimenting, database: Any) -> None:
    await lab.create({1: 5000, 2: 5000}, experiment={"bandit": experiment_pb2.Bandit()})
    await database.execute("update switcher.experiments set create_time = create_time - interval '1 hour'")
    waits_for = (await lab.get()).standing.waiting_for
    assert waits_for.startswith("the front front, which has not told yet what it saw; if it is gone, that ends by ")
    await lab.observe([])
    assert "complete windows in each arm" in (await lab.get()).standing.waiting_for
    await database.execute("update switcher.exposure_flushes set flushed = flushed - interval '30 seconds'")
    assert "last told all that it saw" in (await lab.get()).standing.waiting_for
    await database.execute("update switcher.reader_leases set may_serve_for = interval '2 hours'")
    [told] = re.findall(r"that ends by itself at (.{19}) UTC$", (await lab.get()).standing.waiting_for)
    left = datetime.fromisoformat(told).replace(tzinfo=UTC) - datetime.now(UTC)
    assert timedelta(hours=1, minutes=50) < left < timedelta(hours=2, minutes=10)


async def test_a_bandit_moves_towards_the_better_arm_one_step_at_a_time(
    lab: Experimenting, switcher: Switcher, database: Any
) -> None:
    bandit = experiment_pb2.Bandit(every=Duration(seconds=60), units_min=20, step_max=0.1)
    await lab.create({1: 5000, 2: 5000}, experiment={"bandit": bandit, "plan": AT_ONCE})
    exposures = list(lab.expose(f"u{n}" for n in range(400)).values())
    await lab.report([one for one in exposures if one.version == 2], outcome_pb2.METRIC_CONVERSION)
    await lab.observe(exposures)  # only now: a window that is over takes nothing more up

    async def stepped() -> bool:
        await lab.observe([])
        await database.execute("update switcher.experiment_epochs set start_time = start_time - interval '1 minute'")
        return (await switcher.route()).epoch >= 4

    await eventually(stepped)
    steps = [one for one in await lab.decisions() if one.action == "STEP" and one.carried_out]
    assert {one.actor for one in steps} == {"bandit"}
    changes = (await switcher.changes()).route_changes
    weights = [{arm.version: arm.weight for arm in change.route.arms} for change in changes][::-1]
    assert weights[1:4] == [{1: 5000, 2: 5000}, {1: 4000, 2: 6000}, {1: 3000, 2: 7000}]
    assert all(await lab.replay_all())
    agree = await lab.maps_agree()
    assert len(agree) >= 3
    assert all(agree)


async def test_another_replica_goes_on_with_the_watch(
    lab: Experimenting, switcher: Switcher, start_switcher: StartSwitcher, database: Any
) -> None:
    await start_switcher(reader_lease_s=LEASE_S, instance="second")
    await lab.create({1: 9500, 2: 500})

    async def holder() -> str:
        return str(await database.fetchval("select holder from switcher.loop_leases"))

    first = await holder()
    # The one that has it hangs: its lease runs out.
    await database.execute("update switcher.loop_leases set holder = 'gone', expires = now() + interval '1 second'")
    exposures = lab.expose(f"u{n}" for n in range(2000)).values()
    await lab.report([one for one in exposures if one.version == 2][:30])
    await lab.until("ROLLED_BACK")
    assert await holder() != "gone"
    assert first


async def test_who_died_while_starting_one_leaves_its_name_free(
    lab: Experimenting, database: Any, postgres: str
) -> None:
    await lab.create({1: 5000, 2: 5000})
    await lab.stop()
    await database.execute(
        "update switcher.experiments set state = 'STARTING', create_time = create_time - interval '1 hour'"
    )
    async with asyncpg.create_pool(postgres, min_size=1, max_size=1) as pool:
        assert await ExperimentStore(pool).tidy() in ([NAME], [])  # the switcher's own may have come first
    assert await database.fetchval("select count(*) from switcher.experiments") == 0
    assert (await lab.create({1: 5000, 2: 5000})).state == experiment_pb2.Experiment.RUNNING


async def test_a_decision_in_whose_place_there_is_another_changes_nothing(
    lab: Experimenting, database: Any, postgres: str
) -> None:
    await lab.create({1: 5000, 2: 5000})
    number = await database.fetchval("select number from switcher.experiments")
    async with asyncpg.create_pool(postgres, min_size=1, max_size=1) as pool:
        store = ExperimentStore(pool)
        situation = asked_situation(await store.counted(number, STALE_AFTER), lab.route, {1: WHOLE})
        first, second = (recorded(NAME, who, "", situation) for who in ("ada", "grace"))
        async with pool.acquire() as connection, connection.transaction():
            for record in (first, second):
                await opening(number, record)(connection)
            await fence(number, second)(connection)
            with pytest.raises(Aborted, match="decided on anew"):
                await fence(number, first)(connection)


async def test_of_two_who_stop_it_at_once_the_first_one_does(lab: Experimenting) -> None:
    front = lab.front
    await lab.create({1: 5000, 2: 5000})
    front.prepares = False
    proposed = len(front.proposals)
    first = asyncio.create_task(lab.stop(claimed_actor="ada"))
    proposal = await front.until_proposed(proposed + 1)
    assert (await refused(lab.stop(claimed_actor="grace"))).reason == "CHANGE_IN_FLIGHT"
    await front.report(proposal.proposal, front_pb2.Report.PREPARED)
    assert (await first).state == experiment_pb2.Experiment.STOPPED
    theirs = [one for one in await lab.decisions() if one.actor in ("ada", "grace")]
    assert [(one.action, one.actor, one.carried_out) for one in theirs] == [("ASKED", "ada", True)]
    assert all(await lab.replay_all())


async def test_one_that_was_forgotten_meanwhile_does_not_start(
    lab: Experimenting, switcher: Switcher, database: Any
) -> None:
    await database.execute(
        "create function forget() returns trigger language plpgsql as "
        "$$ begin delete from switcher.experiments; return null; end $$"
    )
    await database.execute("create trigger forget after insert on switcher.proposals execute function forget()")
    assert (await refused(lab.create({1: 5000, 2: 5000}))).reason == "EXPERIMENT_FORGOTTEN"
    assert (await switcher.route()).owner == ""


async def test_lists_begin_with_the_newest(lab: Experimenting) -> None:
    await lab.create({1: 9500, 2: 500})
    await lab.stop()
    await lab.create({1: 9000, 2: 1000}, "second")
    answer = await lab.stub.ListExperiments(
        experiment_pb2.ListExperimentsRequest(parent="jobs/-", page_size=1), timeout=20
    )
    assert [one.name for one in answer.experiments] == [f"{JOB}/experiments/second"]
    more = experiment_pb2.ListExperimentsRequest(parent="jobs/-", page_token=answer.next_page_token)
    assert [one.name for one in (await lab.stub.ListExperiments(more, timeout=20)).experiments] == [NAME]


@pytest.mark.parametrize("name", ["jobs/carrier-punctuality/experiments/E", ROUTE, f"{NAME}/decisions/1"])
async def test_names_of_other_things_are_refused(lab: Experimenting, name: str) -> None:
    refusal = await refused(lab.get(name))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_NAME")
