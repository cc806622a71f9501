"""What takes a candidate back: gates that fail, and people."""

from __future__ import annotations

import pytest

from tests.integration.switcher.conftest import Switcher
from tests.integration.switcher.experimenting import Experimenting
from tests.integration.switcher.registry import RegistryOnDemand
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.integration.switcher.rollouts.rolling import (
    ALL,
    AT_ONCE,
    COMPARE,
    JOB,
    LONG,
    REPLAY,
    RETIRE,
    SOME,
    Rolling,
    adopted,
    compared,
    expose,
    soak,
    traffic,
)
from turnout.switcher.v1 import experiment_pb2, rollout_pb2


async def test_harm_takes_the_candidate_back_by_itself(rolling: Rolling, lab: Experimenting) -> None:
    await rolling.create([SOME, ALL], guardrails=AT_ONCE)
    await adopted(rolling, lab, 500)
    await expose(lab, [f"u{n}" for n in range(2000)], erring=1)
    ended = await rolling.until(rollout_pb2.Rollout.ROLLED_BACK)
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
    ended = await rolling.until(rollout_pb2.Rollout.ROLLED_BACK)
    assert ended.sentence.startswith("on_time differs in 3 rows.")
    assert [weight for _, _, weight in await rolling.moves()] == [0, 0, 0]


async def test_a_candidate_that_lacks_what_readers_have_is_not_rolled_out(
    rolling: Rolling, replayer: ReplayerOnDemand
) -> None:
    replayer.failing[(2, "coverage")] = ["Readers would lose two years."]
    await rolling.create([REPLAY, ALL])
    assert (await rolling.until(rollout_pb2.Rollout.ROLLED_BACK)).sentence == "Readers would lose two years."


@pytest.mark.parametrize("step", [1, 2, 3])
async def test_an_abort_leaves_the_candidate_without_readers(
    rolling: Rolling, lab: Experimenting, registry: RegistryOnDemand, step: int
) -> None:
    await rolling.create([SOME, traffic(10_000, seconds=LONG), soak(LONG)])
    await rolling.promoted_to(step)
    answered = await rolling.say("Abort", claimed_actor="ada", reason="not today")
    assert answered.state == rollout_pb2.Rollout.ROLLING_BACK
    assert answered.sentence == "Aborted by ada: not today."
    ended = await rolling.until(rollout_pb2.Rollout.ABORTED)
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

    await rolling.waits_for(registry.refuses[1])
    assert len(set(registry.asked)) == 1, "however often it is asked, it is one request"
    await rolling.say("Abort")
    await rolling.until(rollout_pb2.Rollout.ABORTED)
    assert (registry.retired, (await rolling.route()).active_version) == (set(), 1)


@pytest.mark.parametrize("step", [2, 3])
async def test_a_rollback_leaves_nobody_on_the_candidate_and_ends_the_rollout(
    rolling: Rolling, lab: Experimenting, switcher: Switcher, step: int
) -> None:
    await rolling.create([SOME, traffic(10_000, seconds=LONG), soak(LONG)])
    await rolling.promoted_to(step)
    ready = await switcher.readiness()
    assert (ready.possible, [(arm.version, arm.weight) for arm in ready.arms]) == (True, [(1, 10_000)])

    change = await switcher.roll_back(claimed_actor="ada", reason="too slow")
    assert [(arm.version, arm.weight) for arm in change.route.arms] == [(1, 10_000)]
    ended = await rolling.until(rollout_pb2.Rollout.ROLLED_BACK)
    assert ended.sentence == (
        "The cutover to v2 was rolled back (rollback by ada: too slow): v1 is active, and nobody reads v2."
    )
    assert (await lab.get(ended.experiment)).state == experiment_pb2.Experiment.STOPPED
    assert (await rolling.moves())[-1] == ("ROLL_BACK", 1, 0)
    assert (await rolling.route()).owner == ""
    assert await rolling.unequal() == []
    await rolling.create([SOME, ALL], "third")


async def test_a_rollback_takes_the_retirement_back(
    rolling: Rolling, registry: RegistryOnDemand, switcher: Switcher
) -> None:
    registry.refuses = ("ROLLBACK_WINDOW", "A rollback would return to v1 for 3 more minutes.")
    await rolling.create([ALL, RETIRE])
    await rolling.waits_for(registry.refuses[1])
    await switcher.roll_back(claimed_actor="ada")
    await rolling.until(rollout_pb2.Rollout.ROLLED_BACK)
    assert (registry.reinstated, (await rolling.route()).active_version) == ([1], 1)


async def test_a_retirement_that_may_be_refused_yet_is_waited_for(rolling: Rolling, registry: RegistryOnDemand) -> None:
    registry.unreleased = "the switcher does not answer"
    await rolling.create([ALL, RETIRE])
    await rolling.waits_for(f"The retirement of v1 of carrier-punctuality waits for its release: {registry.unreleased}")
    registry.unreleased = ""
    await rolling.until(rollout_pb2.Rollout.SUCCEEDED)
    assert registry.retired == {1}
