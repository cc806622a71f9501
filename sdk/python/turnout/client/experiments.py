"""Experiments, the decisions on them, and outcomes."""

from __future__ import annotations

import math
from collections.abc import AsyncGenerator, AsyncIterator, Iterable, Mapping, Sequence

from turnout.client import experiment_proto as proto
from turnout.client.calls import job_name, new_request_id, pages
from turnout.client.connection import CHANGE_S, QUICK_S
from turnout.client.decisions import DecisionCalls
from turnout.errors import InvalidInput
from turnout.experiments import (
    Bandit,
    Decision,
    Experiment,
    Metric,
    Outcome,
    Plan,
    Replay,
    Reported,
    Units,
)
from turnout.query.v1 import query_pb2
from turnout.results import Read
from turnout.switcher.v1 import experiment_pb2, route_pb2


class ExperimentCalls(DecisionCalls):
    """Methods of the switcher that are of experiments, and the query front's that take outcomes."""

    async def create_experiment(
        self,
        job: str,
        experiment: str,
        weights: Mapping[int, int],
        *,
        units: Units = Units.CALLER,
        plan: Plan | None = None,
        bandit: Bandit | None = None,
        holdout: int = 0,
        holdout_salt: str = "",
        overrides: Mapping[str, int] | None = None,
        salt: str = "",
        override_gates: Iterable[str] = (),
        require_gates: Iterable[str] = (),
        validate_only: bool = False,
        reason: str = "",
        timeout_s: float | None = None,
    ) -> Experiment:
        """Start an experiment on the job's route, which it owns from then on.

        weights: version -> basis points, the active version first. units: what it counts by. holdout: basis points of
        the units that stay on the active version, whatever the weights. overrides: unit -> version, for testers. salt:
        of the route from now on, which deals all units anew; "" = as it is. AlreadyExists (EXPERIMENT_EXISTS,
        EXPERIMENT_RUNS); FailedPrecondition (ROUTE_OWNED), and for each failed gate.
        """
        request = experiment_pb2.CreateExperimentRequest(
            parent=job_name(job),
            experiment_id=experiment,
            experiment=experiment_pb2.Experiment(
                arms=[route_pb2.Arm(version=version, weight=weight) for version, weight in weights.items()],
                units=route_pb2.Units.Value(f"UNITS_{units}"),
                salt=salt,
                holdout=holdout,
                holdout_salt=holdout_salt,
                overrides=[
                    route_pb2.UnitOverride(unit=unit, version=version) for unit, version in (overrides or {}).items()
                ],
                plan=proto.plan_message(plan or Plan()),
                bandit=None if bandit is None else proto.bandit_message(bandit),
            ),
            override_gates=override_gates,
            require_gates=require_gates,
            request_id=new_request_id(),
            validate_only=validate_only,
            claimed_actor=self._actor,
            reason=reason,
        )
        return await self._experiment("CreateExperiment", request, timeout_s, CHANGE_S)

    async def get_experiment(self, job: str, experiment: str, *, timeout_s: float | None = None) -> Experiment:
        """An experiment with what was counted, what is said of it now, and what it waits for. NotFound."""
        request = experiment_pb2.GetExperimentRequest(name=_name(job, experiment))
        return await self._experiment("GetExperiment", request, timeout_s, QUICK_S)

    async def list_experiments(
        self, job: str | None = None, *, page_size: int = 0, timeout_s: float | None = None
    ) -> AsyncIterator[Experiment]:
        """The experiments of a job, or of all, newest first. timeout_s: of each request."""
        parent = "jobs/-" if job is None else job_name(job)

        async def fetch(token: str) -> tuple[list[Experiment], str]:
            answer = await self._connections.unary(
                "switcher",
                "ListExperiments",
                experiment_pb2.ListExperimentsRequest(parent=parent, page_size=page_size, page_token=token),
                experiment_pb2.ListExperimentsResponse,
                timeout_s=timeout_s,
                default_s=QUICK_S,
            )
            return [proto.experiment(message) for message in answer.experiments], answer.next_page_token

        async for one in pages(fetch):
            yield one

    async def stop_experiment(
        self,
        job: str,
        experiment: str,
        *,
        promote: int | None = None,
        keep_weights: bool = False,
        override_gates: Iterable[str] = (),
        override_owner: bool = False,
        reason: str = "",
        timeout_s: float | None = None,
    ) -> Experiment:
        """End an experiment: all units go back to the active version, or to the candidate that is promoted, through its
        gates, or stay as they are (keep_weights). One that is over stays as it is: FailedPrecondition
        (EXPERIMENT_OVER) where promote is not active then, or weights to keep were taken back.

        override_owner: also that of a rollout, which is paused by it; else FailedPrecondition (ROUTE_OWNED).
        """
        request = experiment_pb2.StopExperimentRequest(
            name=_name(job, experiment),
            promote=promote or 0,
            keep_weights=keep_weights,
            override_gates=override_gates,
            override_owner=override_owner,
            request_id=new_request_id(),
            claimed_actor=self._actor,
            reason=reason,
        )
        return await self._experiment("StopExperiment", request, timeout_s, CHANGE_S)

    async def resume_experiment(
        self, job: str, experiment: str, *, reason: str = "", timeout_s: float | None = None
    ) -> Experiment:
        """Let a paused experiment go on although what it was paused for still holds; harm is watched for all the same.

        FailedPrecondition (EXPERIMENT_OVER).
        """
        request = experiment_pb2.ResumeExperimentRequest(
            name=_name(job, experiment), claimed_actor=self._actor, reason=reason
        )
        return await self._experiment("ResumeExperiment", request, timeout_s, QUICK_S)

    async def decisions(
        self, job: str, experiment: str, *, page_size: int = 0, timeout_s: float | None = None
    ) -> AsyncIterator[Decision]:
        """The decisions on an experiment, newest first, without their records. timeout_s: of each request."""
        async for one in self._decisions_on(_name(job, experiment), proto.decision, page_size, timeout_s):
            yield one

    async def get_decision(
        self, job: str, experiment: str, decision: int, *, timeout_s: float | None = None
    ) -> Decision:
        """One decision with its whole record. NotFound (DECISION_NOT_FOUND)."""
        name = f"{_name(job, experiment)}/decisions/{decision}"
        return proto.decision(await self._decision(name, timeout_s))

    async def replay_decision(
        self, job: str, experiment: str, decision: int, *, timeout_s: float | None = None
    ) -> Replay:
        """Let the switcher draw a decision's conclusion again from the situation in its record, and compare.

        FailedPrecondition (RULES_CHANGED) where another release with other rules made it.
        """
        return await self._decided_again(f"{_name(job, experiment)}/decisions/{decision}", timeout_s)

    # --- outcomes ---

    async def report_outcome(
        self,
        read: Read | str,
        *,
        error: bool | None = None,
        conversion: bool | None = None,
        reward: float | None = None,
        outcome_id: str = "",
        timeout_s: float | None = None,
    ) -> bool:
        """Tell what became of an answer, by the read itself or its exposure_id; whether an experiment counts it.

        One of: error (the answer was wrong or of no use), conversion (the unit did what it was hoped to do), reward (a
        number from -1e9 to 1e9; outcome_id where there are several for one answer). It is stored when this returns, and
        may be told again at any time. An answer that no experiment counts is not reported at all, nor is a False, which
        may stand beside what is reported: an answer without an error, or without a conversion, is what is known of it
        anyhow.
        """
        given = {Metric.ERROR: error, Metric.CONVERSION: conversion, Metric.REWARD: reward}
        told = [metric for metric, value in given.items() if value is not None and value is not False]
        if len(told) > 1 or all(value is None for value in given.values()):
            raise InvalidInput("INVALID_OUTCOME", "Report one of error, conversion and reward.")
        if not told:
            return False
        exposure_id = read if isinstance(read, str) else read.exposure_id
        if not exposure_id:
            return False
        if isinstance(reward, float) and not math.isfinite(reward):
            raise InvalidInput("INVALID_OUTCOME", f"The reward is {reward:g}; give a finite number.")
        outcome = Outcome(exposure_id, told[0], 0.0 if reward is None else reward, outcome_id)
        answer = await self.report_outcomes([outcome], timeout_s=timeout_s)
        for why in answer.rejected.values():
            raise InvalidInput("INVALID_OUTCOME", why)
        return answer.not_counted == 0

    async def report_outcomes(self, outcomes: Iterable[Outcome], *, timeout_s: float | None = None) -> Reported:
        """Tell what became of up to 10000 answers. All that can be is stored when this returns."""
        request = query_pb2.ReportOutcomesRequest(outcomes=[proto.outcome_message(one) for one in outcomes])
        return proto.reported(
            await self._connections.unary(
                "query",
                "ReportOutcomes",
                request,
                query_pb2.ReportOutcomesResponse,
                timeout_s=timeout_s,
                default_s=QUICK_S,
            )
        )

    async def stream_outcomes(
        self, batches: AsyncIterator[Sequence[Outcome]], *, timeout_s: float | None = None
    ) -> AsyncGenerator[Reported, None]:
        """Tell outcomes in batches of up to 10000, several on their way at a time; an answer for each, in their order.

        timeout_s: of the whole stream; None = without an end. After an error, batches that were not answered must be
        told again; those that were stored are then duplicates.
        """

        async def requests() -> AsyncIterator[query_pb2.StreamOutcomesRequest]:
            async for outcomes in batches:
                yield query_pb2.StreamOutcomesRequest(outcomes=[proto.outcome_message(one) for one in outcomes])

        answers = self._connections.exchange(
            "query", "StreamOutcomes", requests(), query_pb2.StreamOutcomesResponse, timeout_s=timeout_s
        )
        try:
            async for answer in answers:
                yield proto.reported(answer.answer)
        finally:
            await answers.aclose()

    async def _experiment(
        self,
        method: str,
        request: experiment_pb2.CreateExperimentRequest
        | experiment_pb2.GetExperimentRequest
        | experiment_pb2.StopExperimentRequest
        | experiment_pb2.ResumeExperimentRequest,
        timeout_s: float | None,
        default_s: float,
    ) -> Experiment:
        return proto.experiment(
            await self._connections.unary(
                "switcher", method, request, experiment_pb2.Experiment, timeout_s=timeout_s, default_s=default_s
            )
        )


def _name(job: str, experiment: str) -> str:
    if not experiment or "/" in experiment:
        raise InvalidInput("INVALID_NAME", f"{experiment!r} is not the id of an experiment.")
    return f"{job_name(job)}/experiments/{experiment}"
