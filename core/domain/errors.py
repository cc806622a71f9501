"""Errors of the domain, which `core.rpc` maps to gRPC statuses in one table.

    TurnoutError
    ├── InvalidInput         the request can never succeed as it is
    ├── NotFound             a named thing does not exist
    ├── AlreadyExists        a name is taken
    ├── FailedPrecondition   the state of the system forbids it; `violations` lists each reason
    ├── Aborted              somebody else was faster; read again and retry
    ├── OutOfRange           a position or page lies outside of what is kept
    ├── ResourceExhausted    a limit is reached
    ├── DataLoss             stored or sent bytes are not what their checksum says
    └── Unavailable          a part is away for a while; the same request may succeed later

`reason` is stable and machine-readable (UPPER_SNAKE); the message is for a person: what happened, why, what to do next.
"""

from collections.abc import Mapping
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Violation:
    """One reason why a precondition fails: the kind (such as a gate's name), what it is about, and the evidence."""

    type: str
    subject: str
    description: str


class TurnoutError(Exception):
    """Base of all errors that a caller is meant to see."""

    def __init__(self, reason: str, message: str, *, metadata: Mapping[str, str] | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.message = message
        self.metadata = dict(metadata or {})


class InvalidInput(TurnoutError):
    """The request can never succeed as it is."""


class NotFound(TurnoutError):
    """A named thing does not exist."""


class AlreadyExists(TurnoutError):
    """A name is taken."""


class FailedPrecondition(TurnoutError):
    """The state of the system forbids the request; `violations` lists each reason."""

    def __init__(
        self,
        reason: str,
        message: str,
        *,
        violations: tuple[Violation, ...] = (),
        metadata: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(reason, message, metadata=metadata)
        self.violations = violations


class Aborted(TurnoutError):
    """Somebody else was faster: nothing has changed; read again and retry."""


class OutOfRange(TurnoutError):
    """A position or page lies outside of what is kept."""


class ResourceExhausted(TurnoutError):
    """A limit is reached."""


class DataLoss(TurnoutError):
    """Stored or sent bytes are not what their checksum says."""


class Unavailable(TurnoutError):
    """A part is away for a while; the same request may succeed later."""
