"""A file of records to produce: JSON lines, or CSV with a header; either also gzipped."""

from __future__ import annotations

import csv
import gzip
import io
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import msgspec

from turnout.cli.exits import CommandError, ExitCode, usage
from turnout.cli.suggestions import did_you_mean

# As in JSON: no leading zeros, so that a code such as 007 stays a text.
_INTEGER = re.compile(r"-?(?:0|[1-9][0-9]{0,17})", re.ASCII)
_NUMBER = re.compile(r"-?(?:0|[1-9][0-9]*)(?:\.[0-9]+)?(?:[eE][+-]?[0-9]{1,2})?", re.ASCII)
MALFORMED = "MALFORMED_FILE"
_KINDS = (".jsonl", ".ndjson", ".json", ".csv")


@dataclass(frozen=True, slots=True)
class Record:
    """A Kafka record's key (None = none) and value, and the line of the file it stands in, from 1."""

    key: bytes | None
    value: bytes
    line: int


@dataclass(frozen=True, slots=True)
class SourceFile:
    """A file whose kind is told by its name. `bytes_total` is its size on disk, against which progress is measured."""

    path: Path
    is_csv: bool
    bytes_total: int


def source_file(path: Path) -> SourceFile:
    """Told by the name: .jsonl, .ndjson, .json (JSON lines) or .csv, each also with .gz."""
    suffixes = [suffix.lower() for suffix in path.suffixes]
    if suffixes and suffixes[-1] == ".gz":
        suffixes.pop()
    kind = suffixes[-1] if suffixes else ""
    if not path.is_file():
        raise usage(f"{path} is no regular file: it is read twice, first to see that all of it can be sent.")
    if kind not in _KINDS:
        raise usage(
            f"{path.name}: the name does not tell what the file holds; it must end in {', '.join(_KINDS)}, "
            f"or one of these with .gz."
        )
    return SourceFile(path, kind == ".csv", path.stat().st_size)


class Reading:
    """The records of a file from a line on, each time that it is iterated over; `bytes_read` of it on disk so far.

    Lines before `from_line` are not looked at, but that the kinds of a CSV file's columns are told by all of it.
    """

    def __init__(self, source: SourceFile, key_field: str, from_line: int = 1) -> None:
        self._source = source
        self._key_field = key_field
        self._from_line = from_line
        self._raw: IO[bytes] | None = None

    @property
    def bytes_read(self) -> int:
        return self._raw.tell() if self._raw is not None else 0

    def __iter__(self) -> Iterator[Record]:
        kinds = _column_kinds(self._source) if self._source.is_csv else {}
        with self._source.path.open("rb") as raw, _text(self._source, raw) as text:
            self._raw = raw
            try:
                if self._source.is_csv:
                    yield from self._of_csv(text, kinds)
                else:
                    yield from self._of_json_lines(text)
            except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
                raise _unreadable(self._source, error) from None
            finally:
                self._raw = None

    def _of_csv(self, text: io.TextIOBase, kinds: dict[str, str]) -> Iterator[Record]:
        reader = csv.reader(text)
        header = next(reader)
        self._check_key(header)
        convert = [_CONVERT[kinds[column]] for column in header]
        encode = msgspec.json.Encoder().encode
        key_at = header.index(self._key_field) if self._key_field else -1
        for cells in reader:
            if reader.line_num < self._from_line:
                continue
            if len(cells) != len(header):
                if not cells:
                    continue
                raise self._bad(reader.line_num, f"{len(cells)} cells, but the header has {len(header)}")
            value = {
                column: to(cell) if cell else None for column, to, cell in zip(header, convert, cells, strict=True)
            }
            key = cells[key_at].encode() if key_at >= 0 and cells[key_at] else None
            yield Record(key, encode(value), reader.line_num)

    def _of_json_lines(self, text: Iterable[str]) -> Iterator[Record]:
        decode = msgspec.json.Decoder(dict[str, Any]).decode
        for number, line in enumerate(text, 1):
            if number < self._from_line or not line.strip():
                continue
            try:
                value = decode(line)
            except msgspec.MsgspecError as error:
                raise self._bad(number, f"not a JSON object: {error}") from None
            key = None
            if self._key_field:
                if self._key_field not in value:
                    self._check_key(list(value))
                key = _key_bytes(value[self._key_field])
            yield Record(key, line.strip().encode(), number)

    def _check_key(self, fields: list[str]) -> None:
        if self._key_field and self._key_field not in fields:
            raise usage(
                f"--key: the records have no field {self._key_field!r}{did_you_mean(self._key_field, fields)} "
                f"Fields are {', '.join(fields)}."
            )

    def _bad(self, line: int, what: str) -> CommandError:
        return CommandError(
            ExitCode.NOT_SO,
            MALFORMED,
            f"{self._source.path}, line {line}: {what}.",
            next_step="Mend the line and repeat this; nothing has been produced.",
        )


def _key_bytes(value: object) -> bytes | None:
    if value is None:
        return None
    return value.encode() if isinstance(value, str) else msgspec.json.encode(value)


def _text(source: SourceFile, raw: IO[bytes]) -> io.TextIOWrapper:
    unzipped: Any = gzip.GzipFile(fileobj=raw) if source.path.suffix.lower() == ".gz" else raw
    return io.TextIOWrapper(unzipped, encoding="utf-8-sig", newline="")


def _unreadable(source: SourceFile, error: Exception) -> CommandError:
    return CommandError(ExitCode.NOT_SO, MALFORMED, f"{source.path} cannot be read: {error}.")


# --- the types of CSV columns: a column is numeric only if all of its cells are ---------------------------------------

_CONVERT: dict[str, Any] = {"int": int, "float": float, "text": str, "empty": str}


def _column_kinds(source: SourceFile) -> dict[str, str]:
    """By column: "int", "float", "text", or "empty" when no row has a value."""
    try:
        with source.path.open("rb") as raw, _text(source, raw) as text:
            reader = csv.reader(text)
            header = next(reader, None)
            if not header:
                raise usage(f"{source.path} is empty: a CSV file starts with a header of column names.")
            if len(set(header)) != len(header):
                raise usage(f"{source.path}: the header names a column twice: {', '.join(header)}.")
            columns = _distinct_kinds(reader, len(header))
    except (OSError, EOFError, UnicodeDecodeError, csv.Error) as error:
        raise _unreadable(source, error) from None
    return dict(zip(header, columns, strict=True))


def _distinct_kinds(rows: Iterable[list[str]], width: int) -> list[str]:
    order = ("empty", "int", "float", "text")
    kinds = [0] * width
    open_columns = list(range(width))  # those not yet known to be text
    for cells in rows:
        settled = False
        for column in open_columns:
            if column >= len(cells) or not cells[column]:
                continue
            cell = cells[column]
            if _INTEGER.fullmatch(cell):
                kinds[column] = max(kinds[column], 1)
            elif _NUMBER.fullmatch(cell):
                kinds[column] = max(kinds[column], 2)
            else:
                kinds[column], settled = 3, True
        if settled:
            open_columns = [column for column in open_columns if kinds[column] < 3]
    return [order[kind] for kind in kinds]
