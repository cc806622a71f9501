"""The errors that services raise: those of the SDK, so that a fault is one class on both sides of the wire.

`core.rpc.errors` maps each to its gRPC status. What is not here is for a caller alone: no service raises it.
"""

from turnout.errors import (
    Aborted,
    AlreadyExists,
    DataLoss,
    FailedPrecondition,
    InvalidInput,
    NotFound,
    OutOfRange,
    ResourceExhausted,
    TurnoutError,
    Unavailable,
    Violation,
)

__all__ = [
    "Aborted",
    "AlreadyExists",
    "DataLoss",
    "FailedPrecondition",
    "InvalidInput",
    "NotFound",
    "OutOfRange",
    "ResourceExhausted",
    "TurnoutError",
    "Unavailable",
    "Violation",
]
