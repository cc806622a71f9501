"""Text for people, JSON for programs."""

from __future__ import annotations

import io
import json
from dataclasses import replace
from datetime import timedelta

import msgspec
import pytest
from rich.text import Text

from tests.unit.cli import samples
from turnout.cli.document import document
from turnout.cli.exits import CommandError, ExitCode, Reason
from turnout.cli.output import Format, Output
from turnout.results import Read

REFUSED = CommandError(
    ExitCode.REFUSED,
    "GATES_FAILED",
    "The cutover is refused.",
    next_step="Wait.",
    reasons=(Reason("catch-up", "j v2", "it is behind"),),
)


def _output(form: Format) -> tuple[Output, io.StringIO, io.StringIO]:
    out, err = io.StringIO(), io.StringIO()
    return Output(form, out, err), out, err


def test_an_answer_is_text_or_one_json_document() -> None:
    output, out, err = _output(Format.TEXT)
    output.answer({"a": 1}, Text("one"), Text("two"))
    assert (out.getvalue(), err.getvalue()) == ("one\n\ntwo\n", "")
    output, out, err = _output(Format.JSON)
    output.answer({"a": 1}, Text("one"))
    output.say(Text("not shown"))
    output.note("not shown")
    assert (json.loads(out.getvalue()), err.getvalue()) == ({"a": 1}, "")


def test_an_error_goes_to_standard_error_in_either_form() -> None:
    output, out, err = _output(Format.TEXT)
    output.fail(REFUSED)
    assert out.getvalue() == ""
    assert err.getvalue() == "Error: The cutover is refused.\n  - catch-up (j v2): it is behind\nNext:  Wait.\n"
    output, out, err = _output(Format.JSON)
    output.fail(REFUSED)
    assert out.getvalue() == ""
    assert json.loads(err.getvalue()) == {
        "error": {
            "class": "REFUSED",
            "exit_code": 4,
            "reason": "GATES_FAILED",
            "message": "The cutover is refused.",
            "next_step": "Wait.",
            "violations": [{"type": "catch-up", "subject": "j v2", "description": "it is behind"}],
        }
    }


def test_markup_in_values_is_only_text() -> None:
    output, _, err = _output(Format.TEXT)
    output.fail(CommandError(ExitCode.USAGE, "USAGE", "[bold]x[/bold] :smile: [0]"))
    assert err.getvalue() == "Error: [bold]x[/bold] :smile: [0]\n"


def test_lines_are_not_wrapped_without_a_terminal(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("COLUMNS", raising=False)
    output, out, _ = _output(Format.TEXT)
    output.say(Text("word " * 200))
    assert out.getvalue().count("\n") == 1


def test_every_result_becomes_json() -> None:
    for value in (
        samples.RUN,
        samples.TAILING,
        samples.ESTIMATE,
        samples.ROUTE,
        samples.CUT_OVER,
        samples.VERSIONS,
        samples.THE_JOB,
        samples.READ,
        replace(samples.COMPARISON, contract=samples.CONTRACT),
        samples.EXPLANATION,
    ):
        json.loads(json.dumps(document(value), allow_nan=False))


def test_units_are_named_and_absent_is_null() -> None:
    run = document(samples.RUN)
    assert isinstance(run, dict)
    assert run["eta_s"] == 75.0
    assert run["state"] == "REPLAYING"
    assert run["create_time"] == "2026-03-01T12:00:00Z"
    assert run["catch_up_time"] is None
    tailing = document(samples.TAILING)
    assert isinstance(tailing, dict)
    assert tailing["eta_s"] is None
    change = document(samples.CUT_OVER)
    assert isinstance(change, dict)
    assert change["adoption_time_s"] == 0.072
    assert change["route"]["weights"] == {"2": 10_000}
    assert change["adoptions"][1] == {"front": "front-2", "adoption_time_s": None}


def test_values_that_json_does_not_know() -> None:
    row = {"none": float("nan"), "infinite": float("inf"), "bytes": b"\x00\xff", "span": timedelta(seconds=2)}
    read: Read = msgspec.structs.replace(samples.READ, row=row)
    found = document(read)
    assert isinstance(found, dict)
    assert found["row"] == {"none": None, "infinite": None, "bytes": "AP8=", "span": 2.0}
