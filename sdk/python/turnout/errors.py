"""Errors of the client, one class for each gRPC status that a person can act on.

    TurnoutError
    ├── InvalidInput         the request can never succeed as it is; `violations` may list each field that is wrong
    ├── NotFound             a named thing does not exist
    ├── AlreadyExists        a name is taken
    ├── FailedPrecondition   the state of the system forbids it; `violations` lists each reason, such as a failed gate
    ├── Aborted              somebody else was faster: nothing has changed; read again and retry
    ├── OutOfRange           a position or page lies outside of what is kept
    ├── ResourceExhausted    a limit is reached
    ├── DataLoss             stored or sent bytes are not what their checksum says
    ├── Unavailable          a part is away for a while; the client has already retried
    ├── DeadlineExceeded     no answer in time; the call may still take effect
    └── ServerError          a fault of the server, which its log tells

`reason` is stable and machine-readable (UPPER_SNAKE); the message is for a person: what happened, why, what to do next.
No grpc here, so that anything may import it.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One reason why a precondition fails: its kind (such as a gate's name), what it is about, and the evidence. Of an
    InvalidInput: the reason, the field (such as "rollout.plan.steps[2]"), and what is wrong with it."""

    type: str
    subject: str
    description: str


class TurnoutError(Exception):
    """Base of all errors that the client raises on purpose.

    reason: stable, UPPER_SNAKE. message: for a person. metadata: facts for a program, such as the etag that was stale.
    violations: each reason of a FailedPrecondition; of an InvalidInput each field, where several may be wrong; empty
    elsewhere.
    """

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        metadata: Mapping[str, str] | None = None,
        violations: tuple[Violation, ...] = (),
    ) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata: Mapping[str, str] = dict(metadata or {})
        self.violations = violations


class InvalidInput(TurnoutError):
    """The request can never succeed as it is (INVALID_ARGUMENT)."""


class NotFound(TurnoutError):
    """A named thing does not exist (NOT_FOUND)."""


class AlreadyExists(TurnoutError):
    """A name is taken (ALREADY_EXISTS)."""


class FailedPrecondition(TurnoutError):
    """The state of the system forbids the request (FAILED_PRECONDITION); `violations` lists each reason."""


class Aborted(TurnoutError):
    """Somebody else was faster, nothing has changed (ABORTED): read again and retry."""


class OutOfRange(TurnoutError):
    """A position or page lies outside of what is kept (OUT_OF_RANGE)."""


class ResourceExhausted(TurnoutError):
    """A limit is reached (RESOURCE_EXHAUSTED)."""


class DataLoss(TurnoutError):
    """Stored or sent bytes are not what their checksum says (DATA_LOSS)."""


class Unavailable(TurnoutError):
    """A part is away for a while (UNAVAILABLE). The client has already retried."""


class DeadlineExceeded(TurnoutError):
    """No answer in time (DEADLINE_EXCEEDED). The call may still take effect: look before repeating it."""


class ServerError(TurnoutError):
    """A fault of the server (INTERNAL, UNKNOWN and the like), which its log tells."""
