"""Acts that come too late, when the rollout does not want them any more."""

from __future__ import annotations

from typing import Any, cast

from core.postgres import open_pool
from services.switcher.change import Changes
from services.switcher.experiments.store import ExperimentStore
from services.switcher.requests import RequestStore
from services.switcher.rollouts.acting import Acts
from services.switcher.rollouts.acts import ActKind, Later, due
from services.switcher.rollouts.neighbours import Neighbours
from services.switcher.rollouts.store import RolloutStore
from services.switcher.store import RouteStore
from tests.integration.switcher.front import Front
from tests.integration.switcher.rollouts.rolling import ALL, APPROVE, NAME, SOME, Rolling
from turnout.switcher.v1 import front_pb2, rollout_pb2


async def test_an_act_under_way_when_it_is_aborted_comes_to_nothing(rolling: Rolling, front: Front) -> None:
    front.prepares = False
    await rolling.create([SOME, ALL])
    proposal = await front.until_proposed(2)
    assert proposal.route.owner == NAME
    await rolling.say("Abort")
    # By the row that is stored now nobody wants what could be committed from here on.
    await front.report(proposal.proposal, front_pb2.Report.PREPARED)
    front.prepares = True
    await rolling.until(rollout_pb2.Rollout.ABORTED)
    assert await rolling.moves() == [("CUT_OVER", 1, 0)]


async def test_a_driver_that_is_late_begins_no_experiment_of_a_rollout_that_is_over(
    rolling: Rolling, front: Front, postgres: str, database: Any
) -> None:
    """It had loaded the rollout when it was to give the candidate a share, and goes on only now."""
    await rolling.create([APPROVE, SOME, ALL])
    await rolling.until_step(1)
    pool = await open_pool(postgres, application_name="late")
    try:
        experiments, rollouts = ExperimentStore(pool), RolloutStore(pool)
        front.prepares = False
        await rolling.say("Promote", step=1)
        await front.until_proposed(3)
        loaded = await rollouts.load(await database.fetchval("select number from switcher.rollouts"))
        front.prepares = True
        await rolling.say("Abort")
        await rolling.until(rollout_pb2.Rollout.ABORTED)

        act = due(loaded.rollout)
        assert act is not None
        assert act.kind is ActKind.EXPOSE
        changes = cast(Changes, None)  # it does not get so far
        acts = Acts(RouteStore(pool), RequestStore(pool), experiments, changes, cast(Neighbours, None))
        result = await acts.carry_out(loaded, act)
    finally:
        await pool.close()
    assert isinstance(result, Later)
    assert "has moved on" in result.why
    assert await database.fetchval("select count(*) from switcher.experiments") == 0
