"""What can end or interrupt a worker's work.

Exception
 +-- RunFaultError       a person must mend something: a Fault line and exit status 3
 +-- DataRefusedError    PostgreSQL (or its driver) refuses a batch for its data: narrow down to the record
 +-- HeldError           a comparison holds a position short of the batch's end: read again up to there
 +-- LeaseLostError      another worker has the partition, or its position is not where we left it: start over
 +-- LogAwayError        Kafka does not answer: wait and start over
everything that PostgreSQL's driver raises besides: drop what is in flight, connect again, start over
"""

import asyncpg

from services.replayer.protocol import Fault, TopicPartition


class RunFaultError(Exception):
    """Ends the run; becomes a `Fault`. `message` says what happened, why, and what to do next."""

    def __init__(self, reason: str, message: str, tp: TopicPartition | None = None, offset: int | None = None) -> None:
        super().__init__(message)
        self.reason = reason
        self.tp = tp
        self.offset = offset

    @property
    def fault(self) -> Fault:
        """The message for the supervisor."""
        topic, partition = (self.tp.topic, self.tp.partition) if self.tp else (None, None)
        return Fault(reason=self.reason, message=str(self), topic=topic, partition=partition, offset=self.offset)


class DataRefusedError(Exception):
    """The text is PostgreSQL's reason, for the dead letter."""


class HeldError(Exception):
    """A position is held for a moment, and the batch goes beyond it; nothing of it is committed."""


class LeaseLostError(Exception):
    """A position row is not ours, or not where this worker left it."""


class LogAwayError(Exception):
    """Kafka does not answer."""


# Data exception, integrity violation, program limit (an oversized index key); the others are what the driver raises
# for values that have no place in the column's wire format.
_DATA = (
    asyncpg.DataError,
    asyncpg.IntegrityConstraintViolationError,
    asyncpg.ProgramLimitExceededError,
    OverflowError,
    ValueError,
    TypeError,
)
# The table or the right to write it is missing: no other connection would help.
_REFUSED = (asyncpg.SyntaxOrAccessError, asyncpg.InvalidSchemaNameError)
_AWAY = (asyncpg.PostgresError, asyncpg.InterfaceError, asyncpg.InternalClientError, OSError, TimeoutError)


def refused_for_data(error: Exception) -> bool:
    """Whether the rows are at fault, rather than the server or the way to it. Only for errors out of writing rows."""
    if isinstance(error, asyncpg.InterfaceError) and not isinstance(error, ValueError):
        return False
    return isinstance(error, _DATA)


def refused_for_good(error: Exception) -> bool:
    """Whether PostgreSQL will not take this worker's statements before a person mends something."""
    return isinstance(error, _REFUSED)


def postgres_away(error: Exception) -> bool:
    """Whether a new connection, later, may succeed."""
    return isinstance(error, _AWAY) and not refused_for_good(error)


def reason_of(error: Exception) -> str:
    """Why PostgreSQL refuses a record, for its dead letter."""
    return f"PostgreSQL refuses the row: {' '.join(str(error).split())}"[:500]
