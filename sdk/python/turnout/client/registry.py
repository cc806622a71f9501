"""Jobs and versions."""

from __future__ import annotations

import hashlib
from collections.abc import AsyncIterator
from datetime import timedelta

from turnout.client import convert
from turnout.client.calls import Calls, duration_of, job_name, new_request_id, pages, version_name
from turnout.client.connection import CHANGE_S, QUICK_S
from turnout.definition_proto import to_proto
from turnout.log_range import LogRange
from turnout.log_range_proto import to_proto as range_to_proto
from turnout.registry.v1 import registry_pb2
from turnout.results import CreatedVersion, Job, Version
from turnout.schema import JobDefinition

PIECE_BYTES = 1 << 20  # the contract's limit for one message of an upload


class RegistryCalls(Calls):
    """Methods of the registry."""

    async def create_job(self, job: str, description: str = "", *, timeout_s: float | None = None) -> Job:
        """Name a new stream job. AlreadyExists (JOB_EXISTS) when the id is taken."""
        job_name(job)
        request = registry_pb2.CreateJobRequest(
            job_id=job, job=registry_pb2.Job(description=description), request_id=new_request_id()
        )
        return convert.job(
            await self._connections.unary(
                "registry", "CreateJob", request, registry_pb2.Job, timeout_s=timeout_s, default_s=QUICK_S
            )
        )

    async def get_job(self, job: str, *, timeout_s: float | None = None) -> Job:
        """One job. NotFound (JOB_NOT_FOUND)."""
        request = registry_pb2.GetJobRequest(name=job_name(job))
        return convert.job(
            await self._connections.unary(
                "registry", "GetJob", request, registry_pb2.Job, timeout_s=timeout_s, default_s=QUICK_S
            )
        )

    async def list_jobs(self, *, page_size: int = 0, timeout_s: float | None = None) -> AsyncIterator[Job]:
        """All jobs, ordered by name. page_size: jobs a request, 0 = the server's choice; timeout_s: of each request."""

        async def fetch(token: str) -> tuple[list[Job], str]:
            answer = await self._connections.unary(
                "registry",
                "ListJobs",
                registry_pb2.ListJobsRequest(page_size=page_size, page_token=token),
                registry_pb2.ListJobsResponse,
                timeout_s=timeout_s,
                default_s=QUICK_S,
            )
            return [convert.job(message) for message in answer.jobs], answer.next_page_token

        async for job in pages(fetch):
            yield job

    async def create_version(
        self,
        job: str,
        definition: JobDefinition,
        artifact: bytes,
        *,
        log_range: LogRange | None = None,
        expected_number: int | None = None,
        validate_only: bool = False,
        timeout_s: float | None = None,
    ) -> CreatedVersion:
        """Store code and definition as the job's next version, or find that it is the newest one already.

        artifact: as `turnout.job.load` packs it, at most 64 MiB. log_range: the part of the log that the table is made
        of, None = all; the same code with another range is another version; InvalidInput (INVALID_RANGE) where it names
        a topic that the job does not read. expected_number: FailedPrecondition (VERSION_MISMATCH)
        and nothing stored when another number would result. validate_only: answer, but store nothing.
        """
        header = registry_pb2.CreateVersionHeader(
            parent=job_name(job),
            definition=to_proto(definition),
            artifact_digest=hashlib.sha256(artifact).hexdigest(),
            expected_number=expected_number or 0,
            request_id=new_request_id(),
            validate_only=validate_only,
            log_range=range_to_proto(log_range),
        )

        async def requests() -> AsyncIterator[registry_pb2.CreateVersionRequest]:
            yield registry_pb2.CreateVersionRequest(header=header)
            for start in range(0, len(artifact), PIECE_BYTES):
                yield registry_pb2.CreateVersionRequest(chunk=artifact[start : start + PIECE_BYTES])

        answer = await self._connections.upload(
            "registry", "CreateVersion", requests, registry_pb2.CreateVersionResponse, timeout_s=timeout_s
        )
        return CreatedVersion(convert.version(answer.version), answer.created)

    async def get_version(self, job: str, number: int, *, timeout_s: float | None = None) -> Version:
        """One version. NotFound (VERSION_NOT_FOUND)."""
        request = registry_pb2.GetVersionRequest(name=version_name(job, number))
        return convert.version(
            await self._connections.unary(
                "registry", "GetVersion", request, registry_pb2.Version, timeout_s=timeout_s, default_s=QUICK_S
            )
        )

    async def list_versions(
        self, job: str, *, page_size: int = 0, timeout_s: float | None = None
    ) -> AsyncIterator[Version]:
        """The versions of a job, newest first. timeout_s: of each request. NotFound (JOB_NOT_FOUND)."""
        parent = job_name(job)

        async def fetch(token: str) -> tuple[list[Version], str]:
            answer = await self._connections.unary(
                "registry",
                "ListVersions",
                registry_pb2.ListVersionsRequest(parent=parent, page_size=page_size, page_token=token),
                registry_pb2.ListVersionsResponse,
                timeout_s=timeout_s,
                default_s=QUICK_S,
            )
            return [convert.version(message) for message in answer.versions], answer.next_page_token

        async for version in pages(fetch):
            yield version

    async def get_artifact(self, job: str, number: int, *, timeout_s: float | None = None) -> bytes:
        """The stored code of a version, as it was uploaded. NotFound (VERSION_NOT_FOUND)."""
        request = registry_pb2.GetArtifactRequest(name=version_name(job, number))
        stream = self._connections.stream(
            "registry", "GetArtifact", request, registry_pb2.GetArtifactResponse, timeout_s=timeout_s
        )
        return b"".join([piece.chunk async for piece in stream])

    async def retire(
        self,
        job: str,
        version: int,
        *,
        retain_for: timedelta | None = None,
        forgo_rollback: bool = False,
        timeout_s: float | None = None,
    ) -> Version:
        """Start the retirement of a version: released, stopped, its table retained, then dropped.

        Answers at once; Version.retirement tells the step and what it waits for. retain_for: None = 24 hours.
        forgo_rollback: also give up the way back to this version. FailedPrecondition (VERSION_IN_USE, ROLLBACK_WINDOW)
        while a route or its way back names the version; nothing has changed then. Repeating it changes nothing.
        """
        request = registry_pb2.RetireVersionRequest(
            name=version_name(job, version),
            retain_for=duration_of(retain_for),
            forgo_rollback=forgo_rollback,
            claimed_actor=self._actor,
            request_id=new_request_id(),
        )
        return convert.version(
            await self._connections.unary(
                "registry", "RetireVersion", request, registry_pb2.Version, timeout_s=timeout_s, default_s=CHANGE_S
            )
        )

    async def unretire(self, job: str, version: int, *, timeout_s: float | None = None) -> Version:
        """Take a retirement back; the run goes on from its positions. FailedPrecondition (VERSION_DROPPED)."""
        request = registry_pb2.UnretireVersionRequest(
            name=version_name(job, version), claimed_actor=self._actor, request_id=new_request_id()
        )
        return convert.version(
            await self._connections.unary(
                "registry", "UnretireVersion", request, registry_pb2.Version, timeout_s=timeout_s, default_s=QUICK_S
            )
        )
