"""Rollouts on a real database: who may start one, how it goes from step to step, and what takes it back."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncIterator, Sequence
from typing import Any

import grpc
import pytest
from google.protobuf.duration_pb2 import Duration

from tests.integration.switcher.conftest import MakeFront, Switcher, refused
from tests.integration.switcher.experimenting import Experimenting
from tests.integration.switcher.front import Front
from tests.integration.switcher.registry import RegistryOnDemand
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.integration.switcher.rolling import (
    ALL,
    APPROVE,
    COMPARE,
    JOB,
    NAME,
    REPLAY,
    RETIRE,
    Rolling,
    Step,
    compared,
    ready,
    run_of_2,
    shadow,
    soak,
    told,
    traffic,
)
from tests.support.eventually import eventually
from turnout.exposure import Exposure
from turnout.replayer.v1 import replayer_pb2 as replayer_pb
from turnout.schema import Column, ColumnType, JobDefinition, JobKind, Merge, TopicSource
from turnout.switcher.v1 import switcher_pb2 as pb

LONG = 24 * 3600
AT_ONCE = pb.Plan(window=Duration(nanos=1_000_000), delay=Duration(), margin=9.0, units_min=10)
SOME = traffic(500, seconds=LONG)
"""A share that stays until something else happens."""


@pytest.fixture
async def front(switcher: Switcher, make_front: MakeFront, replayer: ReplayerOnDemand) -> AsyncIterator[Front]:
    """A route on which v1 has all readers, served by one front that tells all it sees; v2 is ready."""
    ready(replayer)
    front = await make_front("front")
    await switcher.cut_over(1)
    lab = Experimenting(switcher, front)

    async def tell() -> None:
        while True:
            await lab.observe([])
            await asyncio.sleep(1)

    telling = asyncio.create_task(tell())
    yield front
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)


@pytest.fixture
def lab(switcher: Switcher, front: Front) -> Experimenting:
    return Experimenting(switcher, front)


@pytest.fixture
def rolling(switcher: Switcher, front: Front) -> Rolling:
    return Rolling(lambda: switcher.stub)


async def adopted(rolling: Rolling, lab: Experimenting, weight: int) -> None:
    """The front gives the candidate this share."""

    async def has_it() -> bool:
        assert lab.route.weight(2) == weight, told(await rolling.get())
        return lab.route.experiment is not None

    await eventually(has_it)


async def waits_for(rolling: Rolling, what: str) -> None:
    """It says what it waits for."""

    async def says_so() -> bool:
        return (await rolling.get()).waiting_for == what

    await eventually(says_so, 60)


async def expose(lab: Experimenting, units: Sequence[str], *, erring: int) -> None:
    """Answer all; every n-th unit of the candidate, and every twentieth of the active version, is told to err."""
    exposures = lab.expose(units)

    def errs(place: int, exposure: Exposure) -> bool:
        return place % (erring if exposure.version == 2 else 20) == 0

    of = {version: [one for one in exposures.values() if one.version == version] for version in (1, 2)}
    wrong = [one for arm in of.values() for place, one in enumerate(arm) if errs(place, one)]
    await lab.report(wrong)
    # Only now: a window that is over takes no more errors up.
    await lab.observe(exposures.values())


# --- the whole way --------------------------------------------------------------------------------------------------


async def test_from_replay_to_retire(
    rolling: Rolling, lab: Experimenting, switcher: Switcher, replayer: ReplayerOnDemand, registry: RegistryOnDemand
) -> None:
    more = traffic(5000, seconds=0, no_worse=True)
    steps = [REPLAY, COMPARE, shadow(), traffic(500), more, APPROVE, ALL, soak(), RETIRE]
    replayer.failing[(2, "catch-up")] = ["flights/0: 7 offsets behind."]
    created = await rolling.create(steps, guardrails=AT_ONCE, claimed_actor="ada", reason="cancelled flights count")
    assert (created.name, created.active_version, created.claimed_actor) == (NAME, 1, "ada")
    assert [step.kind for step in created.plan.steps] == [step.kind for step in steps]

    waiting = await rolling.until_step(1)
    assert replayer.started == [f"{JOB}/versions/2"]

    await waits_for(rolling, "flights/0: 7 offsets behind.")
    assert (waiting.state, (await rolling.route()).owner) == (pb.Rollout.RUNNING, NAME)
    replayer.failing.clear()

    await rolling.until_step(3)
    assert [one.contract for one in replayer.compare_requests] == [COMPARE.contract]
    route = await rolling.route()
    assert (route.shadow.version, route.shadow.share) == (2, 10_000)
    await shadowed(lab, route)

    await adopted(rolling, lab, 500)
    assert not (await rolling.route()).HasField("shadow")
    await rolling.read()
    await adopted(rolling, lab, 5000)
    experiment = (await rolling.get()).experiment
    await expose(lab, [f"u{n}" for n in range(600)], erring=20)

    await rolling.until_step(6)
    await waits_for(rolling, "a person, who promotes or aborts it")
    assert (await rolling.say("Promote", step=6, claimed_actor="bob", reason="fine")).step == 7
    assert (await rolling.say("Promote", step=6)).step >= 7, "said twice, it passes over one step"

    ended = await rolling.until(pb.Rollout.SUCCEEDED)
    assert (ended.step, ended.weight, ended.experiment) == (10, 10_000, experiment)
    assert registry.retired == {1}
    route = await rolling.route()
    assert (route.active_version, route.owner, route.HasField("experiment")) == (2, "", False)
    assert await rolling.moves() == [
        ("CUT_OVER", 1, 0),
        *[("ROLL_OUT", 1, weight) for weight in (0, 0, 500, 5000)],
        *[("ROLL_OUT", 2, 10_000)] * 2,
    ]
    assert (await lab.get(experiment)).end_reason.startswith("The rollout went on without it: ")
    said = [(one.action, one.actor) for one in await rolling.decisions()]
    assert ("PROMOTE", "bob") in said
    assert await rolling.unequal() == []


async def shadowed(lab: Experimenting, route: pb.Route) -> None:
    """The front compares live reads, and finds no difference."""
    tally = pb.ShadowTally(
        name=route.name,
        epoch=route.epoch,
        version=2,
        active_version=1,
        sequence=1,
        counts=pb.ShadowCounts(compared=100, equal=100),
    )
    request = pb.RecordShadowCountsRequest(front="front", source="one", tallies=[tally])
    await lab.stub.RecordShadowCounts(request, timeout=20)


async def test_what_an_earlier_rollout_compared_is_no_shadow_of_this_one(rolling: Rolling, lab: Experimenting) -> None:
    await rolling.create([shadow(), SOME, ALL])
    await rolling.until_step(1)
    await shadowed(lab, await rolling.route())
    await rolling.until_step(2)
    await rolling.say("Abort")
    await rolling.until(pb.Rollout.ABORTED)
    await rolling.create([shadow(), SOME, ALL], "third")
    third = f"{JOB}/rollouts/third"

    async def waits() -> bool:
        return (await rolling.get(third)).waiting_for.startswith("No live read of v1 was compared with v2 yet")

    await eventually(waits, 60)
    await shadowed(lab, await rolling.route())

    async def goes_on() -> bool:
        return (await rolling.get(third)).step == 2

    await eventually(goes_on, 60)


async def test_harm_that_no_unit_could_show_is_said(rolling: Rolling, lab: Experimenting) -> None:
    await rolling.create([SOME, ALL], guardrails=AT_ONCE)

    async def findings() -> list[str]:
        found = await rolling.get()
        return [one.sentence for one in found.findings if one.gate == "harm" and lab.route.weight(2)]

    async def nobody_counted() -> bool:
        return any(one.startswith("No unit of v2 was counted") for one in await findings())

    async def somebody_counted() -> bool:
        told = await findings()
        return bool(told) and "No unit" not in told[0]

    await adopted(rolling, lab, 500)
    await eventually(nobody_counted, 60)
    await expose(lab, [f"u{n}" for n in range(600)], erring=20)
    await eventually(somebody_counted, 60)


# --- back -----------------------------------------------------------------------------------------------------------


async def test_harm_takes_the_candidate_back_by_itself(rolling: Rolling, lab: Experimenting) -> None:
    await rolling.create([SOME, ALL], guardrails=AT_ONCE)
    await adopted(rolling, lab, 500)
    await expose(lab, [f"u{n}" for n in range(2000)], erring=1)
    ended = await rolling.until(pb.Rollout.ROLLED_BACK)
    assert "v2 does harm (ERROR)" in ended.sentence
    route = await rolling.route()
    assert (route.active_version, [(arm.version, arm.weight) for arm in route.arms], route.owner) == (
        1,
        [(1, 10_000)],
        "",
    )
    assert await rolling.unequal() == []


async def test_a_table_that_differs_where_it_must_not_stops_it(rolling: Rolling, replayer: ReplayerOnDemand) -> None:
    replayer.compared[f"{JOB}/versions/2"] = [compared(False, "on_time differs in 3 rows.")]
    await rolling.create([REPLAY, COMPARE, ALL])
    ended = await rolling.until(pb.Rollout.ROLLED_BACK)
    assert ended.sentence.startswith("on_time differs in 3 rows.")
    assert [weight for _, _, weight in await rolling.moves()] == [0, 0, 0]


async def test_a_candidate_that_lacks_what_readers_have_is_not_rolled_out(
    rolling: Rolling, replayer: ReplayerOnDemand
) -> None:
    replayer.failing[(2, "coverage")] = ["Readers would lose two years."]
    await rolling.create([REPLAY, ALL])
    assert (await rolling.until(pb.Rollout.ROLLED_BACK)).sentence == "Readers would lose two years."


async def test_a_run_that_has_not_begun_lacks_nothing_yet(rolling: Rolling, replayer: ReplayerOnDemand) -> None:
    replayer.failing[(2, "coverage")] = ["It does not read flights."]
    replayer.runs[f"{JOB}/versions/2/run"] = replayer_pb.Run(state=replayer_pb.Run.QUEUED)
    await rolling.create([REPLAY, ALL])
    await rolling.until_step(1)

    await waits_for(rolling, "The run of v2 has not begun to read yet.")
    replayer.failing.clear()
    replayer.runs[f"{JOB}/versions/2/run"] = run_of_2()
    await rolling.until(pb.Rollout.SUCCEEDED)


@pytest.mark.parametrize("step", [1, 2, 3])
async def test_an_abort_leaves_the_candidate_without_readers(
    rolling: Rolling, lab: Experimenting, registry: RegistryOnDemand, step: int
) -> None:
    await rolling.create([SOME, traffic(10_000, seconds=LONG), soak(LONG)])
    for passed in range(1, step):
        await rolling.until_step(passed)
        await rolling.say("Promote", step=passed)
    await rolling.until_step(step)
    answered = await rolling.say("Abort", claimed_actor="ada", reason="not today")
    assert answered.state == pb.Rollout.ROLLING_BACK
    assert answered.sentence == "Aborted by ada: not today."
    ended = await rolling.until(pb.Rollout.ABORTED)
    again = await rolling.say("Abort")
    assert (again.state, again.sentence) == (ended.state, ended.sentence)
    route = await rolling.route()
    assert (route.active_version, route.owner) == (1, "")
    assert [(arm.version, arm.weight) for arm in route.arms] == [(1, 10_000)]


async def test_an_abort_takes_the_retirement_back(
    rolling: Rolling, registry: RegistryOnDemand, switcher: Switcher
) -> None:
    registry.refuses = ("ROLLBACK_WINDOW", "A rollback would return to v1 for 3 more minutes.")
    await rolling.create([ALL, RETIRE])

    await waits_for(rolling, registry.refuses[1])
    assert len(set(registry.asked)) == 1, "however often it is asked, it is one request"
    await rolling.say("Abort")
    await rolling.until(pb.Rollout.ABORTED)
    assert (registry.retired, (await rolling.route()).active_version) == (set(), 1)


async def test_a_retirement_that_may_be_refused_yet_is_waited_for(rolling: Rolling, registry: RegistryOnDemand) -> None:
    registry.unreleased = "the switcher does not answer"
    await rolling.create([ALL, RETIRE])
    await waits_for(
        rolling, f"The retirement of v1 of carrier-punctuality waits for its release: {registry.unreleased}"
    )
    registry.unreleased = ""
    await rolling.until(pb.Rollout.SUCCEEDED)
    assert registry.retired == {1}


# --- a person decides -----------------------------------------------------------------------------------------------


async def test_what_nobody_judged_waits_for_a_person(rolling: Rolling, replayer: ReplayerOnDemand) -> None:
    replayer.compared[f"{JOB}/versions/2"] = [compared(judged=False)]
    await rolling.create([Step(kind=Step.COMPARE), SOME, ALL])
    paused = await rolling.until(pb.Rollout.PAUSED)
    assert paused.hold == pb.Rollout.INCONCLUSIVE
    assert "without a contract" in paused.sentence
    resumed = await rolling.say("Resume")
    assert resumed.state == pb.Rollout.RUNNING
    await rolling.until(pb.Rollout.PAUSED)
    assert len({one.request_id for one in replayer.compare_requests}) == 2, "it was compared once more"
    await rolling.say("Promote", step=1)
    await rolling.until_step(2)


async def test_a_pause_holds_everything_but_the_way_back(rolling: Rolling, lab: Experimenting) -> None:
    await rolling.create([traffic(500, seconds=2), ALL], guardrails=AT_ONCE)
    await rolling.until_step(1)
    paused = await rolling.say("Pause", claimed_actor="ada")
    assert (paused.state, paused.hold) == (pb.Rollout.PAUSED, pb.Rollout.PERSON)
    assert (await rolling.say("Pause")).update_time == paused.update_time
    await adopted(rolling, lab, 500)
    await expose(lab, [f"u{n}" for n in range(2000)], erring=1)
    await rolling.until(pb.Rollout.ROLLED_BACK)


async def test_whoever_goes_over_its_head_pauses_it(rolling: Rolling, lab: Experimenting, switcher: Switcher) -> None:
    await rolling.create([SOME, ALL])
    await rolling.until_step(1)
    assert (await refused(switcher.set_traffic({1: 5000, 2: 5000}))).reason == "ROUTE_OWNED"
    await switcher.set_traffic({1: 5000, 2: 5000}, override_owner=True, claimed_actor="eve", reason="in a hurry")
    paused = await rolling.until(pb.Rollout.PAUSED)
    assert paused.hold == pb.Rollout.OVERRULED
    assert "traffic set by eve: in a hurry" in paused.sentence
    assert "v2 has 50 % instead of 5 %" in paused.sentence
    await rolling.say("Resume")
    await adopted(rolling, lab, 500)
    await rolling.until(pb.Rollout.RUNNING)
    await rolling.until_step(1)

    request = pb.StopExperimentRequest(name=(await rolling.get()).experiment, keep_weights=True)
    for refusal in (
        await refused(switcher.stub.StopExperiment(request, timeout=20)),
        await refused(lab.create({1: 9000, 2: 1000})),
    ):
        assert (refusal.reason, "The rollout second owns the route" in refusal.message) == ("ROUTE_OWNED", True)
    request.override_owner = True
    await switcher.stub.StopExperiment(request, timeout=20)
    paused = await rolling.until(pb.Rollout.PAUSED)
    assert "The experiment was stopped over the rollout's head" in paused.sentence
    await rolling.say("Resume")
    await adopted(rolling, lab, 500)
    await rolling.say("Abort")
    await rolling.until(pb.Rollout.ABORTED)
    assert await rolling.unequal() == []


async def test_who_stops_its_shadow_pauses_it(rolling: Rolling, switcher: Switcher) -> None:
    """Before anything was compared, too."""
    await rolling.create([shadow(seconds=LONG), ALL])
    await rolling.until_step(1)
    request = pb.SetShadowRequest(name=f"{JOB}/route", override_owner=True, claimed_actor="eve")
    await switcher.stub.SetShadow(request, timeout=20)
    paused = await rolling.until(pb.Rollout.PAUSED)
    assert paused.hold == pb.Rollout.OVERRULED
    assert "The shadow was stopped over the rollout's head (shadow set by eve)" in paused.sentence
    await rolling.say("Resume")
    await rolling.until_step(1)
    assert (await rolling.route()).shadow.version == 2


async def test_what_others_did_before_it_owned_the_route_is_not_taken_back(
    rolling: Rolling, front: Front, switcher: Switcher
) -> None:
    front.prepares = False
    await rolling.create([SOME, ALL])
    proposal = await front.until_proposed(2)
    await rolling.say("Pause")
    await front.report(proposal.proposal, pb.Report.PREPARED)
    front.prepares = True

    async def cut_over() -> bool:
        try:
            await switcher.cut_over(2)
        except grpc.aio.AioRpcError as error:
            if error.code() is not grpc.StatusCode.ABORTED:
                raise
            return False  # the act that comes to nothing may still be on its way
        return True

    await eventually(cut_over)
    await rolling.say("Abort")
    await rolling.until(pb.Rollout.ABORTED)
    assert await rolling.moves() == [("CUT_OVER", 1, 0), ("CUT_OVER", 2, 10_000)]


async def test_it_stands_still_while_nobody_can_tell_how_the_candidate_does(
    rolling: Rolling, replayer: ReplayerOnDemand
) -> None:
    replayer.runs_away = True
    await rolling.create([traffic(500, seconds=1), ALL])

    await waits_for(rolling, "PostgreSQL does not answer.")
    found = await rolling.get()
    assert (found.frozen, found.step, found.weight) == (True, 1, 0)
    replayer.runs_away = False
    await rolling.read()
    await rolling.until(pb.Rollout.SUCCEEDED)


async def test_it_does_not_go_on_while_nobody_reads_the_candidate(rolling: Rolling) -> None:
    await rolling.create([traffic(500, seconds=1), ALL])
    await rolling.until_step(1)

    async def watched_for_long() -> pb.Rollout | None:
        found = await rolling.get()
        return found if found.state != pb.Rollout.RUNNING or found.watched_time.seconds >= 3 else None

    waiting = await eventually(watched_for_long, 60)
    assert waiting is not None
    assert waiting.step == 1, told(waiting)
    assert waiting.waiting_for.startswith("No unit of v2 was counted yet, so nobody can tell whether it does harm")
    await rolling.read()
    await rolling.until(pb.Rollout.SUCCEEDED)
    assert await rolling.unequal() == []


async def test_a_front_that_fell_silent_freezes_it_for_as_long_as_it_may_serve(
    rolling: Rolling, lab: Experimenting, make_front: MakeFront, database: Any
) -> None:
    silent = await make_front("silent")
    await rolling.create([SOME, ALL])
    await rolling.read()
    await rolling.until_step(1)
    await database.execute("update switcher.experiments set create_time = create_time - interval '1 hour'")
    await silent.die()
    await until_its_lease_is_over(database, "silent")

    counted = await lab.get((await rolling.get()).experiment)
    assert counted.standing.waiting_for == "the front silent, which has not told yet what it saw"
    await waits_for(
        rolling,
        "What was counted is not all there is: it waits for the front silent, which has not told yet what it saw.",
    )
    assert (await rolling.get()).frozen
    await database.execute("update switcher.reader_leases set may_serve_for = interval '0' where front = 'silent'")

    async def thawed() -> bool:
        return not (await rolling.get()).frozen

    await eventually(thawed, 60)


async def until_its_lease_is_over(database: Any, front: str) -> None:
    """It is not heard of any more."""

    async def over() -> bool:
        return bool(
            await database.fetchval(
                "select expires < clock_timestamp() from switcher.reader_leases where front = $1", front
            )
        )

    await eventually(over, 60)


async def test_an_act_under_way_when_it_is_aborted_comes_to_nothing(
    rolling: Rolling, front: Front, switcher: Switcher
) -> None:
    front.prepares = False
    await rolling.create([SOME, ALL])
    proposal = await front.until_proposed(2)
    assert proposal.route.owner == NAME
    await rolling.say("Abort")
    # By the row that is stored now nobody wants what could be committed from here on.
    await front.report(proposal.proposal, pb.Report.PREPARED)
    front.prepares = True
    await rolling.until(pb.Rollout.ABORTED)
    assert await rolling.moves() == [("CUT_OVER", 1, 0)]


async def test_an_act_whose_answer_was_lost_is_not_done_twice(rolling: Rolling, database: Any) -> None:
    """The last one gives the route back: afterwards the rollout does not own what it would give back."""
    await rolling.create([ALL])
    await rolling.until(pb.Rollout.SUCCEEDED)
    moves, last = await rolling.moves(), (await rolling.decisions())[-1]
    before = await database.fetchval(
        "select convert_from(record, 'UTF8')::jsonb -> 'before' from switcher.rollout_decisions "
        "where decision = (select max(decision) from switcher.rollout_decisions)"
    )
    await database.execute(
        "update switcher.rollouts set rollout = $1, revision = revision + 1, over = false, end_time = null", before
    )
    await rolling.until(pb.Rollout.SUCCEEDED)
    assert await rolling.moves() == moves
    assert (await rolling.decisions())[-1].sentence == last.sentence


async def test_no_act_whose_answer_was_lost_is_done_twice(
    rolling: Rolling, replayer: ReplayerOnDemand, database: Any
) -> None:
    """Of each kind on the way, and of the way back: the rollout is stored as it was before the answer came."""
    replayer.failing[(2, "catch-up")] = ["flights/0: 7 offsets behind."]
    steps = [REPLAY, shadow(seconds=LONG), SOME, traffic(10_000, seconds=LONG), soak(LONG)]
    await rolling.create(steps)
    kinds = []
    for step in range(1, len(steps)):
        await rolling.until_step(step)
        moves = await rolling.moves()
        kinds.append(await lost_its_last_answer(database))
        await rolling.until_step(step)
        assert await rolling.moves() == moves
        replayer.failing.clear()
        await rolling.say("Promote", step=step)
    await rolling.until_step(len(steps))
    await rolling.say("Abort")
    await rolling.until(pb.Rollout.ABORTED)
    moves = await rolling.moves()
    kinds.append(await lost_its_last_answer(database))
    await rolling.until(pb.Rollout.ABORTED)
    assert await rolling.moves() == moves
    assert kinds == ["START_RUN", "SHADOW", "EXPOSE", "CUT_OVER", "WITHDRAW"]


async def lost_its_last_answer(database: Any) -> str:
    """Store the rollout as it was before its last act was known to be done; which kind of act."""
    last = await database.fetchrow(
        "with told as (select decision, convert_from(record, 'UTF8')::jsonb as record from switcher.rollout_decisions) "
        "select record -> 'happened' -> 'act' ->> 'kind' as kind, record -> 'before' as before from told "
        "where record -> 'happened' ? 'act' order by decision desc limit 1"
    )
    await database.execute(
        "update switcher.rollouts set rollout = $1, revision = revision + 1, over = false, end_time = null",
        last["before"],
    )
    return str(last["kind"])


async def test_a_cutover_whose_answer_was_lost_is_not_done_twice(
    rolling: Rolling, lab: Experimenting, database: Any
) -> None:
    """Its commit has ended the experiment: nothing counts units any more, and nothing needs to."""
    await rolling.create([traffic(500), ALL, soak(LONG)])
    await rolling.read()
    await rolling.until_step(3)
    moves = await rolling.moves()
    before = await database.fetchval(
        "select convert_from(record, 'UTF8')::jsonb -> 'before' from switcher.rollout_decisions "
        "where convert_from(record, 'UTF8')::jsonb -> 'happened' -> 'act' ->> 'kind' = 'CUT_OVER'"
    )
    await database.execute("update switcher.rollouts set rollout = $1, revision = revision + 1", before)
    await rolling.until_step(3)
    assert await rolling.moves() == moves
    await rolling.say("Abort")
    await rolling.until(pb.Rollout.ABORTED)


# --- who may start one ----------------------------------------------------------------------------------------------


async def test_a_dry_run_tells_what_each_step_takes(rolling: Rolling) -> None:
    checked = await rolling.create(
        [REPLAY, traffic(500, seconds=60), traffic(2500, seconds=60, no_worse=True), ALL, soak(60)],
        expected_units_per_day=1000.0,
        expected_risk=0.02,
        validate_only=True,
    )
    replay, some, more, everybody, soaking = checked.previews
    assert (replay.least_time.seconds, list(replay.warnings)) == (90, ["It reads 1,000 records."])
    assert any("ends before harm would be found" in one for one in some.warnings)
    assert more.units_needed > 1000
    assert any("no-worse" in one for one in more.warnings) or more.least_time.seconds > 86_400
    assert everybody.does == "makes the candidate the active version"
    assert soaking.least_time.seconds == 60
    assert (await refused(rolling.get())).reason == "ROLLOUT_NOT_FOUND"
    assert (await rolling.route()).owner == ""


async def test_a_dry_run_foresees_columns_that_readers_would_miss(rolling: Rolling, registry: RegistryOnDemand) -> None:
    carrier = Column("carrier", ColumnType.STRING, merge=Merge.KEY)
    cancelled = Column("cancelled", ColumnType.INT64, merge=Merge.SUM)
    for version, columns in ((1, (carrier, cancelled)), (2, (carrier,))):
        registry.definitions[version] = JobDefinition(
            "carrier-punctuality", JobKind.AGGREGATE, (TopicSource("flights"),), columns, ("carrier",)
        )
    for steps in ([REPLAY, ALL], [traffic(500), ALL]):  # it is asked at the cutover, too
        checked = await rolling.create(steps, validate_only=True)
        [told] = [one for one in checked.previews[0].warnings if "schema" in one]
        assert told.startswith("The gate schema will fail, column by column: cancelled: removed (int64, not null). ")
        assert "`turnout cutover carrier-punctuality v2 --override-gates schema`" in told


async def test_a_dry_run_foresees_that_nobody_starts_the_run(rolling: Rolling, replayer: ReplayerOnDemand) -> None:
    replayer.without_run.add(f"{JOB}/versions/2/run")
    checked = await rolling.create([traffic(500), ALL], validate_only=True)
    assert checked.previews[0].warnings[0].startswith("v2 has no run, and the plan starts none")
    checked = await rolling.create([REPLAY, ALL], validate_only=True)
    assert not any("no run" in warning for one in checked.previews for warning in one.warnings)


async def test_without_known_units_it_says_what_is_missing(rolling: Rolling) -> None:
    checked = await rolling.create([traffic(500, seconds=60), ALL], validate_only=True)
    assert "cannot be told without knowing how many units read in a day" in checked.previews[0].warnings[-1]
    assert checked.expectation.startswith("an unknown number of units a day (`--units-per-day` says it)")


async def test_a_dry_run_says_where_it_has_seen_the_units_that_it_expects(rolling: Rolling, lab: Experimenting) -> None:
    await lab.create({1: 5000, 2: 5000})
    await lab.observe(lab.expose(f"u{n}" for n in range(40)).values())
    await lab.stop()
    checked = await rolling.create([traffic(500), ALL], validate_only=True, expected_risk=0.02)
    assert "(as in the experiment e, where 40 came in " in checked.expectation
    assert checked.expectation.endswith("2 % of them erring (`--risk`)")


async def test_a_dry_run_foresees_that_a_retirement_waits(rolling: Rolling) -> None:
    checked = await rolling.create([ALL, soak(60), RETIRE], validate_only=True)
    assert any("it waits for" in warning and "`soak: 24h`" in warning for warning in checked.previews[2].warnings)


async def test_templates_are_plans(rolling: Rolling) -> None:
    checked = await rolling.create([], plan={"template": "careful"}, validate_only=True)
    assert [step.kind for step in checked.plan.steps][:3] == [Step.REPLAY, Step.COMPARE, Step.SHADOW]
    assert checked.plan.guardrails.margin == 0.1
    assert checked.plan.template == ""


async def test_what_makes_no_sense_is_refused_with_all_that_is_wrong(rolling: Rolling) -> None:
    refusal = await refused(rolling.create([traffic(500, seconds=0), RETIRE, soak(0)]))
    assert refusal.reason == "INVALID_PLAN"
    for complaint in ("it would be over at once", "must end with everybody", "Step 3, soak"):
        assert complaint in refusal.message
    fields = [subject for _, subject, _ in refusal.violations]
    assert fields == ["rollout.plan.steps[0]", "rollout.plan.steps[2]", "rollout.plan.steps"]
    assert "no template 'brave'" in (await refused(rolling.create([], plan={"template": "brave"}))).message
    assert (await refused(rolling.create([ALL], version=1))).reason == "INVALID_PLAN"
    absent = await refused(rolling.create([ALL], version=91))
    assert (absent.code, absent.reason) == (grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND")


async def test_it_begins_on_a_route_of_one_version_that_nobody_owns(
    rolling: Rolling, lab: Experimenting, switcher: Switcher
) -> None:
    await switcher.set_traffic({1: 9000, 3: 1000})
    refusal = await refused(rolling.create([ALL]))
    assert (refusal.reason, "v3 has 10 % of the units" in refusal.message) == ("ROUTE_SHARED", True)
    await switcher.set_traffic({1: 10_000})
    await lab.create({1: 9000, 2: 1000})
    assert (await refused(rolling.create([ALL]))).reason == "ROUTE_OWNED"


async def test_a_repeated_request_starts_one_rollout(rolling: Rolling) -> None:
    first = await rolling.create([SOME, ALL], request_id="one")
    await rolling.until_step(1)
    assert (await rolling.create([SOME, ALL], request_id="one")).create_time == first.create_time
    assert (await refused(rolling.create([ALL], request_id="one"))).reason == "REQUEST_ID_REUSED"
    assert (await refused(rolling.create([ALL], "third"))).reason == "ROLLOUT_RUNS"
    await rolling.say("Abort")
    await rolling.until(pb.Rollout.ABORTED)
    assert (await refused(rolling.create([ALL]))).reason == "ROLLOUT_EXISTS"


async def test_a_watch_ends_with_the_rollout(rolling: Rolling, switcher: Switcher) -> None:
    await rolling.create([traffic(500), ALL])
    await rolling.read()
    seen = [one async for one in switcher.stub.WatchRollout(pb.WatchRolloutRequest(name=NAME), timeout=60)]
    assert seen[-1].state == pb.Rollout.SUCCEEDED
    assert all(one != other for one, other in itertools.pairwise(seen))
