"""Comparisons of tables that rollouts wait for.

A comparison goes on only while somebody calls for it, so that whoever conducts the rollout does; the request id, that
of the rollout's act, makes all calls one comparison, of whichever replica. What is known is what the present process
has heard.
"""

import asyncio
import logging
from dataclasses import dataclass, field
from typing import Final

from services.switcher.rollouts.acts import ActKind, request_id
from services.switcher.rollouts.neighbours import Neighbours
from services.switcher.rollouts.plan import Gate
from services.switcher.rollouts.rollout import Rollout
from services.switcher.rollouts.verdicts import Finding, GateVerdict, of_comparison
from turnout.errors import FailedPrecondition, InvalidInput, TurnoutError
from turnout.replayer.v1 import comparison_pb2
from turnout.tasks import end

log = logging.getLogger(__name__)

_AGAIN_S: Final = 1.0
_MAY_PASS: Final = frozenset({"CANNOT_ALIGN", "ALIGNMENT_EXPIRED"})
"""Refusals that another try may overcome: a run that is behind comes up."""
_BEGUN: Final = Finding(Gate.COMPARISON, GateVerdict.WAIT, "The tables are being compared.")


@dataclass
class _UnderWay:
    request: str
    finding: Finding = _BEGUN
    task: asyncio.Task[None] | None = field(default=None)


class Comparisons:
    """The comparisons under way, at most one a rollout (by its number)."""

    def __init__(self, neighbours: Neighbours) -> None:
        self._neighbours = neighbours
        self._under_way: dict[int, _UnderWay] = {}

    async def finding(self, number: int, rollout: Rollout) -> Finding:
        """What the comparison of the rollout's present step says by now; begins it, or goes on with it."""
        request = request_id(rollout, ActKind.COMPARE)
        one = self._under_way.get(number)
        if one is None or one.request != request:
            await self.give_up(number)
            one = self._under_way[number] = _UnderWay(request)
            one.task = asyncio.create_task(self._compare(one, rollout), name=f"compare {request}")
        return one.finding

    async def give_up(self, number: int) -> None:
        """Call for the rollout's comparison no longer."""
        one = self._under_way.pop(number, None)
        if one is not None:
            await end(one.task)

    async def give_up_all(self) -> None:
        """Call for none any longer."""
        for number in list(self._under_way):
            await self.give_up(number)

    async def _compare(self, one: _UnderWay, rollout: Rollout) -> None:
        step = rollout.present
        assert step is not None, "a step compares"
        versions = rollout.job, rollout.control, rollout.candidate
        # Whether it passed, or nobody can compare them: there is nothing more to wait for.
        while one.finding.verdict is GateVerdict.WAIT:
            try:
                async for found in self._neighbours.compare(*versions, step.contract, one.request):
                    one.finding = _finding(found)
            except TurnoutError as error:
                one.finding = _not_compared(error)
            except Exception:
                log.exception("%s: the comparison failed and is gone on with", rollout.job)
            await asyncio.sleep(_AGAIN_S)


def _not_compared(error: TurnoutError) -> Finding:
    again = not isinstance(error, FailedPrecondition | InvalidInput) or error.reason in _MAY_PASS
    verdict = GateVerdict.WAIT if again else GateVerdict.INCONCLUSIVE
    return Finding(Gate.COMPARISON, verdict, f"The tables were not compared: {error.message}")


def _finding(found: comparison_pb2.Comparison) -> Finding:
    finished = found.state == comparison_pb2.Comparison.FINISHED
    judged = found.verdict != comparison_pb2.Comparison.VERDICT_UNSPECIFIED
    name = found.name.rpartition("/")[2]
    if not finished:
        rows = found.rows_old + found.rows_new
        of = f" of about {found.rows_expected:,}" if found.rows_expected else ""
        sentences = [f"The tables are being compared ({name}): {rows:,}{of} rows so far."]
    else:
        sentences = [*found.findings, f"That is comparison {name}, of {found.rows_old + found.rows_new:,} rows."]
    passed = found.verdict == comparison_pb2.Comparison.PASSED if judged else None
    return of_comparison(finished=finished, aligned=found.aligned, passed=passed, sentences=sentences)
