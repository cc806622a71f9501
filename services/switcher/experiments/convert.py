"""Between the contract's messages and experiments."""

import hashlib
import math
from collections.abc import Iterable, Sequence
from datetime import timedelta
from typing import Any

import msgspec
from google.protobuf.duration_pb2 import Duration

from core.domain.text import ID_MAX, TEXT_MAX, text
from services.switcher.experiments import estimates
from services.switcher.experiments.conclude import Action, Conclusion, Situation, inputs_of
from services.switcher.experiments.ledger import Outcome, Result
from services.switcher.experiments.record import decode, in_words
from services.switcher.experiments.rows import DecisionRow, ExperimentRecord
from services.switcher.experiments.situations import first_window
from services.switcher.experiments.spec import (
    CLIENTS,
    ERRORS,
    HARMS,
    REWARD_MAX,
    Arm,
    Bandit,
    Metric,
    Objective,
    Rule,
    Spec,
    checked,
    default_harms,
    default_holdout_salt,
)
from services.switcher.experiments.store import Counted
from services.switcher.records import CommandKind, Intent
from services.switcher.statistics.decision import Inputs, Judgement, Plan, Verdict, harm_alpha, promote_beta
from turnout.errors import InvalidInput
from turnout.exposure import LEFT_OUT_MAX, Exposure, verified
from turnout.kind_values import seconds_of, timestamp
from turnout.routing import WHOLE, Units
from turnout.switcher.v1 import decision_pb2, experiment_pb2, outcome_pb2, route_pb2

BATCH_MAX = 10_000
_PLAN = Plan()
_BANDIT = Bandit()
_SPEC = Spec((), Units.CALLER)
_UNITS = {route_pb2.UNITS_KEY: Units.KEY, route_pb2.UNITS_CALLER: Units.CALLER}
_METRICS = {getattr(outcome_pb2, f"METRIC_{metric.value}"): metric for metric in Metric}


# --- requests -------------------------------------------------------------------------------------------------------


def intent_of(kind: CommandKind, request: Any) -> Intent:
    """Who wants what; InvalidInput for a text that cannot be kept."""
    for field, length_max in (("request_id", ID_MAX), ("claimed_actor", ID_MAX), ("reason", TEXT_MAX)):
        text(getattr(request, field), field, length_max)
    content = kind.value.encode() + request.SerializeToString(deterministic=True)
    return Intent(kind, request.claimed_actor, request.reason, request.request_id, hashlib.sha256(content).digest())


def spec_of(job: str, message: experiment_pb2.Experiment) -> Spec:
    """What is asked for, with its defaults. InvalidInput (INVALID_EXPERIMENT)."""
    if message.units not in _UNITS:
        raise InvalidInput(
            "INVALID_EXPERIMENT", "Say what the experiment counts by: the caller's unit or the row's key."
        )
    plan = message.plan
    salt = text(message.holdout_salt, "holdout_salt", ID_MAX)
    bandit = _bandit_of(message.bandit) if message.HasField("bandit") else None
    arms = [Arm(arm.version, arm.weight) for arm in message.arms]
    return checked(
        Spec(
            arms=(*arms[:1], *sorted(arms[1:], key=lambda arm: arm.version)),
            units=_UNITS[message.units],
            plan=Plan(
                abort_alpha=plan.abort_alpha or _PLAN.abort_alpha,
                mismatch_alpha=plan.mismatch_alpha or _PLAN.mismatch_alpha,
                promote_beta=plan.promote_beta or _PLAN.promote_beta,
                margin=plan.margin or _PLAN.margin,
                units_min=plan.units_min or _PLAN.units_min,
                units_max=plan.units_max or _PLAN.units_max,
            ),
            harms=_metrics_of(plan.harms, HARMS, "harms") or default_harms(bandit),
            errors=_metrics_of(plan.errors, ERRORS, "errors of a window") or _SPEC.errors,
            window_s=_seconds(plan, "window", _SPEC.window_s),
            delay_s=_seconds(plan, "delay", _SPEC.delay_s),
            slow_s=_seconds(plan, "slow", 0.0),
            salt=text(message.salt, "salt", ID_MAX),
            holdout=message.holdout,
            holdout_salt=(salt or default_holdout_salt(job)) if message.holdout else "",
            overrides=tuple(sorted((one.unit, one.version) for one in message.overrides)),
            bandit=bandit,
        )
    )


def _metrics_of(numbers: Iterable[int], allowed: Sequence[Metric], what: str) -> tuple[Metric, ...]:
    found = {_METRICS.get(number) for number in numbers}
    if not found <= set(allowed):
        raise InvalidInput("INVALID_EXPERIMENT", f"Only {', '.join(one.value for one in allowed)} are {what}.")
    return tuple(metric for metric in allowed if metric in found)


def _seconds(message: Any, field: str, default: float) -> float:
    return seconds_of(getattr(message, field)) if message.HasField(field) else default


