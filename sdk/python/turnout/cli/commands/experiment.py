"""`turnout experiment ...`: candidates that must prove themselves on a share of the readers."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncGenerator
from dataclasses import replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from turnout.cli import arguments
from turnout.cli.commands.experiment_options import BanditOptions, GuardrailOptions, UnitOptions
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
from turnout.cli.views.experiments import (
    experiment_view,
    experiments_view,
    nothing_to_stop_text,
    over_text,
    served_text,
    standing_line,
)
from turnout.cli.views.phrases import AWAY, COUNTS_CALLERS
from turnout.errors import DeadlineExceeded, Unavailable
from turnout.experiments import Experiment, ExperimentState, Units

if TYPE_CHECKING:
    from turnout.client import Client

_POLL_S = 1.0
_OVER = (ExperimentState.ROLLED_BACK, ExperimentState.STOPPED)

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
    counted: UnitOptions,
    guardrails: GuardrailOptions,
    bandit: BanditOptions,
    override_gates: GatesOption = None,
    require_gates: RequireOption = None,
    reason: ReasonOption = "",
    check: Annotated[bool, typer.Option("--check", help="Only check: gates are asked, nothing changes.")] = False,
) -> None:
    """Start an experiment: candidates beside the active version, such as v1=95 v2=5, watched by guardrails."""
    weights, overridden, required = arguments.weights(shares), gates(override_gates), required_gates(require_gates)
    units, overrides, holdout = (
        counted.kind(),
        counted.overrides(),
        arguments.basis_points(counted.holdout, "--holdout"),
    )
    plan, learning = guardrails.plan(), bandit.learning()
    async with session.client(job, *weights) as client:
        active = (await client.route(job)).active_version
        if active not in weights:
            raise usage(f"v{active} is the active version of {job} and must be one of the arms.")
        found = await client.create_experiment(
            job,
            experiment,
            {active: weights.pop(active), **weights},
            units=units,
            plan=plan,
            bandit=learning,
            holdout=holdout,
            overrides=overrides,
            salt=counted.salt,
            override_gates=overridden,
            require_gates=required,
            validate_only=check,
            reason=reason,
        )
    if units is Units.CALLER:
        session.output.note(f"{COUNTS_CALLERS} `--units key` counts by the row's key instead.")
    done = "could start" if check else f"has started; `turnout experiment watch {job} {experiment}` shows how it goes"
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
                async for found in _watched(client, job, experiment):
                    on.show(found, last=found.state in _OVER)
        except asyncio.CancelledError:
            session.output.note(
                f"No longer watching; the experiment goes on. `turnout experiment stop {job} {experiment}` ends it."
            )
            raise
    session.output.say(Text(over_text(found)))
    return ExitCode.NOT_SO if found.state is ExperimentState.ROLLED_BACK else ExitCode.OK


async def _watched(client: Client, job: str, experiment: str) -> AsyncGenerator[Experiment, None]:
    """The experiment every second until it is over, however long the switcher is away once it has answered."""
    found = await client.get_experiment(job, experiment)
    yield found
    while found.state not in _OVER:
        await asyncio.sleep(_POLL_S)
        try:
            found = await client.get_experiment(job, experiment)
        except (Unavailable, DeadlineExceeded):
            if found.standing is not None:
                found = replace(found, standing=replace(found.standing, waiting_for=AWAY))
        yield found


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
        before = await client.get_experiment(job, experiment)
        found = await client.stop_experiment(
            job,
            experiment,
            promote=number,
            keep_weights=keep_weights,
            override_gates=gates(override_gates),
            override_owner=override_owner,
            reason=reason,
        )
        route = await client.route(job)
    told = nothing_to_stop_text(found) if before.state in _OVER else over_text(found)
    session.output.answer(document(found), Text(f"{told} {served_text(route, promoted=number)}"))


async def resume(session: Session, job: JobArgument, experiment: ExperimentArgument, reason: ReasonOption = "") -> None:
    """Let a paused experiment go on, although what it was paused for still holds; harm is watched for all the same."""
    async with session.client(job) as client:
        found = await client.resume_experiment(job, experiment, reason=reason)
    session.output.answer(document(found), Text(f"{experiment} on {job} is {found.state}."))
