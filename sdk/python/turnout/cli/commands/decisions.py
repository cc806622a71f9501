"""`turnout decisions ...`: what was decided on an experiment, why, and whether it follows."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from turnout.cli.commands.experiment import ExperimentArgument
from turnout.cli.commands.parameters import JobArgument
from turnout.cli.document import document
from turnout.cli.exits import ExitCode
from turnout.cli.invocation import command
from turnout.cli.quantities import plural
from turnout.cli.session import Session
from turnout.cli.views.experiments import decision_view, decisions_view

NumberArgument = Annotated[int, typer.Argument(metavar="NO", min=1, help="Number of the decision.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True)
    app.add_typer(group, name="decisions", help="Show what was decided on an experiment, or decide it again.")
    command(group, "list")(list_all)
    command(group, "show")(show)
    command(group, "replay")(replay)


async def list_all(session: Session, job: JobArgument, experiment: ExperimentArgument) -> None:
    """List the decisions on an experiment, newest first."""
    async with session.client(job) as client:
        found = [one async for one in client.decisions(job, experiment)]
    session.output.answer(document(found), decisions_view(found))


async def show(session: Session, job: JobArgument, experiment: ExperimentArgument, decision: NumberArgument) -> None:
    """Show one decision with everything that it rests on."""
    async with session.client(job) as client:
        found = await client.get_decision(job, experiment, decision)
    session.output.answer(document(found), decision_view(found))


async def replay(
    session: Session,
    job: JobArgument,
    experiment: ExperimentArgument,
    decision: Annotated[int | None, typer.Argument(metavar="[NO]", min=1, help="One decision; else all.")] = None,
) -> int:
    """Decide again from what each record says that the decision rested on; tell whether the same follows."""
    async with session.client(job) as client:
        numbers = [one.decision async for one in client.decisions(job, experiment)] if decision is None else [decision]
        replays = {number: await client.replay_decision(job, experiment, number) for number in sorted(numbers)}
    different = [number for number, one in replays.items() if not one.equal]
    told = f"{plural(len(replays), 'decision')} decided again; all came out the same."
    if different:
        told = f"Of {plural(len(replays), 'decision')}, these came out otherwise: {', '.join(map(str, different))}."
    session.output.answer({"replayed": len(replays), "different": different}, Text(told))
    return ExitCode.NOT_SO if different else ExitCode.OK
