"""`turnout apply`: register a job file as a version, say what it changes and takes, and replay it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import Group, RenderableType
from rich.text import Text

from turnout.cli import arguments
from turnout.cli.arguments import COUNT_MAX
from turnout.cli.commands.parameters import PRIORITY_MAX, JobFileArgument
from turnout.cli.commands.watching import watch
from turnout.cli.document import document
from turnout.cli.exits import CommandError, ExitCode, usage
from turnout.cli.failures import of_client
from turnout.cli.invocation import command
from turnout.cli.session import Session
from turnout.cli.views.definitions import differences_view
from turnout.cli.views.runs import estimate_view, way_on
from turnout.errors import DeadlineExceeded, FailedPrecondition, NotFound, TurnoutError
from turnout.job import JobDefinitionError
from turnout.results import Applied, Estimate, Run, RunState
from turnout.schema import ColumnDifference, JobDefinition, difference

if TYPE_CHECKING:
    from turnout.client import Client


_STANDING_STILL = (RunState.PAUSED, RunState.STOPPED, RunState.FAILED)
REFUSED_BY_POSTGRES = ("TABLE_REFUSED", "INDEX_REFUSED")
_RANGE_REFUSED = ("RANGE_NOT_RETAINED", "RANGE_NOT_FOUND", "RANGE_INCOMPLETE", "RANGE_BACKWARDS")


def register(app: typer.Typer) -> None:
    command(app, "apply")(apply)


@dataclass(frozen=True, slots=True)
class _Plan:
    """What applying a file came to, up to the start of its run."""

    applied: Applied
    active: int | None
    differences: tuple[ColumnDifference, ...]
    estimate: Estimate | None
    run_before: Run | None


async def apply(
    session: Session,
    file: JobFileArgument,
    version: Annotated[
        str | None, typer.Option("--version", metavar="vN", help="Refuse unless it is this version (exit code 7).")
    ] = None,
    start: Annotated[
        str | None,
        typer.Option(
            "--from",
            metavar="WHERE",
            help="Where the table begins in the log: earliest (the default), a time with its zone, or offsets as "
            "TOPIC/PARTITION=OFFSET,... Another range makes another version.",
            show_default=False,
        ),
    ] = None,
    end: Annotated[
        str | None,
        typer.Option(
            "--until",
            metavar="WHERE",
            help="Where it ends: a time, or offsets; never unless told.",
        ),
    ] = None,
    no_run: Annotated[bool, typer.Option("--no-run", help="Register only; start no replay.")] = False,
    workers: Annotated[
        int | None,
        typer.Option("--workers", min=1, max=COUNT_MAX, metavar="N", help="Worker processes, at most one a partition."),
    ] = None,
    rate: Annotated[
        int | None, typer.Option("--rate", min=1, max=COUNT_MAX, metavar="N", help="Limit in records a second.")
    ] = None,
    priority: Annotated[
        int | None,
        typer.Option(
            "--priority",
            min=-PRIORITY_MAX,
            max=PRIORITY_MAX,
            metavar="N",
            help="Place in the queue of copies, -100 to 100; the higher one is admitted first.",
        ),
    ] = None,
    watch_run: Annotated[
        bool | None,
        typer.Option(
            "--watch/--no-watch", help="Watch until caught up; the default in a terminal.", show_default=False
        ),
    ] = None,
) -> int:
    """Register a job file as a version, show what it changes and takes, and replay it beside the live one."""
    expected = arguments.version_number(version) if version is not None else None
    log_range = arguments.log_range(start, end)
    if no_run and (workers is not None or rate is not None or priority is not None or watch_run):
        raise usage("--no-run starts nothing: leave out --workers, --rate, --priority and --watch.")
    async with session.client() as client:
        try:
            applied = await client.apply(file, log_range=log_range, expected_number=expected, to_run=not no_run)
        except JobDefinitionError as error:
            raise refused(error) from None
        except FailedPrecondition as error:
            raise _not_stored(error) from None
        done = applied.version
        run = None
        try:
            plan = await _plan(client, applied, no_run, rate, priority or 0)
            if not no_run:
                run = plan.run_before or await client.start_run(
                    done.job, done.number, workers=workers, rate_limit=rate, priority=priority or 0
                )
        except TurnoutError as error:
            raise _not_started(applied, _same_command(file, start, end), error, no_run) from None
        session.output.answer(_document(plan, run), *_view(plan, run))
        if plan.run_before is not None:
            for remark in not_applied(plan.run_before, workers, rate, priority):
                session.output.note(remark)
        wanted = session.output.interactive if watch_run is None else watch_run
        if run is None or not wanted:
            return ExitCode.OK
        if run.state in _STANDING_STILL:  # the answer has said what to do about it
            return ExitCode.NOT_SO
        return await watch(session, client, run.job, run.version, follow=False)


async def _plan(client: Client, applied: Applied, no_run: bool, rate: int | None, priority: int) -> _Plan:
    job, number = applied.version.job, applied.version.number
    active, old = await active_definition(client, job)
    differences = () if old is None or active == number else difference(old, applied.version.definition)
    run_before = None if applied.created else await _run_if_any(client, job, number)
    estimate = None
    if run_before is None:
        try:
            estimate = await client.estimate(job, number, rate_limit=rate, priority=priority)
        except FailedPrecondition:
            if not no_run:  # a topic that is not there yet matters only to a run
                raise
    return _Plan(applied, active, differences, estimate, run_before)


def not_applied(run: Run, workers: int | None, rate: int | None, priority: int | None) -> list[str]:
    """What was asked of a run that exists already, and what does it instead; None = not asked."""
    remarks = []
    if workers is not None and workers != run.workers:
        remarks.append(f"--workers is not applied to a run that exists: it keeps its {run.workers}.")
    if rate is not None and rate != run.rate_limit:
        instead = f"`turnout run rate {run.job} v{run.version} {rate}`"
        remarks.append(f"--rate is not applied to a run that exists: {instead}.")
    if priority is not None and priority != run.priority:
        instead = f"`turnout run priority {run.job} v{run.version} {priority}`"
        remarks.append(f"--priority is not applied to a run that exists: {instead} while it is queued.")
    return remarks


def _same_command(file: Path, start: str | None, end: str | None) -> str:
    """What names this very version again: the file alone would be another one where it has a range."""
    options = [(name, text) for name, text in (("--from", start), ("--until", end)) if text is not None]
    return " ".join([f"turnout apply {file}", *(f"{name} {text}" for name, text in options)])


def _not_stored(error: FailedPrecondition) -> CommandError:
    """The error of what was refused before a version was stored."""
    failure = of_client(error)
    if error.reason in REFUSED_BY_POSTGRES:
        failure.next_step = "Mend the file and apply it again."
    elif error.reason in _RANGE_REFUSED:
        failure.next_step = "Apply the file with another --from or --until."
    return failure


def _not_started(applied: Applied, again: str, error: TurnoutError, no_run: bool) -> CommandError:
    """The error of what came after the version was stored: that stays, so it is said too."""
    job, number = applied.version.job, f"v{applied.version.number}"
    failure = of_client(error)
    if no_run:
        missing = "what it changes and takes is not known"
    elif isinstance(error, DeadlineExceeded):
        missing = "it is not known whether its replay has started"
    else:
        missing = "its replay did not start"
    stored = f"created {number}" if applied.created else f"{number} is registered"
    failure.message = f"{job}: {stored}; {missing}: {failure.message}"
    if error.reason in REFUSED_BY_POSTGRES:
        failure.next_step = "Mend the file and apply it again: changed, it becomes a new version."
    elif error.reason in _RANGE_REFUSED:
        failure.next_step = "Apply the file with another --from or --until: it becomes a new version."
    else:
        repeat = f"Then repeat `{again}`; unchanged, that is {number} again."
        failure.next_step = f"{failure.next_step} {repeat}".strip()
    return failure


def refused(error: JobDefinitionError) -> CommandError:
    """The error for a job file that is not accepted: where, why, what to do."""
    place, _, _ = str(error).partition(f": {error.reason}")
    where = f"{place}: " if place and place != str(error) else ""
    return CommandError(
        ExitCode.REFUSED,
        "JOB_REFUSED",
        f"The job is refused: {where}{error.reason}.",
        next_step=f"{error.remedy[:1].upper()}{error.remedy[1:]}.",
    )


async def active_definition(client: Client, job: str) -> tuple[int | None, JobDefinition | None]:
    """The active version of the job and its definition; None before the first cutover."""
    try:
        route = await client.route(job)
    except NotFound:
        return None, None
    active = await client.get_version(job, route.active_version)
    return active.number, active.definition


async def _run_if_any(client: Client, job: str, number: int) -> Run | None:
    try:
        return await client.get_run(job, number)
    except NotFound:
        return None


def _document(plan: _Plan, run: Run | None) -> dict[str, object]:
    return {
        "job_created": plan.applied.job_created,
        "created": plan.applied.created,
        "version": document(plan.applied.version),
        "active_version": plan.active,
        "column_differences": [differences_document(one) for one in plan.differences],
        "estimate": document(plan.estimate),
        "run": document(run),
    }


def differences_document(one: ColumnDifference) -> dict[str, object]:
    """A difference for a program."""
    return {"column": one.column, "change": one.change.value, "old": one.old, "new": one.new, "breaking": one.breaking}


def _view(plan: _Plan, run: Run | None) -> list[RenderableType]:
    applied = plan.applied
    job, number = applied.version.job, applied.version.number
    said = f"created v{number}" if applied.created else f"unchanged: v{number}"
    if applied.version.log_range is not None:
        said += f", {applied.version.log_range}"
    first = Text(f"{job}: {said}", style="bold")
    parts: list[RenderableType] = [Group(Text(f"{job}: created the job"), first) if applied.job_created else first]
    if plan.active is not None and plan.active != number:
        parts.append(differences_view(plan.differences, plan.active))
    if plan.estimate is not None:
        parts.append(estimate_view(plan.estimate, job, number))
    parts.append(Text(_what_next(plan, run)))
    return parts


def _what_next(plan: _Plan, run: Run | None) -> str:
    job, number = plan.applied.version.job, plan.applied.version.number
    if run is None:
        return "No replay was started. `turnout apply` without --no-run starts it."
    if run.state is RunState.QUEUED:
        return f"The replay is queued: {run.status_message}. `turnout run watch {job} v{number}` shows it."
    if plan.run_before is None:
        return f"The replay has started. `turnout run watch {job} v{number}` shows it."
    if run.state is RunState.COMPLETED:
        return f"Its run is COMPLETED. {way_on(run, plan.applied.version.state)}"
    if run.state in _STANDING_STILL:
        why = f": {run.status_message.rstrip('.')}" if run.status_message else ""
        return f"Its run is {run.state}{why}. {way_on(run, plan.applied.version.state)}"
    return f"Its run is {run.state}. `turnout run watch {job} v{number}` shows it."
