"""`turnout show` and `turnout estimate`: what there is, and what a replay would take."""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType

from turnout.cli import arguments
from turnout.cli.commands.parameters import JobArgument, VersionArgument, complete_job
from turnout.cli.document import document
from turnout.cli.exits import usage
from turnout.cli.invocation import command
from turnout.cli.session import Session
from turnout.cli.views.jobs import job_view, jobs_view, version_view
from turnout.cli.views.routes import changes_view
from turnout.cli.views.runs import estimate_view
from turnout.errors import NotFound
from turnout.results import Route, Run

if TYPE_CHECKING:
    from turnout.client import Client


def register(app: typer.Typer) -> None:
    command(app, "show")(show)
    command(app, "estimate")(estimate)


async def show(
    session: Session,
    job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="One job.", autocompletion=complete_job)] = None,
    version: Annotated[str | None, typer.Argument(metavar="[vN]", help="One version of it.")] = None,
    history: Annotated[bool, typer.Option("--history", help="Show also every change of the job's route.")] = False,
) -> None:
    """Show all jobs, or one with its versions, runs and route, or one version."""
    if history and (job is None or version is not None):
        raise usage("--history is of one job's route: turnout show JOB --history.")
    if job is None:
        await _show_jobs(session)
    elif version is None:
        await _show_job(session, job, history)
    else:
        await _show_version(session, job, arguments.version_number(version))


async def _show_jobs(session: Session) -> None:
    async with session.client() as client:
        jobs = [job async for job in client.list_jobs()]
        routes = {route.job: route async for route in client.routes()}
    session.output.answer(
        [{"job": document(job), "route": document(routes.get(job.job))} for job in jobs], jobs_view(jobs, routes)
    )


async def _show_job(session: Session, name: str, history: bool) -> None:
    async with session.client(name) as client:
        job = await client.get_job(name)
        versions = [version async for version in client.list_versions(name)]
        runs = {run.version: run async for run in client.list_runs(name)}
        route = await _route_if_any(client, name)
        readiness = await client.rollback_readiness(name) if route is not None else None
        changes = [change async for change in client.route_changes(name)] if history and route is not None else []
    answer: dict[str, object] = {
        "job": document(job),
        "versions": document(versions),
        "runs": document(list(runs.values())),
        "route": document(route),
        "rollback_readiness": document(readiness),
    }
    parts: list[RenderableType] = [job_view(job, versions, runs, route, readiness)]
    if history:
        answer["route_changes"] = document(changes)
        parts.append(changes_view(changes))
    session.output.answer(answer, *parts)


async def _show_version(session: Session, job: str, number: int) -> None:
    async with session.client(job, number) as client:
        version = await client.get_version(job, number)
        run = await _run_if_any(client, job, number)
    session.output.answer({"version": document(version), "run": document(run)}, version_view(version, run))


async def _route_if_any(client: Client, job: str) -> Route | None:
    try:
        return await client.route(job)
    except NotFound:
        return None


async def _run_if_any(client: Client, job: str, number: int) -> Run | None:
    try:
        return await client.get_run(job, number)
    except NotFound:
        return None


async def estimate(session: Session, job: JobArgument, version: VersionArgument) -> None:
    """Tell what a replay of a version would read and write; starts nothing."""
    number = arguments.version_number(version)
    async with session.client(job, number) as client:
        found = await client.estimate(job, number)
    session.output.answer(document(found), estimate_view(found, job, number))
