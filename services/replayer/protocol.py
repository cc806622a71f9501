"""What the supervisor and a worker process say to one another: JSON lines on the worker's streams.

    supervisor -> stdin    Start first, then Assign, Rate, Stop, and Alive all the time; end of file or a long silence =
                           the supervisor is gone
    stdout -> supervisor   Ready once, then Progress, Trying, Waiting; at the end Stopped, or Fault and exit status 3;
                           Alive whenever there was nothing else to say for a moment
    stderr -> a person     log lines

Secrets (passwords of Kafka and PostgreSQL) travel in Start only, never in argv or the environment, where `ps`
shows them. Each message is a struct tagged by its name in the field `type`. A line that is not such a message
is a fault of the program that wrote it: `ProtocolError`.
"""

from typing import Final

import msgspec

HOLD_CHANNEL: Final = "turnout_hold"  # of PostgreSQL: positions were held or let go; a hint, without a payload
EXIT_FAULT: Final = 3  # the run failed in a way that a person must mend; a Fault line said which
STOP_WITHIN_S: Final = 4.0  # a worker that was told to stop cuts off after this what is under way
MESSAGE_BYTES_MAX: Final = 16 << 20  # a definition is some kilobytes; this only stops a runaway line


class ProtocolError(Exception):
    """A line on the pipe that is no message of this protocol."""


class Message(msgspec.Struct, frozen=True, tag_field="type", tag=True, kw_only=True):
    """Base of everything on the pipe; the tag is the name of the class."""


class TopicPartition(msgspec.Struct, frozen=True, order=True):
    """One partition of a topic."""

    topic: str
    partition: int


class Stretch(msgspec.Struct, frozen=True, order=True):
    """The records of a partition before an offset, from wherever it is read on."""

    tp: TopicPartition
    until: int


class Deadly(msgspec.Struct, frozen=True):
    """A record that two workers died on, each alone with it: it is set aside, and no job's function sees it again."""

    tp: TopicPartition
    offset: int
    reason: str  # of its dead letter


class PartitionState(msgspec.Struct, frozen=True, kw_only=True):
    """How far one partition's records are committed in the table, beside the log's own ends."""

    topic: str
    partition: int
    next_offset: int  # committed: every record before it is in the table
    end_offset: int  # log end as a read_committed reader sees it (last stable offset), or of the range if that is less
    log_start: int  # oldest offset that the log still holds
    event_time_ms: int | None  # newest event time applied, Unix milliseconds; None = no record yet
    records: int  # read since the run began, set-aside ones included
    set_aside: int  # of those, malformed and put into serving.dead_letters
    at_end: bool  # next_offset reached end_offset


# --- supervisor -> worker ---


class Start(Message, frozen=True, kw_only=True):
    """The first line: everything a worker needs."""

    version: str  # "jobs/{job}/versions/{number}", the key into serving.positions
    job: str  # the job's id, for messages
    owner: str  # unique name of this worker process, written into the run lease
    artifact_dir: str  # the version's sources, unpacked
    definition_json: str  # turnout.schema.encode(definition) as registered
    kafka: dict[str, str]  # librdkafka-style client properties
    postgres: str  # DSN
    table: str  # name of the output table in schema serving, without the schema
    lease_s: float  # length of a run lease; renewed before a third of it is gone
    partitions: tuple[TopicPartition, ...]
    rate_per_s: float | None = None  # this worker's share of the run's rate; None = unlimited
    write_s_max: float | None = None  # what a write should take at most; None = as long as the lease allows
    background: bool = False  # a copy: goes behind everything else on the machine once reads are live
    record_by_record: tuple[Stretch, ...] = ()  # workers died here, of a record perhaps
    deadly: tuple[Deadly, ...] = ()  # within such stretches
    transform_limit_s: float = 30.0  # for one record in the job's function; then TRANSFORM_TIMEOUT


class Assign(Message, frozen=True, kw_only=True):
    """The whole list of partitions to work on from now on: leases of the others are released."""

    partitions: tuple[TopicPartition, ...]


class Rate(Message, frozen=True, kw_only=True):
    """This worker's share of the run's rate, in records per second: None = unlimited, 0 = hold still. And the time
    that a write should take at most, in seconds: None = as long as the lease allows."""

    per_s: float | None
    write_s_max: float | None = None


class Stop(Message, frozen=True, kw_only=True):
    """Finish the transaction under way, release the leases, say Stopped, exit 0."""


# --- worker -> supervisor ---


class Ready(Message, frozen=True, kw_only=True):
    """The job is loaded and its definition is the registered one; partitions are taken next."""


class Progress(Message, frozen=True, kw_only=True):
    """State of the partitions whose lease this worker holds, and what its last write took, in seconds (0 = none yet);
    about four times a second."""

    partitions: tuple[PartitionState, ...]
    write_s: float = 0.0


class Trying(Message, frozen=True, kw_only=True):
    """The job's function gets this record next, alone in its batch, in a partition that is read record by record."""

    topic: str
    partition: int
    offset: int


class Waiting(Message, frozen=True, kw_only=True):
    """Something keeps this worker waiting; it goes on by itself. Sent instead of Progress, whose next ends it."""

    reason: str  # UPPER_SNAKE: KAFKA_UNAVAILABLE, POSTGRES_UNAVAILABLE, LEASE_HELD, POSITION_MISSING
    message: str


class Alive(Message, frozen=True, kw_only=True):
    """The process is there. The worker's when nothing else was said for a moment, for the event loop is busy or nothing
    is held; the supervisor's in any case."""


class Fault(Message, frozen=True, kw_only=True):
    """The run cannot go on until a person mends something. Exit status 3 follows.

    Reasons: MALFORMED_RECORD, TRANSFORM_TIMEOUT, KEY_FROM_ANOTHER_PARTITION, TOPIC_RECREATED,
    POSITION_BEYOND_END, LOG_TRUNCATED, JOB_DOES_NOT_LOAD, DEFINITION_CHANGED, REQUIREMENTS_MISSING,
    TABLE_REFUSED, INTERNAL.
    """

    reason: str
    message: str  # what happened, why, what to do next
    topic: str | None = None
    partition: int | None = None
    offset: int | None = None


class Stopped(Message, frozen=True, kw_only=True):
    """Leases are released and nothing is in flight; exit status 0 follows."""


ToWorker = Start | Assign | Rate | Stop | Alive
ToSupervisor = Ready | Progress | Trying | Waiting | Alive | Fault | Stopped

_encoder = msgspec.json.Encoder()
_to_worker: msgspec.json.Decoder[ToWorker] = msgspec.json.Decoder(ToWorker)
_to_supervisor: msgspec.json.Decoder[ToSupervisor] = msgspec.json.Decoder(ToSupervisor)


def encode(message: ToWorker | ToSupervisor) -> bytes:
    """One line, newline included."""
    return _encoder.encode(message) + b"\n"


def decode_to_worker(line: bytes) -> ToWorker:
    """Parse a line of the worker's stdin. ProtocolError never repeats the line, which may hold secrets."""
    try:
        return _to_worker.decode(line)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ProtocolError(f"not a message for a worker: {error}") from None


def decode_to_supervisor(line: bytes) -> ToSupervisor:
    """Parse a line of the worker's stdout. Raises ProtocolError."""
    try:
        return _to_supervisor.decode(line)
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise ProtocolError(f"not a message of a worker: {error}") from None