def _bandit_of(message: experiment_pb2.Bandit) -> Bandit:
    rule = experiment_pb2.Bandit.Rule.Name(message.rule) if message.rule else _BANDIT.rule.value
    objective = (
        experiment_pb2.Bandit.Objective.Name(message.objective) if message.objective else _BANDIT.objective.value
    )
    return Bandit(
        rule=Rule(rule),
        objective=Objective(objective),
        epsilon=message.epsilon or _BANDIT.epsilon,
        floor=message.floor or _BANDIT.floor,
        step_max=message.step_max or _BANDIT.step_max,
        gamma=message.gamma or _BANDIT.gamma,
        every_s=_seconds(message, "every", _BANDIT.every_s),
        units_min=message.units_min or _BANDIT.units_min,
    )


def observations_of(messages: Sequence[outcome_pb2.Observation]) -> tuple[list[Exposure], list[Outcome]]:
    """What a front saw: exposures, and what became of them."""
    exposures, outcomes = [], []
    for one in messages:
        exposure = Exposure(one.experiment, one.epoch, one.version, 0, one.time_s, one.unit)
        exposures.append(exposure)
        if one.metric:
            outcomes.append(Outcome(exposure, _METRICS[one.metric]))
    return exposures, outcomes


def outcome_of(keys: dict[int, bytes], message: outcome_pb2.ReportedOutcome) -> Outcome:
    """What a client said. InvalidInput where the exposure is none, or the outcome is none that a client may report."""
    metric = _METRICS.get(message.metric)
    # Written so that what is no number is refused, too.
    if metric not in CLIENTS or not -REWARD_MAX <= message.reward <= REWARD_MAX:
        raise InvalidInput(
            "INVALID_OUTCOME",
            f"A client reports an error, a conversion, or a reward from {-REWARD_MAX:,.0f} to {REWARD_MAX:,.0f}.",
        )
    outcome_id = text(message.outcome_id, "outcome_id", ID_MAX)
    exposure = verified(keys, message.exposure_id)
    return Outcome(exposure, metric, message.reward if metric is Metric.REWARD else 0.0, outcome_id)


def refuse_large(request: outcome_pb2.RecordOutcomesRequest) -> None:
    """InvalidInput for more than one call may carry."""
    for name in ("outcomes", "observations"):
        if len(getattr(request, name)) > BATCH_MAX:
            raise InvalidInput(
                "TOO_MANY_OUTCOMES", f"At most {BATCH_MAX} {name} fit in one call: send them in several."
            )


def left_out_of(request: outcome_pb2.RecordOutcomesRequest) -> dict[int, int]:
    """The reads that experiments do not count because of their unit. InvalidInput for more than are kept."""
    left_out = dict(request.reads_left_out)
    if len(left_out) > LEFT_OUT_MAX or any(reads < 0 for reads in left_out.values()):
        raise InvalidInput(
            "INVALID_OUTCOME", f"Reads that are left out are counted for {LEFT_OUT_MAX} experiments at most, from 0 on."
        )
    return left_out


def result_value(result: Result) -> outcome_pb2.RecordOutcomesResponse.Result.ValueType:
    """A result as the contract names it."""
    return outcome_pb2.RecordOutcomesResponse.Result.Value(result.value)


# --- answers --------------------------------------------------------------------------------------------------------


def experiment_message(record: ExperimentRecord) -> experiment_pb2.Experiment:
    """An experiment without its standing."""
    spec = record.spec
    message = experiment_pb2.Experiment(
        name=record.name,
        arms=[route_pb2.Arm(version=arm.version, weight=arm.weight) for arm in spec.arms],
        units=route_pb2.Units.Value(f"UNITS_{spec.units.value}"),
        salt=spec.salt,
        holdout=spec.holdout,
        holdout_salt=spec.holdout_salt,
        overrides=[route_pb2.UnitOverride(unit=unit, version=version) for unit, version in spec.overrides],
        plan=_plan_message(spec),
        state=experiment_pb2.Experiment.State.Value(record.state.value),
        create_time=timestamp(record.create_time),
        end_time=None if record.end_time is None else timestamp(record.end_time),
        claimed_actor=record.claimed_actor,
        reason=record.reason,
        end_reason=record.end_reason,
    )
    if spec.bandit is not None:
        message.bandit.CopyFrom(_bandit_message(spec.bandit))
    return message


def _plan_message(spec: Spec) -> experiment_pb2.Plan:
    plan = spec.plan
    return experiment_pb2.Plan(
        abort_alpha=plan.abort_alpha,
        mismatch_alpha=plan.mismatch_alpha,
        promote_beta=plan.promote_beta,
        margin=plan.margin,
        units_min=plan.units_min,
        units_max=plan.units_max,
        window=_duration(spec.window_s),
        delay=_duration(spec.delay_s),
        slow=_duration(spec.slow_s) if spec.slow_s else None,
        harms=[getattr(outcome_pb2, f"METRIC_{metric.value}") for metric in spec.harms],
        errors=[getattr(outcome_pb2, f"METRIC_{metric.value}") for metric in spec.errors],
    )


