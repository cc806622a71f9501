"""A rollout as its owner, the readers and their fronts see it."""

from __future__ import annotations

import time
from collections.abc import Awaitable, Callable, Sequence
from typing import Any

from google.protobuf.duration_pb2 import Duration

from tests.integration.switcher.conftest import TIMEOUT_S
from tests.integration.switcher.experimenting import Experimenting
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.support.eventually import eventually
from turnout.exposure import Exposure
from turnout.replayer.v1 import comparison_pb2, run_pb2
from turnout.switcher.v1 import (
    change_pb2,
    decision_pb2,
    experiment_pb2,
    outcome_pb2,
    rollout_pb2,
    route_pb2,
    shadow_pb2,
)

JOB = "jobs/carrier-punctuality"
NAME = f"{JOB}/rollouts/second"
Step = rollout_pb2.RolloutStep
State = rollout_pb2.Rollout

REPLAY = Step(kind=Step.REPLAY)
COMPARE = Step(kind=Step.COMPARE, contract=comparison_pb2.ComparisonContract())
APPROVE = Step(kind=Step.APPROVE)
ALL = Step(kind=Step.TRAFFIC, share=10_000)
RETIRE = Step(kind=Step.RETIRE)
LONG = 24 * 3600
AT_ONCE = experiment_pb2.Plan(window=Duration(nanos=1_000_000), delay=Duration(), margin=1.0, units_min=10)


def traffic(share: int, *, seconds: int = 1, **fields: Any) -> rollout_pb2.RolloutStep:
    """So many basis points, for so long."""
    return Step(kind=Step.TRAFFIC, share=share, for_time=Duration(seconds=seconds), **fields)


SOME = traffic(500, seconds=LONG)
"""A share that stays until something else happens."""


def soak(seconds: int = 1) -> rollout_pb2.RolloutStep:
    return Step(kind=Step.SOAK, for_time=Duration(seconds=seconds))


def shadow(share: int = 10_000, seconds: int = 1) -> rollout_pb2.RolloutStep:
    return Step(kind=Step.SHADOW, share=share, for_time=Duration(seconds=seconds))


def compared(
    passed: bool = True, *findings: str, aligned: bool = True, judged: bool = True
) -> comparison_pb2.Comparison:
    """A comparison that is finished."""
    verdict = comparison_pb2.Comparison.PASSED if passed else comparison_pb2.Comparison.FAILED
    return comparison_pb2.Comparison(
        name=f"{JOB}/comparisons/0123456789ab",
        state=comparison_pb2.Comparison.FINISHED,
        verdict=verdict if judged else comparison_pb2.Comparison.VERDICT_UNSPECIFIED,
        findings=findings,
        aligned=aligned,
        rows_old=10,
        rows_new=10,
    )


def run_of_2(**fields: Any) -> run_pb2.Run:
    """The candidate's run, at the end of the log."""
    fields.setdefault("state", run_pb2.Run.TAILING)
    partitions = [run_pb2.PartitionProgress(topic="flights", partition=0)]
    return run_pb2.Run(name=f"{JOB}/versions/2/run", partitions=partitions, **fields)


def ready(replayer: ReplayerOnDemand) -> None:
    """The candidate's run reads the log, and its table differs in nothing."""
    replayer.runs[f"{JOB}/versions/2/run"] = run_of_2()
    replayer.compared[f"{JOB}/versions/2"] = [compared(True, "Nothing differs.")]


