"""Jobs, versions and artefacts over a real channel, on real PostgreSQL."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import AsyncIterator, Iterable
from datetime import UTC, datetime, timedelta, timezone
from typing import Any

import grpc
import pytest
from google.protobuf.timestamp_pb2 import Timestamp

from tests.integration.registry.conftest import DEFINITION, JOB, Registry
from turnout.channel import connect
from turnout.definition_proto import to_proto
from turnout.errors import AlreadyExists, FailedPrecondition, InvalidInput, NotFound
from turnout.log_range import LogRange, PartitionOffset
from turnout.registry.v1 import registry_pb2 as pb
from turnout.registry.v1.registry_pb2_grpc import RegistryStub
from turnout.results import VersionState

CODE = b"x = 1\n" * 400_000  # three pieces


@pytest.fixture
async def stub(registry: Registry) -> AsyncIterator[Any]:
    channel = connect(registry.target)
    yield RegistryStub(channel)
    await channel.close()


def header(artifact: bytes, **changes: Any) -> pb.CreateVersionRequest:
    fields = {
        "parent": f"jobs/{JOB}",
        "definition": to_proto(DEFINITION),
        "artifact_digest": hashlib.sha256(artifact).hexdigest(),
    }
    return pb.CreateVersionRequest(header=pb.CreateVersionHeader(**{**fields, **changes}))


def chunks(*pieces: bytes) -> list[pb.CreateVersionRequest]:
    return [pb.CreateVersionRequest(chunk=piece) for piece in pieces]


async def upload(stub: Any, parts: Iterable[pb.CreateVersionRequest]) -> pb.CreateVersionResponse:
    async def requests() -> AsyncIterator[pb.CreateVersionRequest]:
        for part in parts:
            yield part

    response: pb.CreateVersionResponse = await stub.CreateVersion(requests(), timeout=20)
    return response


async def refusal(call: Any) -> tuple[grpc.StatusCode, str]:
    with pytest.raises(grpc.aio.AioRpcError) as refused:
        await call
    return refused.value.code(), refused.value.details() or ""


async def test_a_job_is_created_once(registry: Registry) -> None:
    job = await registry.client.get_job(JOB)
    assert (job.job, job.description, job.newest_version) == (JOB, "How punctual is each carrier?", None)
    with pytest.raises(AlreadyExists, match="use it or choose") as refused:
        await registry.client.create_job(JOB)
    assert refused.value.reason == "JOB_EXISTS"
    with pytest.raises(NotFound, match="Apply its job file"):
        await registry.client.get_job("nothing")


@pytest.mark.parametrize("job_id", ["", "A", "a--b", "-a", "a/b", "a" * 43])
async def test_names_are_checked(registry: Registry, stub: Any, job_id: str) -> None:
    code, _ = await refusal(stub.CreateJob(pb.CreateJobRequest(job_id=job_id), timeout=5))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    code, _ = await refusal(stub.GetJob(pb.GetJobRequest(name=f"jobs/{job_id}"), timeout=5))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_text_that_cannot_be_stored_is_refused(stub: Any) -> None:
    for text in ("a\0b", "x" * 5000):
        request = pb.CreateJobRequest(job_id="text", job=pb.Job(description=text))
        code, said = await refusal(stub.CreateJob(request, timeout=5))
        assert code is grpc.StatusCode.INVALID_ARGUMENT
        assert "description" in said


async def test_a_repeated_request_gets_the_first_answer(stub: Any) -> None:
    request = pb.CreateJobRequest(job_id="twice", request_id="r1")
    first, second = await asyncio.gather(stub.CreateJob(request, timeout=5), stub.CreateJob(request, timeout=5))
    assert first == second
    other = pb.CreateJobRequest(job_id="other", request_id="r1")
    code, said = await refusal(stub.CreateJob(other, timeout=5))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "new id" in said


async def test_lists_come_in_pages(registry: Registry, stub: Any) -> None:
    for number in range(4):
        await registry.client.create_job(f"job-{number}")
    expected = [JOB, "job-0", "job-1", "job-2", "job-3"]
    for size in (1, 2, 5, 0):
        assert [job.job async for job in registry.client.list_jobs(page_size=size)] == expected
    code, _ = await refusal(stub.ListJobs(pb.ListJobsRequest(page_size=-1), timeout=5))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    code, _ = await refusal(stub.ListJobs(pb.ListJobsRequest(page_token="x"), timeout=5))
    assert code is grpc.StatusCode.INVALID_ARGUMENT


async def test_versions_are_numbered_and_kept(registry: Registry) -> None:
    client = registry.client
    first = await client.create_version(JOB, DEFINITION, CODE)
    assert first.created
    version = first.version
    assert (version.number, version.state, version.definition) == (1, VersionState.REGISTERED, DEFINITION)
    assert version.artifact_digest == hashlib.sha256(CODE).hexdigest()
    assert version.artifact_bytes == len(CODE)
    assert version.retirement is None
    assert await client.get_version(JOB, 1) == version
    assert await client.get_artifact(JOB, 1) == CODE
    again = await client.create_version(JOB, DEFINITION, CODE)
    assert not again.created
    assert again.version == version
    for number in (2, 3):
        await client.create_version(JOB, DEFINITION, b"code %d" % number)
    for size in (1, 2, 0):
        assert [found.number async for found in client.list_versions(JOB, page_size=size)] == [3, 2, 1]
    assert (await client.get_job(JOB)).newest_version == 3
    assert await client.get_artifact(JOB, 2) == b"code 2"


async def test_another_range_of_the_log_is_another_version(registry: Registry) -> None:
    client = registry.client
    march = LogRange(start_time=datetime(2026, 3, 1, tzinfo=UTC), end_offsets=(PartitionOffset("flights", 0, 7),))
    same = LogRange(
        start_time=datetime(2026, 3, 1, 1, tzinfo=timezone(timedelta(hours=1))), end_offsets=march.end_offsets
    )
    assert (await client.create_version(JOB, DEFINITION, CODE)).version.log_range is None
    second = await client.create_version(JOB, DEFINITION, CODE, log_range=march)
    assert (second.created, second.version.number, second.version.log_range) == (True, 2, march)
    for log_range, number in ((same, 2), (None, 1), (LogRange(), 1)):
        again = await client.create_version(JOB, DEFINITION, CODE, log_range=log_range)
        assert (again.created, again.version.number) == (False, number)
    with pytest.raises(FailedPrecondition, match="this code has another range of the log than v2 and would be v3"):
        await client.create_version(
            JOB, DEFINITION, CODE, log_range=LogRange(start_time=march.start_time), expected_number=2
        )
    assert [version.log_range async for version in client.list_versions(JOB)] == [march, None]
    assert (await client.get_version(JOB, 2)).log_range == march
    with pytest.raises(InvalidInput, match="does not read: it reads flights") as refused:
        await client.create_version(
            JOB, DEFINITION, CODE, log_range=LogRange(start_offsets=(PartitionOffset("fligths", 0, 7),))
        )
    assert refused.value.reason == "INVALID_RANGE"


@pytest.mark.parametrize(
    ("log_range", "words"),
    [
        (pb.LogRange(start_offsets=pb.Offsets()), "names no partition"),
        (
            pb.LogRange(start_offsets=pb.Offsets(offsets=[pb.PartitionOffset(topic="flights", offset=-1)])),
            "offsets count from 0",
        ),
        (pb.LogRange(start_time=Timestamp(seconds=9), end_time=Timestamp(seconds=8)), "before it begins"),
    ],
)
async def test_a_range_that_makes_no_sense_is_refused(
    registry: Registry, stub: Any, log_range: pb.LogRange, words: str
) -> None:
    code, said = await refusal(upload(stub, [header(b"a", log_range=log_range), *chunks(b"a")]))
    assert (code, words in said) == (grpc.StatusCode.INVALID_ARGUMENT, True), said
    assert (await registry.client.get_job(JOB)).newest_version is None


async def test_what_is_not_there_is_named(registry: Registry) -> None:
    client = registry.client
    with pytest.raises(NotFound) as refused:
        await client.get_version(JOB, 7)
    assert refused.value.reason == "VERSION_NOT_FOUND"
    with pytest.raises(NotFound) as refused:
        await client.get_artifact(JOB, 7)
    assert refused.value.reason == "VERSION_NOT_FOUND"
    with pytest.raises(NotFound) as refused:
        _ = [version async for version in client.list_versions("nothing")]
    assert refused.value.reason == "JOB_NOT_FOUND"
    other = DEFINITION.__class__(**{**_fields(DEFINITION), "job": "nothing"})
    with pytest.raises(NotFound) as refused:
        await client.create_version("nothing", other, CODE)
    assert refused.value.reason == "JOB_NOT_FOUND"


def _fields(definition: Any) -> dict[str, Any]:
    return {name: getattr(definition, name) for name in definition.__struct_fields__}


async def test_an_expected_number_is_asserted(registry: Registry) -> None:
    client = registry.client
    await client.create_version(JOB, DEFINITION, b"a", expected_number=1)
    await client.create_version(JOB, DEFINITION, b"b", expected_number=2)
    with pytest.raises(FailedPrecondition, match="v2 was expected, but this code differs from v2") as refused:
        await client.create_version(JOB, DEFINITION, b"c", expected_number=2)
    assert refused.value.reason == "VERSION_MISMATCH"
    assert (await client.get_job(JOB)).newest_version == 2
    again = await client.create_version(JOB, DEFINITION, b"b", expected_number=2)
    assert not again.created


async def test_validating_stores_nothing(registry: Registry) -> None:
    answer = await registry.client.create_version(JOB, DEFINITION, b"a", validate_only=True)
    assert answer.created
    assert answer.version.number == 1
    assert (await registry.client.get_job(JOB)).newest_version is None
    with pytest.raises(NotFound):
        await registry.client.get_version(JOB, 1)


async def test_concurrent_uploads_get_numbers_of_their_own(registry: Registry) -> None:
    answers = await asyncio.gather(
        *(registry.client.create_version(JOB, DEFINITION, b"code %d" % number) for number in range(8))
    )
    assert sorted(answer.version.number for answer in answers) == list(range(1, 9))


async def test_concurrent_uploads_of_one_code_are_one_version(registry: Registry) -> None:
    answers = await asyncio.gather(*(registry.client.create_version(JOB, DEFINITION, CODE) for _ in range(8)))
    assert {answer.version.number for answer in answers} == {1}
    assert sum(answer.created for answer in answers) == 1


async def test_a_repeated_upload_gets_the_first_answer(stub: Any) -> None:
    parts = [header(b"abc", request_id="u1"), *chunks(b"a", b"bc")]
    first = await upload(stub, parts)
    await upload(stub, [header(b"d"), *chunks(b"d")])
    assert await upload(stub, parts) == first
    assert first.created


@pytest.mark.parametrize(
    ("parts", "code", "words"),
    [
        ([], grpc.StatusCode.INVALID_ARGUMENT, "header"),
        (chunks(b"a"), grpc.StatusCode.INVALID_ARGUMENT, "header"),
        ([header(b"a")], grpc.StatusCode.INVALID_ARGUMENT, "empty"),
        ([header(b"a"), header(b"a")], grpc.StatusCode.INVALID_ARGUMENT, "Only the first"),
        ([header(b"a"), *chunks(b"b")], grpc.StatusCode.DATA_LOSS, "send them again"),
        ([header(b"a", artifact_digest="x")], grpc.StatusCode.INVALID_ARGUMENT, "SHA-256"),
        ([header(b"a", expected_number=-1)], grpc.StatusCode.INVALID_ARGUMENT, "negative"),
        ([header(b"a", parent="jobs/other"), *chunks(b"a")], grpc.StatusCode.INVALID_ARGUMENT, "job other"),
        ([header(b"a"), *chunks(b"a" * (2 << 20))], grpc.StatusCode.INVALID_ARGUMENT, "1,048,576"),
        (
            [header(b"a"), *chunks(b"a" * (1 << 20)) * 65],
            grpc.StatusCode.RESOURCE_EXHAUSTED,
            "67,108,864 bytes",
        ),
    ],
    ids=[
        "nothing",
        "no header",
        "no content",
        "two headers",
        "other content",
        "no digest",
        "negative number",
        "other job",
        "large piece",
        "large artefact",
    ],
)
async def test_a_bad_upload_is_refused_and_nothing_stored(
    registry: Registry, stub: Any, parts: list[pb.CreateVersionRequest], code: grpc.StatusCode, words: str
) -> None:
    found, said = await refusal(upload(stub, parts))
    assert (found, words in said) == (code, True), said
    assert (await registry.client.get_job(JOB)).newest_version is None


async def test_a_definition_that_says_two_things_is_refused(registry: Registry, stub: Any) -> None:
    definition = to_proto(DEFINITION)
    definition.topics[:] = ["other"]
    code, said = await refusal(upload(stub, [header(b"a", definition=definition), *chunks(b"a")]))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "disagree in topics" in said
    with pytest.raises(InvalidInput):
        await registry.client.create_version("Bad", DEFINITION, b"a")


async def test_the_largest_artefact_is_kept(registry: Registry) -> None:
    code = bytes(range(256)) * (1 << 18)
    assert len(code) == 64 << 20
    await registry.client.create_version(JOB, DEFINITION, code)
    assert await registry.client.get_artifact(JOB, 1) == code


async def test_a_deadline_is_needed(stub: Any) -> None:
    code, said = await refusal(stub.GetJob(pb.GetJobRequest(name=f"jobs/{JOB}")))
    assert code is grpc.StatusCode.INVALID_ARGUMENT
    assert "deadline" in said
