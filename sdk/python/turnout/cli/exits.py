"""Exit codes by class, and the error that ends a command with one of them."""

from __future__ import annotations

import enum
from dataclasses import dataclass


class ExitCode(enum.IntEnum):
    """What the status of the process says. docs/cli.md has the same table; a test compares the two."""

    OK = 0
    NOT_SO = 1  # the thing asked about is not so
    USAGE = 2
    NOT_FOUND = 3
    REFUSED = 4  # failed precondition or gate, or a job file that is not accepted
    CONFLICT = 5  # somebody else was faster, or the name is taken
    UNAVAILABLE = 6  # a service or Kafka does not answer, or not in time
    VERSION_MISMATCH = 7  # apply --version N
    INTERNAL = 70
    INTERRUPTED = 130


@dataclass(frozen=True, slots=True)
class Reason:
    """One reason behind a refusal: the kind (such as a gate's name), what it is about, and the evidence."""

    type: str
    subject: str
    description: str


class CommandError(Exception):
    """Ends the command. `message` says what happened and why, `next_step` what to do about it ("" = the message does).

    `reason` is stable and machine-readable (UPPER_SNAKE); `reasons` list what stands behind a refusal.
    """

    def __init__(
        self,
        code: ExitCode,
        reason: str,
        message: str,
        *,
        next_step: str = "",
        reasons: tuple[Reason, ...] = (),
    ) -> None:
        super().__init__(message)
        self.code = code
        self.reason = reason
        self.message = message
        self.next_step = next_step
        self.reasons = reasons


def usage(message: str) -> CommandError:
    """The error for an argument that makes no sense."""
    return CommandError(ExitCode.USAGE, "USAGE", message)
