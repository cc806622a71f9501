"""From a job file to a registered version."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Final

from turnout.client.registry import RegistryCalls
from turnout.client.replayer import ReplayerCalls
from turnout.errors import AlreadyExists, FailedPrecondition, NotFound, Violation
from turnout.loading import LoadedJob, load_apart
from turnout.log_range import LogRange
from turnout.results import Applied, DefinitionProblem

_FOR_GOOD: Final = frozenset(
    {
        "TABLE_REFUSED",
        "INDEX_REFUSED",
        "RANGE_NOT_RETAINED",
        "RANGE_NOT_FOUND",
        "RANGE_INCOMPLETE",
        "RANGE_BACKWARDS",
    }
)
"""A version that is refused for these never runs, however long one waits; a topic that is missing may come."""


class JobFileCalls(RegistryCalls, ReplayerCalls):
    """Methods that begin with a file."""

    async def apply(
        self,
        path: Path | str,
        *,
        log_range: LogRange | None = None,
        expected_number: int | None = None,
        to_run: bool = False,
        timeout_s: float | None = None,
    ) -> Applied:
        """Register the code of a job file or folder: creates the job if there is none, and a version if it is new.

        Applying the same code again changes nothing. The file is loaded in a process of its own; starts no run.
        log_range: as in `create_version`. expected_number: FailedPrecondition (VERSION_MISMATCH) and no version stored
        when another number would result. to_run: of a version that would be new, ask first whether a run of it could
        ever start: FailedPrecondition (TABLE_REFUSED, INDEX_REFUSED, RANGE_NOT_RETAINED, RANGE_NOT_FOUND,
        RANGE_INCOMPLETE, RANGE_BACKWARDS) and neither job nor version stored otherwise.
        `turnout.job.JobFileError` or `ArtifactError` (both ValueError) when the file is refused.
        """
        loaded = await load_apart(path)
        if to_run and await self._would_be_new(loaded, log_range, expected_number, timeout_s):
            problems = await self.check_definition(loaded.definition, log_range, timeout_s=timeout_s)
            refuse_run(loaded.definition.job, [one for one in problems if one.reason in _FOR_GOOD])
        job_created = await self._job_of(loaded, timeout_s)
        answer = await self.create_version(
            loaded.definition.job,
            loaded.definition,
            loaded.artifact,
            log_range=log_range,
            expected_number=expected_number,
            timeout_s=timeout_s,
        )
        return Applied(answer.version, answer.created, job_created)

    async def _would_be_new(
        self, loaded: LoadedJob, log_range: LogRange | None, expected_number: int | None, timeout_s: float | None
    ) -> bool:
        """Whether applying it would store another version."""
        try:
            planned = await self.create_version(
                loaded.definition.job,
                loaded.definition,
                loaded.artifact,
                log_range=log_range,
                expected_number=expected_number,
                validate_only=True,
                timeout_s=timeout_s,
            )
        except NotFound:  # the job itself is new
            return True
        return planned.created

    async def _job_of(self, loaded: LoadedJob, timeout_s: float | None) -> bool:
        """Make sure that the job exists; whether it had to be created."""
        job = loaded.definition.job
        try:
            await self.get_job(job, timeout_s=timeout_s)
        except NotFound:
            try:
                await self.create_job(job, loaded.description, timeout_s=timeout_s)
            except AlreadyExists:  # somebody else applied it at the same moment
                return False
            return True
        return False


def refuse_run(job: str, problems: Sequence[DefinitionProblem]) -> None:
    """FailedPrecondition with the reason and the words of the first problem, and all of them as violations."""
    if problems:
        violations = tuple(Violation(one.reason, f"jobs/{job}", one.message) for one in problems)
        told = f"{problems[0].message} Nothing was stored."
        raise FailedPrecondition(problems[0].reason, told, violations=violations)
