"""What the registry stores, as values."""

from dataclasses import dataclass
from datetime import datetime

from services.registry.lifecycle import State
from services.registry.retirement import Retirement
from turnout.log_range import LogRange
from turnout.names import VersionId


@dataclass(frozen=True, slots=True)
class Job:
    """A job. last_number: the highest number ever given to a version, 0 = none yet."""

    job: str
    description: str
    create_time: datetime
    last_number: int = 0


@dataclass(frozen=True, slots=True)
class Version:
    """A version. definition_json: canonical, as `turnout.schema.encode` writes it. log_range: None = all of the log."""

    id: VersionId
    state: State
    definition_json: str
    artifact_digest: str
    artifact_bytes: int
    create_time: datetime
    log_range: LogRange | None = None
    retirement: Retirement | None = None


@dataclass(frozen=True, slots=True)
class Code:
    """What CreateVersion stores: a definition, the artefact it was loaded from, the range (None = all of the log)."""

    definition_json: str
    artifact_digest: str
    artifact: bytes
    log_range: LogRange | None = None


@dataclass(frozen=True, slots=True)
class RequestKey:
    """A request that may come again. fingerprint: SHA-256 of what it asks, so that an id is not used for two things."""

    method: str
    request_id: str
    fingerprint: bytes
