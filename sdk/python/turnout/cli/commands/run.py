"""`turnout run ...`: watch, pause, resume, stop, limit the run of a version, or give it its place in the queue."""

from __future__ import annotations

from typing import Annotated

import typer
from rich.text import Text

from turnout.cli import arguments
from turnout.cli.arguments import COUNT_MAX
from turnout.cli.commands.parameters import PRIORITY_MAX, JobArgument, VersionArgument
from turnout.cli.commands.watching import watch
from turnout.cli.document import document
from turnout.cli.exits import ExitCode
from turnout.cli.invocation import command
from turnout.cli.quantities import count
from turnout.cli.session import Session
from turnout.cli.views.runs import fails_again, run_view
from turnout.results import Run, RunState


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True)
    app.add_typer(group, name="run", help="Watch, pause, resume, stop, limit or queue the run of a version.")
    command(group, "watch")(watch_run)
    command(group, "pause")(pause)
    command(group, "resume")(resume)
    command(group, "stop")(stop)
    command(group, "rate")(rate)
    command(group, "priority", negative_numbers=True)(priority)


async def watch_run(
    session: Session,
    job: JobArgument,
    version: VersionArgument,
    follow: Annotated[bool, typer.Option("--follow", help="Go on after it has caught up, until Ctrl-C.")] = False,
) -> int:
    """Show a run's progress until it has caught up; Ctrl-C ends the watching, not the run."""
    number = arguments.version_number(version)
    async with session.client(job, number) as client:
        return await watch(session, client, job, number, follow=follow)


async def pause(session: Session, job: JobArgument, version: VersionArgument) -> None:
    """Let a run finish its batch and stand still until it is resumed."""
    number = arguments.version_number(version)
    async with session.client(job, number) as client:
        _tell(session, await client.pause_run(job, number), "is paused; `turnout run resume` goes on from here")


async def resume(session: Session, job: JobArgument, version: VersionArgument) -> None:
    """Let a paused, stopped or failed run go on from its stored positions."""
    number = arguments.version_number(version)
    async with session.client(job, number) as client:
        before = await client.get_run(job, number)  # resumed, it has no failure any more
        run = await client.resume_run(job, number)
        done = "waits for its turn to go on" if run.state is RunState.QUEUED else "is resumed"
        _tell(session, run, done, warning=fails_again(before, "It is going to fail again"))


async def stop(session: Session, job: JobArgument, version: VersionArgument) -> None:
    """End a run; its table stays, and resume takes it up again."""
    number = arguments.version_number(version)
    async with session.client(job, number) as client:
        _tell(session, await client.stop_run(job, number), "is stopped; its table stays")


async def rate(
    session: Session,
    job: JobArgument,
    version: VersionArgument,
    limit: Annotated[
        int, typer.Argument(metavar="N", min=0, max=COUNT_MAX, help="Records a second over all workers; 0 = no limit.")
    ],
) -> int:
    """Limit how many records a second a run reads."""
    number = arguments.version_number(version)
    async with session.client(job, number) as client:
        run = await client.set_run_rate(job, number, limit or None)
        _tell(session, run, f"is limited to {count(limit)} records/s" if limit else "reads without a limit")
    return ExitCode.OK


async def priority(
    session: Session,
    job: JobArgument,
    version: VersionArgument,
    number: Annotated[
        int,
        typer.Argument(
            metavar="N", min=-PRIORITY_MAX, max=PRIORITY_MAX, help="-100 to 100; the higher one is admitted first."
        ),
    ],
) -> None:
    """Move a run in the queue of copies."""
    wanted = arguments.version_number(version)
    async with session.client(job, wanted) as client:
        _tell(session, await client.set_run_priority(job, wanted, number), f"has the priority {number}")


def _tell(session: Session, run: Run, done: str, *, warning: str = "") -> None:
    said = [Text(f"The run of {run.job} v{run.version} {done}.")]
    if warning:
        said.append(Text(warning, style="yellow"))
    session.output.answer(document(run), *said, run_view(run))
