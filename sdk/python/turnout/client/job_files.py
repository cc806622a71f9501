"""From a job file to a registered version."""

from __future__ import annotations

from pathlib import Path

from turnout.client.registry import RegistryCalls
from turnout.errors import AlreadyExists, NotFound
from turnout.loading import LoadedJob, load_apart
from turnout.log_range import LogRange
from turnout.results import Applied


class JobFileCalls(RegistryCalls):
    """Methods that begin with a file."""

    async def apply(
        self,
        path: Path | str,
        *,
        log_range: LogRange | None = None,
        expected_number: int | None = None,
        timeout_s: float | None = None,
    ) -> Applied:
        """Register the code of a job file or folder: creates the job if there is none, and a version if it is new.

        Applying the same code again changes nothing. The file is loaded in a process of its own; starts no run.
        log_range: as in `create_version`. expected_number: FailedPrecondition (VERSION_MISMATCH) and no version stored
        when another number would result.
        `turnout.job.JobFileError` or `ArtifactError` (both ValueError) when the file is refused.
        """
        loaded = await load_apart(path)
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
