"""`turnout rollout ...`: a version goes from its replay to all readers by itself, step by step, or comes back."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import AsyncGenerator, Awaitable, Callable
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated

import typer
from rich.console import RenderableType
from rich.text import Text

from turnout.cli import arguments, plans
from turnout.cli.commands.parameters import ContractOptions, JobArgument, ReasonOption
from turnout.cli.commands.rollout_options import ExpectedOptions, PlanOptions
from turnout.cli.document import document
from turnout.cli.exits import CommandError, ExitCode
from turnout.cli.invocation import command
from turnout.cli.screens import FirstOfHeight, Views, screen
from turnout.cli.session import Session
from turnout.cli.views.phrases import AWAY
from turnout.cli.views.rollouts import (
    nothing_to_change_text,
    over_text,
    passed_over_text,
    preview_view,
    rollout_line,
    rollout_view,
    rollouts_view,
    started_text,
    way_on,
)
from turnout.errors import DeadlineExceeded, InvalidInput, NotFound, Unavailable
from turnout.experiments import Experiment
from turnout.results import VersionState
from turnout.rollouts import Rollout, RolloutState
from turnout.tasks import end

if TYPE_CHECKING:
    from turnout.client import Client

_COUNTED_EVERY_S = 1.0

RolloutArgument = Annotated[
    str | None, typer.Argument(metavar="[ROLLOUT]", help="Name of the rollout; the job's newest unless given.")
]


def register(app: typer.Typer) -> None:
    group = typer.Typer(no_args_is_help=True)
    app.add_typer(group, name="rollout", help="Roll a version out by itself, from its replay to all readers.")
    command(group, "start")(start)
    command(group, "plan")(plan)
    command(group, "show")(show)
    command(group, "list")(list_all)
    command(group, "watch")(watch)
    command(group, "pause")(pause)
    command(group, "resume")(resume)
    command(group, "promote")(promote)
    command(group, "abort")(abort)


async def start(
    session: Session,
    job: JobArgument,
    plan: PlanOptions,
    contract: ContractOptions,
    expected: ExpectedOptions,
    version: Annotated[
        str | None, typer.Option("--version", metavar="vN", help="The candidate; the newest version unless given.")
    ] = None,
    name: Annotated[
        str | None, typer.Option("--name", metavar="ROLLOUT", help="Its name; after its version unless given.")
    ] = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="Change nothing; tell what each step would take.")] = False,
    reason: ReasonOption = "",
) -> None:
    """Begin a rollout: replay, compare, more and more readers, each step behind its gates, back by itself."""
    number = None if version is None else arguments.version_number(version)
    wanted, risk = plan.wanted(contract.judged_by()), expected.part_erring()
    async with session.client(job, number) as client:
        candidate = number or await _newest(client, job)
        try:
            found = await client.create_rollout(
                job,
                name or await _free_name(client, job, candidate),
                candidate,
                wanted.plan,
                expected_units_per_day=expected.units_per_day,
                expected_risk=risk,
                validate_only=dry_run,
                reason=reason,
            )
        except InvalidInput as error:
            raise wanted.refused(error) from None
    if plans.unjudged(wanted.plan):
        session.output.note(
            "It will pause at the comparison, for a person to judge it: the plan does not say what may differ. --same, "
            "--contract, --expect and --may-differ say it."
        )
    preview = [preview_view(found)] if found.previews else []
    session.output.answer(document(found), *([] if dry_run else [Text(started_text(found))]), *preview)


def plan(
    session: Session,
    template: Annotated[str, typer.Argument(metavar="[TEMPLATE]", help=f"{plans.TEMPLATE_NAMES}.")] = plans.DEFAULT,
) -> None:
    """Write a template as a file to edit: turnout rollout plan careful > plan.yaml."""
    session.output.answer(document(plans.template(template)), Text(plans.template_text(template).rstrip("\n")))


async def show(session: Session, job: JobArgument, rollout: RolloutArgument = None) -> None:
    """Show a rollout: its steps and where it stands, what gates say, what was counted, and what it waits for."""
    async with session.client(job) as client:
        seen = await _seen(client, await _found(client, job, rollout))
    session.output.answer(_document(seen), rollout_view(seen.rollout, seen.counted))


async def list_all(
    session: Session, job: Annotated[str | None, typer.Argument(metavar="[JOB]", help="Of one job.")] = None
) -> None:
    """List rollouts, newest first."""
    async with session.client(job or "") as client:
        found = [one async for one in client.list_rollouts(job)]
    session.output.answer(document(found), rollouts_view(found))


async def watch(session: Session, job: JobArgument, rollout: RolloutArgument = None) -> int:
    """Show a rollout as it goes until it is over; Ctrl-C ends the watching, not the rollout."""
    async with session.client(job) as client:
        name = (await _found(client, job, rollout)).rollout
        try:
            with screen(session.output, _VIEWS) as on:
                async for seen in _watched(client, job, name):
                    on.show(seen, last=seen.rollout.state.over)
        except asyncio.CancelledError:
            session.output.note(
                f"No longer watching; the rollout goes on. `turnout rollout pause {job}` pauses it, `turnout rollout "
                f"abort {job}` takes it back."
            )
            raise
    found = seen.rollout
    session.output.say(Text(over_text(found)))
    return ExitCode.OK if found.state is RolloutState.SUCCEEDED else ExitCode.NOT_SO


async def pause(session: Session, job: JobArgument, rollout: RolloutArgument = None, reason: ReasonOption = "") -> None:
    """Let nothing move forward; gates are watched on, and one that fails still takes the candidate back."""
    await _told(session, job, rollout, lambda client, name: client.pause_rollout(job, name, reason=reason))


async def resume(
    session: Session, job: JobArgument, rollout: RolloutArgument = None, reason: ReasonOption = ""
) -> None:
    """Let a paused rollout go on: what it was paused for is tried again, or passed over for the present step."""
    await _told(session, job, rollout, lambda client, name: client.resume_rollout(job, name, reason=reason))


async def promote(
    session: Session,
    job: JobArgument,
    rollout: RolloutArgument = None,
    step: Annotated[
        int | None, typer.Option("--step", metavar="N", min=1, help="The step, from 1; the present one unless given.")
    ] = None,
    reason: ReasonOption = "",
) -> None:
    """Pass over what the present step waits for; never over harm, nor over what the step does."""
    async with session.client(job) as client:
        found = await _found(client, job, rollout)
        if step is None and found.present is None and not found.state.over:
            raise CommandError(
                ExitCode.REFUSED,
                "ROLLOUT_NOT_THERE",
                f"The rollout {found.rollout} of {job} is at no step whose waiting could be passed over: "
                f"{found.waiting_for or found.sentence or 'it has not begun yet.'}",
            )
        place = step or min(max(found.step, 1), len(found.plan.steps))
        before, found = found, await client.promote_rollout(job, found.rollout, place, reason=reason)
    told = _said(before, found)
    if not before.state.over:
        told = f"{passed_over_text(before, found, place)} {told}"
    session.output.answer(document(found), Text(told))


async def abort(session: Session, job: JobArgument, rollout: RolloutArgument = None, reason: ReasonOption = "") -> None:
    """Take the candidate back, to no reader at all."""
    await _told(session, job, rollout, lambda client, name: client.abort_rollout(job, name, reason=reason))


# --- what is shown --------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Seen:
    """A rollout, and the experiment that counts, or last counted, its units."""

    rollout: Rollout
    counted: Experiment | None


async def _seen(client: Client, found: Rollout) -> Seen:
    if not found.experiment:
        return Seen(found, None)
    try:
        return Seen(found, await client.get_experiment(found.job, found.experiment))
    except NotFound:
        return Seen(found, None)


async def _watched(client: Client, job: str, name: str) -> AsyncGenerator[Seen, None]:
    """The rollout after every change, and what was counted, which changes without it."""
    async with contextlib.aclosing(_kept_up(client, job, name)) as stream:
        following = asyncio.create_task(_next(stream))
        try:
            found: Rollout | None = None
            counted: Experiment | None = None
            while True:
                await asyncio.wait([following], timeout=_COUNTED_EVERY_S if found is not None else None)
                if following.done():
                    found = following.result()
                    if found is None:
                        return
                    following = asyncio.create_task(_next(stream))
                assert found is not None, "the first rollout is waited for"
                try:
                    seen = await _seen(client, found)
                except (Unavailable, DeadlineExceeded):
                    seen = Seen(replace(found, waiting_for=AWAY), counted)
                counted = seen.counted
                yield seen
                if found.state.over:
                    return
        finally:
            await end(following)


async def _kept_up(client: Client, job: str, name: str) -> AsyncGenerator[Rollout, None]:
    """The rollout after every change, however long the switcher is away once it has answered."""
    answered = False
    while True:
        try:
            async with contextlib.aclosing(client.watch_rollout(job, name)) as stream:
                async for found in stream:
                    answered = True
                    yield found
        except (Unavailable, DeadlineExceeded):
            if not answered:
                raise
            await asyncio.sleep(_COUNTED_EVERY_S)
        else:
            return


async def _next(stream: AsyncGenerator[Rollout, None]) -> Rollout | None:
    return await anext(stream, None)


def _document(seen: Seen) -> object:
    return {"rollout": document(seen.rollout), "experiment": document(seen.counted)}


def _picture(seen: Seen, rows: int) -> RenderableType:
    return FirstOfHeight([rollout_view(seen.rollout, seen.counted, detail=detail) for detail in (2, 1, 0)], rows)


_VIEWS: Views[Seen] = Views(
    _picture,
    lambda seen, _: [rollout_line(seen.rollout, seen.counted)],
    _document,
    lambda seen: (seen.rollout.state, seen.rollout.step, seen.rollout.phase),
)


async def _told(
    session: Session, job: str, rollout: str | None, tell: Callable[[Client, str], Awaitable[Rollout]]
) -> None:
    async with session.client(job) as client:
        before = await _found(client, job, rollout)
        found = await tell(client, before.rollout)
    session.output.answer(document(found), Text(_said(before, found)))


def _said(before: Rollout, found: Rollout) -> str:
    """Where a rollout stands after a person has spoken. before: how it stood ahead of that."""
    which = f"The rollout {found.rollout} of {found.job}"
    if before.state.over:
        return nothing_to_change_text(found)
    if found.state.over:
        return over_text(found)
    if found.state is RolloutState.PAUSED:
        return f"{which} is paused. {way_on(found)}"
    if found.state is RolloutState.ROLLING_BACK:
        return (
            f"{which} is on its way back: v{found.candidate} is taken from its readers. `turnout rollout watch "
            f"{found.job}` shows when that is done."
        )
    return f"{which} goes on; `turnout rollout watch {found.job}` shows how."


# --- what is meant --------------------------------------------------------------------------------------------------


async def _found(client: Client, job: str, name: str | None) -> Rollout:
    """The rollout of this name, or the job's newest; no other can be under way."""
    if name is not None:
        return await client.get_rollout(job, name)
    async for found in client.list_rollouts(job, page_size=1):
        return found
    await client.get_job(job)
    raise CommandError(
        ExitCode.NOT_FOUND,
        "ROLLOUT_NOT_FOUND",
        f"There is no rollout of {job} yet.",
        next_step=f"`turnout rollout start {job}` begins one.",
    )


async def _newest(client: Client, job: str) -> int:
    numbers = [one.number async for one in client.list_versions(job) if one.state is VersionState.REGISTERED]
    if not numbers:
        raise CommandError(
            ExitCode.NOT_FOUND,
            "VERSION_NOT_FOUND",
            f"{job} has no version that could be rolled out.",
            next_step="`turnout apply FILE` registers one.",
        )
    return max(numbers)


async def _free_name(client: Client, job: str, version: int) -> str:
    """A name that no rollout of the job has had: `v3`, else `v3-2`."""
    taken = {one.rollout async for one in client.list_rollouts(job)}
    number = 1
    while (name := f"v{version}" if number == 1 else f"v{version}-{number}") in taken:
        number += 1
    return name
