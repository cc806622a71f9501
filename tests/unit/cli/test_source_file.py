"""Files of records: CSV and JSON lines, plain and gzipped."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.cli.exits import CommandError, ExitCode
from turnout.cli.source_file import Reading, source_file


def _read(file: Path, key: str = "") -> list[tuple[bytes | None, object]]:
    return [(record.key, json.loads(record.value)) for record in Reading(source_file(file), key)]


def _written(folder: Path, name: str, text: str) -> Path:
    file = folder / name
    file.write_bytes(gzip.compress(text.encode()) if name.lower().endswith(".gz") else text.encode())
    return file


@pytest.mark.parametrize("name", ["flights.csv", "flights.csv.gz", "FLIGHTS.CSV.GZ"])
def test_csv_cells_take_the_type_of_their_column(name: str, tmp_path: Path) -> None:
    text = "tail,delay,miles,code,mixed,none\nN1,-2,1.5,007,1,\n,11,1e3,12,x,\n"
    assert _read(_written(tmp_path, name, text), "tail") == [
        (b"N1", {"tail": "N1", "delay": -2, "miles": 1.5, "code": "007", "mixed": "1", "none": None}),
        (None, {"tail": None, "delay": 11, "miles": 1000.0, "code": "12", "mixed": "x", "none": None}),
    ]


def test_csv_quotes_line_breaks_byte_order_marks_and_empty_lines(tmp_path: Path) -> None:
    file = _written(tmp_path, "a.csv", '\ufeffa,b\r\n"x, ""y""\nz",1\r\n\r\nq,2\r\n')
    assert [value for _, value in _read(file)] == [{"a": 'x, "y"\nz', "b": 1}, {"a": "q", "b": 2}]


@given(st.lists(st.integers(-(10**18) + 1, 10**18 - 1), min_size=1))
def test_integers_stay_exact(tmp_path_factory: pytest.TempPathFactory, numbers: list[int]) -> None:
    file = tmp_path_factory.mktemp("csv") / "a.csv"
    file.write_text("n\n" + "".join(f"{number}\n" for number in numbers))
    assert [value for _, value in _read(file)] == [{"n": number} for number in numbers]


@pytest.mark.parametrize("name", ["a.jsonl", "a.ndjson", "a.json", "a.jsonl.gz"])
def test_json_lines_are_sent_as_they_are(name: str, tmp_path: Path) -> None:
    file = _written(tmp_path, name, '{"id": 7,  "n": 1.0}\n\n{"id": "x"}\n{"id": null}\n{"id": [1]}\n')
    records = list(Reading(source_file(file), "id"))
    assert [record.value for record in records] == [
        b'{"id": 7,  "n": 1.0}',
        b'{"id": "x"}',
        b'{"id": null}',
        b'{"id": [1]}',
    ]
    assert [record.key for record in records] == [b"7", b"x", None, b"[1]"]
    assert [record.line for record in records] == [1, 3, 4, 5]


@pytest.mark.parametrize(
    ("name", "text", "said"),
    [
        ("a.csv", "a,b\n1,2\n1\n", r"line 3: 1 cells, but the header has 2"),
        ("a.csv", "", "is empty"),
        ("a.csv", "a,a\n1,2\n", "names a column twice"),
        ("a.jsonl", '{"a": 1}\n[1]\n', "line 2: not a JSON object"),
        ("a.jsonl", '{"a": 1}\n{"a"\n', "line 2: not a JSON object"),
    ],
)
def test_a_malformed_file_is_named_with_its_line(name: str, text: str, said: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match=said):
        _read(_written(tmp_path, name, text))


@pytest.mark.parametrize(
    ("name", "text"),
    [("a.csv", 'n,t\n1,a\n2,"b\nb"\n3,c\n'), ("a.jsonl", 'not JSON\n{"n": 1, "t": "a"}\n\n{"n": 3, "t": "c"}\n')],
)
def test_lines_before_the_one_to_begin_with_are_left_out(name: str, text: str, tmp_path: Path) -> None:
    source = source_file(_written(tmp_path, name, text))
    found = [(record.line, json.loads(record.value)) for record in Reading(source, "", from_line=3)]
    last = {"n": 3, "t": "c"}
    assert found == ([(4, {"n": 2, "t": "b\nb"}), (5, last)] if name == "a.csv" else [(4, last)])


def test_it_can_be_read_again(tmp_path: Path) -> None:
    reading = Reading(source_file(_written(tmp_path, "a.jsonl", '{"n": 1}\n{"n": 2}\n')), "")
    assert list(reading) == list(reading)


def test_what_can_be_read_only_once_is_refused(tmp_path: Path) -> None:
    pipe = tmp_path / "pipe.jsonl"
    os.mkfifo(pipe)
    with pytest.raises(CommandError, match="is no regular file"):
        source_file(pipe)


@pytest.mark.parametrize(("name", "text"), [("a.csv", "tail,n\nx,1\n"), ("a.jsonl", '{"tail": "x", "n": 1}\n')])
def test_an_unknown_key_field_gets_a_suggestion(name: str, text: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="did you mean tail") as caught:
        _read(_written(tmp_path, name, text), "tali")
    assert caught.value.code is ExitCode.USAGE


@pytest.mark.parametrize("name", ["a.csv.gz", "a.jsonl.gz"])
def test_a_truncated_or_foreign_gzip_file(name: str, tmp_path: Path) -> None:
    file = tmp_path / name
    for content in (b"not gzip", gzip.compress(b"a\n" + b"1\n" * 10_000)[:-20]):
        file.write_bytes(content)
        with pytest.raises(CommandError, match=r"cannot be read|not a JSON object"):
            _read(file)


def test_text_that_is_not_utf8(tmp_path: Path) -> None:
    file = tmp_path / "a.csv"
    file.write_bytes(b"a\n\xff\n")
    with pytest.raises(CommandError, match="cannot be read"):
        _read(file)


@pytest.mark.parametrize("name", ["a.txt", "a", "a.gz", "a.csv.bz2"])
def test_a_name_that_does_not_tell_the_kind(name: str, tmp_path: Path) -> None:
    with pytest.raises(CommandError, match="does not tell what the file holds"):
        source_file(_written(tmp_path, name, "a\n1\n"))


def test_progress_is_measured_on_the_file_as_it_lies_on_disk(tmp_path: Path) -> None:
    file = _written(tmp_path, "a.csv.gz", "a\n" + "1\n" * 50_000)
    source = source_file(file)
    reading = Reading(source, "")
    seen = [reading.bytes_read for _ in reading]
    assert seen == sorted(seen)
    assert seen[-1] == source.bytes_total
