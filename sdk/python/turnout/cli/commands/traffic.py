"""`turnout traffic`, `cutover` and `rollback`: which version serves which readers."""

from __future__ import annotations

from typing import Annotated

import typer

from turnout.cli import arguments
from turnout.cli.commands.parameters import GatesOption, JobArgument, ReasonOption, VersionArgument, gates
from turnout.cli.document import document
from turnout.cli.invocation import command
from turnout.cli.session import Session
from turnout.cli.views.routes import change_view, route_view
from turnout.results import RouteChange


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True)
    app.add_typer(group, name="traffic", help="Set or show which share of a job's readers each version serves.")
    command(group, "set")(set_traffic)
    command(group, "show")(show_traffic)
    command(app, "cutover")(cutover)
    command(app, "rollback")(rollback)


async def set_traffic(
    session: Session,
    job: JobArgument,
    shares: Annotated[list[str], typer.Argument(metavar="vN=PERCENT...", help="All shares; they sum to 100.")],
    override_gates: GatesOption = None,
    reason: ReasonOption = "",
) -> None:
    """Give each version its share of a job's readers, such as v1=90 v2=10; the active version stays active."""
    weights, overridden = arguments.weights(shares), gates(override_gates)
    async with session.client(job, *weights) as client:
        _tell(session, await client.set_traffic(job, weights, override_gates=overridden, reason=reason))


async def show_traffic(session: Session, job: JobArgument) -> None:
    """Show which version serves which share of a job's readers."""
    async with session.client(job) as client:
        route = await client.route(job)
    session.output.answer(document(route), route_view(route))


async def cutover(
    session: Session,
    job: JobArgument,
    version: VersionArgument,
    override_gates: GatesOption = None,
    reason: ReasonOption = "",
) -> None:
    """Make a version the active one, with all the readers; the gates are asked first."""
    number, overridden = arguments.version_number(version), gates(override_gates)
    async with session.client(job, number) as client:
        _tell(session, await client.cut_over(job, number, override_gates=overridden, reason=reason))


async def rollback(session: Session, job: JobArgument, reason: ReasonOption = "") -> None:
    """Put the route back to what it was before the last cutover; no gate stands in the way."""
    async with session.client(job) as client:
        _tell(session, await client.roll_back(job, reason=reason))


def _tell(session: Session, change: RouteChange) -> None:
    session.output.answer(document(change), change_view(change))
