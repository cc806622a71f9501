"""The one table of errors and gRPC statuses, from the side that raises; `turnout.status` has it for callers."""

from typing import Any

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status

from turnout.errors import InvalidInput, TurnoutError
from turnout.status import DOMAIN, ERRORS

CODES: dict[type[TurnoutError], grpc.StatusCode] = {kind: code for code, kind in ERRORS.items()}


def to_status(error: TurnoutError) -> Any:
    """The gRPC status of an error, with ErrorInfo and, for its violations, PreconditionFailure or BadRequest."""
    status = status_pb2.Status(code=CODES[type(error)].value[0], message=error.message)
    info = error_details_pb2.ErrorInfo(reason=error.reason, domain=DOMAIN, metadata=error.metadata)
    status.details.add().Pack(info)
    if error.violations and isinstance(error, InvalidInput):
        request = error_details_pb2.BadRequest()
        for one in error.violations:
            request.field_violations.add(field=one.subject, description=one.description, reason=one.type)
        status.details.add().Pack(request)
    elif error.violations:
        failure = error_details_pb2.PreconditionFailure()
        for violation in error.violations:
            failure.violations.add(type=violation.type, subject=violation.subject, description=violation.description)
        status.details.add().Pack(failure)
    return rpc_status.to_status(status)
