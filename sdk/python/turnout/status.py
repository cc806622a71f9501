"""gRPC statuses of Turnout's services as errors."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import grpc
from google.rpc import error_details_pb2
from grpc_status import rpc_status

from turnout import errors
from turnout.errors import TurnoutError, Unavailable, Violation

DOMAIN = "turnout"
"""Of every ErrorInfo that a service sends."""

ERRORS: dict[grpc.StatusCode, type[TurnoutError]] = {
    grpc.StatusCode.INVALID_ARGUMENT: errors.InvalidInput,
    grpc.StatusCode.NOT_FOUND: errors.NotFound,
    grpc.StatusCode.ALREADY_EXISTS: errors.AlreadyExists,
    grpc.StatusCode.FAILED_PRECONDITION: errors.FailedPrecondition,
    grpc.StatusCode.ABORTED: errors.Aborted,
    grpc.StatusCode.OUT_OF_RANGE: errors.OutOfRange,
    grpc.StatusCode.RESOURCE_EXHAUSTED: errors.ResourceExhausted,
    grpc.StatusCode.DATA_LOSS: errors.DataLoss,
    grpc.StatusCode.UNAVAILABLE: errors.Unavailable,
}
"""What services raise; each is one error on both sides of the wire."""

_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


def details_of(
    error: grpc.aio.AioRpcError,
) -> tuple[error_details_pb2.ErrorInfo | None, tuple[Violation, ...]]:
    """What the status carries; None for one without ErrorInfo, which no service of Turnout has sent."""
    found: error_details_pb2.ErrorInfo | None = None
    failure, request = error_details_pb2.PreconditionFailure(), error_details_pb2.BadRequest()
    try:
        status = rpc_status.from_call(error)
    except ValueError:  # a status from something else than a Turnout server, with details that do not fit it
        status = None
    details: list[Any] = list(status.details) if status is not None else []
    for detail in details:
        info = error_details_pb2.ErrorInfo()
        if detail.Unpack(info):
            found = info
        elif not detail.Unpack(failure):
            detail.Unpack(request)
    return found, (
        *(Violation(one.type, one.subject, one.description) for one in failure.violations),
        *(Violation(one.reason, one.field, one.description) for one in request.field_violations),
    )


def from_rpc_error(error: grpc.aio.AioRpcError, service: str) -> TurnoutError:
    """The error behind a failed call to a service, which is named when it is away."""
    info, violations = details_of(error)
    kind = ERRORS.get(error.code(), Unavailable)
    if info is None or info.domain != DOMAIN:
        if error.code() in _AWAY or kind is Unavailable:
            return Unavailable(
                f"{service.upper()}_UNAVAILABLE",
                f"The {service} does not answer ({error.code().name.lower()}); try again.",
            )
        return kind("INTERNAL", f"The {service} failed: {error.details()}")
    return kind(info.reason, error.details() or "", metadata=dict(info.metadata), violations=violations)


@contextmanager
def domain_errors(service: str) -> Iterator[None]:
    """In the block a failed call to a service raises the error that is behind it."""
    try:
        yield
    except grpc.aio.AioRpcError as error:
        raise from_rpc_error(error, service) from error
