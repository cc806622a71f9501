"""What the client returns: frozen values in the units of the contract, without grpc or protobuf types.

Jobs are named by their id and versions by their number. Times are aware datetimes in UTC, durations timedeltas, shares
basis points (10000 = all). None stands for "absent", never for zero.
"""

from __future__ import annotations

import enum
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime, timedelta
from itertools import repeat

import msgspec

from turnout.contract import Contract
from turnout.log_range import LogRange
from turnout.schema import JobDefinition
from turnout.shadow import Shadow


class VersionState(enum.StrEnum):
    """The life of a version."""

    REGISTERED = "REGISTERED"  # may be run and named by routes
    RETIRING = "RETIRING"  # a retirement is under way, or is being taken back
    RETIRED = "RETIRED"  # released and stopped; the table is retained until drop_time
    DROPPED = "DROPPED"  # the table is gone; final


class RetirementStep(enum.StrEnum):
    """The step of a retirement that is done next."""

    RELEASE = "RELEASE"  # the switcher is asked to let nobody name the version
    STOP_RUN = "STOP_RUN"  # the run is stopped
    RETAIN = "RETAIN"  # the table is retained until drop_time
    DROP = "DROP"  # every front has drained and the table is dropped
    DONE = "DONE"  # nothing is left to do
    REINSTATE = "REINSTATE"  # the retirement was taken back; the version is being reinstated


class RunState(enum.StrEnum):
    """The state of a run."""

    QUEUED = "QUEUED"  # waits for its place in the budget of copies
    REPLAYING = "REPLAYING"  # copying the retained log
    TAILING = "TAILING"  # at the end of the log, following it
    PAUSED = "PAUSED"  # stopped for a while by a person
    STOPPED = "STOPPED"  # ended; the table stays
    FAILED = "FAILED"  # ended by a fault; can be resumed once mended
    COMPLETED = "COMPLETED"  # has read the whole bounded range of its version; the table stays as it is


class ViewState(enum.StrEnum):
    """Whether the SQL view has followed the route."""

    MOVED = "MOVED"
    PENDING = "PENDING"


class Command(enum.StrEnum):
    """What changed a route."""

    SET_TRAFFIC = "SET_TRAFFIC"
    CUT_OVER = "CUT_OVER"
    ROLL_BACK = "ROLL_BACK"
    START_EXPERIMENT = "START_EXPERIMENT"
    STOP_EXPERIMENT = "STOP_EXPERIMENT"
    ABORT = "ABORT"  # a guardrail took a candidate off the route
    STEP = "STEP"  # a bandit moved its weights
    SET_SHADOW = "SET_SHADOW"
    ROLL_OUT = "ROLL_OUT"  # a rollout made a step
    WITHDRAW = "WITHDRAW"  # a rollout took its candidate back
    REQUIRE_GATES = "REQUIRE_GATES"


class Cause(enum.StrEnum):
    """Why a version answered a read."""

    ROUTED = "ROUTED"  # the route gave it to the unit
    PINNED = "PINNED"  # the request named it
    ACTIVE = "ACTIVE"  # a scan without a unit reads the active version
    STAND_IN = "STAND_IN"  # the version of the unit was behind the token of the read, and the active one was not
    OVERRIDE = "OVERRIDE"  # an override of the experiment gave it to the unit, a tester's
    HOLDOUT = "HOLDOUT"  # the unit is held out of the experiment


# --- registry -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Job:
    """A stream job. newest_version: None before the first one."""

    job: str
    description: str
    create_time: datetime
    newest_version: int | None


@dataclass(frozen=True, slots=True)
class Retirement:
    """How far a retirement is. drop_time: known once the run has stopped. waiting_for: empty while it moves."""

    step: RetirementStep
    drop_time: datetime | None
    waiting_for: str
    claimed_actor: str
    start_time: datetime


@dataclass(frozen=True, slots=True)
class Version:
    """An immutable version of a job. artifact_digest: SHA-256, hexadecimal. retirement: None while REGISTERED.

    log_range: the part of the log that its table is made of; None = all that is retained, and then the live tail.
    """

    job: str
    number: int
    state: VersionState
    definition: JobDefinition
    artifact_digest: str
    artifact_bytes: int
    create_time: datetime
    retirement: Retirement | None
    log_range: LogRange | None = None


