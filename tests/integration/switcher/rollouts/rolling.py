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
from turnout.replayer.v1 import replayer_pb2 as replayer_pb
from turnout.switcher.v1 import switcher_pb2 as pb

JOB = "jobs/carrier-punctuality"
NAME = f"{JOB}/rollouts/second"
Step = pb.RolloutStep
State = pb.Rollout

REPLAY = Step(kind=Step.REPLAY)
COMPARE = Step(kind=Step.COMPARE, contract=replayer_pb.ComparisonContract())
APPROVE = Step(kind=Step.APPROVE)
ALL = Step(kind=Step.TRAFFIC, share=10_000)
RETIRE = Step(kind=Step.RETIRE)
LONG = 24 * 3600
AT_ONCE = pb.Plan(window=Duration(nanos=1_000_000), delay=Duration(), margin=9.0, units_min=10)


def traffic(share: int, *, seconds: int = 1, **fields: Any) -> pb.RolloutStep:
    """So many basis points, for so long."""
    return Step(kind=Step.TRAFFIC, share=share, for_time=Duration(seconds=seconds), **fields)


SOME = traffic(500, seconds=LONG)
"""A share that stays until something else happens."""


def soak(seconds: int = 1) -> pb.RolloutStep:
    return Step(kind=Step.SOAK, for_time=Duration(seconds=seconds))


def shadow(share: int = 10_000, seconds: int = 1) -> pb.RolloutStep:
    return Step(kind=Step.SHADOW, share=share, for_time=Duration(seconds=seconds))


def compared(passed: bool = True, *findings: str, aligned: bool = True, judged: bool = True) -> replayer_pb.Comparison:
    """A comparison that is finished."""
    verdict = replayer_pb.Comparison.PASSED if passed else replayer_pb.Comparison.FAILED
    return replayer_pb.Comparison(
        name=f"{JOB}/comparisons/0123456789ab",
        state=replayer_pb.Comparison.FINISHED,
        verdict=verdict if judged else replayer_pb.Comparison.VERDICT_UNSPECIFIED,
        findings=findings,
        aligned=aligned,
        rows_old=10,
        rows_new=10,
    )


def run_of_2(**fields: Any) -> replayer_pb.Run:
    """The candidate's run, at the end of the log."""
    fields.setdefault("state", replayer_pb.Run.TAILING)
    partitions = [replayer_pb.PartitionProgress(topic="flights", partition=0)]
    return replayer_pb.Run(name=f"{JOB}/versions/2/run", partitions=partitions, **fields)


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

    async def create(self, steps: Sequence[pb.RolloutStep], rollout_id: str = "second", **fields: Any) -> pb.Rollout:
        plan = pb.RolloutPlan(
            steps=steps, units=pb.UNITS_CALLER, guardrails=fields.pop("guardrails", None), **fields.pop("plan", {})
        )
        rollout = pb.Rollout(version=fields.pop("version", 2), plan=plan)
        request = pb.CreateRolloutRequest(parent=JOB, rollout_id=rollout_id, rollout=rollout, **fields)
        created: pb.Rollout = await self._call("CreateRollout", request)
        return created

    async def get(self, name: str = NAME) -> pb.Rollout:
        found: pb.Rollout = await self._call("GetRollout", pb.GetRolloutRequest(name=name))
        return found

    async def say(self, verb: str, **fields: Any) -> pb.Rollout:
        """Pause, Resume, Promote or Abort."""
        said: pb.Rollout = await self._call(f"{verb}Rollout", getattr(pb, f"{verb}RolloutRequest")(name=NAME, **fields))
        return said

    async def until(self, state: pb.Rollout.State.ValueType, deadline_s: float = 60.0) -> pb.Rollout:
        """The rollout once it is in the state."""

        async def reached() -> pb.Rollout | None:
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

    async def until_step(self, step: int, phase: pb.Rollout.Phase.ValueType = pb.Rollout.WATCHING) -> pb.Rollout:
        """The rollout once it watches the step, from 1."""

        async def reached() -> pb.Rollout | None:
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

    async def decisions(self) -> list[pb.Decision]:
        """The first one first."""
        request = pb.ListDecisionsRequest(parent=NAME, page_size=1000)
        return list(reversed((await self._call("ListDecisions", request)).decisions))

    async def unequal(self) -> list[str]:
        """Decisions that are not the same when they are computed again."""
        return [
            one.name
            for one in await self.decisions()
            if not (await self._call("ReplayDecision", pb.ReplayDecisionRequest(name=one.name))).equal
        ]

    async def moves(self) -> list[tuple[str, int, int]]:
        """Each change of the route, the first one first: its command, the active version, the candidate's weight."""
        request = pb.ListRouteChangesRequest(parent=f"{JOB}/route")
        changes = (await self._call("ListRouteChanges", request)).route_changes
        return [
            (
                pb.RouteChange.Command.Name(one.command),
                one.route.active_version,
                sum(arm.weight for arm in one.route.arms if arm.version == 2),
            )
            for one in reversed(changes)
        ]

    async def read(self) -> None:
        """A reader is given the candidate, once it has a share, and a front tells of it."""

        async def counts() -> pb.Route:
            route = await self.route()
            assert route.HasField("experiment"), told(await self.get())
            return route

        route = await eventually(counts, 60.0)
        assert route is not None
        one = pb.Observation(
            experiment=route.experiment.number, epoch=route.epoch, version=2, unit=1, time_s=int(time.time())
        )
        request = pb.RecordOutcomesRequest(front="front", observations=[one], complete=True)
        await self._call("RecordOutcomes", request)

    async def shadowed(self) -> None:
        """The front compares live reads, and finds no difference."""
        route = await self.route()
        tally = pb.ShadowTally(
            name=route.name,
            epoch=route.epoch,
            version=2,
            active_version=1,
            sequence=1,
            counts=pb.ShadowCounts(compared=100, equal=100),
        )
        await self._call(
            "RecordShadowCounts", pb.RecordShadowCountsRequest(front="front", source="one", tallies=[tally])
        )

    async def route(self) -> pb.Route:
        route: pb.Route = await self._call("GetRoute", pb.GetRouteRequest(name=f"{JOB}/route"))
        return route


def told(found: pb.Rollout) -> str:
    """Where a rollout is, for a test that waits for another place."""
    state = f"{pb.Rollout.State.Name(found.state)}, step {found.step} ({pb.Rollout.Phase.Name(found.phase)})"
    return f"{state}: {found.sentence} / {found.waiting_for}"


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
