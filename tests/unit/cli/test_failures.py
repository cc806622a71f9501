"""Every error of the client has its exit code, and says what to do next."""

from __future__ import annotations

import inspect

import pytest

from turnout import errors
from turnout.cli import failures
from turnout.cli.exits import ExitCode, Reason
from turnout.cli.suggestions import did_you_mean
from turnout.errors import FailedPrecondition, TurnoutError, Violation

CODES = {
    "InvalidInput": ExitCode.USAGE,
    "NotFound": ExitCode.NOT_FOUND,
    "AlreadyExists": ExitCode.CONFLICT,
    "FailedPrecondition": ExitCode.REFUSED,
    "Aborted": ExitCode.CONFLICT,
    "OutOfRange": ExitCode.CONFLICT,
    "ResourceExhausted": ExitCode.REFUSED,
    "DataLoss": ExitCode.INTERNAL,
    "Unavailable": ExitCode.UNAVAILABLE,
    "DeadlineExceeded": ExitCode.UNAVAILABLE,
    "ServerError": ExitCode.INTERNAL,
}
CLASSES = {
    name: kind
    for name, kind in inspect.getmembers(errors, inspect.isclass)
    if issubclass(kind, TurnoutError) and kind is not TurnoutError
}


def test_the_table_is_complete() -> None:
    assert set(CODES) == set(CLASSES)


@pytest.mark.parametrize("name", sorted(CODES))
def test_the_exit_code_of_each_class(name: str) -> None:
    shown = failures.of_client(CLASSES[name]("SOME_REASON", "What happened and why."))
    assert (shown.code, shown.reason, shown.message) == (CODES[name], "SOME_REASON", "What happened and why.")


def test_another_version_than_asserted_has_its_own_code() -> None:
    assert (
        failures.of_client(FailedPrecondition("VERSION_MISMATCH", "It would be v3.")).code is ExitCode.VERSION_MISMATCH
    )


def test_failed_gates_are_listed_and_can_be_overridden() -> None:
    violations = tuple(
        Violation(gate, "jobs/j/versions/2", f"{gate} says no") for gate in ("coverage", "catch-up", "coverage")
    )
    shown = failures.of_client(FailedPrecondition("GATES_FAILED", "Refused.", violations=violations))
    assert shown.reasons == tuple(
        Reason(gate, "j v2", f"{gate} says no") for gate in ("coverage", "catch-up", "coverage")
    )
    assert shown.next_step.startswith("`turnout run watch j v2` shows when it has caught up")
    assert "Mend what coverage names" in shown.next_step
    before, _, last = shown.next_step.partition("Only if readers may meet what failed: ")
    assert last.startswith("--override-gates catch-up,coverage passes over it")
    assert "--override-gates" not in before


@pytest.mark.parametrize("reason", ["TOPIC_RECREATED", "POSITION_BEYOND_END", "LOG_TRUNCATED"])
def test_a_lost_log_is_left_by_a_changed_file(reason: str) -> None:
    shown = failures.of_client(FailedPrecondition(reason, "Refused."))
    assert "any change of the file (a comment will do)" in shown.next_step
    assert "`turnout retire`" in shown.next_step


def test_a_deadline_can_be_lengthened() -> None:
    assert "--timeout" in failures.of_client(errors.DeadlineExceeded("DEADLINE_EXCEEDED", "Too late.")).next_step


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("jobs/j/versions/2", "j v2"),
        ("jobs/j/versions/2/run", "j v2"),
        ("jobs/j/route", "j"),
        ("jobs/j", "j"),
        ("flights/0", "flights/0"),
        ("", ""),
    ],
)
def test_subjects_as_a_person_writes_them(name: str, said: str) -> None:
    (reason,) = failures.reasons((Violation("t", name, "d"),))
    assert reason.subject == said


def test_a_fault_of_the_program_says_how_to_see_more() -> None:
    shown = failures.of_program(KeyError("x"))
    assert shown.code is ExitCode.INTERNAL
    assert "KeyError: 'x'" in shown.message
    assert "TURNOUT_TRACEBACK" in shown.next_step


def test_did_you_mean() -> None:
    assert did_you_mean("carrier-puntuality", ["carrier-punctuality", "other"]) == "; did you mean carrier-punctuality?"
    assert did_you_mean("zzz", ["carrier-punctuality"]) == "."
    assert did_you_mean("zzz", []) == "."
