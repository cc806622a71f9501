"""`turnout traffic`, `cutover` and `rollback`: which version serves which readers."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Annotated

import typer

from turnout.cli import arguments
from turnout.cli.commands.parameters import (
    GatesOption,
    JobArgument,
    OwnerOption,
    ReasonOption,
    RequireOption,
    complete_job,
    gates,
    required_gates,
)
from turnout.cli.document import document
from turnout.cli.exits import ExitCode, usage
from turnout.cli.invocation import command
from turnout.cli.session import Session
from turnout.cli.views.routes import change_view, readiness_view, route_view
from turnout.readiness import RollbackReadiness
from turnout.results import Route, RouteChange


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True)
    app.add_typer(group, name="traffic", help="Set or show which share of a job's readers each version serves.")
    command(group, "set")(set_traffic)
    command(group, "require")(require)
    command(group, "show")(show_traffic)
    command(app, "cutover")(cutover)
    command(app, "rollback")(rollback)


async def set_traffic(
    session: Session,
    job: JobArgument,
    shares: Annotated[list[str], typer.Argument(metavar="vN=PERCENT...", help="All shares; they sum to 100.")],
    override_gates: GatesOption = None,
    require_gates: RequireOption = None,
    override_owner: OwnerOption = False,
    reason: ReasonOption = "",
) -> None:
    """Give each version its share of a job's readers, such as v1=90 v2=10; the active version stays active."""
    weights, overridden, required = arguments.weights(shares), gates(override_gates), required_gates(require_gates)
    async with session.client(job, *weights) as client:
        change = await client.set_traffic(
            job,
            weights,
            override_gates=overridden,
            require_gates=required,
            override_owner=override_owner,
            reason=reason,
        )
    _tell(session, [change])


async def require(
    session: Session,
    job: JobArgument,
    demanded: Annotated[list[str] | None, typer.Argument(metavar="GATE...", help="comparison, shadow.")] = None,
    none: Annotated[bool, typer.Option("--none", help="Demand none any more.")] = False,
    reason: ReasonOption = "",
) -> None:
    """Demand gates of every later change of a job's route, instead of those that it demands now."""
    names = required_gates(demanded)
    if none == bool(names):
        raise usage("Name the gates to demand of every change, or give --none to demand none any more.")
    async with session.client(job) as client:
        change = await client.require_gates(job, names, reason=reason)
    _tell(session, [change])


async def show_traffic(session: Session, job: JobArgument) -> None:
    """Show which version serves which share of a job's readers."""
    async with session.client(job) as client:
        route, readiness = await client.route(job), await client.rollback_readiness(job)
    session.output.answer(_with_readiness(route, readiness), route_view(route, readiness))


async def cutover(
    session: Session,
    targets: Annotated[
        list[str],
        typer.Argument(
            metavar="JOB vN | JOB=vN...", help="A job and its version, or several.", autocompletion=complete_job
        ),
    ],
    override_gates: GatesOption = None,
    require_gates: RequireOption = None,
    override_owner: OwnerOption = False,
    reason: ReasonOption = "",
) -> None:
    """Make a version the active one, with all the readers; the gates are asked first. Several jobs: all or none."""
    versions = arguments.versions_of_jobs(targets)
    overridden, required = gates(override_gates), required_gates(require_gates)
    if len(versions) > 1:
        if override_owner:
            raise usage("--override-owner is of one job's cutover: what owns a route is its own matter.")
        async with session.client(named={job: [number] for job, number in versions.items()}) as client:
            changes = await client.cut_over_many(
                versions, override_gates=overridden, require_gates=required, reason=reason
            )
        _tell(session, changes)
        return
    ((job, number),) = versions.items()
    async with session.client(job, number) as client:
        change = await client.cut_over(
            job,
            number,
            override_gates=overridden,
            require_gates=required,
            override_owner=override_owner,
            reason=reason,
        )
    _tell(session, [change])


async def rollback(
    session: Session,
    jobs: Annotated[
        list[str], typer.Argument(metavar="JOB...", help="One job, or several.", autocompletion=complete_job)
    ],
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="Change nothing; tell whether it would succeed, and how stale that is.")
    ] = False,
    reason: ReasonOption = "",
) -> int:
    """Put the route back to what it was before the last cutover, without any gate. Several jobs: all or none."""
    if dry_run:
        if reason:
            raise usage("--reason is kept with a rollback that is done: leave it out with --dry-run.")
        return await _readiness(session, jobs)
    if len(jobs) == 1:
        async with session.client(jobs[0]) as client:
            _tell(session, [await client.roll_back(jobs[0], reason=reason)])
    else:
        async with session.client(named=dict.fromkeys(jobs, ())) as client:
            _tell(session, await client.roll_back_many(jobs, reason=reason))
    return ExitCode.OK


async def _readiness(session: Session, jobs: Sequence[str]) -> int:
    """Tell how ready the rollback of each job is; NOT_SO where one would be refused."""
    found = []
    for job in jobs:
        async with session.client(job) as client:
            found.append(await client.rollback_readiness(job))
    answers = [document(one) for one in found]
    session.output.answer(answers[0] if len(answers) == 1 else answers, *map(readiness_view, found))
    return ExitCode.OK if all(one.possible for one in found) else ExitCode.NOT_SO


def _with_readiness(route: Route, readiness: RollbackReadiness) -> dict[str, object]:
    """The route's document, and how ready its rollback is beside it."""
    known = document(route)
    assert isinstance(known, dict)
    return {**known, "rollback_readiness": document(readiness)}


def _tell(session: Session, changes: Sequence[RouteChange]) -> None:
    answers = [document(change) for change in changes]
    session.output.answer(answers[0] if len(answers) == 1 else answers, *map(change_view, changes))
