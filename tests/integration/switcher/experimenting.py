"""Reads and reports of made-up units, as a front and its clients would tell of them."""

from __future__ import annotations

import json
import time
from collections.abc import Iterable
from typing import Any

from google.protobuf.duration_pb2 import Duration

from tests.integration.switcher.conftest import TIMEOUT_S, Switcher
from tests.integration.switcher.front import Front
from tests.support.eventually import eventually
from turnout.exposure import Exposure, Signer, identity
from turnout.reading.route_proto import route_of
from turnout.routing import Route, resolve
from turnout.switcher.v1 import change_pb2, decision_pb2, experiment_pb2, outcome_pb2, route_pb2

JOB = "jobs/carrier-punctuality"
NAME = f"{JOB}/experiments/e"
AT_ONCE = experiment_pb2.Plan(
    window=Duration(seconds=1), delay=Duration(seconds=0), harms=[outcome_pb2.METRIC_ERROR, outcome_pb2.METRIC_SLOW]
)


def experiment(weights: dict[int, int], **fields: Any) -> experiment_pb2.Experiment:
    """Counts by the caller's unit; the first version is the control."""
    arms = [route_pb2.Arm(version=version, weight=weight) for version, weight in weights.items()]
    return experiment_pb2.Experiment(arms=arms, units=route_pb2.UNITS_CALLER, **fields)


class Experimenting:
    """An experiment as its owner, its readers and its front see it."""

    def __init__(self, switcher: Switcher, front: Front) -> None:
        self.stub = switcher.stub
        self.front = front

    async def create(self, weights: dict[int, int], name: str = "e", **fields: Any) -> experiment_pb2.Experiment:
        request = experiment_pb2.CreateExperimentRequest(
            parent=JOB, experiment_id=name, experiment=experiment(weights, **fields.pop("experiment", {})), **fields
        )
        created: experiment_pb2.Experiment = await self.stub.CreateExperiment(request, timeout=TIMEOUT_S)
        return created

    async def get(self, name: str = NAME) -> experiment_pb2.Experiment:
        found: experiment_pb2.Experiment = await self.stub.GetExperiment(
            experiment_pb2.GetExperimentRequest(name=name), timeout=TIMEOUT_S
        )
        return found

    async def stop(self, **fields: Any) -> experiment_pb2.Experiment:
        request = experiment_pb2.StopExperimentRequest(name=NAME, **fields)
        stopped: experiment_pb2.Experiment = await self.stub.StopExperiment(request, timeout=TIMEOUT_S)
        return stopped

    async def decisions(self) -> list[decision_pb2.Decision]:
        request = decision_pb2.ListDecisionsRequest(parent=NAME)
        answer: decision_pb2.ListDecisionsResponse = await self.stub.ListDecisions(request, timeout=TIMEOUT_S)
        return list(answer.decisions)

    async def replay_all(self) -> list[bool]:
        return [
            (await self.stub.ReplayDecision(decision_pb2.ReplayDecisionRequest(name=one.name), timeout=TIMEOUT_S)).equal
            for one in await self.decisions()
        ]

    async def maps_agree(self) -> list[bool]:
        """Of each decision that was carried out and moved units: whether its map is the one that was committed."""
        request = change_pb2.ListRouteChangesRequest(parent=f"{JOB}/route")
        changes: change_pb2.ListRouteChangesResponse = await self.stub.ListRouteChanges(request, timeout=TIMEOUT_S)
        committed = {one.route.epoch: one.route.intervals for one in changes.route_changes}
        agree = []
        for one in await self.decisions():
            if not one.carried_out or one.action in ("KEEP", "PAUSE"):
                continue
            whole = await self.stub.GetDecision(decision_pb2.GetDecisionRequest(name=one.name), timeout=TIMEOUT_S)
            drawn = json.loads(whole.record)["conclusion"]["after"]["intervals"]
            there = [[i.low, i.high, i.version, i.acquired_epoch] for i in committed[one.epoch]]
            agree.append(drawn == there)
        return agree

    async def state(self) -> str:
        return experiment_pb2.Experiment.State.Name((await self.get()).state)

    async def until(self, state: str) -> experiment_pb2.Experiment:
        """The experiment once it is in the state."""

        async def reached() -> bool:
            return await self.state() == state

        await eventually(reached)
        return await self.get()

    # --- what the front does ---

    @property
    def route(self) -> Route:
        """The route that the front serves by."""
        return route_of(self.front.routes[f"{JOB}/route"])

    def expose(self, units: Iterable[str]) -> dict[str, Exposure]:
        """Give each unit an answer."""
        route = self.route
        assert route.experiment is not None
        exposures = {}
        for unit in units:
            version = resolve(route, unit)
            exposures[unit] = Exposure(
                route.experiment.number,
                route.epoch,
                version,
                route.weight(version),
                int(time.time()),
                identity(route.experiment.name, unit),
            )
        return exposures

    def id_of(self, exposure: Exposure) -> str:
        """The id that the answer carries."""
        key = self.front.snapshot.exposure_keys[-1]
        return Signer(key.number, key.key).id_of(exposure)

    async def observe(
        self, exposures: Iterable[Exposure], metric: outcome_pb2.Metric.ValueType = outcome_pb2.METRIC_UNSPECIFIED
    ) -> None:
        """Tell the switcher of first exposures, or of what the front saw of them."""
        await self.record(
            observations=[
                outcome_pb2.Observation(
                    experiment=one.experiment,
                    epoch=one.epoch,
                    version=one.version,
                    unit=one.unit,
                    time_s=one.time_s,
                    metric=metric,
                )
                for one in exposures
            ],
            complete=True,
        )

    async def report(
        self,
        exposures: Iterable[Exposure],
        metric: outcome_pb2.Metric.ValueType = outcome_pb2.METRIC_ERROR,
        **fields: Any,
    ) -> list[str]:
        """Tell the switcher what clients said; what became of it."""
        outcomes = [
            outcome_pb2.ReportedOutcome(exposure_id=self.id_of(one), metric=metric, **fields) for one in exposures
        ]
        return await self.record(outcomes=outcomes)

    async def record(self, **fields: Any) -> list[str]:
        request = outcome_pb2.RecordOutcomesRequest(front=self.front.name, **fields)
        answer: outcome_pb2.RecordOutcomesResponse = await self.stub.RecordOutcomes(request, timeout=TIMEOUT_S)
        return [outcome_pb2.RecordOutcomesResponse.Result.Name(one) for one in answer.results]


def harm(found: experiment_pb2.Experiment, metric: str = "ERROR", place: int = 0) -> tuple[int, ...]:
    """First ones of a harm, of the control and of a candidate."""
    [counts] = [tuple(one.counts) for one in found.standing.candidates[place].harms if one.name == metric]
    return counts


def units(found: experiment_pb2.Experiment) -> list[int]:
    """Units of each arm."""
    return [arm.units for arm in found.standing.arms]
