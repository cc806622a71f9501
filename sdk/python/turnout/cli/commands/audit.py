"""`turnout audit`: is a job's function deterministic?"""

from __future__ import annotations

from typing import Annotated

import typer

from turnout.cli import arguments
from turnout.cli.commands.apply import refused
from turnout.cli.commands.parameters import JobFileArgument
from turnout.cli.document import document
from turnout.cli.exits import ExitCode
from turnout.cli.invocation import command
from turnout.cli.session import Session
from turnout.cli.views.comparisons import audit_view
from turnout.job import JobDefinitionError


def register(app: typer.Typer) -> None:
    command(app, "audit")(audit)


async def audit(
    session: Session,
    file: JobFileArgument,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="WHERE",
            help="Where the records begin: earliest (the default), a time with its zone, or offsets as "
            "TOPIC/PARTITION=OFFSET,...",
            show_default=False,
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option("--until", metavar="WHERE", help="Where they end: a time, or offsets; now unless told."),
    ] = None,
    sample: Annotated[
        int, typer.Option("--sample", min=1, max=1000, metavar="N", help="Most differing rows to show.")
    ] = 10,
) -> int:
    """Compute a job twice from the same records and compare: is its function deterministic?"""
    log_range = arguments.log_range(start, end)
    async with session.client() as client:
        try:
            found = await client.audit(file, log_range=log_range, sample_size=sample, told=session.output.note)
        except JobDefinitionError as error:
            raise refused(error) from None
    session.output.answer(document(found), audit_view(found))
    return ExitCode.OK if found.deterministic else ExitCode.NOT_SO