class Rolling:
    """What is said to the rollout, and what it says. stub: finds the switcher that is to be called."""

    def __init__(self, stub: Callable[[], Any], patient: Callable[..., Awaitable[Any]] | None = None) -> None:
        self._stub = stub
        self._patient = patient

    async def _call(self, method: str, request: Any) -> Any:
        async def called() -> Any:
            return await getattr(self._stub(), method)(request, timeout=TIMEOUT_S)

        return await (self._patient(called) if self._patient else called())

    async def create(
        self, steps: Sequence[rollout_pb2.RolloutStep], rollout_id: str = "second", **fields: Any
    ) -> rollout_pb2.Rollout:
        plan = rollout_pb2.RolloutPlan(
            steps=steps,
            units=route_pb2.UNITS_CALLER,
            guardrails=fields.pop("guardrails", None),
            **fields.pop("plan", {}),
        )
        rollout = rollout_pb2.Rollout(version=fields.pop("version", 2), plan=plan)
        request = rollout_pb2.CreateRolloutRequest(parent=JOB, rollout_id=rollout_id, rollout=rollout, **fields)
        created: rollout_pb2.Rollout = await self._call("CreateRollout", request)
        return created

    async def get(self, name: str = NAME) -> rollout_pb2.Rollout:
        found: rollout_pb2.Rollout = await self._call("GetRollout", rollout_pb2.GetRolloutRequest(name=name))
        return found

    async def say(self, verb: str, **fields: Any) -> rollout_pb2.Rollout:
        """Pause, Resume, Promote or Abort."""
        said: rollout_pb2.Rollout = await self._call(
            f"{verb}Rollout", getattr(rollout_pb2, f"{verb}RolloutRequest")(name=NAME, **fields)
        )
        return said

    async def until(self, state: rollout_pb2.Rollout.State.ValueType, deadline_s: float = 60.0) -> rollout_pb2.Rollout:
        """The rollout once it is in the state."""

        async def reached() -> rollout_pb2.Rollout | None:
            found = await self.get()
            assert found.state == state, told(found)
            return found

        found = await eventually(reached, deadline_s)
        assert found is not None
        return found

    async def promoted_to(self, step: int) -> None:
        """Wait until it watches the step, having passed each one before on a person's word."""
        for passed in range(1, step):
            await self.until_step(passed)
            await self.say("Promote", step=passed)
        await self.until_step(step)

    async def until_step(
        self, step: int, phase: rollout_pb2.Rollout.Phase.ValueType = rollout_pb2.Rollout.WATCHING
    ) -> rollout_pb2.Rollout:
        """The rollout once it watches the step, from 1."""

        async def reached() -> rollout_pb2.Rollout | None:
            found = await self.get()
            assert (found.step, found.phase) == (step, phase), told(found)
            return found

        found = await eventually(reached, 60.0)
        assert found is not None
        return found

    async def waits_for(self, what: str) -> None:
        """It says what it waits for."""

        async def says_so() -> bool:
            return (await self.get()).waiting_for == what

        await eventually(says_so, 60)

    async def decisions(self) -> list[decision_pb2.Decision]:
        """The first one first."""
        request = decision_pb2.ListDecisionsRequest(parent=NAME, page_size=1000)
        return list(reversed((await self._call("ListDecisions", request)).decisions))

    async def unequal(self) -> list[str]:
        """Decisions that are not the same when they are computed again."""
        return [
            one.name
            for one in await self.decisions()
            if not (await self._call("ReplayDecision", decision_pb2.ReplayDecisionRequest(name=one.name))).equal
        ]

    async def moves(self) -> list[tuple[str, int, int]]:
        """Each change of the route, the first one first: its command, the active version, the candidate's weight."""
        request = change_pb2.ListRouteChangesRequest(parent=f"{JOB}/route")
        changes = (await self._call("ListRouteChanges", request)).route_changes
        return [
            (
                change_pb2.RouteChange.Command.Name(one.command),
                one.route.active_version,
                sum(arm.weight for arm in one.route.arms if arm.version == 2),
            )
            for one in reversed(changes)
        ]

    async def read(self) -> None:
        """A reader is given the candidate, once it has a share, and a front tells of it."""

        async def counts() -> route_pb2.Route:
            route = await self.route()
            assert route.HasField("experiment"), told(await self.get())
            return route

        route = await eventually(counts, 60.0)
        assert route is not None
        one = outcome_pb2.Observation(
            experiment=route.experiment.number, epoch=route.epoch, version=2, unit=1, time_s=int(time.time())
        )
        request = outcome_pb2.RecordOutcomesRequest(front="front", observations=[one], complete=True)
        await self._call("RecordOutcomes", request)

    async def shadowed(self) -> None:
        """The front compares live reads, and finds no difference."""
        route = await self.route()
        tally = shadow_pb2.ShadowTally(
            name=route.name,
            epoch=route.epoch,
            version=2,
            active_version=1,
            sequence=1,
            counts=shadow_pb2.ShadowCounts(compared=100, equal=100),
        )
        await self._call(
            "RecordShadowCounts", shadow_pb2.RecordShadowCountsRequest(front="front", source="one", tallies=[tally])
        )

    async def route(self) -> route_pb2.Route:
        route: route_pb2.Route = await self._call("GetRoute", route_pb2.GetRouteRequest(name=f"{JOB}/route"))
        return route


def told(found: rollout_pb2.Rollout) -> str:
    """Where a rollout is, for a test that waits for another place."""
    state, phase = State.State.Name(found.state), State.Phase.Name(found.phase)
    return f"{state}, step {found.step} ({phase}): {found.sentence} / {found.waiting_for}"


async def adopted(rolling: Rolling, lab: Experimenting, weight: int) -> None:
    """The front gives the candidate this share."""

    async def has_it() -> bool:
        assert lab.route.weight(2) == weight, told(await rolling.get())
        return lab.route.experiment is not None

    await eventually(has_it)


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
