"""Messages <-> values."""

import hashlib
from datetime import datetime, timedelta

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from core.domain import definitions
from core.domain.text import ID_MAX, text
from services.registry.records import Job, RequestKey, Version
from services.registry.retirement import Retirement, Step
from turnout import log_range_proto
from turnout.definition_proto import to_proto
from turnout.errors import InvalidInput
from turnout.names import job_name, parse_job
from turnout.registry.v1 import registry_pb2
from turnout.schema import JobDefinition, decode

_Retirement = registry_pb2.Retirement

# The contract tells people less: where they may still turn back does not depend on it.
_STEPS = {
    Step.RELEASE: _Retirement.RELEASE,
    Step.STOP_RUN: _Retirement.STOP_RUN,
    Step.RETAIN: _Retirement.RETAIN,
    Step.DRAIN: _Retirement.DROP,
    Step.DROP: _Retirement.DROP,
    Step.DONE: _Retirement.DONE,
    Step.REINSTATE: _Retirement.REINSTATE,
    Step.RESUME_RUN: _Retirement.REINSTATE,
}


def job_message(job: Job) -> registry_pb2.Job:
    return registry_pb2.Job(
        name=job_name(job.job),
        description=job.description,
        create_time=_stamp(job.create_time),
        newest_version=job.last_number,
    )


def version_message(version: Version) -> registry_pb2.Version:
    return registry_pb2.Version(
        name=version.id.name,
        state=registry_pb2.Version.State.Value(version.state.value),
        definition=to_proto(decode(version.definition_json)),
        artifact_digest=version.artifact_digest,
        artifact_bytes=version.artifact_bytes,
        create_time=_stamp(version.create_time),
        retirement=None if version.retirement is None else _retirement_message(version.retirement),
        log_range=log_range_proto.to_proto(version.log_range),
    )


def _retirement_message(retirement: Retirement) -> registry_pb2.Retirement:
    return registry_pb2.Retirement(
        step=_STEPS[retirement.step],
        drop_time=None if retirement.drop_time is None else _stamp(retirement.drop_time),
        waiting_for=retirement.waiting_for,
        claimed_actor=retirement.claimed_actor,
        start_time=_stamp(retirement.start_time),
    )


def definition(header: registry_pb2.CreateVersionHeader) -> JobDefinition:
    """The definition. InvalidInput when it is none, says two things, or is of another job."""
    job = parse_job(header.parent)
    found = definitions.definition(header.definition)
    if found.job != job:
        raise InvalidInput(
            "INVALID_DEFINITION", f"The definition is of job {found.job}, but the version is to be of job {job}."
        )
    return found


def request_key(method: str, request_id: str, request: Message) -> RequestKey:
    """What makes a repeated request the same one."""
    fingerprint = hashlib.sha256(request.SerializeToString(deterministic=True)).digest()
    return RequestKey(method, text(request_id, "request_id", ID_MAX), fingerprint)


def retain_for(request: registry_pb2.RetireVersionRequest) -> timedelta | None:
    """How long the table is to be retained; None = not said. InvalidInput beyond what a timedelta holds."""
    if not request.HasField("retain_for"):
        return None
    duration: Duration = request.retain_for
    try:
        return duration.ToTimedelta()
    except (OverflowError, ValueError):
        raise InvalidInput("INVALID_RETENTION", "retain_for is out of range.") from None


def _stamp(time: datetime) -> Timestamp:
    stamp = Timestamp()
    stamp.FromDatetime(time)
    return stamp
