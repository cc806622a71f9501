"""`turnout capacity ...`: the budget that all copies of the log share."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from turnout.cli import arguments
from turnout.cli.arguments import COUNT_MAX
from turnout.cli.document import document
from turnout.cli.exits import usage
from turnout.cli.invocation import command
from turnout.cli.session import Session
from turnout.cli.views.capacity import capacity_view


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True)
    app.add_typer(group, name="capacity", help="Show or change the budget that all copies of the log share.")
    command(group, "show")(show)
    command(group, "set")(change)


async def show(session: Session) -> None:
    """Show the budget of copies and what is used of it."""
    async with session.client() as client:
        capacity = await client.capacity()
    session.output.answer(document(capacity), capacity_view(capacity))


async def change(
    session: Session,
    copies: Annotated[
        int | None,
        typer.Option("--copies", min=0, max=COUNT_MAX, metavar="N", help="Most runs that copy at the same time."),
    ] = None,
    rows: Annotated[
        int | None,
        typer.Option(
            "--rows", min=0, max=COUNT_MAX, metavar="N", help="Most rows a second that all copies write together."
        ),
    ] = None,
    storage: Annotated[
        str | None, typer.Option("--storage", metavar="SIZE", help="Most that all output tables take, such as 500GB.")
    ] = None,
    reads: Annotated[
        float | None,
        typer.Option(
            "--reads",
            min=0,
            metavar="X",
            help="How many times its quiet value the reads' p99 may reach before copies slow down, such as 1.3.",
        ),
    ] = None,
) -> None:
    """Change the budget of copies, at once; 0 lifts a limit. A copy under way is never sent back to the queue."""
    storage_bytes = arguments.byte_count(storage) if storage is not None else None
    if copies is None and rows is None and storage_bytes is None and reads is None:
        raise usage("Nothing is to be changed: give --copies, --rows, --storage or --reads.")
    async with session.client() as client:
        capacity = await client.update_capacity(
            copies_max=copies,
            rows_per_s_max=rows,
            storage_bytes_max=storage_bytes,
            read_p99_ratio_max=reads,
        )
    session.output.answer(document(capacity), Text("The budget of copies is changed."), capacity_view(capacity))
