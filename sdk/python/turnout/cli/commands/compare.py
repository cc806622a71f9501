"""`turnout compare` and `turnout comparisons`: two tables at one cut, held against what may differ."""

from __future__ import annotations

from collections.abc import AsyncGenerator
from contextlib import aclosing
from typing import Annotated

import typer

from turnout.cli import arguments
from turnout.cli.arguments import COUNT_MAX
from turnout.cli.commands.parameters import ContractOptions, JobArgument
from turnout.cli.document import document
from turnout.cli.exits import ExitCode, usage
from turnout.cli.invocation import command
from turnout.cli.session import Session
from turnout.cli.views.comparisons import comparison_view, comparisons_view, differs, progress_text
from turnout.results import Comparison

SAMPLE = 10


def register(app: typer.Typer) -> None:
    command(app, "compare")(compare)
    command(app, "comparisons")(comparisons)


async def compare(
    session: Session,
    job: JobArgument,
    contract: ContractOptions,
    old: Annotated[str | None, typer.Argument(metavar="OLD", help="The old version, such as v1.")] = None,
    new: Annotated[str | None, typer.Argument(metavar="NEW", help="The new version, such as v2.")] = None,
    sample: Annotated[
        int | None,
        typer.Option(
            "--sample", min=1, max=1000, metavar="N", help=f"Most differing rows to show; {SAMPLE} unless told."
        ),
    ] = None,
    exit_code: Annotated[bool, typer.Option("--exit-code", help="End with 1 when the tables differ.")] = False,
    hold: Annotated[
        str | None,
        typer.Option("--hold", metavar="DURATION", help="How long the runs may be held until both stand at one cut."),
    ] = None,
    allow_unaligned: Annotated[
        bool, typer.Option("--allow-unaligned", help="Compare as they stand where there is no such cut.")
    ] = False,
    range_rows: Annotated[
        int | None, typer.Option("--range-rows", min=1, max=COUNT_MAX, metavar="N", help="Rows of a range of keys.")
    ] = None,
    resume: Annotated[
        str | None, typer.Option("--resume", metavar="ID", help="Go on with a comparison that was interrupted.")
    ] = None,
) -> int:
    """Compare the tables of two versions, row by row, at one cut of the log."""
    judged_by = contract.judged_by()
    within = None if hold is None else arguments.duration(hold)
    if resume is not None:
        asked_then = (old, judged_by, sample, within, range_rows)
        if allow_unaligned or any(one is not None for one in asked_then):
            raise usage(
                "--resume goes on with what was asked then: leave out the versions and the contract, --sample, --hold, "
                "--allow-unaligned and --range-rows."
            )
        async with session.client(job) as client:
            return _answer(session, await _shown(session, client.resuming_comparison(job, resume)), exit_code)
    if old is None or new is None:
        raise usage("Name two versions, such as v1 v2.")
    first, second = arguments.version_number(old), arguments.version_number(new)
    async with session.client(job, first, second) as client:
        steps = client.comparing(
            job,
            first,
            second,
            contract=judged_by,
            sample_size=SAMPLE if sample is None else sample,
            allow_unaligned=allow_unaligned,
            align_within=within,
            range_rows=range_rows or 0,
        )
        return _answer(session, await _shown(session, steps), exit_code)


async def comparisons(
    session: Session,
    job: JobArgument,
    comparison: Annotated[
        str | None, typer.Argument(metavar="ID", help="One of them, with its ranges; all unless given.")
    ] = None,
) -> None:
    """List what was compared, and what came of it."""
    async with session.client(job) as client:
        if comparison is not None:
            found = await client.get_comparison(job, comparison)
            session.output.answer(document(found), comparison_view(found, with_ranges=True))
            return
        listed = [one async for one in client.list_comparisons(job)]
    session.output.answer(document(listed), comparisons_view(listed))


async def _shown(session: Session, steps: AsyncGenerator[Comparison, None]) -> Comparison:
    """The finished comparison; how far it is meanwhile."""
    found: Comparison | None = None
    async with aclosing(steps) as answers:
        async for found in answers:
            if not found.finished:
                session.output.note(progress_text(found))
    assert found is not None, "the stream of a comparison ends with the finished one"
    return found


def _answer(session: Session, found: Comparison, exit_code: bool) -> int:
    session.output.answer(document(found), comparison_view(found))
    if found.passed is None:
        return ExitCode.NOT_SO if exit_code and differs(found) else ExitCode.OK
    return ExitCode.OK if found.passed else ExitCode.NOT_SO