@dataclass(frozen=True, slots=True)
class CreatedVersion:
    """Answer of create_version. created: False where the same code was already a REGISTERED version."""

    version: Version
    created: bool


@dataclass(frozen=True, slots=True)
class Applied:
    """Answer of apply. job_created, created: whether the job and the version are new."""

    version: Version
    created: bool
    job_created: bool


# --- replayer -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class PartitionProgress:
    """How far a run is in one partition; offsets. owner: empty = nobody holds the run lease at the moment.

    range_end_offset: end of the version's bounded range; None = the run goes on with the live tail.
    """

    topic: str
    partition: int
    start_offset: int
    next_offset: int
    log_start_offset: int
    end_offset: int
    event_time: datetime | None
    records_per_s: float
    owner: str
    range_end_offset: int | None = None
    records_set_aside: int = 0
    rows_written: int = 0

    @property
    def target_offset(self) -> int:
        """Where reading ends: the end of the range, else of the log."""
        return self.end_offset if self.range_end_offset is None else self.range_end_offset

    @property
    def lag(self) -> int:
        """Offsets still to read; an upper bound of the records."""
        return max(0, self.target_offset - self.next_offset)


class ThrottleReason(enum.StrEnum):
    """What holds a run's rate down; the most pressing one."""

    RATE_LIMIT = "RATE_LIMIT"  # the run's own limit, set by a person
    ROWS_BUDGET = "ROWS_BUDGET"  # its share of what all copies may write together
    READ_LATENCY = "READ_LATENCY"  # reads at the fronts have become slow
    SERVING_LAG = "SERVING_LAG"  # a version that serves reads falls behind
    SINK_LATENCY = "SINK_LATENCY"  # the database takes long to commit
    PAUSED_BY_GOVERNOR = "PAUSED_BY_GOVERNOR"  # slower would never catch up: it stands still for now


@dataclass(frozen=True, slots=True)
class Throttle:
    """What holds a run's rate down. records_per_s: that it may read, 0 = it stands still. message: the figures."""

    reason: ThrottleReason
    records_per_s: float
    message: str


@dataclass(frozen=True, slots=True)
class RetentionRisk:
    """The log loses records before the run has read them. crossing_time: when its start passes the run's position."""

    topic: str
    partition: int
    crossing_time: datetime
    message: str


@dataclass(frozen=True, slots=True)
class Run:
    """The execution of a version.

    status_message: why it FAILED or what it waits for. rate_limit: records a second, None = none. lag: offsets to the
    end of the log, or of the range. progress: 0 to 1. eta: None when unknown or tailing; eta_min, eta_max: its spread,
    eta_max None when it may be never. catch_up_time: when it first came to that end. throttle: what holds the rate
    down; None = nothing. bytes_written: of the rows, approximately. priority: -100 to 100, the higher one is admitted
    first. queue_position: from 1, None = not queued. live_replicas: whose workers hold partitions of it.
    stuck_restarts: of worker_restarts, workers that were alive and stood still. retention_risk: None = none is seen.
    event_time: the newest applied.
    """

    job: str
    version: int
    state: RunState
    status_message: str
    failure_reason: str
    workers: int
    live_workers: int
    rate_limit: int | None
    table: str
    partitions: tuple[PartitionProgress, ...]
    records: int
    records_per_s: float
    lag: int
    progress: float
    eta: timedelta | None
    records_set_aside: int
    worker_restarts: int
    create_time: datetime
    catch_up_time: datetime | None
    eta_min: timedelta | None = None
    eta_max: timedelta | None = None
    never_catches_up: bool = False
    throttle: Throttle | None = None
    retention_risk: RetentionRisk | None = None
    rows_written: int = 0
    bytes_written: int = 0
    stuck_restarts: int = 0
    live_replicas: int = 0
    priority: int = 0
    queue_position: int | None = None
    event_time: datetime | None = None


