"""What the methods of all services share: the connections, the actor, names, request ids, paging."""

from __future__ import annotations

import uuid
from collections.abc import AsyncIterator, Awaitable, Callable
from datetime import UTC, datetime, timedelta
from functools import lru_cache
from typing import TypeVar, cast

from google.protobuf.duration_pb2 import Duration
from google.protobuf.message import Message
from google.protobuf.timestamp_pb2 import Timestamp

from turnout.client.connection import Connections
from turnout.errors import InvalidInput
from turnout.schema import SchemaError, check_job_id

T = TypeVar("T")


class Calls:
    """Base of the groups of methods that make up the client."""

    _connections: Connections
    _actor: str


@lru_cache(maxsize=1024)
def job_name(job: str) -> str:
    """The resource name of a job. InvalidInput unless `job` is an id."""
    try:
        check_job_id(job)
    except SchemaError as error:
        raise InvalidInput("INVALID_NAME", str(error)) from None
    return f"jobs/{job}"


def version_name(job: str, number: int) -> str:
    """The resource name of a version. InvalidInput unless the number is one."""
    if isinstance(number, bool) or not isinstance(number, int) or number < 1:
        raise InvalidInput("INVALID_NAME", f"{number!r} is not the number of a version; versions count from 1.")
    return f"{job_name(job)}/versions/{number}"


def run_name(job: str, version: int) -> str:
    """The resource name of a version's run."""
    return f"{version_name(job, version)}/run"


def route_name(job: str) -> str:
    """The resource name of a job's route."""
    return f"{job_name(job)}/route"


def split_version(name: str) -> tuple[str, int]:
    """The job's id and the version's number in a name that a server sent, with or without "/run" behind."""
    _, job, _, number, *_ = name.split("/")
    return job, int(number)


def split_job(name: str) -> str:
    """The job's id in a name that a server sent."""
    return name.split("/")[1]


def duration_of(time: timedelta | None) -> Duration | None:
    """A length of time for a request; None = absent."""
    if time is None:
        return None
    duration = Duration()
    duration.FromTimedelta(time)
    return duration


def time_of(message: Message, field: str) -> datetime | None:
    """A moment that a server sent; None = absent."""
    return cast(Timestamp, getattr(message, field)).ToDatetime(tzinfo=UTC) if message.HasField(field) else None


def span_of(message: Message, field: str) -> timedelta | None:
    """A length of time that a server sent; None = absent."""
    return cast(Duration, getattr(message, field)).ToTimedelta() if message.HasField(field) else None


def new_request_id() -> str:
    """An id that makes the retries of one change one change."""
    return str(uuid.uuid4())


async def pages(fetch: Callable[[str], Awaitable[tuple[list[T], str]]]) -> AsyncIterator[T]:
    """All items of all pages; `fetch` takes a page token and gives the items and the next token."""
    token = ""
    while True:
        items, token = await fetch(token)
        for item in items:
            yield item
        if not token:
            return
