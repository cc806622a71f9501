"""Between the contract's messages and rollouts."""

from datetime import timedelta
from typing import Any, Final

import msgspec
from google.protobuf.duration_pb2 import Duration

from services.switcher.rollouts.plan import Plan, Step, StepKind, complaint, refuse
from services.switcher.rollouts.preview import Foreseen, Preview, least_s
from services.switcher.rollouts.rollout import Rollout, State
from services.switcher.rollouts.store import DecisionRow, Stored
from services.switcher.rollouts.templates import LEVELS, TEMPLATES, TIMES
from services.switcher.rollouts.verdicts import Finding
from turnout import contract_proto
from turnout.contract import ContractError, decode, encode
from turnout.errors import Violation
from turnout.kind_values import seconds_of, timestamp
from turnout.routing import Units
from turnout.switcher.v1 import decision_pb2, experiment_pb2, rollout_pb2, route_pb2

_UNITS: Final = {route_pb2.UNITS_KEY: Units.KEY, route_pb2.UNITS_CALLER: Units.CALLER}
UNITS_PER_DAY_MAX: Final = 1e12
_KINDS: Final = {rollout_pb2.RolloutStep.Kind.Value(kind.name): kind for kind in StepKind}


# --- requests -------------------------------------------------------------------------------------------------------


def plan_of(message: rollout_pb2.RolloutPlan) -> Plan:
    """What is asked for, with its template and defaults. InvalidInput (INVALID_PLAN) naming all that makes no sense.

    Whether the plan itself is one, `plan.checked` says.
    """
    complaints: list[Violation] = []
    plan = Plan(())
    if message.template in TEMPLATES:
        plan = TEMPLATES[message.template]
    elif message.template:
        told = f"There is no template {message.template!r}; there are {', '.join(TEMPLATES)}."
        complaints.append(complaint("plan.template", told))
    elif not message.steps:
        complaints.append(complaint("plan", f"Give steps, or a template: {', '.join(TEMPLATES)}."))
    if message.guardrails.harms or message.guardrails.errors:
        told = "The harms and errors of a rollout are always the defaults; leave them out."
        complaints.append(complaint("plan.guardrails", told))
    if message.steps:
        steps = [_step_of(place, step, complaints) for place, step in enumerate(message.steps)]
        plan = msgspec.structs.replace(plan, steps=tuple(step for step in steps if step is not None))
    refuse(complaints)
    return _with_guardrails(plan, message)


def _step_of(place: int, message: rollout_pb2.RolloutStep, complaints: list[Violation]) -> Step | None:
    kind, field = _KINDS.get(message.kind), f"plan.steps[{place}]"
    if kind is None:
        complaints.append(complaint(field, f"Step {place + 1} does not say what it does (kind)."))
        return None
    contract = ""
    if message.HasField("contract"):
        try:
            contract = encode(contract_proto.from_proto(message.contract))
        except ContractError as error:
            told = f"Step {place + 1}, {kind.value}: the contract makes no sense: {error}."
            complaints.append(complaint(f"{field}.contract", told))
    return Step(
        kind,
        message.share,
        for_s=seconds_of(message.for_time),
        within_s=seconds_of(message.within_time),
        no_worse=message.no_worse,
        contract=contract,
    )


def _with_guardrails(plan: Plan, message: rollout_pb2.RolloutPlan) -> Plan:
    given = message.guardrails
    levels = {name: getattr(given, name) for name in LEVELS if getattr(given, name)}
    times = {f"{name}_s": seconds_of(getattr(given, name)) for name in TIMES if given.HasField(name)}
    units = _UNITS.get(message.units, plan.units)
    return msgspec.structs.replace(plan, judging=msgspec.structs.replace(plan.judging, **levels), units=units, **times)


def expected_of(request: rollout_pb2.CreateRolloutRequest) -> tuple[float | None, float | None]:
    """Units a day, and the part of them that errs, as the caller expects them; None = not said. InvalidInput
    (INVALID_PLAN) for what neither can be."""
    units = request.expected_units_per_day if request.HasField("expected_units_per_day") else None
    risk = request.expected_risk if request.HasField("expected_risk") else None
    complaints = []
    if units is not None and not 0.0 <= units <= UNITS_PER_DAY_MAX:
        told = f"{units:g} units a day cannot be expected; give 0 to {UNITS_PER_DAY_MAX:g}."
        complaints.append(Violation("INVALID_PLAN", "expected_units_per_day", told))
    if risk is not None and not 0.0 <= risk <= 1.0:
        told = f"The part of the units that errs cannot be {risk:g}; give a part of one, 0 to 1."
        complaints.append(Violation("INVALID_PLAN", "expected_risk", told))
    refuse(complaints)
    return units, risk


# --- answers --------------------------------------------------------------------------------------------------------


