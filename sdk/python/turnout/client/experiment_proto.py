"""Between experiments and their messages."""

from __future__ import annotations

import math
from datetime import UTC
from typing import Any

from turnout import experiments as results
from turnout.client.calls import span_of, time_of
from turnout.client.values import check_text
from turnout.errors import InvalidInput
from turnout.query.v1 import query_pb2
from turnout.switcher.v1 import decision_pb2, experiment_pb2, outcome_pb2, route_pb2

_PLAN_NUMBERS = ("abort_alpha", "mismatch_alpha", "promote_beta", "margin", "units_min", "units_max")
_PLAN_TIMES = ("window", "delay", "slow")
_BANDIT_NUMBERS = ("epsilon", "floor", "step_max", "gamma", "units_min")


def plan_message(plan: results.Plan) -> experiment_pb2.Plan:
    """The plan, with what is left to the switcher left out."""
    message = experiment_pb2.Plan(
        harms=[outcome_pb2.Metric.Value(f"METRIC_{metric}") for metric in plan.harms],
        errors=[outcome_pb2.Metric.Value(f"METRIC_{metric}") for metric in plan.errors],
    )
    _put(message, plan, _PLAN_NUMBERS, _PLAN_TIMES)
    return message


def bandit_message(bandit: results.Bandit) -> experiment_pb2.Bandit:
    """The bandit, with what is left to the switcher left out."""
    message = experiment_pb2.Bandit(
        rule=experiment_pb2.Bandit.Rule.Value(bandit.rule),
        objective=experiment_pb2.Bandit.Objective.Value(bandit.objective),
    )
    _put(message, bandit, _BANDIT_NUMBERS, ("every",))
    return message


def _put(message: Any, value: object, numbers: tuple[str, ...], times: tuple[str, ...]) -> None:
    for name in numbers:
        number = getattr(value, name)
        if number == 0:
            raise InvalidInput(
                "INVALID_EXPERIMENT", f"{name} is 0, which stands for the default; give more, or leave it out for that."
            )
        if number is not None:
            setattr(message, name, number)
    for name in times:
        if (time := getattr(value, name)) is not None:
            getattr(message, name).FromTimedelta(time)


def experiment(message: experiment_pb2.Experiment) -> results.Experiment:
    """The experiment that a message holds."""
    _, job, _, name = message.name.split("/")
    return results.Experiment(
        job=job,
        experiment=name,
        state=results.ExperimentState(experiment_pb2.Experiment.State.Name(message.state))
        if message.state
        else results.ExperimentState.STARTING,
        weights={arm.version: arm.weight for arm in message.arms},
        units=results.Units(route_pb2.Units.Name(message.units).removeprefix("UNITS_")),
        salt=message.salt,
        holdout=message.holdout,
        holdout_salt=message.holdout_salt,
        overrides={one.unit: one.version for one in message.overrides},
        plan=plan(message.plan),
        bandit=_bandit(message.bandit) if message.HasField("bandit") else None,
        create_time=time_of(message, "create_time"),
        end_time=time_of(message, "end_time"),
        end_reason=message.end_reason,
        claimed_actor=message.claimed_actor,
        reason=message.reason,
        standing=_standing(message.standing) if message.HasField("standing") else None,
    )


def plan(message: experiment_pb2.Plan) -> results.Plan:
    """The plan that a message holds."""
    times: dict[str, Any] = {name: span_of(message, name) for name in _PLAN_TIMES}
    return results.Plan(
        **{name: getattr(message, name) or None for name in _PLAN_NUMBERS},
        **times,
        harms=tuple(_metric(one) for one in message.harms),
        errors=tuple(_metric(one) for one in message.errors),
    )


def _bandit(message: experiment_pb2.Bandit) -> results.Bandit:
    return results.Bandit(
        rule=results.BanditRule(experiment_pb2.Bandit.Rule.Name(message.rule)),
        objective=results.BanditObjective(experiment_pb2.Bandit.Objective.Name(message.objective)),
        **{name: getattr(message, name) or None for name in _BANDIT_NUMBERS},
        every=span_of(message, "every"),
    )


