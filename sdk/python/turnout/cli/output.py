"""What a command says: text for a person, or JSON for a program, never both.

Text is plain and aligned; colours only in a terminal and not under NO_COLOR (rich sees to both). Where there is no
terminal nothing is wrapped, so that lines can be searched.
"""

from __future__ import annotations

import enum
import os
from collections.abc import Iterable, Sequence
from typing import TextIO

import msgspec
from rich.cells import cell_len
from rich.console import Console, ConsoleOptions, Group, JustifyMethod, RenderableType, RenderResult
from rich.segment import Segment
from rich.table import Table
from rich.text import Text

from turnout.cli.exits import CommandError
from turnout.cli.printable import printable

_UNWRAPPED_COLUMNS = 4096
_SENTENCE_COLUMNS = 18
_GAP = 2


class Format(enum.StrEnum):
    """Of the output."""

    TEXT = "text"
    JSON = "json"


def console(stream: TextIO) -> Console:
    """A console on the stream that neither guesses at markup nor colours numbers."""
    made = Console(file=stream, highlight=False, markup=False, emoji=False)
    if not made.is_terminal and "COLUMNS" not in os.environ:
        made.width = _UNWRAPPED_COLUMNS
    return made


class Output:
    """Standard output and error of one command."""

    def __init__(self, form: Format, out: TextIO, err: TextIO) -> None:
        self.format = form
        self._stream = out
        self.console = console(out)
        self.error_console = console(err)
        self._err = err

    @property
    def is_json(self) -> bool:
        return self.format is Format.JSON

    @property
    def interactive(self) -> bool:
        """Whether a person watches the output as it comes."""
        return not self.is_json and self.console.is_terminal

    def answer(self, document: object, *parts: RenderableType) -> None:
        """The command's whole answer: the document as JSON, or the parts as text, a blank line between them."""
        if self.is_json:
            self.line(document)
            return
        for number, part in enumerate(parts):
            if number:
                self.console.print()
            self.console.print(Trimmed(part))

    def line(self, document: object) -> None:
        """One JSON document on a line of its own."""
        self._stream.write(msgspec.json.encode(document).decode() + "\n")
        self._stream.flush()

    def say(self, part: RenderableType) -> None:
        """Text for a person as the command goes along; nothing under JSON."""
        if not self.is_json:
            self.console.print(Trimmed(part))

    def note(self, text: str) -> None:
        """A remark beside the answer, on standard error in either format's place for people."""
        if not self.is_json:
            self.error_console.print(Trimmed(Text(printable(text))))

    def fail(self, error: CommandError) -> None:
        """The error, on standard error."""
        if self.is_json:
            self._err.write(msgspec.json.encode({"error": error_document(error)}).decode() + "\n")
            self._err.flush()
        else:
            self.error_console.print(Trimmed(error_text(error)))


def error_document(error: CommandError) -> dict[str, object]:
    """The error for a program."""
    return {
        "class": error.code.name,
        "exit_code": int(error.code),
        "reason": error.reason,
        "message": error.message,
        "next_step": error.next_step,
        "violations": [
            {"type": one.type, "subject": one.subject, "description": one.description} for one in error.reasons
        ],
    }


def error_text(error: CommandError) -> RenderableType:
    """The error for a person: what happened and why, each reason with its evidence, what to do next."""
    parts: list[RenderableType] = [_labelled(Text("Error:", style="bold red"), Text(printable(error.message)))]
    for one in error.reasons:
        about = f"{one.type} ({one.subject}): " if one.subject else f"{one.type}: "
        parts.append(
            _labelled(Text("  -", style="red"), Text.assemble((printable(about), "bold"), printable(one.description)))
        )
    if error.next_step:
        parts.append(_labelled(Text("Next: ", style="bold"), Text(printable(error.next_step))))
    return Group(*parts)


def _labelled(label: Text, text: Text) -> Table:
    grid = Table.grid(padding=(0, 1))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    grid.add_row(label, text)
    return grid


# --- layout -----------------------------------------------------------------------------------------------------------


class Trimmed:
    """A renderable without blanks at the ends of its lines and without control characters of what it shows."""

    def __init__(self, part: RenderableType) -> None:
        self._part = part

    def __rich_console__(self, on: Console, options: ConsoleOptions) -> RenderResult:
        for line in on.render_lines(self._part, options, pad=False):
            segments = [Segment(printable(one.text), one.style) for one in line if not one.control]
            while segments and not segments[-1].text.strip():
                segments.pop()
            if segments:
                last = segments[-1]
                segments[-1] = Segment(last.text.rstrip(), last.style)
            yield from segments
            yield Segment.line()


class Columns:
    """Rows under aligned headers; where the width does not hold them, each row as names and values instead.

    Only the last column is wrapped, down to a few words: it is where sentences stand.
    """

    def __init__(self, headers: Sequence[str], rows: Sequence[Sequence[Text]], right: Sequence[int]) -> None:
        self._headers = headers
        self._rows = rows
        self._right = right

    def width(self) -> int:
        """Of the aligned rows, the last column wrapped as far as it may be."""
        widths = [self._column_width(at) for at in range(len(self._headers))]
        return sum(widths) - widths[-1] + min(widths[-1], _SENTENCE_COLUMNS) + _GAP * (len(widths) - 1)

    def whole_width(self) -> int:
        """Of the aligned rows, nothing wrapped."""
        return sum(map(self._column_width, range(len(self._headers)))) + _GAP * (len(self._headers) - 1)

    def _column_width(self, at: int) -> int:
        cells = (max(map(cell_len, row[at].plain.split("\n"))) for row in self._rows)
        return max(cell_len(self._headers[at]), *cells, 0)

    def __rich_console__(self, on: Console, options: ConsoleOptions) -> RenderResult:
        if self.width() <= options.max_width:
            yield self._aligned()
            return
        for number, row in enumerate(self._rows):
            if number:
                yield Text()
            yield facts((header, cell) for header, cell in zip(self._headers, row, strict=True) if cell.plain)

    def _aligned(self) -> Table:
        made = Table(box=None, padding=(0, _GAP, 0, 0), pad_edge=False, header_style="bold")
        last = len(self._headers) - 1
        for at, header in enumerate(self._headers):
            side: JustifyMethod = "right" if at in self._right else "left"
            made.add_column(Text(header), justify=side, no_wrap=at != last, overflow="fold")
        for row in self._rows:
            made.add_row(*row)
        return made


class FirstFitting:
    """The first of several tables that the width holds without wrapping; the last one when none is."""

    def __init__(self, tables: Sequence[Columns]) -> None:
        self._tables = tables

    def __rich_console__(self, on: Console, options: ConsoleOptions) -> RenderResult:
        fitting = (one for one in self._tables if one.whole_width() <= options.max_width)
        yield next(fitting, self._tables[-1])


def table(headers: Sequence[str], rows: Iterable[Sequence[str | Text]], *, right: Sequence[int] = ()) -> Columns:
    """Rows under headers; `right` = positions of columns of numbers."""
    cells = [[_cell(cell) for cell in row] for row in rows]
    return Columns(headers, cells, right)


def facts(pairs: Iterable[tuple[str, str | Text]]) -> Table:
    """Names and values, one pair a line."""
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_column(no_wrap=True)
    grid.add_column(overflow="fold")
    for name, value in pairs:
        grid.add_row(Text(printable(name), style="dim"), _cell(value))
    return grid


def _cell(value: str | Text) -> Text:
    return value if isinstance(value, Text) else Text(printable(value))


def heading(text: str) -> Text:
    return Text(text, style="bold")