@dataclass(frozen=True, slots=True)
class DefinitionProblem:
    """Something that would refuse a run of a version. reason: as the error of its start would have it."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Estimate:
    """What a run would read, write, take and wait for. records: an upper bound.

    None = nothing to go by yet, for table_bytes, duration (from admission to the end of the log) with its spread, and
    peak_storage_bytes (of all output tables); duration_max also when it may be never. queue_position: from 1, None = it
    would be admitted at once, and waits_for is empty. retention_risk: None = retention does not overtake it.
    """

    records: int
    log_bytes: int
    sampled_records: int
    table_bytes: int | None
    partitions: int
    remarks: tuple[str, ...]
    duration: timedelta | None
    duration_min: timedelta | None
    duration_max: timedelta | None
    peak_storage_bytes: int | None
    queue_position: int | None
    waits_for: str
    retention_risk: RetentionRisk | None
    never_catches_up: bool


@dataclass(frozen=True, slots=True)
class Capacity:
    """The budget that all copies of the log share, and what is used of it.

    copies_max, rows_per_s_max, storage_bytes_max, read_p99_ratio_max: None = no limit. copies, queued: runs.
    storage_bytes: of all output tables. storage_bytes_expected: what copies under way will add.
    """

    copies_max: int | None
    rows_per_s_max: int | None
    storage_bytes_max: int | None
    read_p99_ratio_max: float | None
    etag: str
    copies: int
    queued: int
    rows_per_s: float
    storage_bytes: int
    storage_bytes_expected: int


@dataclass(frozen=True, slots=True)
class Gate:
    """The answer of a gate: "catch-up", "coverage", "schema", "comparison" or "rollback".

    version: the one it was asked for.
    """

    gate: str
    version: int
    passed: bool
    overridden: bool
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class GateCheck:
    """The answers of all gates, and the candidate's positions behind them."""

    gates: tuple[Gate, ...]
    partitions: tuple[PartitionProgress, ...]

    @property
    def passed(self) -> bool:
        """Whether every gate passes."""
        return all(gate.passed for gate in self.gates)


@dataclass(frozen=True, slots=True)
class AppliedPosition:
    """Every record of the partition before next_offset is in the rows. event_time: the newest applied."""

    topic: str
    partition: int
    next_offset: int
    event_time: datetime | None


@dataclass(frozen=True, slots=True)
class ColumnDifference:
    """A common column that differs, in so many rows; 0 = only within what counts as equal. largest_absolute, total (sum
    of new - old): numeric columns only."""

    column: str
    rows: int
    largest_absolute: float | None
    total: float | None


@dataclass(frozen=True, slots=True)
class RowDifference:
    """A row that differs, by column name. old, new: only what differs; None = that side has no such row."""

    key: Mapping[str, object]
    old: Mapping[str, object] | None
    new: Mapping[str, object] | None


@dataclass(frozen=True, slots=True)
class ComparedRange:
    """A range of keys, compared in one snapshot. after_key, last_key: as text by column; empty = to the end.

    aligned: both tables stood at one cut, that is at equal positions; exact: besides they begin at equal ones.
    held: for how long the runs were held for it; took: how long it was compared after that.
    """

    number: int
    after_key: tuple[str, ...]
    last_key: tuple[str, ...]
    aligned: bool
    exact: bool
    unaligned_reason: str
    positions_old: tuple[AppliedPosition, ...]
    positions_new: tuple[AppliedPosition, ...]
    cut_time: datetime
    held: timedelta
    took: timedelta
    rows_old: int
    rows_new: int


@dataclass(frozen=True, slots=True)
class Comparison:
    """What two tables differ in. id: among the comparisons of the job. finished: all ranges are done.

    aligned: every range was compared at one cut; exact: besides both tables begin at equal positions, so that every
    difference is the code's. passed: what differs is what the contract expects; None = unfinished, or no contract.
    findings: what that rests on. columns: also those that differ only within what counts as equal. ranges: the newest
    one, or with `get_comparison` up to 1,000. rows_expected: of both tables, 0 = not known. held_max: the longest time
    for which the runs were held.
    """

    job: str
    id: str
    old: int
    new: int
    finished: bool
    contract: Contract | None
    passed: bool | None
    findings: tuple[str, ...]
    aligned: bool
    exact: bool
    rows_old: int
    rows_new: int
    rows_only_old: int
    rows_only_new: int
    rows_changed: int
    columns: tuple[ColumnDifference, ...]
    columns_added: tuple[str, ...]
    columns_removed: tuple[str, ...]
    samples: tuple[RowDifference, ...]
    ranges: tuple[ComparedRange, ...]
    ranges_done: int
    rows_expected: int
    held_max: timedelta
    create_time: datetime
    end_time: datetime | None


