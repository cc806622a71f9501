"""The gRPC edge: message in, rule, store, message out."""

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import grpc

from core.domain import definitions, paging
from core.domain.text import ID_MAX, TEXT_MAX, text
from services.registry import convert
from services.registry.convert import job_message, request_key, version_message
from services.registry.records import Code
from services.registry.retirement import Asked, check_retain_for
from services.registry.saga import Saga
from services.registry.store import Store
from services.registry.upload import PIECE_BYTES_MAX, Upload
from turnout import names
from turnout.clock import Clock
from turnout.errors import InvalidInput
from turnout.registry.v1 import registry_pb2, registry_pb2_grpc
from turnout.schema import SchemaError, check_job_id, encode

Context = grpc.aio.ServicerContext[Any, Any]

UPLOADS_MAX = 4  # at once, since each is held in memory until its digest is known
_JOBS = "jobs"


class RegistryServicer(registry_pb2_grpc.RegistryServicer):
    """`turnout.registry.v1.Registry`."""

    def __init__(self, store: Store, saga: Saga, clock: Clock) -> None:
        self._store = store
        self._saga = saga
        self._clock = clock
        self._uploads = asyncio.Semaphore(UPLOADS_MAX)

    async def CreateJob(self, request: registry_pb2.CreateJobRequest, context: Context) -> registry_pb2.Job:
        job = _job_id(request.job_id)
        description = text(request.job.description, "description", TEXT_MAX)
        now = self._clock.now()

        async def create(tx: Any) -> bytes:
            return job_message(await self._store.insert_job(tx, job, description, now)).SerializeToString()

        answer = await self._store.once(request_key("CreateJob", request.request_id, request), now, create)
        return registry_pb2.Job.FromString(answer)

    async def GetJob(self, request: registry_pb2.GetJobRequest, context: Context) -> registry_pb2.Job:
        return job_message(await self._store.job(names.parse_job(request.name)))

    async def ListJobs(self, request: registry_pb2.ListJobsRequest, context: Context) -> registry_pb2.ListJobsResponse:
        size = paging.page_size(request.page_size)
        jobs = await self._store.jobs(paging.from_token(request.page_token, _JOBS), size + 1)
        jobs, token = paging.page_of(jobs, size, _JOBS, lambda job: job.job)
        return registry_pb2.ListJobsResponse(jobs=[job_message(job) for job in jobs], next_page_token=token)

    async def CreateVersion(
        self, request_iterator: AsyncIterator[registry_pb2.CreateVersionRequest], context: Context
    ) -> registry_pb2.CreateVersionResponse:
        first = await anext(aiter(request_iterator), None)
        if first is None or first.WhichOneof("part") != "header":
            raise InvalidInput("HEADER_MISSING", "The first message of CreateVersion holds the header.")
        header = first.header
        job, definition = names.parse_job(header.parent), convert.definition(header)
        if header.expected_number < 0:
            raise InvalidInput("INVALID_NUMBER", "expected_number is negative; use 0 for any.")
        upload = Upload(header.artifact_digest)
        key = request_key("CreateVersion", header.request_id, header)
        async with self._uploads:
            async for part in request_iterator:
                if part.WhichOneof("part") != "chunk":
                    raise InvalidInput("HEADER_TWICE", "Only the first message of CreateVersion holds a header.")
                upload.take(part.chunk)
            # Only now: a client that still writes when the call ends loses the status that ended it.
            log_range = definitions.log_range(header.log_range, definition)
            await self._store.job(job)
            code = Code(encode(definition).decode(), header.artifact_digest, upload.content(), log_range)
            now = self._clock.now()

            async def create(tx: Any) -> bytes:
                version, created = await self._store.number_version(
                    tx, job, code, header.expected_number, now, keep=not header.validate_only
                )
                answer = registry_pb2.CreateVersionResponse(version=version_message(version), created=created)
                return answer.SerializeToString()

            return registry_pb2.CreateVersionResponse.FromString(await self._store.once(key, now, create))

    async def GetVersion(self, request: registry_pb2.GetVersionRequest, context: Context) -> registry_pb2.Version:
        return version_message(await self._store.version(names.parse_version(request.name)))

    async def ListVersions(
        self, request: registry_pb2.ListVersionsRequest, context: Context
    ) -> registry_pb2.ListVersionsResponse:
        job, size = names.parse_job(request.parent), paging.page_size(request.page_size)
        after = paging.from_token(request.page_token, request.parent)
        versions = await self._store.versions(job, None if after is None else int(after), size + 1)
        versions, token = paging.page_of(versions, size, request.parent, lambda version: version.id.number)
        return registry_pb2.ListVersionsResponse(
            versions=[version_message(version) for version in versions], next_page_token=token
        )

    async def GetArtifact(
        self, request: registry_pb2.GetArtifactRequest, context: Context
    ) -> AsyncIterator[registry_pb2.GetArtifactResponse]:
        version = await self._store.version(names.parse_version(request.name))
        for start in range(0, version.artifact_bytes, PIECE_BYTES_MAX):
            piece = await self._store.artifact_piece(version.artifact_digest, start, PIECE_BYTES_MAX)
            yield registry_pb2.GetArtifactResponse(chunk=piece)

    async def RetireVersion(self, request: registry_pb2.RetireVersionRequest, context: Context) -> registry_pb2.Version:
        version = names.parse_version(request.name)
        asked = Asked(
            check_retain_for(convert.retain_for(request)),
            request.forgo_rollback,
            text(request.claimed_actor, "claimed_actor", ID_MAX),
        )
        key = request_key("RetireVersion", request.request_id, request)
        remembered = await self._store.answered(key)
        if remembered is not None:
            return registry_pb2.Version.FromString(remembered)
        answer = version_message(await self._saga.retire(version, asked))
        # Until the switcher has answered it may be refused still, and a repeat asks again.
        if answer.retirement.step != registry_pb2.Retirement.RELEASE:
            await self._store.remember(key, answer.SerializeToString(), self._clock.now())
        return answer

    async def UnretireVersion(
        self, request: registry_pb2.UnretireVersionRequest, context: Context
    ) -> registry_pb2.Version:
        version = names.parse_version(request.name)
        actor = text(request.claimed_actor, "claimed_actor", ID_MAX)
        key = request_key("UnretireVersion", request.request_id, request)
        remembered = await self._store.answered(key)
        if remembered is not None:
            return registry_pb2.Version.FromString(remembered)
        await self._saga.unretire(version, actor)
        answer = version_message(await self._store.version(version))
        await self._store.remember(key, answer.SerializeToString(), self._clock.now())
        return answer


def _job_id(job: str) -> str:
    try:
        check_job_id(job)
    except SchemaError as error:
        raise InvalidInput("INVALID_NAME", f"{error}.") from None
    return job
