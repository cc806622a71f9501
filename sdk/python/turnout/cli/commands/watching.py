"""Watching a run: redrawn in a terminal, a plain line every few seconds elsewhere, every change as JSON."""

from __future__ import annotations

import asyncio
import contextlib
import time
from typing import TYPE_CHECKING

from rich.live import Live
from rich.text import Text

from turnout.cli.document import document
from turnout.cli.exits import ExitCode
from turnout.cli.output import Output
from turnout.cli.quantities import span
from turnout.cli.session import Session
from turnout.cli.views.runs import run_line, run_view
from turnout.results import Run, RunState

if TYPE_CHECKING:
    from turnout.client import Client

LINE_EVERY_S = 5.0
_ENDED = (RunState.STOPPED, RunState.FAILED)


async def watch(session: Session, client: Client, job: str, version: int, *, follow: bool) -> int:
    """Show the run until it is at the end of the log (OK), or ended (NOT_SO); with `follow` until Ctrl-C."""
    run: Run | None = None
    try:
        with _screen(session.output) as screen:
            async with contextlib.aclosing(client.watch_run(job, version)) as runs:
                async for run in runs:
                    last = not follow and (run.state is RunState.TAILING or run.state in _ENDED)
                    screen.show(run, last)
                    if last:
                        break
    except asyncio.CancelledError:
        session.output.note(
            f"No longer watching; the run of {job} v{version} goes on. `turnout run pause {job} v{version}` pauses it."
        )
        raise
    if run is None or run.state in _ENDED:
        session.output.note(
            f"The run is {run.state if run is not None else 'gone'}. "
            f"`turnout run resume {job} v{version}` takes it up again."
        )
        return ExitCode.NOT_SO
    session.output.say(Text(_caught_up(run)))
    return ExitCode.OK


def _caught_up(run: Run) -> str:
    after = f" after {span(run.catch_up_time - run.create_time)}" if run.catch_up_time is not None else ""
    command = f"turnout cutover {run.job} v{run.version}"
    return f"Caught up{after}; it goes on following the log. `{command}` makes it serve all readers."


class _Screen:
    """Where a run is shown. Use it as a context manager."""

    def __init__(self, output: Output) -> None:
        self._output = output

    def __enter__(self) -> _Screen:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, run: Run, last: bool) -> None:
        """The run as it is now; `last`: nothing will follow."""
        raise NotImplementedError


class _Documents(_Screen):
    def show(self, run: Run, last: bool) -> None:
        del last
        self._output.line(document(run))


class _Lines(_Screen):
    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._pace = LinePace()

    def show(self, run: Run, last: bool) -> None:
        if self._pace.due(run.state, last, time.monotonic()):
            self._output.say(Text(run_line(run)))


class _Picture(_Screen):
    def __init__(self, output: Output) -> None:
        super().__init__(output)
        self._live = Live(console=output.console, refresh_per_second=4, transient=False)

    def __enter__(self) -> _Screen:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, run: Run, last: bool) -> None:
        self._live.update(run_view(run), refresh=last)


def _screen(output: Output) -> _Screen:
    if output.is_json:
        return _Documents(output)
    return _Picture(output) if output.interactive else _Lines(output)


class LinePace:
    """When a plain line is due: at first, at a change of state, every few seconds, and at the end."""

    def __init__(self) -> None:
        self._state: RunState | None = None
        self._next_s = 0.0

    def due(self, state: RunState, last: bool, now_s: float) -> bool:
        """Whether to print now; `now_s` on a monotonic clock."""
        if state is self._state and not last and now_s < self._next_s:
            return False
        self._state, self._next_s = state, now_s + LINE_EVERY_S
        return True
