"""The one table: domain error <-> gRPC status with details."""

from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from core.domain import errors
from core.domain.errors import FailedPrecondition, TurnoutError, Unavailable, Violation

DOMAIN = "turnout"

CODES: dict[type[TurnoutError], grpc.StatusCode] = {
    errors.InvalidInput: grpc.StatusCode.INVALID_ARGUMENT,
    errors.NotFound: grpc.StatusCode.NOT_FOUND,
    errors.AlreadyExists: grpc.StatusCode.ALREADY_EXISTS,
    errors.FailedPrecondition: grpc.StatusCode.FAILED_PRECONDITION,
    errors.Aborted: grpc.StatusCode.ABORTED,
    errors.OutOfRange: grpc.StatusCode.OUT_OF_RANGE,
    errors.ResourceExhausted: grpc.StatusCode.RESOURCE_EXHAUSTED,
    errors.DataLoss: grpc.StatusCode.DATA_LOSS,
    errors.Unavailable: grpc.StatusCode.UNAVAILABLE,
}
_TYPES = {code: kind for kind, code in CODES.items()}
_AWAY = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.DEADLINE_EXCEEDED, grpc.StatusCode.CANCELLED)


def to_status(error: TurnoutError) -> Any:
    """The gRPC status of a domain error, with ErrorInfo and, where there are violations, PreconditionFailure."""
    status = status_pb2.Status(code=CODES[type(error)].value[0], message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    status.details.add().Pack(info)
    if isinstance(error, FailedPrecondition) and error.violations:
        failure = error_details_pb2.PreconditionFailure()
        for violation in error.violations:
            failure.violations.add(type=violation.type, subject=violation.subject, description=violation.description)
        status.details.add().Pack(failure)
    return rpc_status.to_status(status)


def from_rpc_error(error: grpc.aio.AioRpcError, service: str) -> TurnoutError:
    """The domain error behind a failed call to another service, which is named when it is away."""
    status = rpc_status.from_call(error)
    info = error_details_pb2.ErrorInfo()
    failure = error_details_pb2.PreconditionFailure()
    details: list[Any] = list(status.details) if status is not None else []
    for detail in details:
        if not detail.Unpack(info):
            detail.Unpack(failure)
    kind = _TYPES.get(error.code(), Unavailable)
    if info.domain != DOMAIN:
        if error.code() in _AWAY or kind is Unavailable:
            return Unavailable(
                f"{service.upper()}_UNAVAILABLE",
                f"The {service} does not answer ({error.code().name.lower()}); try again.",
            )
        return kind("INTERNAL", f"The {service} failed: {error.details()}")
    metadata = dict(info.metadata)
    if kind is FailedPrecondition:
        violations = tuple(Violation(v.type, v.subject, v.description) for v in failure.violations)
        return FailedPrecondition(info.reason, error.details() or "", violations=violations, metadata=metadata)
    return kind(info.reason, error.details() or "", metadata=metadata)
