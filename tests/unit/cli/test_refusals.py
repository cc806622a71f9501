"""Refusals say how to go on from where things stand."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest

from tests.unit.cli import samples
from tests.unit.cli.samples import JOB
from turnout.cli.refusals import explained_refusal
from turnout.contract import Contract
from turnout.errors import FailedPrecondition, Unavailable, Violation
from turnout.results import Comparison, Run, RunState, VersionState

FAILED = replace(
    samples.RUN, state=RunState.FAILED, failure_reason="MALFORMED_RECORD", status_message="at offset 7 it is no JSON"
)
JUDGED = replace(samples.COMPARISON, contract=Contract(), passed=False)
MEND = "To resume it would fail again: mend the job and `turnout apply FILE` it as a new version."


class Standing:
    """A client of services in which v1 is active; run: of v2."""

    def __init__(self, run: Run = samples.RUN, compared: Sequence[Comparison] = ()) -> None:
        self._run = run
        self._compared = compared

    async def get_run(self, job: str, version: int) -> Run:
        return self._run if version == 2 else replace(samples.RUN, version=version)

    async def get_version(self, job: str, version: int) -> Any:
        return SimpleNamespace(state=VersionState.REGISTERED)

    async def route(self, job: str) -> Any:
        return SimpleNamespace(active_version=1)

    async def list_comparisons(self, job: str, *, versions: Sequence[int]) -> AsyncIterator[Comparison]:
        assert set(versions) == {1, 2}
        for one in self._compared:
            yield one


class Away(Standing):
    """Services that do not answer."""

    async def get_run(self, job: str, version: int) -> Run:
        raise Unavailable("REPLAYER_UNAVAILABLE", "The replayer does not answer.")


def refused(gate: str) -> FailedPrecondition:
    return FailedPrecondition(
        "GATES_FAILED",
        f"v2 of {JOB} is refused: Why.",
        violations=(Violation(gate, f"jobs/{JOB}/versions/2", "Why."),),
    )


async def step(client: Any, error: FailedPrecondition) -> str:
    return (await explained_refusal(client, error, {JOB: (1, 2)})).next_step


async def test_a_failed_run_is_not_waited_for() -> None:
    told = await step(Standing(FAILED), refused("catch-up"))
    assert told.startswith(MEND)
    assert "run watch" not in told
    assert "--override-gates catch-up" in told
    assert "`turnout run watch" in await step(Standing(), refused("catch-up"))


async def test_a_failed_run_cannot_be_compared_and_says_what_it_needs() -> None:
    error = FailedPrecondition("CANNOT_ALIGN", "They cannot stand at one cut.")
    assert await step(Standing(FAILED), error) == MEND
    assert await step(Standing(), error) == ""


@pytest.mark.parametrize(
    ("compared", "said"),
    [
        ((), f"`turnout compare {JOB} v1 v2 --contract FILE` (or --expect)"),
        ((samples.COMPARISON,), f"`turnout compare {JOB} v1 v2 --contract FILE`"),  # by no contract
        ((replace(JUDGED, passed=True),), f"`turnout compare {JOB} v1 v2 --contract FILE`"),  # too old
        ((replace(JUDGED, finished=False, passed=None),), f"`turnout compare {JOB} --resume {JUDGED.id}`"),
        ((JUDGED,), "Mend what comparison names"),
        ((samples.COMPARISON, JUDGED), "Mend what comparison names"),
        ((replace(JUDGED, old=2, new=1),), f"`turnout compare {JOB} v1 v2 --contract FILE`"),
    ],
)
async def test_what_was_never_compared_is_to_be_compared(compared: Sequence[Comparison], said: str) -> None:
    told = await step(Standing(compared=compared), refused("comparison"))
    assert said in told
    assert ("Mend" in told) == said.startswith("Mend")


async def test_services_that_do_not_answer_change_nothing() -> None:
    assert "`turnout run watch" in await step(Away(), refused("catch-up"))
