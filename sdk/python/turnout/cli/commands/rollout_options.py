"""The options of `turnout rollout start`, by what they are of."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

import typer

from turnout.cli import arguments, plans
from turnout.contract import Contract
from turnout.experiments import Units


@dataclass(frozen=True, slots=True)
class PlanOptions:
    """What is to be done."""

    template: Annotated[
        str | None,
        typer.Option(
            "--template", metavar="NAME", help=f"{plans.TEMPLATE_NAMES}; {plans.DEFAULT} unless a plan is given."
        ),
    ] = None
    plan: Annotated[
        Path | None, typer.Option("--plan", metavar="FILE", exists=True, dir_okay=False, help="A plan, as YAML.")
    ] = None
    units: Annotated[
        str | None, typer.Option("--units", metavar="caller|key", help="What it counts by, instead of the plan's.")
    ] = None

    def wanted(self, contract: Contract | None) -> plans.Wanted:
        """The plan; contract: of its steps that compare."""
        units = None if self.units is None else arguments.choice(Units, self.units, "--units")
        return plans.plan_of(self.template, self.plan, contract, units)


@dataclass(frozen=True, slots=True)
class ExpectedOptions:
    """What is expected of units, for what is told of each step."""

    units_per_day: Annotated[
        float | None,
        typer.Option("--units-per-day", min=0, metavar="N", help="Units expected to read for the first time in a day."),
    ] = None
    risk: Annotated[
        str | None, typer.Option("--risk", metavar="PERCENT", help="Of the units are expected to err in their window.")
    ] = None

    def part_erring(self) -> float | None:
        """The part of the units that is expected to err, 0 to 1."""
        return None if self.risk is None else arguments.share(self.risk, "--risk")
