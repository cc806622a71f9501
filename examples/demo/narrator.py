"""What the demo prints: each step with the command that does the same, one line of result, and the time it took."""

import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field

from rich.console import Console
from rich.padding import Padding
from rich.progress import BarColumn, Progress, TextColumn
from rich.table import Table
from rich.text import Text

_WIDTH_IN_A_FILE = 120


@dataclass
class Step:
    """A step that is being told; its result is set by whoever does the work."""

    result: str = ""
    started: float = field(default_factory=time.monotonic)


class Narrator:
    """Prints to a console. In a pipe the same lines come without colours and without the moving bar."""

    def __init__(self, console: Console | None = None) -> None:
        self._in_terminal = sys.stdout.isatty()
        self.console = console or Console(highlight=False, width=None if self._in_terminal else _WIDTH_IN_A_FILE)

    def _line(self, indent: int, text: Text) -> None:
        """In a terminal a long line goes on below its own beginning; in a file it stays whole, to be searched."""
        if self._in_terminal:
            self.console.print(Padding(text, (0, 0, 0, indent)))
        else:
            self.console.print(Text(" " * indent).append_text(text), soft_wrap=True)

    def title(self, text: str) -> None:
        """The head of the whole story."""
        self.console.print(f"\n[bold]{text}[/bold]")

    def chapter(self, number: int, text: str) -> None:
        """The head of one part of the story."""
        self.console.print(f"\n[bold cyan]{number}[/bold cyan]  [bold]{text}[/bold]")

    def remark(self, text: str) -> None:
        """A line beside the story."""
        self._line(3, Text(text, style="dim"))

    def suggestion(self, what: str, command: str) -> None:
        """Something to try, its command unbroken on a line of its own, to be copied."""
        self.remark(f"{what}:")
        self.console.print(Text(f"   {command}", style="green"), soft_wrap=True)

    @contextmanager
    def step(self, command: str = "") -> Iterator[Step]:
        """A step: the command before, its result and time after."""
        if command:
            self.console.print(Text(f"   $ {command}", style="green"), soft_wrap=True)
        step = Step()
        yield step
        took_s = time.monotonic() - step.started
        self._line(5, Text(step.result).append(f"  ({took_s:.1f} s)", style="dim"))

    def diff(self, lines: Sequence[str]) -> None:
        """Lines of a diff, each beginning with + or -."""
        for line in lines:
            self.console.print(Text(f"     {line}", style="green" if line.startswith("+") else "red"))

    def details(self, lines: Sequence[str]) -> None:
        """Evidence below a result."""
        for line in lines:
            self._line(7, Text(line, style="dim"))

    def progress(self) -> Progress:
        """A bar for a replay, which leaves nothing behind; the result line says how it ended."""
        return Progress(
            TextColumn("     {task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.percentage:>3.0f} %  {task.fields[note]}"),
            console=self.console,
            transient=True,
            disable=not self.console.is_terminal,
        )

    def rankings(
        self, before: list[tuple[str, float]], after: list[tuple[str, float]], names: Mapping[str, str]
    ) -> None:
        """The best carriers by each version, side by side."""
        table = Table("", "version 1", "", "version 2", "", box=None, padding=(0, 2, 0, 5))
        for place, ((old, old_share), (new, new_share)) in enumerate(zip(before, after, strict=True), 1):
            if place > 7:
                break
            table.add_row(str(place), names.get(old, old), f"{old_share:.1%}", names.get(new, new), f"{new_share:.1%}")
        self.console.print(table)

    def measured(self, rows: Mapping[str, str]) -> None:
        """The closing table."""
        table = Table(box=None, show_header=False, padding=(0, 2, 0, 3))
        for name, value in rows.items():
            table.add_row(name, Text(value, style="bold"))
        self.console.print("\n[bold]Measured in this run[/bold]")
        self.console.print(table)
