"""`turnout experiment ...`: candidates that must prove themselves on a share of the readers."""

from __future__ import annotations

import asyncio
from collections.abc import Iterable, Mapping
from datetime import timedelta
from enum import StrEnum
from typing import Annotated, TypeVar

import typer
from rich.console import RenderableType
from rich.text import Text

from turnout.cli import arguments
from turnout.cli.arguments import COUNT_MAX
from turnout.cli.commands.parameters import (
    GatesOption,
    JobArgument,
    OwnerOption,
    ReasonOption,
    RequireOption,
    gates,
    required_gates,
)
from turnout.cli.document import document
from turnout.cli.exits import ExitCode, usage
from turnout.cli.invocation import command
from turnout.cli.screens import FirstOfHeight, Views, screen
from turnout.cli.session import Session
from turnout.cli.views.experiments import experiment_view, experiments_view, over_text, standing_line
from turnout.experiments import Bandit, BanditObjective, BanditRule, Experiment, ExperimentState, Metric, Plan, Units

_POLL_S = 1.0
_OVER = (ExperimentState.ROLLED_BACK, ExperimentState.STOPPED)
_HARMS = tuple(metric.value.lower().replace("_", "-") for metric in list(Metric)[:4])
_T = TypeVar("_T", bound=StrEnum)

