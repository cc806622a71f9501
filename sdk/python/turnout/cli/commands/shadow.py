"""`turnout shadow ...`: what a candidate would have answered, compared with what readers got."""

from __future__ import annotations

from typing import Annotated

import typer

from turnout.cli import arguments
from turnout.cli.commands.parameters import (
    GatesOption,
    JobArgument,
    OwnerOption,
    ReasonOption,
    VersionArgument,
    gates,
)
from turnout.cli.document import document
from turnout.cli.invocation import command
from turnout.cli.session import Session
from turnout.cli.views.routes import change_view
from turnout.cli.views.shadows import shadow_view


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True)
    app.add_typer(group, name="shadow", help="Compare a candidate with what readers get.")
    command(group, "set")(set_shadow)
    command(group, "show")(show)
    command(group, "stop")(stop)


async def set_shadow(
    session: Session,
    job: JobArgument,
    version: VersionArgument,
    share: Annotated[str, typer.Option("--share", metavar="PERCENT", help="Share of the reads to compare.")] = "5",
    override_gates: GatesOption = None,
    override_owner: OwnerOption = False,
    reason: ReasonOption = "",
) -> None:
    """Read a candidate beside the active version for a share of the reads, and compare; readers get nothing of it."""
    number, points, overridden = (
        arguments.version_number(version),
        arguments.basis_points(share, "--share"),
        gates(override_gates),
    )
    async with session.client(job, number) as client:
        change = await client.set_shadow(
            job, number, points, override_gates=overridden, override_owner=override_owner, reason=reason
        )
    session.output.answer(document(change), change_view(change))


async def show(session: Session, job: JobArgument) -> None:
    """Show what was compared, and whether the candidate differs more often than the active version from itself."""
    async with session.client(job) as client:
        report = await client.shadow(job)
    session.output.answer(document(report), shadow_view(report))


async def stop(
    session: Session, job: JobArgument, override_owner: OwnerOption = False, reason: ReasonOption = ""
) -> None:
    """Compare nothing any more; what was counted stays."""
    async with session.client(job) as client:
        change = await client.stop_shadow(job, override_owner=override_owner, reason=reason)
    session.output.answer(document(change), change_view(change))
