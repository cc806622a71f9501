"""Watching a run.

Caught up means here what it means at a cutover: the catch-up gate would pass. A run is at the end of the log a moment
before that, because the gate asks that it has stayed level with the active version for a while. A run of a bounded
range is COMPLETED once, and whatever the gates say of it then they say for good.
"""

from __future__ import annotations

import asyncio
import contextlib
from dataclasses import dataclass
from typing import TYPE_CHECKING

from rich.console import Group, RenderableType
from rich.text import Text

from turnout.cli.document import document
from turnout.cli.exits import ExitCode
from turnout.cli.quantities import span
from turnout.cli.screens import Screen, Views, screen
from turnout.cli.session import Session
from turnout.cli.views.runs import EMPTY_RANGE, range_is_empty, run_line, run_view, way_on
from turnout.errors import NotFound
from turnout.results import Gate, Run, RunState, VersionState

if TYPE_CHECKING:
    from turnout.client import Client

_GATES_EVERY_S = 0.25
_HEAD_LINES = 12  # what stands above and below the partitions: a picture taller than the screen could not be redrawn
_CATCH_UP = "catch-up"
_ENDED = (RunState.STOPPED, RunState.FAILED)
_AT_END = (RunState.TAILING, RunState.COMPLETED)


@dataclass(frozen=True, slots=True)
class Seen:
    """A run as it is now. waiting_for: why one at the end of the log has not caught up."""

    run: Run
    waiting_for: str = ""


@dataclass(frozen=True, slots=True)
class Standing:
    """What a cutover to the version would meet. gates: none for a version that is active or may not be named."""

    state: VersionState
    active: bool
    gates: tuple[Gate, ...]

    @property
    def waiting_for(self) -> str:
        """Why the run has not caught up; empty = it has."""
        return " ".join(text for one in self.gates if one.gate == _CATCH_UP and not one.passed for text in one.evidence)


async def watch(session: Session, client: Client, job: str, version: int, *, follow: bool) -> int:
    """Show the run until the catch-up gate passes (OK), or it has ended (NOT_SO); with `follow` until Ctrl-C."""
    try:
        with screen(session.output, _VIEWS) as on:
            run, standing = await _watched(client, job, version, on, follow)
    except asyncio.CancelledError:
        session.output.note(
            f"No longer watching; the run of {job} v{version} goes on. `turnout run pause {job} v{version}` pauses it."
        )
        raise
    if standing is None:
        state = (await client.get_version(job, version)).state
        session.output.note(f"The run is {run.state}. {way_on(run, state)}")
        return ExitCode.NOT_SO
    session.output.say(Text(caught_up(run, standing)))
    return ExitCode.OK


async def _watched(
    client: Client, job: str, version: int, on: Screen[Seen], follow: bool
) -> tuple[Run, Standing | None]:
    """The run when there is nothing more to wait for, and what a cutover would meet; None = the run has ended."""
    while True:
        async with contextlib.aclosing(client.watch_run(job, version)) as runs:
            async for run in runs:
                if run.state in _ENDED and not follow:
                    on.show(Seen(run), last=True)
                    return run, None
                if run.state in _AT_END and not follow:
                    break
                on.show(Seen(run))
        # The stream tells only of changes of the run, and a gate passes without one.
        while run.state in _AT_END and not follow:
            standing = await _standing(client, job, version)
            over = not standing.waiting_for or run.state is RunState.COMPLETED
            on.show(Seen(run, "" if over else standing.waiting_for), last=over)
            if over:
                return run, standing
            await asyncio.sleep(_GATES_EVERY_S)
            run = await client.get_run(job, version)


def _picture(seen: Seen, rows: int) -> RenderableType:
    parts = [run_view(seen.run, rows - _HEAD_LINES)]
    if seen.waiting_for:
        parts.append(Text(f"Not caught up yet: {seen.waiting_for}", style="yellow"))
    return Group(*parts)


def _lines(seen: Seen, before: Seen | None) -> list[str]:
    told = [run_line(seen.run)]
    # The gate asks for a second or so of standing level: not worth a word at first.
    if seen.waiting_for and before is not None and before.run.state is seen.run.state:
        told.append(f"  not caught up yet: {seen.waiting_for}")
    return told


_VIEWS = Views(_picture, _lines, lambda seen: document(seen.run), lambda seen: seen.run.state)


async def _standing(client: Client, job: str, version: int) -> Standing:
    state = (await client.get_version(job, version)).state
    try:
        active = (await client.route(job)).active_version
    except NotFound:  # before the first cutover
        active = None
    if active == version or state is not VersionState.REGISTERED:
        return Standing(state, active == version, ())
    return Standing(state, False, (await client.check_gates(job, version, baseline=active)).gates)


def caught_up(run: Run, standing: Standing) -> str:
    """That the run has caught up, and what a person can do with it."""
    after = f" after {span(run.catch_up_time - run.create_time)}" if run.catch_up_time is not None else ""
    reached, still = f"Caught up{after}", "still "
    done = f"{reached}; it goes on following the log."
    if run.state is RunState.COMPLETED:
        reached, still = f"Completed{after}", ""
        done = f"{reached}: its range is read, and its table stays as it is."
    if standing.active:
        return f"{done} It is the active version."
    if range_is_empty(run) and standing.state is VersionState.REGISTERED:
        return f"{reached}. {EMPTY_RANGE}."
    if standing.state is not VersionState.REGISTERED:
        return f"{reached}. {way_on(run, standing.state)}"
    command = f"`turnout cutover {run.job} v{run.version}`"
    refusing = [one for one in standing.gates if not one.passed]
    if refusing:
        names = " and ".join(one.gate for one in refusing)
        why = " ".join(text for one in refusing for text in one.evidence)
        return f"{done} {command} would {still}be refused by {names}: {why}"
    return f"{done} {command} makes it serve all readers."