def _bandit_message(bandit: Bandit) -> experiment_pb2.Bandit:
    return experiment_pb2.Bandit(
        rule=experiment_pb2.Bandit.Rule.Value(bandit.rule.value),
        objective=experiment_pb2.Bandit.Objective.Value(bandit.objective.value),
        epsilon=bandit.epsilon,
        floor=bandit.floor,
        step_max=bandit.step_max,
        gamma=bandit.gamma,
        every=_duration(bandit.every_s),
        units_min=bandit.units_min,
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration


def standing_message(situation: Situation, conclusion: Conclusion, counted: Counted) -> experiment_pb2.Standing:
    """What was counted and what follows."""
    inputs, decision = inputs_of(situation), conclusion.decision
    mismatch = math.inf if decision.log_e_mismatch is None else _e_value(decision.log_e_mismatch)
    return experiment_pb2.Standing(
        epoch=situation.route.epoch,
        arms=[_arm_message(situation, conclusion, place) for place in range(len(situation.spec.arms))],
        candidates=[_candidate_message(situation, inputs, place, one) for place, one in enumerate(decision.judgements)],
        mismatch=experiment_pb2.Guardrail(
            name="MISMATCH", e_value=mismatch, threshold=1 / situation.spec.plan.mismatch_alpha
        ),
        verdict=_verdict(decision.verdict),
        sentence=conclusion.sentence + first_window(counted, conclusion),
        waiting_for=conclusion.waiting_for,
        observations_lost=counted.lost,
        reads_left_out=counted.left_out,
    )


def _arm_message(situation: Situation, conclusion: Conclusion, place: int) -> experiment_pb2.ArmStanding:
    epochs = situation.epochs
    tallies = [arm for one in epochs for arm in one.arms]
    converted, rewarded = any(arm.conversions for arm in tallies), any(arm.squares for arm in tallies)
    return experiment_pb2.ArmStanding(
        version=situation.spec.arms[place].version,
        weight=situation.route.weights[place],
        wanted=round(conclusion.wanted[place] * WHOLE) if conclusion.wanted else None,
        units=sum(one.arms[place].units for one in epochs),
        windows=sum(one.arms[place].closed for one in epochs),
        error_rate=_estimate(estimates.rate(epochs, place, lambda arm: arm.errors)),
        conversion_rate=_estimate(estimates.rate(epochs, place, lambda arm: arm.conversions)) if converted else None,
        mean_reward=_estimate(estimates.mean(epochs, place)) if rewarded else None,
    )


def _estimate(found: estimates.Estimate | None) -> experiment_pb2.Estimate | None:
    return None if found is None else experiment_pb2.Estimate(value=found.value, low=found.low, high=found.high)


def _candidate_message(
    situation: Situation, inputs: Inputs, place: int, judged: Judgement
) -> experiment_pb2.CandidateStanding:
    candidate = inputs.candidates[place]
    threshold = 1 / harm_alpha(inputs, candidate)
    return experiment_pb2.CandidateStanding(
        version=judged.version,
        verdict=_verdict(judged.verdict),
        sentence=judged.sentence,
        harms=[
            experiment_pb2.Guardrail(
                name=harm.metric,
                e_value=_e_value(log_e),
                threshold=threshold,
                counts=[sum(one.active for one in harm.firsts), sum(one.candidate for one in harm.firsts)],
            )
            for harm, log_e in zip(candidate.harms, judged.log_e_harms, strict=True)
        ],
        no_worse=experiment_pb2.Guardrail(
            name="NO_WORSE", e_value=_e_value(judged.log_e_no_worse), threshold=1 / promote_beta(inputs)
        ),
        present=judged.version not in situation.gone,
    )


def _e_value(log_e: float) -> float:
    return math.exp(min(log_e, 700.0))


def _verdict(verdict: Verdict) -> experiment_pb2.Verdict.ValueType:
    return experiment_pb2.Verdict.Value(f"VERDICT_{verdict.value}")


def decision_message(row: DecisionRow, *, whole: bool) -> decision_pb2.Decision:
    """A decision; its record only where it is asked for as a whole."""
    return decision_pb2.Decision(
        name=f"jobs/{row.job}/experiments/{row.experiment}/decisions/{row.decision}",
        create_time=timestamp(row.create_time),
        epoch=row.epoch,
        action=row.action,
        verdict=_verdict(Verdict(row.verdict)),
        sentence=_told(row),
        actor=row.actor,
        reason=row.reason,
        carried_out=row.carried_out,
        record=row.record.decode() if whole else "",
    )


def _told(row: DecisionRow) -> str:
    """Why it was decided. What other releases kept, and this one cannot read, is told in their own words."""
    if row.action != Action.ASKED.value:
        return row.sentence
    try:
        return in_words(decode(row.record))
    except msgspec.ValidationError:
        return row.sentence
