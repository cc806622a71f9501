"""Between rollouts and their messages."""

from __future__ import annotations

from datetime import UTC

from turnout import contract_proto
from turnout import rollouts as results
from turnout.client.calls import duration_of, span_of, time_of
from turnout.client.experiment_proto import plan as guardrails
from turnout.client.experiment_proto import plan_message as guardrails_message
from turnout.experiments import Units
from turnout.switcher.v1 import decision_pb2, rollout_pb2, route_pb2


def plan_message(value: results.RolloutPlan) -> rollout_pb2.RolloutPlan:
    """The plan, with what is left to the switcher left out."""
    return rollout_pb2.RolloutPlan(
        steps=[_step_message(step) for step in value.steps],
        units=route_pb2.UNITS_UNSPECIFIED if value.units is None else route_pb2.Units.Value(f"UNITS_{value.units}"),
        guardrails=guardrails_message(value.guardrails),
    )


def _step_message(step: results.RolloutStep) -> rollout_pb2.RolloutStep:
    return rollout_pb2.RolloutStep(
        kind=rollout_pb2.RolloutStep.Kind.Value(step.kind),
        share=step.share,
        for_time=duration_of(step.at_least),
        within_time=duration_of(step.within),
        no_worse=step.no_worse,
        contract=contract_proto.to_proto(step.contract),
    )


def rollout(message: rollout_pb2.Rollout) -> results.Rollout:
    """The rollout that a message holds. One that was only checked has no state yet, and is PENDING."""
    _, job, _, name = message.name.split("/")
    return results.Rollout(
        job=job,
        rollout=name,
        candidate=message.version,
        control=message.active_version,
        plan=plan(message.plan),
        state=results.RolloutState(rollout_pb2.Rollout.State.Name(message.state or rollout_pb2.Rollout.PENDING)),
        step=message.step,
        phase=results.RolloutPhase(rollout_pb2.Rollout.Phase.Name(message.phase)) if message.phase else None,
        hold=results.RolloutHold(rollout_pb2.Rollout.Hold.Name(message.hold)) if message.hold else None,
        sentence=message.sentence,
        waiting_for=message.waiting_for,
        frozen=message.frozen,
        weight=message.weight,
        watched=message.watched_time.ToTimedelta(),
        findings=tuple(_finding(one) for one in message.findings),
        experiment=message.experiment.rpartition("/")[2],
        create_time=time_of(message, "create_time"),
        update_time=time_of(message, "update_time"),
        end_time=time_of(message, "end_time"),
        claimed_actor=message.claimed_actor,
        reason=message.reason,
        previews=tuple(_preview(one) for one in message.previews),
        least=span_of(message, "least_time"),
        skipped=tuple(message.skipped_steps),
        expectation=message.expectation,
    )


def plan(message: rollout_pb2.RolloutPlan) -> results.RolloutPlan:
    """The plan that a message holds."""
    return results.RolloutPlan(
        steps=tuple(_step(one) for one in message.steps),
        guardrails=guardrails(message.guardrails),
        units=Units(route_pb2.Units.Name(message.units).removeprefix("UNITS_")) if message.units else None,
    )


def _step(message: rollout_pb2.RolloutStep) -> results.RolloutStep:
    return results.RolloutStep(
        kind=results.StepKind(rollout_pb2.RolloutStep.Kind.Name(message.kind)),
        share=message.share,
        at_least=span_of(message, "for_time") or None,
        within=span_of(message, "within_time") or None,
        no_worse=message.no_worse,
        contract=contract_proto.from_proto(message.contract) if message.HasField("contract") else None,
    )


def _finding(message: rollout_pb2.RolloutFinding) -> results.RolloutFinding:
    verdict = results.GateVerdict(rollout_pb2.RolloutFinding.Verdict.Name(message.verdict))
    return results.RolloutFinding(message.gate, verdict, message.sentence)


def _preview(message: rollout_pb2.RolloutPreview) -> results.RolloutPreview:
    return results.RolloutPreview(
        step=_step(message.step),
        does=message.does,
        gates=tuple(message.gates),
        least=span_of(message, "least_time"),
        units_needed=message.units_needed if message.HasField("units_needed") else None,
        units_to_find=message.units_to_find if message.HasField("units_to_find") else None,
        units_expected=message.units_expected if message.HasField("units_expected") else None,
        warnings=tuple(message.warnings),
    )


def decision(message: decision_pb2.Decision) -> results.RolloutDecision:
    """The decision on a rollout that a message holds."""
    _, job, _, name, _, number = message.name.split("/")
    return results.RolloutDecision(
        job=job,
        rollout=name,
        decision=int(number),
        create_time=message.create_time.ToDatetime(tzinfo=UTC),
        action=message.action,
        state=results.RolloutState(rollout_pb2.Rollout.State.Name(message.state)),
        step=message.step,
        sentence=message.sentence,
        actor=message.actor,
        reason=message.reason,
        carried_out=message.carried_out,
        record=message.record,
    )
