"""Operators who also roll versions out and experiment with them, and one who sees to it that rollouts end."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Sequence
from typing import Any

from tests.simulation.people import GATES, Operator
from tests.simulation.rollout_checks import Known
from tests.simulation.world import World
from turnout.replayer.v1 import comparison_pb2
from turnout.routing import WHOLE
from turnout.switcher.v1 import change_pb2, experiment_pb2, rollout_pb2, route_pb2

_LOOK_S = 0.3
_PATIENCE_S = 3.0  # with a rollout on its way back that something holds up

Step = rollout_pb2.RolloutStep
REPLAY = Step(kind=Step.REPLAY)
COMPARE = Step(kind=Step.COMPARE, contract=comparison_pb2.ComparisonContract())
APPROVE = Step(kind=Step.APPROVE)
ALL = Step(kind=Step.TRAFFIC, share=WHOLE)
RETIRE = Step(kind=Step.RETIRE)


def traffic(share: int, for_s: float) -> rollout_pb2.RolloutStep:
    """So many basis points, for so long."""
    step = Step(kind=Step.TRAFFIC, share=share)
    step.for_time.FromMilliseconds(round(1000 * for_s))
    return step


def soak(for_s: float) -> rollout_pb2.RolloutStep:
    """The new version with all readers, for so long."""
    step = Step(kind=Step.SOAK)
    step.for_time.FromMilliseconds(round(1000 * for_s))
    return step


def create(
    job: str, rollout_id: str, version: int, steps: list[rollout_pb2.RolloutStep]
) -> rollout_pb2.CreateRolloutRequest:
    """A rollout that counts every unit by itself, and soon."""
    plan = rollout_pb2.RolloutPlan(steps=steps, units=route_pb2.UNITS_CALLER, guardrails=_soon())
    rollout = rollout_pb2.Rollout(version=version, plan=plan)
    return rollout_pb2.CreateRolloutRequest(
        parent=f"jobs/{job}", rollout_id=rollout_id, rollout=rollout, request_id=rollout_id
    )


def experiment(
    job: str, experiment_id: str, active: int, candidates: Sequence[int], bandit: experiment_pb2.Bandit | None = None
) -> experiment_pb2.CreateExperimentRequest:
    """Some of the units on each candidate, the rest on the active version."""
    share = WHOLE // (len(candidates) + 1)
    arms = [route_pb2.Arm(version=active, weight=WHOLE - share * len(candidates))]
    arms += [route_pb2.Arm(version=one, weight=share) for one in candidates]
    asked = experiment_pb2.Experiment(arms=arms, units=route_pb2.UNITS_CALLER, plan=_soon(), bandit=bandit)
    return experiment_pb2.CreateExperimentRequest(parent=f"jobs/{job}", experiment_id=experiment_id, experiment=asked)


def _soon() -> experiment_pb2.Plan:
    """A unit's window is over at once."""
    plan = experiment_pb2.Plan(margin=1.0, units_min=10)
    plan.window.FromMilliseconds(1)
    plan.delay.FromMilliseconds(0)
    return plan


def _bandit() -> experiment_pb2.Bandit:
    bandit = experiment_pb2.Bandit(objective=experiment_pb2.Bandit.ERRORS, step_max=0.3, units_min=2)
    bandit.every.FromMilliseconds(300)
    return bandit


