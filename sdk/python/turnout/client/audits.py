"""The determinism audit: one job file computed twice over the same records, and the two tables compared."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import Callable
from contextlib import aclosing
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from pathlib import Path

from turnout.client.comparisons import ComparisonCalls
from turnout.client.job_files import JobFileCalls, refuse_run
from turnout.contract import Contract
from turnout.errors import DeadlineExceeded, FailedPrecondition, TurnoutError
from turnout.job.artifact import marked
from turnout.loading import LoadedJob, load_apart
from turnout.log_range import LogRange
from turnout.results import Audit, Run, RunState

_WORKERS = (1, 3)  # of the two copies: other batches, and another order over the partitions
_PRIORITY = -50  # behind copies that somebody waits for
_CLEAN_UP_S = 30.0


@dataclass(frozen=True, slots=True)
class _Twins:
    job: str
    numbers: tuple[int, ...]


class AuditCalls(JobFileCalls, ComparisonCalls):
    """The audit, which takes several of the client's methods."""

    async def audit(
        self,
        path: Path | str,
        *,
        log_range: LogRange | None = None,
        sample_size: int = 10,
        told: Callable[[str], None] | None = None,
        timeout_s: float | None = None,
    ) -> Audit:
        """Compute the job twice over a bounded range of the log, and compare the two tables: where they differ, the
        function is not deterministic, and its table cannot be computed again.

        The copies are versions of the job, which take two numbers, run behind other copies, and are retired and dropped
        at the end, however that comes. They differ in a comment and in how many workers they have. log_range: must end;
        None = all that is in the log by now. told: hears what is being done. timeout_s: of all of it, None = no limit.
        FailedPrecondition (AUDIT_FAILED, AUDIT_EMPTY) when one of the two cannot be computed, or has no row; the reason
        of `check_definition`, and no number taken, when neither could be begun;
        `turnout.job.JobDefinitionError` when the file is refused.
        """
        bounded = _bounded(log_range)
        loaded = await load_apart(path)
        refuse_run(loaded.definition.job, await self.check_definition(loaded.definition, bounded))
        await self._job_of(loaded, None)
        said = told or (lambda _: None)
        numbers: list[int] = []
        try:
            for _ in _WORKERS:
                numbers.append(await self._twin(loaded, bounded))
            twins = _Twins(loaded.definition.job, tuple(numbers))
            said(f"{twins.job}: v{numbers[0]} and v{numbers[1]} are computed from the same records, {bounded}")
            await self._computed(twins, timeout_s)
            said("both are computed; comparing them")
            found = await self.compare(twins.job, *numbers, contract=Contract(), sample_size=sample_size)
        finally:
            await asyncio.shield(self._clean_up(loaded.definition.job, numbers))
        if not found.rows_old and not found.rows_new:
            raise FailedPrecondition(
                "AUDIT_EMPTY",
                f"The records of {twins.job}, {bounded}, give no row: they tell nothing. Take more of them.",
            )
        noise = {one.column: one.largest_absolute for one in found.columns if one.largest_absolute and not one.rows}
        return Audit(job=twins.job, deterministic=bool(found.passed), comparison=found, noise=noise)

    async def _twin(self, loaded: LoadedJob, log_range: LogRange) -> int:
        artifact = marked(loaded.artifact, f"turnout audit {secrets.token_hex(8)}")
        created = await self.create_version(loaded.definition.job, loaded.definition, artifact, log_range=log_range)
        return created.version.number

    async def _computed(self, twins: _Twins, timeout_s: float | None) -> None:
        for number, workers in zip(twins.numbers, _WORKERS, strict=True):
            await self.start_run(twins.job, number, workers=workers, priority=_PRIORITY)
        waiting = [asyncio.create_task(self._completed(twins.job, number)) for number in twins.numbers]
        try:
            async with asyncio.timeout(timeout_s):
                await asyncio.gather(*waiting)
        except TimeoutError:
            raise DeadlineExceeded(
                "DEADLINE_EXCEEDED",
                f"The two copies of {twins.job} were not computed within {timeout_s:g} s; nothing was compared.",
            ) from None
        finally:
            for task in waiting:
                task.cancel()
            await asyncio.gather(*waiting, return_exceptions=True)

    async def _completed(self, job: str, number: int) -> None:
        async with aclosing(self.watch_run(job, number)) as states:
            async for run in states:
                if run.state is RunState.COMPLETED:
                    return
                if run.state in (RunState.FAILED, RunState.STOPPED, RunState.PAUSED):
                    raise _failed(run)

    async def _clean_up(self, job: str, numbers: list[int]) -> None:
        """Retire and drop what was made; what cannot be told of that now is retired by hand."""
        for number in numbers:
            try:
                await self.retire(job, number, retain_for=timedelta(0), timeout_s=_CLEAN_UP_S)
            except TurnoutError:
                continue


def _bounded(log_range: LogRange | None) -> LogRange:
    if log_range is not None and log_range.bounded:
        return log_range
    start = log_range or LogRange()
    return LogRange(start.start_time, start.start_offsets, datetime.now(UTC))


def _failed(run: Run) -> FailedPrecondition:
    said = f": {run.status_message.rstrip('.')}" if run.status_message else ""
    return FailedPrecondition(
        "AUDIT_FAILED",
        f"A copy of {run.job} cannot be computed, its run is {run.state.value}{said}. Nothing was compared.",
    )
