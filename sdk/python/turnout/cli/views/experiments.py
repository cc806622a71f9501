"""Experiments: arms with what was counted, what is said of the candidates, and what is waited for."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from rich.console import Group, RenderableType
from rich.text import Text

from turnout.cli.output import facts, table
from turnout.cli.quantities import ABSENT, count, moment, percent, plural, span
from turnout.cli.views.phrases import COUNTS_CALLERS, left_out, state, weights_text
from turnout.experiments import (
    ArmEstimate,
    ArmStanding,
    Decision,
    Experiment,
    ExperimentState,
    Guardrail,
    Metric,
    Standing,
    Units,
    Verdict,
)
from turnout.results import Route

_VERDICTS = {
    Verdict.ABORT: ("harms", "bold red"),
    Verdict.FREEZE: ("frozen", "bold yellow"),
    Verdict.PROMOTE: ("may be promoted", "green"),
    Verdict.INCONCLUSIVE: ("inconclusive", "yellow"),
    Verdict.CONTINUE: ("undecided", ""),
}
_UNITS = {Units.CALLER: "the caller's unit", Units.KEY: "the row's key"}
_COUNTS = {
    Units.CALLER: COUNTS_CALLERS,
    Units.KEY: "Only reads by key are counted; one that brings a unit of its own is routed by that and is not.",
}


def _action(found: Decision) -> str:
    return found.action.lower() if found.carried_out else f"{found.action.lower()} (not carried out)"


def experiment_view(found: Experiment, *, whole: bool = True) -> RenderableType:
    """An experiment. whole: with its guardrails one by one."""
    pairs: list[tuple[str, str | Text]] = [
        ("experiment", Text.assemble(f"{found.experiment} on {found.job}, ", state(found.state))),
        ("since", f"{moment(found.create_time)} by {found.claimed_actor or ABSENT}"),
    ]
    if found.reason:
        pairs.append(("started for", found.reason))
    pairs.append(("counts by", _units_text(found)))
    if found.bandit is not None:
        rule = found.bandit.rule.lower().replace("_", "-")
        pairs.append(("bandit", f"{rule}, by {found.bandit.objective.lower()}"))
    if found.end_time is not None:
        pairs.append(("ended", f"{moment(found.end_time)}: {found.end_reason}"))
    parts: list[RenderableType] = [facts(pairs)]
    if found.standing is not None:
        parts += _standing_parts(found, found.standing, whole)
    return Group(*parts)


def _units_text(found: Experiment) -> str:
    text = _UNITS[found.units]
    if found.holdout:
        text += f"; {percent(found.holdout)} of the units are held out"
    if found.overrides:
        text += f"; {plural(len(found.overrides), 'tester')}"
    return text


def _standing_parts(found: Experiment, standing: Standing, whole: bool) -> list[RenderableType]:
    parts: list[RenderableType] = [Text(), arms_view(found, standing), Text()]
    if whole:
        parts += [guardrails_view(standing), Text()]
    else:
        parts.append(left_out(["the guardrails"], f"turnout experiment show {found.job} {found.experiment}"))
    word, style = _VERDICTS[standing.verdict]
    because = "because" if found.end_time is None else "at its end"
    said: list[tuple[str, str | Text]] = [("verdict", Text(word, style=style)), (because, standing.sentence)]
    if found.end_time is None and standing.waiting_for:
        said.append(("waits for", standing.waiting_for))
    parts.append(facts(said))
    if uncounted := uncounted_text(found, standing):
        parts.append(Text(uncounted, style="yellow"))
    if standing.observations_lost:
        parts.append(
            Text(
                f"Fronts had to drop {standing.observations_lost:,} observations while the switcher was away.",
                style="yellow",
            )
        )
    return parts


_CUT = (
    "The windows of {:,} of {:,} units were open at its end, are not added up yet, or held answers of two versions: no "
    "comparison counts them."
)


def uncounted_text(found: Experiment, standing: Standing) -> str:
    """What is not counted: reads, and which would be; at the end windows that it has cut. "" where all is as it should
    be."""
    if found.end_time is not None:
        units, windows = (sum(getattr(arm, name) for arm in standing.arms) for name in ("units", "windows"))
        return _CUT.format(units - windows, units) if windows < units else ""
    told = []
    if not any(arm.units for arm in standing.arms):
        told.append("No unit was counted yet.")
    if standing.reads_left_out:
        told.append(f"Reads that are not counted because of their unit: {standing.reads_left_out:,}.")
    return " ".join((*told, _COUNTS[found.units])) if told else ""


def arms_view(found: Experiment, standing: Standing) -> RenderableType:
    """What was counted of each arm, with estimates for the eye; of outcomes those that were reported."""
    shown = [one for one in _ESTIMATES if one.always or any(one.of(arm) is not None for arm in standing.arms)]
    rows = []
    for arm in standing.arms:
        name = f"v{arm.version}" + (" control" if arm.version == found.control else "")
        wanted = "" if arm.wanted is None else f" → {percent(arm.wanted)}"
        estimates = [one.text(one.of(arm)) for one in shown]
        rows.append((name, percent(arm.weight) + wanted, count(arm.units), count(arm.windows), *estimates))
    weight = "weight" if found.end_time is None else "weight at its end"
    headers = ("arm", weight, "units", "windows", *(one.name for one in shown))
    return Group(table(headers, rows, right=(1, 2, 3)), Text(_ARMS_LEGEND, style="dim"))


_ARMS_LEGEND = "windows: those that are over; in parentheses: 95 % confidence, for the eye"


def _rate(found: ArmEstimate | None) -> str:
    if found is None:
        return ABSENT
    value, low, high = (100 * one for one in (found.value, found.low, found.high))
    return f"{value:.2f} % ({low:.2f} to {high:.2f})"


def _number(found: ArmEstimate | None) -> str:
    return ABSENT if found is None else f"{found.value:.4g} ({found.low:.4g} to {found.high:.4g})"


@dataclass(frozen=True, slots=True)
class _Estimate:
    """A column of estimates. always: also where none is known."""

    name: str
    of: Callable[[ArmStanding], ArmEstimate | None]
    text: Callable[[ArmEstimate | None], str]
    always: bool = False


_ESTIMATES = (
    _Estimate("error rate", lambda arm: arm.error_rate, _rate, always=True),
    _Estimate("conversion rate", lambda arm: arm.conversion_rate, _rate),
    _Estimate("mean reward", lambda arm: arm.mean_reward, _number),
)


def guardrails_view(standing: Standing) -> RenderableType:
    """Each test with its evidence, and where it speaks."""
    rows = [("spread of units", "all", *_test(standing.mismatch), "")]
    for one in standing.candidates:
        gone = "" if one.present else "off the route"
        for harm in one.harms:
            counts = f"{harm.counts[1]:,} of {sum(harm.counts):,} are its own" if harm.counts else gone
            rows.append((_harm_name(harm), f"v{one.version}", *_test(harm), counts))
        rows.append(("no worse", f"v{one.version}", *_test(one.no_worse), gone))
    guardrails = table(("guardrail", "of", "e-value", "speaks at", "first ones"), rows, right=(2, 3))
    return Group(guardrails, Text(_GUARDRAILS_LEGEND, style="dim"))


_GUARDRAILS_LEGEND = "e-value: evidence, 1 = none; it may be looked at all the time"


def _harm_name(harm: Guardrail) -> str:
    """Of conversions the harm is that there are too few, though those that there are are counted."""
    return "fewer conversions" if harm.name == Metric.CONVERSION else harm.name.lower().replace("_", "-")


def _test(one: Guardrail) -> tuple[str, str]:
    shown = "above a million" if one.e_value > 1e6 else f"{one.e_value:.3g}"
    return shown, f"{one.threshold:,.0f}"


def experiments_view(found: Sequence[Experiment]) -> RenderableType:
    """Experiments, newest first."""
    if not found:
        return Text("There is no experiment yet. `turnout experiment create` starts one.")
    rows = [
        (
            one.job,
            one.experiment,
            state(one.state),
            weights_text(one.weights),
            moment(one.create_time).removesuffix(" UTC"),
            one.reason or ABSENT,
            one.end_reason or ABSENT,
        )
        for one in found
    ]
    return table(("job", "experiment", "state", "as it began", "since (UTC)", "started for", "ended because"), rows)


def standing_line(found: Experiment) -> str:
    """How it stands on one line, for a log."""
    standing = found.standing
    if standing is None:
        return f"{found.experiment} on {found.job} {found.state}"
    arms = arms_line(standing)
    age = "" if found.create_time is None else f" (epoch {standing.epoch})"
    return f"{found.experiment} on {found.job} {found.state}{age}: {arms}. {standing.sentence}"


def arms_line(standing: Standing) -> str:
    """The arms on one line."""
    return ", ".join(f"v{arm.version} {percent(arm.weight)} {arm.units:,} units" for arm in standing.arms)


def over_text(found: Experiment) -> str:
    """How an experiment ended."""
    how = "was rolled back by itself" if found.state is ExperimentState.ROLLED_BACK else "is over"
    lasted = found.end_time - found.create_time if found.end_time and found.create_time else None
    after = f" after {span(lasted)}" if lasted is not None else ""
    return f"{found.experiment} on {found.job} {how}{after}. {found.end_reason}"


def nothing_to_stop_text(found: Experiment) -> str:
    """What stopping an experiment does that was over before."""
    return f"Nothing to change: {found.experiment} on {found.job} is over ({found.state}): {found.end_reason}"


def served_text(route: Route, *, promoted: int | None = None) -> str:
    """What readers get now; after a version was promoted, and is what they get, how to take that back, too."""
    others = {version: share for version, share in route.weights.items() if share and version != route.active_version}
    given = f"; the weights are {weights_text(route.weights)}" if others else ", with all the units"
    back = ""
    if promoted == route.active_version and route.rollback_version is not None:
        back = f" `turnout rollback {route.job}` leads back to v{route.rollback_version}."
    return f"v{route.active_version} is the active version now{given} (epoch {route.epoch}).{back}"


def decisions_view(found: Sequence[Decision]) -> RenderableType:
    """Decisions, newest first."""
    if not found:
        return Text("Nothing has been decided yet.")
    rows = [
        (
            str(one.decision),
            moment(one.create_time).removesuffix(" UTC"),
            str(one.epoch),
            _action(one),
            one.actor or ABSENT,
            one.reason or one.sentence,
        )
        for one in found
    ]
    return table(("no", "time (UTC)", "epoch", "action", "by", "why"), rows, right=(0, 2))


def decision_view(found: Decision) -> RenderableType:
    """One decision with its record."""
    return Group(
        facts(
            [
                ("decision", f"{found.decision} on {found.experiment} of {found.job}"),
                ("made", f"{moment(found.create_time)} by {found.actor or ABSENT}"),
                ("action", f"{_action(found)}, epoch {found.epoch}"),
                ("because", found.sentence),
                *([("reason", found.reason)] if found.reason else []),
            ]
        ),
        Text(),
        Text(found.record),
    )
