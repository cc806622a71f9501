"""Plans to begin with, as the values of `plan`; what they are, `turnout.rollout_file` has. Pure."""

from collections.abc import Mapping
from datetime import timedelta
from types import MappingProxyType
from typing import Any, Final

from services.switcher.rollouts.plan import Plan, Step, StepKind
from services.switcher.statistics.decision import Plan as Judging
from turnout import rollout_file, rollouts
from turnout.routing import Units

LEVELS: Final = ("abort_alpha", "mismatch_alpha", "promote_beta", "margin", "units_min", "units_max")
TIMES: Final = ("window", "delay", "slow")


def _plan(form: rollouts.RolloutPlan) -> Plan:
    """What a file leaves open is as the plan has it by itself."""
    levels = {name: level for name in LEVELS if (level := getattr(form.guardrails, name)) is not None}
    given: dict[str, Any] = {
        f"{name}_s": time.total_seconds() for name in TIMES if (time := getattr(form.guardrails, name)) is not None
    }
    if form.units is not None:
        given["units"] = Units(form.units.value)
    return Plan(tuple(_step(step) for step in form.steps), Judging(**levels), **given)


def _step(step: rollouts.RolloutStep) -> Step:
    assert step.contract is None, "what may differ is each job's own"
    return Step(
        StepKind[step.kind],
        step.share,
        for_s=(step.at_least or timedelta()).total_seconds(),
        within_s=(step.within or timedelta()).total_seconds(),
        no_worse=step.no_worse,
    )


TEMPLATES: Final[Mapping[str, Plan]] = MappingProxyType(
    {name: _plan(rollout_file.template(name)) for name in rollouts.TEMPLATES}
)
"""By name."""
