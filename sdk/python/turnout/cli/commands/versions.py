"""`turnout retire` and `unretire`: the end of a version."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from turnout.cli import arguments
from turnout.cli.commands.parameters import JobArgument, VersionArgument
from turnout.cli.document import document
from turnout.cli.invocation import command
from turnout.cli.session import Session
from turnout.cli.views.jobs import retirement_lines
from turnout.results import Version, VersionState


def register(app: typer.Typer) -> None:
    command(app, "retire")(retire)
    command(app, "unretire")(unretire)


async def retire(
    session: Session,
    job: JobArgument,
    version: VersionArgument,
    retain_for: Annotated[
        str, typer.Option("--retain-for", metavar="DURATION", help="How long the table stays once stopped.")
    ] = "24h",
    forgo_rollback: Annotated[
        bool, typer.Option("--forgo-rollback", help="Give up the way back to this version.")
    ] = False,
) -> None:
    """Retire a version that serves nobody: its run stops, its table is retained, then dropped."""
    number, retention = arguments.version_number(version), arguments.duration(retain_for)
    async with session.client(job, number) as client:
        before = await client.get_version(job, number)
        after = await client.retire(job, number, retain_for=retention, forgo_rollback=forgo_rollback)
    if before.state is VersionState.DROPPED:
        _tell(session, after, f"Nothing to change: {job} v{number} is already dropped.")
    elif before.state is not VersionState.REGISTERED:
        _tell(session, after, f"{job} v{number} is being retired already.")
    else:
        _tell(session, after, f"{job} v{number} is being retired; `turnout show {job}` tells how far it is.")


async def unretire(session: Session, job: JobArgument, version: VersionArgument) -> None:
    """Take a retirement back while the table exists; the run goes on from its positions."""
    number = arguments.version_number(version)
    async with session.client(job, number) as client:
        before = await client.get_version(job, number)
        after = await client.unretire(job, number)
    if before.state is VersionState.REGISTERED:
        _tell(session, after, f"Nothing to change: {job} v{number} is not being retired.")
    else:
        _tell(session, after, f"The retirement of {job} v{number} is taken back.")


def _tell(session: Session, version: Version, done: str) -> None:
    session.output.answer(document(version), Text("\n".join([done, *retirement_lines(version)])))
