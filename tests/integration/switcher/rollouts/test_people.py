"""What people say to a rollout, and what they do over its head."""

from __future__ import annotations

import grpc

from tests.integration.switcher.conftest import Switcher, refused
from tests.integration.switcher.experimenting import Experimenting
from tests.integration.switcher.front import Front
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.integration.switcher.rollouts.rolling import (
    ALL,
    AT_ONCE,
    JOB,
    LONG,
    NAME,
    SOME,
    Rolling,
    Step,
    adopted,
    compared,
    expose,
    shadow,
    soak,
    traffic,
)
from tests.support.eventually import eventually
from turnout.switcher.v1 import experiment_pb2, front_pb2, rollout_pb2, shadow_pb2


async def test_what_nobody_judged_waits_for_a_person(rolling: Rolling, replayer: ReplayerOnDemand) -> None:
    replayer.compared[f"{JOB}/versions/2"] = [compared(judged=False)]
    await rolling.create([Step(kind=Step.COMPARE), SOME, ALL])
    paused = await rolling.until(rollout_pb2.Rollout.PAUSED)
    assert paused.hold == rollout_pb2.Rollout.INCONCLUSIVE
    assert "without a contract" in paused.sentence
    resumed = await rolling.say("Resume")
    assert resumed.state == rollout_pb2.Rollout.RUNNING
    await rolling.until(rollout_pb2.Rollout.PAUSED)
    assert len({one.request_id for one in replayer.compare_requests}) == 2, "it was compared once more"
    await rolling.say("Promote", step=1)
    await rolling.until_step(2)


async def test_a_pause_holds_everything_but_the_way_back(rolling: Rolling, lab: Experimenting) -> None:
    await rolling.create([traffic(500, seconds=2), ALL], guardrails=AT_ONCE)
    await rolling.until_step(1)
    paused = await rolling.say("Pause", claimed_actor="ada")
    assert (paused.state, paused.hold) == (rollout_pb2.Rollout.PAUSED, rollout_pb2.Rollout.PERSON)
    assert (await rolling.say("Pause")).update_time == paused.update_time
    await adopted(rolling, lab, 500)
    await expose(lab, [f"u{n}" for n in range(2000)], erring=1)
    await rolling.until(rollout_pb2.Rollout.ROLLED_BACK)


async def test_whoever_goes_over_its_head_pauses_it(rolling: Rolling, lab: Experimenting, switcher: Switcher) -> None:
    await rolling.create([SOME, ALL])
    await rolling.until_step(1)
    assert (await refused(switcher.set_traffic({1: 5000, 2: 5000}))).reason == "ROUTE_OWNED"
    await switcher.set_traffic({1: 5000, 2: 5000}, override_owner=True, claimed_actor="eve", reason="in a hurry")
    paused = await rolling.until(rollout_pb2.Rollout.PAUSED)
    assert paused.hold == rollout_pb2.Rollout.OVERRULED
    assert "traffic set by eve: in a hurry" in paused.sentence
    assert "v2 has 50 % instead of 5 %" in paused.sentence
    await rolling.say("Resume")
    await adopted(rolling, lab, 500)
    await rolling.until(rollout_pb2.Rollout.RUNNING)
    await rolling.until_step(1)

    request = experiment_pb2.StopExperimentRequest(name=(await rolling.get()).experiment, keep_weights=True)
    for refusal in (
        await refused(switcher.stub.StopExperiment(request, timeout=20)),
        await refused(lab.create({1: 9000, 2: 1000})),
    ):
        assert (refusal.reason, "The rollout second owns the route" in refusal.message) == ("ROUTE_OWNED", True)
    request.override_owner = True
    await switcher.stub.StopExperiment(request, timeout=20)
    paused = await rolling.until(rollout_pb2.Rollout.PAUSED)
    assert "The experiment was stopped over the rollout's head" in paused.sentence
    await rolling.say("Resume")
    await adopted(rolling, lab, 500)
    await rolling.say("Abort")
    await rolling.until(rollout_pb2.Rollout.ABORTED)
    assert await rolling.unequal() == []


