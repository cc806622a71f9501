"""How a rollout goes from step to step, and what it waits for."""

from __future__ import annotations

import itertools
import math
from typing import Any

from services.switcher.statistics.decision import Plan
from services.switcher.statistics.promotion import units_needed
from tests.integration.switcher.conftest import MakeFront, Switcher, lease_is_over
from tests.integration.switcher.experimenting import Experimenting
from tests.integration.switcher.registry import RegistryOnDemand
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.integration.switcher.rollouts.rolling import (
    ALL,
    APPROVE,
    AT_ONCE,
    COMPARE,
    JOB,
    NAME,
    REPLAY,
    RETIRE,
    SOME,
    Rolling,
    adopted,
    expose,
    run_of_2,
    shadow,
    soak,
    told,
    traffic,
)
from tests.support.eventually import eventually
from turnout.replayer.v1 import run_pb2
from turnout.switcher.v1 import rollout_pb2


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

    await rolling.waits_for("flights/0: 7 offsets behind.")
    assert (waiting.state, (await rolling.route()).owner) == (rollout_pb2.Rollout.RUNNING, NAME)
    replayer.failing.clear()

    await rolling.until_step(3)
    assert [one.contract for one in replayer.compare_requests] == [COMPARE.contract]
    route = await rolling.route()
    assert (route.shadow.version, route.shadow.share) == (2, 10_000)
    await rolling.shadowed()

    await adopted(rolling, lab, 500)
    assert not (await rolling.route()).HasField("shadow")
    await rolling.read()
    await adopted(rolling, lab, 5000)
    experiment = (await rolling.get()).experiment
    # Twice what it takes with as many errors as there are, so that chance has no say in it.
    units = 2 * math.ceil(units_needed(1 / 20, 0.5, AT_ONCE.margin, Plan().promote_beta))
    await expose(lab, [f"u{n}" for n in range(units)], erring=20)

    await rolling.until_step(6)
    await rolling.waits_for("a person, who promotes or aborts it")
    assert (await rolling.say("Promote", step=6, claimed_actor="bob", reason="fine")).step == 7
    assert (await rolling.say("Promote", step=6)).step >= 7, "said twice, it passes over one step"

    ended = await rolling.until(rollout_pb2.Rollout.SUCCEEDED)
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


async def test_what_an_earlier_rollout_compared_is_no_shadow_of_this_one(rolling: Rolling, lab: Experimenting) -> None:
    await rolling.create([shadow(), SOME, ALL])
    await rolling.until_step(1)
    await rolling.shadowed()
    await rolling.until_step(2)
    await rolling.say("Abort")
    await rolling.until(rollout_pb2.Rollout.ABORTED)
    await rolling.create([shadow(), SOME, ALL], "third")
    third = f"{JOB}/rollouts/third"

    async def waits() -> bool:
        return (await rolling.get(third)).waiting_for.startswith("No live read of v1 was compared with v2 yet")

    await eventually(waits, 60)
    await rolling.shadowed()

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


async def test_a_run_that_has_not_begun_lacks_nothing_yet(rolling: Rolling, replayer: ReplayerOnDemand) -> None:
    replayer.failing[(2, "coverage")] = ["It does not read flights."]
    replayer.runs[f"{JOB}/versions/2/run"] = run_pb2.Run(state=run_pb2.Run.QUEUED)
    await rolling.create([REPLAY, ALL])
    await rolling.until_step(1)

    await rolling.waits_for("The run of v2 has not begun to read yet.")
    replayer.failing.clear()
    replayer.runs[f"{JOB}/versions/2/run"] = run_of_2()
    await rolling.until(rollout_pb2.Rollout.SUCCEEDED)


async def test_it_stands_still_while_nobody_can_tell_how_the_candidate_does(
    rolling: Rolling, replayer: ReplayerOnDemand
) -> None:
    replayer.runs_away = True
    await rolling.create([traffic(500, seconds=1), ALL])

    await rolling.waits_for("PostgreSQL does not answer.")
    found = await rolling.get()
    assert (found.frozen, found.step, found.weight) == (True, 1, 0)
    replayer.runs_away = False
    await rolling.read()
    await rolling.until(rollout_pb2.Rollout.SUCCEEDED)


async def test_it_does_not_go_on_while_nobody_reads_the_candidate(rolling: Rolling) -> None:
    await rolling.create([traffic(500, seconds=1), ALL])
    await rolling.until_step(1)

    async def watched_for_long() -> rollout_pb2.Rollout | None:
        found = await rolling.get()
        return found if found.state != rollout_pb2.Rollout.RUNNING or found.watched_time.seconds >= 3 else None

    waiting = await eventually(watched_for_long, 60)
    assert waiting is not None
    assert waiting.step == 1, told(waiting)
    assert waiting.waiting_for.startswith("No unit of v2 was counted yet, so nobody can tell whether it does harm")
    await rolling.read()
    await rolling.until(rollout_pb2.Rollout.SUCCEEDED)
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
    await lease_is_over(database, "silent")

    counted = await lab.get((await rolling.get()).experiment)
    silence = "the front silent, which has not told yet what it saw; if it is gone, that ends by itself at "
    assert counted.standing.waiting_for.startswith(silence)

    async def frozen() -> bool:
        told = (await rolling.get()).waiting_for
        return told.startswith(f"What was counted is not all there is: it waits for {silence}")

    await eventually(frozen, 60)
    assert (await rolling.get()).frozen
    await database.execute("update switcher.reader_leases set may_serve_for = interval '0' where front = 'silent'")

    async def thawed() -> bool:
        return not (await rolling.get()).frozen

    await eventually(thawed, 60)


async def test_a_watch_ends_with_the_rollout(rolling: Rolling, switcher: Switcher) -> None:
    await rolling.create([traffic(500), ALL])
    await rolling.read()
    seen = [one async for one in switcher.stub.WatchRollout(rollout_pb2.WatchRolloutRequest(name=NAME), timeout=60)]
    assert seen[-1].state == rollout_pb2.Rollout.SUCCEEDED
    assert all(one != other for one, other in itertools.pairwise(seen))
