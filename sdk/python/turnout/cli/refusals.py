"""Refusals whose way on depends on what the services know besides: why a run failed, what was compared."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING

from turnout.cli.exits import CommandError
from turnout.cli.failures import Named, after_gates, failed_gates, of_client
from turnout.cli.views.runs import way_on
from turnout.errors import FailedPrecondition, TurnoutError
from turnout.names import parse_version
from turnout.results import Comparison, RunState

if TYPE_CHECKING:
    from turnout.client import Client

_GATES_FAILED, _CANNOT_ALIGN = "GATES_FAILED", "CANNOT_ALIGN"
EXPLAINED = (_GATES_FAILED, _CANNOT_ALIGN)
"""Reasons of refusals that can be explained."""

Versions = Iterable[tuple[str, int]]


async def explained_refusal(client: Client, error: FailedPrecondition, named: Named) -> CommandError:
    """The refusal with the way on from where things stand. Asks the services, whose failure changes nothing."""
    plain = of_client(error)
    try:
        if error.reason == _CANNOT_ALIGN:
            asked = [(job, one) for job, versions in named.items() for one in versions if one is not None]
            plain.next_step = await _failed(client, asked) or plain.next_step
        elif failed_gates(error):
            steps = {
                "catch-up": await _failed(client, _refused(error, "catch-up")),
                "comparison": await _compared(client, _refused(error, "comparison")),
            }
            plain.next_step = after_gates(error, {gate: step for gate, step in steps.items() if step})
    except TurnoutError:
        pass
    return plain


def _refused(error: TurnoutError, gate: str) -> Sequence[tuple[str, int]]:
    """The versions that a gate refused."""
    found = {parse_version(one.subject) for one in error.violations if one.type == gate}
    return sorted((one.job, one.number) for one in found)


async def _failed(client: Client, versions: Versions) -> str:
    """The way on from the runs among these that failed, as `run watch` tells it; empty where none did."""
    steps = []
    for job, number in versions:
        run = await client.get_run(job, number)
        if run.state is RunState.FAILED:
            steps.append(way_on(run, (await client.get_version(job, number)).state))
    return " ".join(steps)


async def _compared(client: Client, candidates: Versions) -> str:
    """How to compare the candidates with what is active; empty where a comparison has told what differs."""
    steps = []
    for job, candidate in candidates:
        active = (await client.route(job)).active_version
        newest = None
        async for one in client.list_comparisons(job, versions=(active, candidate)):
            if one.contract is not None and one.new == candidate:
                newest = one
                break
        if newest is not None and newest.passed is False:
            return ""
        steps.append(compare_step(job, active, candidate, newest))
    return " ".join(steps)


def compare_step(job: str, active: int, candidate: int, newest: Comparison | None) -> str:
    """What to call where the newest comparison by a contract is missing, unfinished or does not count any more."""
    if newest is not None and not newest.finished:
        return f"`turnout compare {job} --resume {newest.id}` finishes the comparison; then repeat this."
    return (
        f"`turnout compare {job} v{active} v{candidate} --contract FILE` (or --expect) compares the two; then repeat "
        f"this."
    )