class Launcher(Operator):
    """Begins rollouts and experiments among everything else, and says this and that to them."""

    def __init__(self, world: World, name: str, rng: random.Random) -> None:
        super().__init__(world, name, rng)
        self._over_heads = 0.3

    async def _one(self) -> None:
        doing: Any = self._rng.choices(
            [super()._one, self._roll_out, self._say, self._experiment, self._stop], [7, 8, 5, 3, 1]
        )[0]
        await doing()

    async def _roll_out(self) -> None:
        job = self._rng.choice(sorted(self._world.jobs))
        if any(known.rollout.job == job for known in self._world.checks.rolling.going_on):
            return
        versions = self._world.jobs[job]
        version = self._rng.randint(1, versions + 1)  # the last one has no table yet
        self._number += 1
        request = create(job, f"{self._name}-{self._number}", version, self._steps(needs_run=version > versions))
        await self._call(self._switcher.CreateRollout, request)

    def _steps(self, *, needs_run: bool) -> list[rollout_pb2.RolloutStep]:
        def perhaps(share: float, *steps: rollout_pb2.RolloutStep) -> list[rollout_pb2.RolloutStep]:
            return list(steps) if self._rng.random() < share else []

        steps = [REPLAY] if needs_run else perhaps(0.2, REPLAY)
        steps += perhaps(0.5, COMPARE) + perhaps(0.3, traffic(2000, 0.2)) + perhaps(0.8, traffic(5000, 0.5))
        steps += perhaps(0.1, APPROVE)
        return [*steps, ALL, *perhaps(0.4, soak(0.5)), *perhaps(0.2, RETIRE)]

    async def _say(self) -> None:
        known = self._any_rollout()
        if known is None:
            return
        verb = self._rng.choices(["Pause", "Resume", "Promote", "Abort"], [2, 4, 3, 1])[0]
        fields: dict[str, Any] = {"name": known.name, "claimed_actor": self._name}
        if verb == "Promote":
            fields["step"] = max(1, known.rollout.step + 1)
        request = getattr(rollout_pb2, f"{verb}RolloutRequest")(**fields)
        await self._call(getattr(self._switcher, f"{verb}Rollout"), request)

    def _any_rollout(self) -> Known | None:
        going_on = self._world.checks.rolling.going_on
        return self._rng.choice(going_on) if going_on else None

    async def _experiment(self) -> None:
        job = self._rng.choice(sorted(self._world.jobs))
        active = await self._active(job)
        if active is None:
            return
        others = [number for number in range(1, self._world.jobs[job] + 1) if number != active]
        candidates = sorted(self._rng.sample(others, self._rng.randint(1, 2)))
        self._number += 1
        bandit = _bandit() if self._rng.random() < 0.4 else None
        request = experiment(job, f"of-{self._name}-{self._number}", active, candidates, bandit)
        request.claimed_actor, request.request_id = self._name, f"{self._name}-{self._number}"
        await self._call(self._switcher.CreateExperiment, request)

    async def _stop(self) -> None:
        job = self._rng.choice(sorted(self._world.jobs))
        route = self._world.checks.newest(job)
        if route is None or route.experiment is None:
            return
        self._number += 1
        request = experiment_pb2.StopExperimentRequest(
            name=route.experiment.name,
            request_id=f"{self._name}-{self._number}",
            override_owner=self._rng.random() < self._over_heads,
        )
        await self._call(self._switcher.StopExperiment, request)


class Closer(Operator):
    """Once the trouble is over: says to every rollout what it waits for, so that all come to an end."""

    async def work(self, until_s: float) -> None:
        seen: dict[str, float] = {}  # of a rollout: since when it is on its way back
        while (now_s := self._world.loop.time()) < until_s:
            for known in self._world.checks.rolling.going_on:
                if known.rollout.state.value != "ROLLING_BACK":
                    await self._answer(known)
                elif now_s - seen.setdefault(known.name, now_s) > _PATIENCE_S:
                    await self._make_way(known)
            await asyncio.sleep(_LOOK_S)

    async def _answer(self, known: Known) -> None:
        rollout = known.rollout
        step = rollout.present
        if rollout.state.value == "PAUSED":
            verb = "Resume" if rollout.hold is not None and rollout.hold.value == "PERSON" else "Abort"
            request = getattr(rollout_pb2, f"{verb}RolloutRequest")(name=known.name, claimed_actor=self._name)
            await self._call(getattr(self._switcher, f"{verb}Rollout"), request)
        elif step is not None and step.kind.value == "approve":
            promote = rollout_pb2.PromoteRolloutRequest(
                name=known.name, step=rollout.step + 1, claimed_actor=self._name
            )
            await self._call(self._switcher.PromoteRollout, promote)

    async def _make_way(self, known: Known) -> None:
        """What it would go back to is gone: another version is made active over its head, as its words say."""
        tables, job = self._world.tables, known.rollout.job
        there = [one.number for one in tables.runs if one.job == job and one not in tables.dropped]
        number = self._rng.choice([one for one in there if one != known.rollout.candidate] or [known.rollout.control])
        self._number += 1
        await self._change(
            self._switcher.CutOverRoute,
            change_pb2.CutOverRouteRequest(
                name=f"jobs/{job}/route",
                version=number,
                override_gates=GATES,
                override_owner=True,
                claimed_actor=self._name,
                request_id=f"{self._name}-{self._number}",
            ),
        )
