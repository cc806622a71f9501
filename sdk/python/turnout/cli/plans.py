"""A plan of a rollout from a template or a file, and options."""

from __future__ import annotations

import re
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from turnout.cli.exits import CommandError, ExitCode, Reason, usage
from turnout.cli.suggestions import did_you_mean
from turnout.contract import Contract
from turnout.errors import InvalidInput, Violation
from turnout.experiments import Units
from turnout.rollouts import TEMPLATES, RolloutPlan, RolloutStep, StepKind

if TYPE_CHECKING:
    from turnout.rollout_file import PlanFile

_FIELD = "rollout.plan."
DEFAULT = "normal"
TEMPLATE_NAMES = f"{', '.join(TEMPLATES[:-1])} or {TEMPLATES[-1]}"


@dataclass(frozen=True, slots=True)
class Wanted:
    """A plan, and the file that says it; None where a template does. lines: of its fields in the file."""

    plan: RolloutPlan
    file: Path | None
    source: PlanFile | None

    def refused(self, error: InvalidInput) -> CommandError:
        """What the switcher says against it, by the lines of the file."""
        reasons = [self._reason(one) for one in error.violations if one.subject.startswith(_FIELD)]
        if self.file is None or not reasons:
            return CommandError(ExitCode.USAGE, error.reason, error.message)
        return _no_plan(self.file, tuple(reason for _, reason in sorted(reasons, key=lambda one: one[0])))

    def _reason(self, one: Violation) -> tuple[int, Reason]:
        """Its line, 0 = none, and what is said of it."""
        field = one.subject.removeprefix(_FIELD)
        line = (self.source.line(field) if self.source is not None else None) or 0
        return line, Reason(f"line {line}" if line else "the plan", _where(field), one.description)


def plan_of(name: str | None, file: Path | None, contract: Contract | None, units: Units | None) -> Wanted:
    """The plan. contract: of the steps that compare; units: instead of the plan's own."""
    if name is not None and file is not None:
        raise usage("Give either --template or --plan; a plan may begin with `template: NAME`.")
    source = None if file is None else _read(file)
    plan = template(name or DEFAULT) if source is None else source.plan
    if units is not None:
        plan = replace(plan, units=units)
    if contract is not None:
        plan = replace(plan, steps=_judged(plan.steps, contract))
    return Wanted(plan, file, source)


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


def _read(file: Path) -> PlanFile:
    from turnout.rollout_file import PlanFileError, read  # imports YAML, which no other command need wait for

    try:
        return read(file.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError) as error:
        raise usage(f"{file} cannot be read: {error}.") from None
    except PlanFileError as error:
        reasons = tuple(Reason(f"line {one.line}", one.where, one.text) for one in error.faults)
        raise _no_plan(file, reasons) from None


def _no_plan(file: Path, reasons: tuple[Reason, ...]) -> CommandError:
    return CommandError(
        ExitCode.USAGE,
        "INVALID_PLAN",
        f"{file} is no plan of a rollout.",
        next_step="docs/rollouts.md has all that a plan may say; `turnout rollout plan` writes one to edit.",
        reasons=reasons,
    )


def _where(field: str) -> str:
    """`steps[2].contract` -> `step 3`, `guardrails.abort_alpha` -> `guardrails, abort-alpha`."""
    if found := re.match(r"steps\[(\d+)\]", field):
        return f"step {int(found[1]) + 1}"
    return field.replace(".", ", ").replace("_", "-")


def _judged(steps: tuple[RolloutStep, ...], contract: Contract) -> tuple[RolloutStep, ...]:
    comparing = [step for step in steps if step.kind is StepKind.COMPARE]
    if not comparing:
        raise usage("The plan compares nothing: leave out what may differ, or add the step `compare`.")
    if any(step.contract is not None for step in comparing):
        raise usage(
            "The plan says already what may differ: leave out the options that say it, or the plan's `contract`."
        )
    return tuple(replace(step, contract=contract) if step.kind is StepKind.COMPARE else step for step in steps)
