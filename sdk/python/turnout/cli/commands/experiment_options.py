"""The options of `turnout experiment create`, by what they are of."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import timedelta
from typing import Annotated

import typer

from turnout.cli import arguments
from turnout.cli.arguments import COUNT_MAX
from turnout.cli.exits import usage
from turnout.cli.suggestions import did_you_mean
from turnout.experiments import Bandit, BanditObjective, BanditRule, Metric, Plan, Units
from turnout.shares import WHOLE, Sign

_HARMS = tuple(metric.value.lower().replace("_", "-") for metric in Metric if metric is not Metric.REWARD)
_ERRORS = tuple(name for name in _HARMS if name != "conversion")


@dataclass(frozen=True, slots=True)
class UnitOptions:
    """What is counted, and what is not."""

    units: Annotated[str, typer.Option("--units", metavar="caller|key", help="What it counts by.")] = "caller"
    holdout: Annotated[
        str, typer.Option("--holdout", metavar="PERCENT", help="Units that stay on the active version throughout.")
    ] = "0"
    override: Annotated[
        list[str] | None, typer.Option("--override", metavar="UNIT=vN", help="A tester's version; not counted.")
    ] = None
    salt: Annotated[str, typer.Option("--salt", metavar="TEXT", help="Deal all units anew, by this salt.")] = ""

    def kind(self) -> Units:
        """What it counts by."""
        return arguments.choice(Units, self.units, "--units")

    def overrides(self) -> dict[str, int]:
        """The version of each tester."""
        overrides: dict[str, int] = {}
        for text in self.override or []:
            unit, separator, version = text.rpartition("=")
            if not separator or not unit:
                raise usage(f"{text!r} is not an override: write a unit and its version, such as user-17=v2.")
            overrides[unit] = arguments.version_number(version)
        return overrides


@dataclass(frozen=True, slots=True)
class GuardrailOptions:
    """What verdicts go by."""

    margin: Annotated[
        str | None,
        typer.Option("--margin", metavar="PERCENT", help="How much worse may be promoted, such as 10%."),
    ] = None
    units_min: Annotated[
        int | None,
        typer.Option("--units-min", min=1, max=COUNT_MAX, metavar="N", help="Units of each arm before a promotion."),
    ] = None
    units_max: Annotated[
        int | None,
        typer.Option("--units-max", min=1, max=COUNT_MAX, metavar="N", help="Units after which it is inconclusive."),
    ] = None
    window: Annotated[
        str | None, typer.Option("--window", metavar="DURATION", help="Of a unit from its first exposure, such as 24h.")
    ] = None
    delay: Annotated[
        str | None, typer.Option("--delay", metavar="DURATION", help="How much later an outcome still counts.")
    ] = None
    slow: Annotated[
        str | None,
        typer.Option("--slow", metavar="DURATION", help="An answer that takes longer is slow, such as 50ms."),
    ] = None
    harm: Annotated[
        list[str] | None, typer.Option("--harm", metavar="HARM", help=f"A guardrail: {', '.join(_HARMS)}; all of them.")
    ] = None
    error: Annotated[
        list[str] | None,
        typer.Option("--error", metavar="HARM", help="A harm that counts against a promotion; error and failure."),
    ] = None

    def plan(self) -> Plan:
        """What verdicts go by."""
        plan = Plan(
            margin=_margin(self.margin),
            units_min=self.units_min,
            units_max=self.units_max,
            window=_time(self.window),
            delay=_time(self.delay),
            slow=_time(self.slow),
            harms=_metrics(self.harm or (), _HARMS, "harm"),
            errors=_metrics(self.error or (), _ERRORS, "error of a window"),
        )
        if plan.slow is None and Metric.SLOW in (*plan.harms, *plan.errors):
            raise usage("Without --slow DURATION no answer is slow: say from when on it is, or leave that harm out.")
        return plan


@dataclass(frozen=True, slots=True)
class BanditOptions:
    """Weights that learn."""

    bandit: Annotated[
        str | None,
        typer.Option("--bandit", metavar="RULE", help="Weights that learn: thompson or epsilon-greedy."),
    ] = None
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective", metavar="WHAT", help="Of the bandit: conversions (unless told), rewards or errors."
        ),
    ] = None
    floor: Annotated[
        str | None, typer.Option("--floor", metavar="PERCENT", help="Of the bandit: no arm falls below.")
    ] = None
    step: Annotated[
        str | None, typer.Option("--step", metavar="PERCENT", help="Of the bandit: most that a weight moves at a time.")
    ] = None
    every: Annotated[
        str | None, typer.Option("--every", metavar="DURATION", help="Of the bandit: least time between two steps.")
    ] = None
    gamma: Annotated[
        float | None, typer.Option("--gamma", metavar="X", help="Of the bandit: what an older epoch weighs, up to 1.")
    ] = None
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", metavar="X", help="Of epsilon-greedy: share that all arms get.")
    ] = None
    bandit_units: Annotated[
        int | None, typer.Option("--bandit-units", metavar="N", help="Of the bandit: units of each arm to begin with.")
    ] = None

    def learning(self) -> Bandit | None:
        """The bandit; None = weights move only when somebody says so."""
        if self.bandit is None:
            self._refuse_without_rule()
            return None
        rule = arguments.choice(BanditRule, self.bandit, "--bandit")
        if self.epsilon is not None and rule is BanditRule.THOMPSON:
            raise usage("--epsilon is of --bandit epsilon-greedy: thompson has none; leave it out.")
        return Bandit(
            rule=rule,
            objective=arguments.choice(BanditObjective, self.objective or "conversions", "--objective"),
            floor=_share(self.floor, "--floor"),
            step_max=_share(self.step, "--step"),
            every=_time(self.every),
            gamma=self.gamma,
            epsilon=self.epsilon,
            units_min=self.bandit_units,
        )

    def _refuse_without_rule(self) -> None:
        names = ("objective", "floor", "step", "every", "gamma", "epsilon", "bandit_units")
        given = [f"--{name.replace('_', '-')}" for name in names if getattr(self, name) is not None]
        if given:
            are = "is of a bandit" if len(given) == 1 else "are of a bandit"
            rules = " or ".join(f"--bandit {one.value.lower().replace('_', '-')}" for one in BanditRule)
            raise usage(f"{', '.join(given)} {are}: choose its rule ({rules}), or leave that out.")


def _time(text: str | None) -> timedelta | None:
    return None if text is None else arguments.duration(text)


def _margin(text: str | None) -> float | None:
    """In per cent with its sign, as in a plan of a rollout: a number alone could be a part of one as well."""
    if text is None:
        return None
    margin = arguments.basis_points(text, "--margin", Sign.ALWAYS)
    if not margin:
        raise usage("--margin must be above 0: that two versions are exactly alike can never be shown.")
    return margin / WHOLE


def _share(text: str | None, option: str) -> float | None:
    return None if text is None else arguments.share(text, option)


def _metrics(names: Sequence[str], allowed: Sequence[str], what: str) -> tuple[Metric, ...]:
    for name in names:
        if name not in allowed:
            raise usage(f"{name!r} is no {what}{did_you_mean(name, allowed)} Choose from {', '.join(allowed)}.")
    return tuple(Metric(name.upper().replace("-", "_")) for name in names)
