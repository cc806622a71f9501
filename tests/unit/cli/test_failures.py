"""Every error of the client has its exit code, and says what to do next."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import AsyncIterator, Mapping, Sequence
from types import SimpleNamespace
from typing import Any

import pytest

from turnout import errors
from turnout.cli import failures
from turnout.cli.exits import CommandError, ExitCode, Reason
from turnout.cli.suggestions import did_you_mean
from turnout.errors import FailedPrecondition, NotFound, TurnoutError, Violation

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


def _known(**jobs: Sequence[int]) -> Any:
    """A client that knows these jobs and their versions."""

    class Known:
        async def list_jobs(self) -> AsyncIterator[Any]:
            for job in jobs:
                yield SimpleNamespace(job=job)

        async def list_versions(self, job: str) -> AsyncIterator[Any]:
            for number in jobs[job]:
                yield SimpleNamespace(number=number)

    return Known()


def _explained(error: NotFound, named: Mapping[str, Sequence[int | None]]) -> CommandError:
    return asyncio.run(failures.explained(_known(orders=(1, 2), invoices=(1,)), error, named))


def test_one_of_several_jobs_is_mistyped() -> None:
    shown = _explained(NotFound("JOB_NOT_FOUND", "x"), {"orders": [2], "invoises": [1]})
    assert (shown.reason, shown.message) == (
        "JOB_NOT_FOUND",
        "There is no job 'invoises'; did you mean invoices?",
    )


def test_everything_that_is_mistyped_is_said_at_once() -> None:
    named = {"order": [2], "invoices": [7], "orders": [1]}
    shown = _explained(NotFound("JOB_NOT_FOUND", "x"), named)
    assert (shown.code, shown.reason) == (ExitCode.NOT_FOUND, "NOT_FOUND")
    assert shown.reasons == (
        Reason("JOB_NOT_FOUND", "order", "There is no job 'order'; did you mean orders?"),
        Reason("VERSION_NOT_FOUND", "invoices", "There is no version v7 of invoices. Its versions: v1."),
    )


def test_of_several_jobs_the_one_without_a_route_is_named() -> None:
    error = NotFound("ROUTE_NOT_FOUND", "invoices has no route yet.", metadata={"job": "invoices"})
    shown = _explained(error, {"orders": (), "invoices": ()})
    assert shown.message == "invoices has no route yet."
    assert "`turnout cutover invoices vN`" in shown.next_step


def test_a_version_that_the_command_does_not_name() -> None:
    shown = _explained(NotFound("VERSION_NOT_FOUND", "x"), {"orders": [None]})
    assert (shown.message, shown.next_step) == ("There is no version of orders.", "Its versions: v1, v2.")


def test_a_fault_of_the_program_says_how_to_see_more() -> None:
    shown = failures.of_program(KeyError("x"))
    assert shown.code is ExitCode.INTERNAL
    assert "KeyError: 'x'" in shown.message
    assert "TURNOUT_TRACEBACK" in shown.next_step


def test_did_you_mean() -> None:
    assert did_you_mean("carrier-puntuality", ["carrier-punctuality", "other"]) == "; did you mean carrier-punctuality?"
    assert did_you_mean("zzz", ["carrier-punctuality"]) == "."
    assert did_you_mean("zzz", []) == "."
