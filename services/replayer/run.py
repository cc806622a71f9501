"""What the replayer knows of a run: the stored record, the committed positions, the ends of the log."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime

from services.replayer.engine.identity import RecordIdentity
from services.replayer.protocol import TopicPartition
from services.replayer.states import Facts, State
from turnout.log_range import LogRange
from turnout.names import VersionId
from turnout.schema import JobDefinition


@dataclass(frozen=True, slots=True)
class Run:
    """One row of replayer.runs. Changed by `dataclasses.replace`, stored by `store`.

    topic_ids: topic -> id that the broker gave it when the run started; another id is another topic.
    start_times: when the first record at the start of each partition was written, where there was one; tells people
    what a later version can no longer read.
    """

    version: VersionId
    state: State
    failure_reason: str
    failure_message: str
    artifact_digest: str
    definition: JobDefinition
    workers: int
    rate_limit: int  # records a second over all workers; 0 = none
    table: str
    topic_ids: Mapping[str, str]
    start_times: Mapping[TopicPartition, datetime]
    indexes_built: bool
    worker_restarts: int
    revision: int  # grows with every change
    request_id: str
    create_time: datetime
    priority: int = 0  # -100 to 100; the higher one is admitted first
    queue_time: datetime | None = None  # since when it has waited for its copy; None = not stored yet
    stuck_restarts: int = 0  # of worker_restarts: alive, and stood still
    catch_up_time: datetime | None = None
    admit_time: datetime | None = None  # when its copy was admitted last
    admit_offsets: int = 0  # of the log, which it had read by then
    copy_offsets: int | None = None  # which its first copy read since it was admitted; None = it tells no speed
    copy_s: float | None = None  # in so many seconds
    drop_time: datetime | None = None
    log_range: LogRange | None = None  # of the version; None = all of the log

    @property
    def name(self) -> str:
        return self.version.run_name

    @property
    def facts(self) -> Facts:
        return Facts(table_exists=self.drop_time is None, indexes_built=self.indexes_built)

    @property
    def label(self) -> str:
        """The version as people write it beside its job: "version 2"."""
        return f"version {self.version.number}"


@dataclass(frozen=True, slots=True)
class Position:
    """One row of serving.positions, as committed with the rows of the table."""

    start_offset: int
    next_offset: int
    event_time: datetime | None
    records: int
    set_aside: int
    owner: str  # worker that holds the run lease; empty = nobody at the moment
    last: RecordIdentity | None = None  # of the last applied record; None = none was applied yet
    rows_written: int = 0
    bytes_written: int = 0
    range_end: int | None = None  # end of the version's bounded range

    @property
    def complete(self) -> bool:
        """Whether its bounded range has been read: there is nothing more to come."""
        return self.range_end is not None and self.next_offset >= self.range_end


@dataclass(frozen=True, slots=True)
class LogEnds:
    """The retained offsets of a partition: first one still there, and the end as a read_committed reader sees it.

    asked_s: when Kafka was asked, in monotonic seconds; what has come since may be missing. Minus infinity as long as
    only workers have told of them.
    """

    start: int
    end: int
    asked_s: float


Positions = Mapping[TopicPartition, Position]


def bounded(positions: Positions) -> bool:
    """Whether the run reads a bounded range: then every partition has an end, and no other partition belongs to it."""
    return any(position.range_end is not None for position in positions.values())


def complete(positions: Positions) -> bool:
    """Whether the run has read a bounded range to its end in every partition."""
    return bool(positions) and all(position.complete for position in positions.values())


@dataclass(frozen=True, slots=True)
class Sample:
    """Everything measured at one instant: the runs that have a table, their positions from one snapshot, and the ends
    of the log.

    replicas: those that are live, and what each says of runs.
    """

    monotonic_s: float
    at: datetime
    runs: Mapping[VersionId, Run]
    positions: Mapping[VersionId, Positions]
    ends: Mapping[TopicPartition, LogEnds]
    replicas: Mapping[str, Mapping[VersionId, tuple[str, ...]]] = field(default_factory=dict)

    def of(self, version: VersionId) -> Positions:
        return self.positions.get(version, {})
