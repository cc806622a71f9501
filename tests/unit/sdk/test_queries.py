"""Named SQL in one file."""

from pathlib import Path

import pytest

from turnout.postgres import load_queries


def write(directory: Path, text: str) -> Path:
    path = directory / "queries.sql"
    path.write_text(text, encoding="utf-8")
    return path


def test_blocks_become_attributes(tmp_path: Path) -> None:
    queries = load_queries(write(tmp_path, "-- head\n\n-- name: one\nselect 1;\n\n-- name: two\nselect\n  2\n"))
    assert queries.one == "select 1"
    assert queries.two == "select\n  2"


def test_an_unknown_name_says_what_there_is(tmp_path: Path) -> None:
    queries = load_queries(write(tmp_path, "-- name: one\nselect 1\n"))
    with pytest.raises(AttributeError, match="has no query 'three'; it has one"):
        _ = queries.three


@pytest.mark.parametrize(
    ("text", "told"),
    [("-- name: a\nselect 1\n-- name: a\nselect 2\n", "stands twice"), ("-- name: a\n\n-- name: b\nx\n", "is empty")],
)
def test_a_file_that_cannot_be_meant_is_refused(tmp_path: Path, text: str, told: str) -> None:
    with pytest.raises(ValueError, match=told):
        load_queries(write(tmp_path, text))