def rollout_message(stored: Stored) -> rollout_pb2.Rollout:
    """A rollout."""
    message = _rollout_message(stored.name, stored.rollout)
    message.experiment = stored.experiment
    message.findings.extend(_finding_message(one) for one in stored.findings)
    message.create_time.CopyFrom(timestamp(stored.create_time))
    message.claimed_actor, message.reason = stored.claimed_actor, stored.reason
    if stored.end_time is not None:
        message.end_time.CopyFrom(timestamp(stored.end_time))
    return message


def _rollout_message(name: str, rollout: Rollout) -> rollout_pb2.Rollout:
    return rollout_pb2.Rollout(
        name=name,
        version=rollout.candidate,
        plan=plan_message(rollout.plan),
        active_version=rollout.control,
        state=rollout_pb2.Rollout.State.Value(rollout.state.value),
        step=rollout.step + 1,
        phase=rollout_pb2.Rollout.Phase.Value(rollout.phase.value),
        hold=rollout_pb2.Rollout.Hold.Value(rollout.hold.value)
        if rollout.hold
        else rollout_pb2.Rollout.HOLD_UNSPECIFIED,
        sentence=rollout.why,
        waiting_for=rollout.waits_for,
        frozen=bool(rollout.frozen),
        weight=rollout.exposed,
        skipped_steps=[place + 1 for place in rollout.skipped],
        watched_time=_duration(rollout.watched_s),
        update_time=timestamp(rollout.since),
    )


def add_foreseen(message: rollout_pb2.Rollout, foreseen: Foreseen) -> rollout_pb2.Rollout:
    """The message, with what each step would take."""
    message.previews.extend(_preview_message(one) for one in foreseen.previews)
    message.expectation = foreseen.basis
    known = least_s(foreseen.previews)
    if known is not None:
        message.least_time.CopyFrom(_duration(known))
    return message


def checked_message(name: str, rollout: Rollout) -> rollout_pb2.Rollout:
    """A rollout that was only checked."""
    message = _rollout_message(name, rollout)
    message.ClearField("state")
    message.ClearField("phase")
    message.ClearField("update_time")
    return message


def plan_message(plan: Plan) -> rollout_pb2.RolloutPlan:
    """A plan with everything said."""
    judging: dict[str, Any] = {name: getattr(plan.judging, name) for name in LEVELS}
    times = {name: getattr(plan, f"{name}_s") for name in TIMES}
    judging.update({name: _duration(seconds) for name, seconds in times.items() if seconds})
    return rollout_pb2.RolloutPlan(
        steps=[step_message(step) for step in plan.steps],
        units=route_pb2.Units.Value(f"UNITS_{plan.units.value}"),
        guardrails=experiment_pb2.Plan(**judging),
    )


def step_message(step: Step) -> rollout_pb2.RolloutStep:
    """A step of a plan."""
    return rollout_pb2.RolloutStep(
        kind=rollout_pb2.RolloutStep.Kind.Value(step.kind.name),
        share=step.share,
        for_time=_duration(step.for_s) if step.for_s else None,
        within_time=_duration(step.within_s) if step.within_s else None,
        no_worse=step.no_worse,
        contract=contract_proto.to_proto(decode(step.contract)) if step.contract else None,
    )


def _preview_message(one: Preview) -> rollout_pb2.RolloutPreview:
    told: dict[str, Any] = {name: getattr(one, name) for name in ("units_needed", "units_to_find", "units_expected")}
    return rollout_pb2.RolloutPreview(
        step=step_message(one.step),
        does=one.does,
        gates=[gate.value for gate in one.gates],
        least_time=None if one.least_s is None else _duration(one.least_s),
        warnings=one.warnings,
        **{name: value for name, value in told.items() if value is not None},
    )


def _finding_message(one: Finding) -> rollout_pb2.RolloutFinding:
    verdict = rollout_pb2.RolloutFinding.Verdict.Value(one.verdict.value)
    return rollout_pb2.RolloutFinding(gate=one.gate.value, verdict=verdict, sentence=one.sentence)


def decision_message(row: DecisionRow, *, whole: bool) -> decision_pb2.Decision:
    """A decision; its record only where it is asked for as a whole."""
    return decision_pb2.Decision(
        name=f"{row.name}/decisions/{row.decision}",
        create_time=timestamp(row.create_time),
        action=row.action,
        sentence=row.sentence,
        actor=row.actor,
        reason=row.reason,
        carried_out=True,
        record=row.record.decode() if whole else "",
        state=rollout_pb2.Rollout.State.Value(State(row.state).value),
        step=row.step + 1,
    )


def _duration(seconds: float) -> Duration:
    duration = Duration()
    duration.FromTimedelta(timedelta(seconds=seconds))
    return duration
