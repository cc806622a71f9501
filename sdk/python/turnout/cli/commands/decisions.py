"""`turnout decisions ...`: what was decided on an experiment or a rollout, why, and whether it follows."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from turnout.cli.commands.parameters import JobArgument
from turnout.cli.document import document
from turnout.cli.exits import ExitCode
from turnout.cli.invocation import command
from turnout.cli.quantities import plural
from turnout.cli.session import Session
from turnout.cli.views.experiments import decision_view, decisions_view
from turnout.cli.views.rollouts import rollout_decision_view, rollout_decisions_view

NameArgument = Annotated[str, typer.Argument(metavar="NAME", help="Name of the experiment, or of the rollout.")]
RolloutOption = Annotated[bool, typer.Option("--rollout", help="It is a rollout.")]
NumberArgument = Annotated[int, typer.Argument(metavar="NO", min=1, help="Number of the decision.")]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True)
    app.add_typer(
        group, name="decisions", help="Show what was decided on an experiment or a rollout, or decide it again."
    )
    command(group, "list")(list_all)
    command(group, "show")(show)
    command(group, "replay")(replay)


async def list_all(session: Session, job: JobArgument, name: NameArgument, rollout: RolloutOption = False) -> None:
    """List the decisions on an experiment or a rollout, newest first."""
    async with session.client(job) as client:
        if rollout:
            steps = [one async for one in client.rollout_decisions(job, name)]
            session.output.answer(document(steps), rollout_decisions_view(steps))
            return
        found = [one async for one in client.decisions(job, name)]
    session.output.answer(document(found), decisions_view(found))


async def show(
    session: Session, job: JobArgument, name: NameArgument, decision: NumberArgument, rollout: RolloutOption = False
) -> None:
    """Show one decision with everything that it rests on."""
    async with session.client(job) as client:
        if rollout:
            step = await client.get_rollout_decision(job, name, decision)
            session.output.answer(document(step), rollout_decision_view(step))
            return
        found = await client.get_decision(job, name, decision)
    session.output.answer(document(found), decision_view(found))


async def replay(
    session: Session,
    job: JobArgument,
    name: NameArgument,
    decision: Annotated[int | None, typer.Argument(metavar="[NO]", min=1, help="One decision; else all.")] = None,
    rollout: RolloutOption = False,
) -> int:
    """Decide again from what each record says that the decision rested on; tell whether the same follows."""
    async with session.client(job) as client:
        if decision is not None:
            numbers = [decision]
        elif rollout:
            numbers = [one.decision async for one in client.rollout_decisions(job, name)]
        else:
            numbers = [one.decision async for one in client.decisions(job, name)]
        again = client.replay_rollout_decision if rollout else client.replay_decision
        replays = {number: await again(job, name, number) for number in sorted(numbers)}
    different = [number for number, one in replays.items() if not one.equal]
    told = f"{plural(len(replays), 'decision')} decided again; all came out the same."
    if different:
        told = f"Of {plural(len(replays), 'decision')}, these came out otherwise: {', '.join(map(str, different))}."
    session.output.answer({"replayed": len(replays), "different": different}, Text(told))
    return ExitCode.NOT_SO if different else ExitCode.OK