async def test_who_stops_its_shadow_pauses_it(rolling: Rolling, switcher: Switcher) -> None:
    """Before anything was compared, too."""
    await rolling.create([shadow(seconds=LONG), ALL])
    await rolling.until_step(1)
    request = shadow_pb2.SetShadowRequest(name=f"{JOB}/route", override_owner=True, claimed_actor="eve")
    await switcher.stub.SetShadow(request, timeout=20)
    paused = await rolling.until(rollout_pb2.Rollout.PAUSED)
    assert paused.hold == rollout_pb2.Rollout.OVERRULED
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
    await front.report(proposal.proposal, front_pb2.Report.PREPARED)
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
    await rolling.until(rollout_pb2.Rollout.ABORTED)
    assert await rolling.moves() == [("CUT_OVER", 1, 0), ("CUT_OVER", 2, 10_000)]


async def test_whoever_cuts_over_to_the_candidate_goes_ahead_of_it(rolling: Rolling, switcher: Switcher) -> None:
    await rolling.create([SOME, ALL, soak(LONG)])
    await rolling.until_step(1)
    await switcher.cut_over(2, override_owner=True, claimed_actor="eve", reason="it is fine")
    paused = await rolling.until(rollout_pb2.Rollout.PAUSED)
    assert (paused.hold, "cutover by eve: it is fine" in paused.sentence) == (rollout_pb2.Rollout.OVERRULED, True)
    await rolling.say("Resume")
    soaking = await rolling.until_step(3)
    assert (soaking.weight, list(soaking.skipped_steps)) == (10_000, [1])
    assert (await rolling.route()).owner == NAME
    await rolling.say("Abort")
    await rolling.until(rollout_pb2.Rollout.ABORTED)
    assert (await rolling.moves())[-1] == ("WITHDRAW", 1, 0)
    assert await rolling.unequal() == []


async def test_a_rollback_after_the_route_was_seen_does_not_explain_that_route(
    rolling: Rolling, replayer: ReplayerOnDemand, switcher: Switcher
) -> None:
    """Eve moves everybody off the candidate, and back before the look that sees that has asked its gates."""
    await rolling.create([ALL, soak(LONG)])
    await rolling.until_step(2)
    await replayer.hold("GetRun").wait()  # until the look gives up, which saw the candidate active
    await switcher.cut_over(1, override_owner=True, claimed_actor="eve", reason="in a hurry")
    await replayer.hold("GetRun").wait()  # so does this one, which sees what Eve did
    assert (await switcher.roll_back(claimed_actor="eve")).route.active_version == 2
    paused = await rolling.until(rollout_pb2.Rollout.PAUSED)
    assert paused.hold == rollout_pb2.Rollout.OVERRULED
    told = [one.sentence for one in await rolling.decisions()]
    assert any("(cutover by eve: in a hurry): v1 is active" in one for one in told), told
    assert await rolling.unequal() == []


async def test_a_candidate_that_others_made_active_anew_stays_and_the_next_rollout_may_begin(
    rolling: Rolling, switcher: Switcher
) -> None:
    """The way back leads to what they came from, not to what the rollout came from."""
    await rolling.create([ALL, soak(LONG)])
    await rolling.until_step(2)
    for version in (3, 2):
        await switcher.cut_over(version, override_owner=True)
    await rolling.until(rollout_pb2.Rollout.PAUSED)
    await rolling.say("Resume")

    async def refused_to_resume() -> rollout_pb2.Rollout:
        found = await rolling.get()
        assert found.hold == rollout_pb2.Rollout.REFUSED
        return found

    again = await eventually(refused_to_resume, 60)
    assert again is not None
    assert "the way back leads to v3, not to v1" in again.sentence
    await rolling.say("Abort", claimed_actor="ada", reason="no more")
    ended = await rolling.until(rollout_pb2.Rollout.ABORTED)
    assert ended.sentence.startswith("Aborted by ada: no more. But v2 stays the active version of carrier-punctuality")
    assert "`turnout cutover carrier-punctuality v1`" in ended.sentence
    assert (ended.weight, (await rolling.route()).active_version) == (10_000, 2)
    assert await rolling.unequal() == []
    await rolling.create([SOME, ALL], "third", version=3)