@dataclass(frozen=True, slots=True)
class Audit:
    """A job computed twice from the same records. deterministic: the two tables are equal. comparison: of the two,
    whose columns and samples say what differs. noise: by numeric column, by how much values differ that count as equal.
    """

    job: str
    deterministic: bool
    comparison: Comparison
    noise: Mapping[str, float]


# --- switcher -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Interval:
    """Hashes low <= h < high belong to the version, since acquired_epoch."""

    low: int
    high: int
    version: int
    acquired_epoch: int


@dataclass(frozen=True, slots=True)
class View:
    """Where the SQL view named like the job is. version: None = there is no view yet."""

    state: ViewState
    version: int | None
    waiting_for: str


@dataclass(frozen=True, slots=True)
class Route:
    """Which version serves which share. weights: version -> basis points, which sum to 10000.

    rollback_version: what roll_back would return to; None = nothing. view: None while it is not known. group: number of
    the step in which it last changed together with the routes of other jobs; 0 = never. owner: name of the experiment
    or rollout that alone changes it; None = anybody may. experiment: id of the one that it takes part in. shadow: the
    candidate that is compared with what readers get. required_gates: what every change is asked beyond the usual gates.
    """

    job: str
    epoch: int
    active_version: int
    weights: Mapping[int, int]
    salt: str
    intervals: tuple[Interval, ...]
    rollback_version: int | None
    rollback_protected_until: datetime | None
    update_time: datetime | None
    etag: str
    view: View | None
    group: int = 0
    owner: str | None = None
    experiment: str | None = None
    shadow: Shadow | None = None
    required_gates: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Adoption:
    """One front's adoption of a change. adoption_time: from the commit; None = not within the deadline."""

    front: str
    adoption_time: timedelta | None


@dataclass(frozen=True, slots=True)
class RouteChange:
    """A change of a route. changed: False where it asked for what was already so, or was only validated.

    adoptions, fronts_not_counted, adoption_time: only in the answer to the change itself. group: the same number for
    all routes that were changed in one step; 0 = it was changed alone.
    """

    route: Route
    command: Command
    claimed_actor: str
    reason: str
    gates: tuple[Gate, ...]
    commit_time: datetime | None
    adoptions: tuple[Adoption, ...]
    fronts_not_counted: tuple[str, ...]
    adoption_time: timedelta | None
    warnings: tuple[str, ...]
    changed: bool
    group: int = 0


# --- query ----------------------------------------------------------------------------------------------------------


class Read(msgspec.Struct, frozen=True, gc=False):
    """One row and who answered. row: column name -> value, in the table's order; None = there is no such row.

    epoch: 0 for a pinned read of a job without a route. token: what the reader has seen by now; a later read of the job
    that brings it is not answered from before. exposure_id: by which `report_outcome` tells what became of it; "" where
    no experiment counts the unit.
    """

    # One is made for each row of a batch or a scan: as a struct in a tenth of the time of a frozen dataclass.

    row: Mapping[str, object] | None
    version: int
    epoch: int
    applied_positions: tuple[AppliedPosition, ...]
    cause: Cause
    token: bytes = b""
    exposure_id: str = ""

    def with_rows(self, rows: Iterable[Mapping[str, object] | None], exposure_ids: Iterable[str] = ()) -> list[Read]:
        """Other rows of whoever answered this one. exposure_ids: of each row, where its own unit has an exposure."""
        who = map(repeat, (self.version, self.epoch, self.applied_positions, self.cause, self.token))
        return [*map(Read, rows, *who, exposure_ids or repeat(self.exposure_id))]

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name != "token")
        return f"Read({', '.join(shown)})"


@dataclass(frozen=True, slots=True)
class Batch:
    """Answer of batch_get: one read for each key, in the order of the keys. token: of all of them together."""

    reads: tuple[Read, ...]
    token: bytes = field(default=b"", repr=False)

    @property
    def versions(self) -> tuple[int, ...]:
        """The versions that answered, in ascending order."""
        return tuple(sorted({read.version for read in self.reads}))


@dataclass(frozen=True, slots=True)
class Explanation:
    """Which version a unit reads and why. The hash lies in interval_low <= hash < interval_high."""

    unit: str
    unit_hash: int
    version: int
    active_version: int
    epoch: int
    interval_low: int
    interval_high: int
    acquired_epoch: int
    front: str
    route_age_s: float