def _metric(number: outcome_pb2.Metric.ValueType) -> results.Metric:
    return results.Metric(outcome_pb2.Metric.Name(number).removeprefix("METRIC_"))


def _verdict(number: experiment_pb2.Verdict.ValueType) -> results.Verdict:
    return results.Verdict(experiment_pb2.Verdict.Name(number).removeprefix("VERDICT_"))


def _standing(message: experiment_pb2.Standing) -> results.Standing:
    return results.Standing(
        epoch=message.epoch,
        arms=tuple(_arm(one) for one in message.arms),
        candidates=tuple(_candidate(one) for one in message.candidates),
        mismatch=_guardrail(message.mismatch),
        verdict=_verdict(message.verdict),
        sentence=message.sentence,
        waiting_for=message.waiting_for,
        observations_lost=message.observations_lost,
        reads_left_out=message.reads_left_out,
    )


def _arm(message: experiment_pb2.ArmStanding) -> results.ArmStanding:
    return results.ArmStanding(
        version=message.version,
        weight=message.weight,
        wanted=message.wanted if message.HasField("wanted") else None,
        units=message.units,
        windows=message.windows,
        error_rate=_estimate(message, "error_rate"),
        conversion_rate=_estimate(message, "conversion_rate"),
        mean_reward=_estimate(message, "mean_reward"),
    )


def _estimate(message: experiment_pb2.ArmStanding, field: str) -> results.ArmEstimate | None:
    if not message.HasField(field):  # type: ignore[arg-type]  # one of the three names
        return None
    found: experiment_pb2.Estimate = getattr(message, field)
    return results.ArmEstimate(found.value, found.low, found.high)


def _candidate(message: experiment_pb2.CandidateStanding) -> results.CandidateStanding:
    return results.CandidateStanding(
        version=message.version,
        verdict=_verdict(message.verdict),
        sentence=message.sentence,
        harms=tuple(_guardrail(one) for one in message.harms),
        no_worse=_guardrail(message.no_worse),
        present=message.present,
    )


def _guardrail(message: experiment_pb2.Guardrail) -> results.Guardrail:
    return results.Guardrail(message.name, message.e_value, message.threshold, tuple(message.counts))


def decision(message: decision_pb2.Decision) -> results.Decision:
    """The decision that a message holds."""
    _, job, _, name, _, number = message.name.split("/")
    return results.Decision(
        job=job,
        experiment=name,
        decision=int(number),
        create_time=message.create_time.ToDatetime(tzinfo=UTC),
        epoch=message.epoch,
        action=message.action,
        verdict=_verdict(message.verdict),
        sentence=message.sentence,
        actor=message.actor,
        reason=message.reason,
        carried_out=message.carried_out,
        record=message.record,
    )


def _reward(given: object) -> float:
    if isinstance(given, bool) or not isinstance(given, int | float):
        raise InvalidInput(
            "INVALID_OUTCOME", f"The reward {given!r} is a {type(given).__name__}; give an int or a float."
        )
    try:
        return float(given)
    except OverflowError:
        return math.inf  # refused at its place in the report


def outcome_message(outcome: results.Outcome) -> query_pb2.Outcome:
    """An outcome as it is reported. InvalidInput for what a front sees itself, and for a reward that is no number."""
    message = query_pb2.Outcome(exposure_id=check_text("INVALID_OUTCOME", outcome.exposure_id))
    match outcome.metric:
        case results.Metric.ERROR:
            message.error.SetInParent()
        case results.Metric.CONVERSION:
            message.conversion.SetInParent()
        case results.Metric.REWARD:
            message.reward.value = _reward(outcome.reward)
            message.reward.outcome_id = check_text("INVALID_OUTCOME", outcome.outcome_id)
            message.reward.SetInParent()
        case _:
            raise InvalidInput(
                "INVALID_OUTCOME", f"{outcome.metric} is seen by the fronts; report ERROR, CONVERSION or REWARD."
            )
    return message


def reported(message: query_pb2.ReportOutcomesResponse) -> results.Reported:
    """The answer to a report."""
    return results.Reported(
        stored=message.stored,
        duplicates=message.duplicates,
        not_counted=message.not_counted,
        rejected={one.index: one.message for one in message.rejected},
    )