ExperimentArgument = Annotated[str, typer.Argument(metavar="EXPERIMENT", help="Name of the experiment.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True)
    app.add_typer(group, name="experiment", help="Let new code prove itself on a share of a job's readers.")
    command(group, "create")(create)
    command(group, "show")(show)
    command(group, "list")(list_all)
    command(group, "watch")(watch)
    command(group, "stop")(stop)
    command(group, "resume")(resume)


async def create(
    session: Session,
    job: JobArgument,
    experiment: ExperimentArgument,
    shares: Annotated[list[str], typer.Argument(metavar="vN=PERCENT...", help="All arms; the active version too.")],
    units: Annotated[str, typer.Option("--units", metavar="caller|key", help="What it counts by.")] = "caller",
    holdout: Annotated[
        str, typer.Option("--holdout", metavar="PERCENT", help="Units that stay on the active version throughout.")
    ] = "0",
    override: Annotated[
        list[str] | None, typer.Option("--override", metavar="UNIT=vN", help="A tester's version; not counted.")
    ] = None,
    salt: Annotated[str, typer.Option("--salt", metavar="TEXT", help="Deal all units anew, by this salt.")] = "",
    margin: Annotated[
        float | None,
        typer.Option("--margin", min=0, metavar="X", help="How much worse may be promoted: 0.1 = a tenth."),
    ] = None,
    units_min: Annotated[
        int | None,
        typer.Option("--units-min", min=1, max=COUNT_MAX, metavar="N", help="Units of each arm before a promotion."),
    ] = None,
    units_max: Annotated[
        int | None,
        typer.Option("--units-max", min=1, max=COUNT_MAX, metavar="N", help="Units after which it is inconclusive."),
    ] = None,
    window: Annotated[
        str | None, typer.Option("--window", metavar="TIME", help="Of a unit from its first exposure, such as 24h.")
    ] = None,
    delay: Annotated[
        str | None, typer.Option("--delay", metavar="TIME", help="How much later an outcome still counts.")
    ] = None,
    slow: Annotated[
        str | None, typer.Option("--slow", metavar="TIME", help="An answer that takes longer is slow, such as 50ms.")
    ] = None,
    harm: Annotated[
        list[str] | None, typer.Option("--harm", metavar="HARM", help=f"A guardrail: {', '.join(_HARMS)}; all four.")
    ] = None,
    error: Annotated[
        list[str] | None,
        typer.Option("--error", metavar="HARM", help="A harm that counts against a promotion; error and failure."),
    ] = None,
    bandit: Annotated[
        str | None,
        typer.Option("--bandit", metavar="RULE", help="Weights that learn: thompson or epsilon-greedy."),
    ] = None,
    objective: Annotated[
        str | None,
        typer.Option(
            "--objective", metavar="WHAT", help="Of the bandit: conversions (unless told), rewards or errors."
        ),
    ] = None,
    floor: Annotated[
        str | None, typer.Option("--floor", metavar="PERCENT", help="Of the bandit: no arm falls below.")
    ] = None,
    step: Annotated[
        str | None, typer.Option("--step", metavar="PERCENT", help="Of the bandit: most that a weight moves at a time.")
    ] = None,
    every: Annotated[
        str | None, typer.Option("--every", metavar="TIME", help="Of the bandit: least time between two steps.")
    ] = None,
    gamma: Annotated[
        float | None, typer.Option("--gamma", metavar="X", help="Of the bandit: what an older epoch weighs, up to 1.")
    ] = None,
    epsilon: Annotated[
        float | None, typer.Option("--epsilon", metavar="X", help="Of epsilon-greedy: share that all arms get.")
    ] = None,
    bandit_units: Annotated[
        int | None, typer.Option("--bandit-units", metavar="N", help="Of the bandit: units of each arm to begin with.")
    ] = None,
    override_gates: GatesOption = None,
    require_gates: RequireOption = None,
    reason: ReasonOption = "",
    check: Annotated[bool, typer.Option("--check", help="Only check: gates are asked, nothing changes.")] = False,
) -> None:
    """Start an experiment: candidates beside the active version, such as v1=95 v2=5, watched by guardrails."""
    if margin == 0:
        raise usage("--margin must be above 0: that two versions are exactly alike can never be shown.")
    weights, overridden, required = arguments.weights(shares), gates(override_gates), required_gates(require_gates)
    overrides = _overrides(override or [])
    plan = Plan(
        margin=margin,
        units_min=units_min,
        units_max=units_max,
        window=_time(window),
        delay=_time(delay),
        slow=_time(slow),
        harms=_harms(harm),
        errors=_harms(error),
    )
    if slow is None and "slow" in (*(harm or ()), *(error or ())):
        raise usage("Without --slow TIME no answer is slow: say from when on it is, or leave that harm out.")
    of_bandit = {
        "--objective": objective,
        "--floor": floor,
        "--step": step,
        "--every": every,
        "--gamma": gamma,
        "--epsilon": epsilon,
        "--bandit-units": bandit_units,
    }
    _refuse_without_bandit(bandit, of_bandit)
    learning = None
    if bandit is not None:
        learning = Bandit(
            rule=_choice(BanditRule, bandit, "--bandit"),
            objective=_choice(BanditObjective, objective or "conversions", "--objective"),
            floor=_share(floor),
            step_max=_share(step),
            every=_time(every),
            gamma=gamma,
            epsilon=epsilon,
            units_min=bandit_units,
        )
    async with session.client(job, *weights) as client:
        active = (await client.route(job)).active_version
        if active not in weights:
            raise usage(f"v{active} is the active version of {job} and must be one of the arms.")
        found = await client.create_experiment(
            job,
            experiment,
            {active: weights.pop(active), **weights},
            units=_choice(Units, units, "--units"),
            plan=plan,
            bandit=learning,
            holdout=arguments.basis_points(holdout),
            overrides=overrides,
            salt=salt,
            override_gates=overridden,
            require_gates=required,
            validate_only=check,
            reason=reason,
        )
    done = "could start" if check else "has started; `turnout experiment watch` shows how it goes"
    session.output.answer(document(found), Text(f"{experiment} on {job} {done}."))


async def show(session: Session, job: JobArgument, experiment: ExperimentArgument) -> None:
    """Show an experiment: arms, units, estimates with intervals, guardrails, and what it waits for."""
    async with session.client(job) as client:
        found = await client.get_experiment(job, experiment)
    session.output.answer(document(found), experiment_view(found))


async def list_all(
    session: Session, job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Of one job.")] = None
) -> None:
    """List experiments, newest first."""
    async with session.client(job or "") as client:
        found = [one async for one in client.list_experiments(job)]
    session.output.answer(document(found), experiments_view(found))


async def watch(session: Session, job: JobArgument, experiment: ExperimentArgument) -> int:
    """Show an experiment as it goes until it is over; Ctrl-C ends the watching, not the experiment."""
    async with session.client(job) as client:
        try:
            with screen(session.output, _VIEWS) as on:
                while True:
                    found = await client.get_experiment(job, experiment)
                    over = found.state in _OVER
                    on.show(found, last=over)
                    if over:
                        break
                    await asyncio.sleep(_POLL_S)
        except asyncio.CancelledError:
            session.output.note(
                f"No longer watching; the experiment goes on. `turnout experiment stop {job} {experiment}` ends it."
            )
            raise
    session.output.say(Text(over_text(found)))
    return ExitCode.NOT_SO if found.state is ExperimentState.ROLLED_BACK else ExitCode.OK


def _picture(found: Experiment, rows: int) -> RenderableType:
    return FirstOfHeight([experiment_view(found), experiment_view(found, whole=False)], rows)


_VIEWS = Views(_picture, lambda found, _: [standing_line(found)], document, lambda found: found.state)


async def stop(
    session: Session,
    job: JobArgument,
    experiment: ExperimentArgument,
    promote: Annotated[
        str | None, typer.Option("--promote", metavar="vN", help="Make this candidate the active version.")
    ] = None,
    keep_weights: Annotated[bool, typer.Option("--keep-weights", help="Leave the weights as they are.")] = False,
    override_gates: GatesOption = None,
    override_owner: OwnerOption = False,
    reason: ReasonOption = "",
) -> None:
    """End an experiment: everybody gets the active version again, unless an option says otherwise."""
    number = None if promote is None else arguments.version_number(promote)
    if number is not None and keep_weights:
        raise usage("Give either --promote or --keep-weights.")
    if override_gates and number is None and not keep_weights:
        raise usage("--override-gates is for --promote and --keep-weights: no gate is asked of a return to what was.")
    async with session.client(job, number) as client:
        found = await client.stop_experiment(
            job,
            experiment,
            promote=number,
            keep_weights=keep_weights,
            override_gates=gates(override_gates),
            override_owner=override_owner,
            reason=reason,
        )
    session.output.answer(document(found), Text(over_text(found)))


async def resume(session: Session, job: JobArgument, experiment: ExperimentArgument, reason: ReasonOption = "") -> None:
    """Let a paused experiment go on, although what it was paused for still holds; harm is watched for all the same."""
    async with session.client(job) as client:
        found = await client.resume_experiment(job, experiment, reason=reason)
    session.output.answer(document(found), Text(f"{experiment} on {job} is {found.state}."))


def _refuse_without_bandit(rule: str | None, of_bandit: Mapping[str, object]) -> None:
    """Options of a bandit, by name, that would be ignored: without one, or of the other rule."""
    given = [name for name, value in of_bandit.items() if value is not None]
    if rule is None and given:
        are = "is of a bandit" if len(given) == 1 else "are of a bandit"
        rules = " or ".join(f"--bandit {one.value.lower().replace('_', '-')}" for one in BanditRule)
        raise usage(f"{', '.join(given)} {are}: choose its rule ({rules}), or leave that out.")
    if "--epsilon" in given and rule == "thompson":
        raise usage("--epsilon is of --bandit epsilon-greedy: thompson has none; leave it out.")


def _time(text: str | None) -> timedelta | None:
    return None if text is None else arguments.duration(text)


def _share(text: str | None) -> float | None:
    return None if text is None else arguments.basis_points(text) / arguments.WHOLE_BASIS_POINTS


def _overrides(texts: Iterable[str]) -> dict[str, int]:
    overrides: dict[str, int] = {}
    for text in texts:
        unit, separator, version = text.rpartition("=")
        if not separator or not unit:
            raise usage(f"{text!r} is not an override: write a unit and its version, such as user-17=v2.")
        overrides[unit] = arguments.version_number(version)
    return overrides


def _harms(names: list[str] | None) -> tuple[Metric, ...]:
    for name in names or []:
        if name not in _HARMS:
            raise usage(f"{name!r} is no harm; harms are {', '.join(_HARMS)}.")
    return tuple(Metric(name.upper().replace("-", "_")) for name in names or [])


def _choice(kind: type[_T], text: str, option: str) -> _T:
    try:
        return kind(text.upper().replace("-", "_"))
    except ValueError:
        known = ", ".join(one.value.lower().replace("_", "-") for one in kind)
        raise usage(f"{option} {text!r} is none of {known}.") from None
