"""A plan of a rollout from a template or a file, and options."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from turnout.cli.exits import CommandError, ExitCode, Reason, usage
from turnout.cli.suggestions import did_you_mean
from turnout.contract import Contract
from turnout.experiments import Units
from turnout.rollouts import TEMPLATES, RolloutPlan, RolloutStep, StepKind

DEFAULT = "normal"
TEMPLATE_NAMES = f"{', '.join(TEMPLATES[:-1])} or {TEMPLATES[-1]}"


def plan_of(name: str | None, file: Path | None, contract: Contract | None, units: Units | None) -> RolloutPlan:
    """The plan. contract: of the steps that compare; units: instead of the plan's own."""
    if name is not None and file is not None:
        raise usage("Give either --template or --plan; a plan may begin with `template: NAME`.")
    plan = template(name or DEFAULT) if file is None else _read(file)
    if units is not None:
        plan = replace(plan, units=units)
    return plan if contract is None else replace(plan, steps=_judged(plan.steps, contract))


def template(name: str) -> RolloutPlan:
    """The template of this name."""
    from turnout.rollout_file import parse  # imports YAML, which no other command need wait for

    return parse(template_text(name))


def template_text(name: str) -> str:
    """The template of this name, as a file."""
    if name not in TEMPLATES:
        raise usage(
            f"There is no template {name!r}{did_you_mean(name, TEMPLATES)} Templates are {', '.join(TEMPLATES)}."
        )
    from turnout import rollout_file

    return rollout_file.template_text(name)


def unjudged(plan: RolloutPlan) -> bool:
    """Whether it compares without a contract, and so has to wait for a person."""
    return any(step.kind is StepKind.COMPARE and step.contract is None for step in plan.steps)


def _read(file: Path) -> RolloutPlan:
    from turnout.rollout_file import PlanFileError, parse  # imports YAML, which no other command need wait for

    try:
        return parse(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"{file} cannot be read: {error}.") from None
    except PlanFileError as error:
        raise CommandError(
            ExitCode.USAGE,
            "INVALID_PLAN",
            f"{file} is no plan of a rollout.",
            next_step="docs/rollouts.md has all that a plan may say; `turnout rollout plan` writes one to edit.",
            reasons=tuple(Reason(f"line {one.line}", one.where, one.text) for one in error.faults),
        ) from None


def _judged(steps: tuple[RolloutStep, ...], contract: Contract) -> tuple[RolloutStep, ...]:
    comparing = [step for step in steps if step.kind is StepKind.COMPARE]
    if not comparing:
        raise usage("The plan compares nothing: leave out what may differ, or add the step `compare`.")
    if any(step.contract is not None for step in comparing):
        raise usage(
            "The plan says already what may differ: leave out the options that say it, or the plan's `contract`."
        )
    return tuple(replace(step, contract=contract) if step.kind is StepKind.COMPARE else step for step in steps)
