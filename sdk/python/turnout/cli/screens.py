"""Where what is watched is shown: redrawn in a terminal, a line every few seconds elsewhere, every change as JSON."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Generic, TypeVar

from rich.console import Console, ConsoleOptions, RenderableType, RenderResult
from rich.live import Live
from rich.text import Text

from turnout.cli.output import Output, Trimmed

LINE_EVERY_S = 5.0
_ROWS_LEFT = 2  # below a picture: what it ends with, and the cursor

T = TypeVar("T")


@dataclass(frozen=True, slots=True)
class Views(Generic[T]):
    """How a value is shown.

    picture: in a terminal of so many rows. lines: without one; the value that was shown before is the second argument.
    document: as JSON. state: a change of it is worth a line at once.
    """

    picture: Callable[[T, int], RenderableType]
    lines: Callable[[T, T | None], Sequence[str]]
    document: Callable[[T], object]
    state: Callable[[T], object]


class Screen(Generic[T]):
    """Shows one value after the other. Use it as a context manager."""

    def __init__(self, output: Output, views: Views[T]) -> None:
        self._output = output
        self._views = views

    def __enter__(self) -> Screen[T]:
        return self

    def __exit__(self, *_: object) -> None:
        pass

    def show(self, value: T, *, last: bool = False) -> None:
        """The value as it is now. last: nothing will follow."""
        raise NotImplementedError


class _Documents(Screen[T]):
    def __init__(self, output: Output, views: Views[T]) -> None:
        super().__init__(output, views)
        self._shown: object = None

    def show(self, value: T, *, last: bool = False) -> None:
        del last
        document = self._views.document(value)
        if document != self._shown:
            self._output.line(document)
        self._shown = document


class _Lines(Screen[T]):
    def __init__(self, output: Output, views: Views[T]) -> None:
        super().__init__(output, views)
        self._pace = LinePace()
        self._shown: T | None = None
        self._said: Sequence[str] = ()

    def show(self, value: T, *, last: bool = False) -> None:
        lines = self._views.lines(value, self._shown)
        said_already = lines == self._said or (last and lines[:1] == self._said[:1])
        if said_already or not self._pace.due(self._views.state(value), last, time.monotonic()):
            return
        for line in lines:
            self._output.say(Text(line))
        self._shown, self._said = value, lines


class _Picture(Screen[T]):
    def __init__(self, output: Output, views: Views[T]) -> None:
        super().__init__(output, views)
        self._live = Live(console=output.console, refresh_per_second=4, transient=False)

    def __enter__(self) -> Screen[T]:
        self._live.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._live.stop()

    def show(self, value: T, *, last: bool = False) -> None:
        picture = self._views.picture(value, self._output.console.height)
        self._live.update(Trimmed(picture), refresh=last)


def screen(output: Output, views: Views[T]) -> Screen[T]:
    """The screen that suits where the output goes."""
    if output.is_json:
        return _Documents(output, views)
    return _Picture(output, views) if output.interactive else _Lines(output, views)


class LinePace:
    """When a plain line is due: at first, at a change of state, every few seconds, and at the end."""

    def __init__(self) -> None:
        self._state: object = None
        self._next_s = 0.0

    def due(self, state: object, last: bool, now_s: float) -> bool:
        """Whether to print now; `now_s` on a monotonic clock."""
        if state == self._state and not last and now_s < self._next_s:
            return False
        self._state, self._next_s = state, now_s + LINE_EVERY_S
        return True


class FirstOfHeight:
    """The first of several pictures that so many rows hold; the last one where none is.

    A picture that is taller than its terminal could not be redrawn, and its end would not be seen.
    """

    def __init__(self, pictures: Sequence[RenderableType], rows: int) -> None:
        self._pictures = pictures
        self._rows = rows - _ROWS_LEFT

    def __rich_console__(self, on: Console, options: ConsoleOptions) -> RenderResult:
        fitting = (one for one in self._pictures if len(on.render_lines(one, options, pad=False)) <= self._rows)
        yield next(fitting, self._pictures[-1])
