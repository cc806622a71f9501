"""What a run of a version would read, write, take and wait for: from the log, the tables beside it, copies measured
before, and the budget of copies."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta

from core.kafka import TopicInfo
from services.replayer import budget, copy_time
from services.replayer.budget import Capacity, Copy, CopyRates, Place, TableSize
from services.replayer.capacity import read_capacity
from services.replayer.copy_time import Crossing, Duration, Speed
from services.replayer.protocol import TopicPartition
from services.replayer.ranges import within
from services.replayer.retention import Risk
from services.replayer.run import LogEnds, Run, Sample
from services.replayer.spans import span
from services.replayer.states import State
from services.replayer.surroundings import Surroundings
from services.replayer.topics import retention_s
from turnout.log_range import LogRange
from turnout.names import VersionId
from turnout.schema import JobDefinition

PLACES = 4  # offsets of each partition at which a sample is read
RECORDS_AT_EACH = 50
DROPPED_MAX = 50  # runs of the past whose copies are looked at


@dataclass(frozen=True, slots=True)
class Wish:
    """What a run that does not exist yet would be started with; one that does has its own."""

    rate_limit: int = 0  # records a second, 0 = none
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Estimate:
    """`table_bytes`, `peak_bytes` and `takes` are None when there is nothing to judge them by."""

    records: int
    log_bytes: int
    sampled_records: int
    partitions: int
    table_bytes: int | None
    peak_bytes: int | None
    takes: Duration | None
    queue_position: int
    waits_for: str
    risk: Risk | None
    remarks: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class _Log:
    """What there is to read of the log, as it was found. `arriving_per_s`: offsets by which that grows."""

    log_range: LogRange | None
    infos: Mapping[str, TopicInfo]
    ends: Mapping[TopicPartition, LogEnds]
    oldest: Mapping[TopicPartition, datetime]
    records: int
    log_bytes: int
    sampled_records: int
    arriving_per_s: float


@dataclass(frozen=True, slots=True)
class _Service:
    """The runs, their tables and their budget, at one moment."""

    sample: Sample
    etas_s: Mapping[VersionId, float | None]
    capacity: Capacity
    sizes: Mapping[VersionId, int]
    dropped: Sequence[Run]  # whose copies were measured

    @property
    def runs(self) -> list[Run]:
        return list(self.sample.runs.values())


async def estimate_run(around: Surroundings, version: VersionId, now: datetime, wish: Wish) -> Estimate:
    """Estimate; nothing is started. `wish`: counts while the version has no run.

    FailedPrecondition (TOPIC_NOT_FOUND, RANGE_NOT_RETAINED ... as StartRun), NotFound (VERSION_NOT_FOUND).
    """
    registered = await around.artifacts.version(version)
    definition = registered.definition
    log = await _log(around, definition, registered.log_range, now)
    service = await _service(around, version)
    run = service.sample.runs.get(version)
    if run is not None:
        wish = Wish(run.rate_limit, run.priority)
    size = _table_size(service, version, log.records)
    place = _place(service, version, run, size, wish)
    speed = _speed(service, version, definition, wish, log.records)
    waits_s = _waits_s(service, place)
    takes = None
    if speed is not None:
        known_wait_s = waits_s if math.isfinite(waits_s) else 0.0
        takes = copy_time.duration(log.records, log.arriving_per_s, speed, waits_s=known_wait_s)
    return Estimate(
        records=log.records,
        log_bytes=log.log_bytes,
        sampled_records=log.sampled_records,
        partitions=len(log.ends),
        table_bytes=size.size_bytes,
        peak_bytes=None if size.size_bytes is None else place.peak_bytes,
        takes=takes,
        queue_position=place.waiting.position if place.waiting is not None else 0,
        waits_for=place.waiting.reason if place.waiting is not None else "",
        risk=_risk(log, service.sample.at, waits_s, speed, takes),
        remarks=_remarks(log, size, speed, takes, waits_s),
    )


async def _log(around: Surroundings, definition: JobDefinition, log_range: LogRange | None, at: datetime) -> _Log:
    infos = await around.topics.describe(definition)
    extents, found = await around.topics.extents(log_range, infos, at)
    ends = within(found, extents)
    grows = log_range is None or not log_range.bounded
    sampled = await around.topics.sample(ends, PLACES, RECORDS_AT_EACH)
    mean_bytes = sampled.size_bytes / sampled.records if sampled.records else 0.0
    records = sum(one.end - one.start for one in ends.values())
    now = await around.topics.ends(infos)
    return _Log(
        log_range=log_range,
        infos=infos,
        ends=ends,
        oldest=sampled.oldest,
        records=records,
        log_bytes=round(records * mean_bytes),
        sampled_records=sampled.records,
        arriving_per_s=copy_time.arriving(_ends_before(around, ends), now) if grows else 0.0,
    )


def _ends_before(around: Surroundings, asked: Mapping[TopicPartition, LogEnds]) -> Mapping[TopicPartition, LogEnds]:
    """The ends as they were some seconds ago where runs read those topics already, for a steadier rate; else those
    that were asked for a moment ago."""
    samples = around.sampler.samples
    known = samples[0].ends if samples else {}
    return {tp: known[tp] if tp in known and known[tp].asked_s > -math.inf else one for tp, one in asked.items()}


async def _service(around: Surroundings, version: VersionId) -> _Service:
    capacity = await read_capacity(around.store)
    sizes = await around.sizes.known()
    dropped = await around.store.dropped_measured(version.job, DROPPED_MAX)
    samples = await around.sampler.fresh()
    sample = samples[-1]
    copies = [run.version for run in sample.runs.values() if run.state is State.REPLAYING]
    etas_s = {one: around.sampler.forecast(one).eta_s for one in copies}
    return _Service(sample, etas_s, capacity, sizes, dropped)


def _table_size(service: _Service, version: VersionId, records: int) -> TableSize:
    tables = {
        run.version: budget.table_of(run, service.sample.of(run.version), service.sizes.get(run.version, 0))
        for run in service.runs
    }
    return budget.expected_size(records, tables.get(version), budget.beside(version, service.runs, tables))


def _place(service: _Service, version: VersionId, run: Run | None, size: TableSize, wish: Wish) -> Place:
    sample = service.sample
    books = budget.books_of(service.runs, sample.positions, sample.ends, service.sizes)
    copy = Copy(
        version=version,
        state=State.REPLAYING if run is not None and run.state.wants_workers else State.QUEUED,
        priority=wish.priority,
        queue_time=run.queue_time if run is not None and run.state is State.QUEUED and run.queue_time else sample.at,
        returns=run is not None and run.catch_up_time is not None,
        bytes_to_come=max(0, (size.size_bytes or 0) - service.sizes.get(version, 0)),
    )
    return budget.place(service.capacity, books, copy)


def _waits_s(service: _Service, place: Place) -> float:
    """How long the run stands in the queue; infinite = not known."""
    if place.waiting is None:
        return 0.0
    if place.waiting.for_storage:
        return math.inf
    waits_s = copy_time.queue_wait_s(place.waiting.position, service.capacity.copies_max, list(service.etas_s.values()))
    return math.inf if waits_s is None else waits_s


def _speed(service: _Service, version: VersionId, definition: JobDefinition, wish: Wish, offsets: int) -> Speed | None:
    sample, kind = service.sample, definition.kind
    runs = sorted((*service.dropped, *service.runs), key=lambda one: one.create_time)
    found = [(one, copy_time.measured(one, sample.of(one.version), sample.at)) for one in runs]
    of_job = [one for whose, one in found if one is not None and whose.version.job == version.job]
    of_kind = [one for whose, one in found if one is not None and whose.definition.kind is kind]
    speed = copy_time.speed_of(of_job, of_kind, kind.value, offsets)
    if speed is None:
        return None
    if wish.rate_limit > 0:
        speed = copy_time.limited(speed, wish.rate_limit, "the rate limit of its run")
    copies = [one for one in budget.copy_rates(sample) if one.version != version]
    rows_limits = budget.row_rate_limits(service.capacity, [*copies, CopyRates(version)])
    if version in rows_limits:
        speed = copy_time.limited(speed, rows_limits[version], "its share of the rows that all copies may write")
    return speed


def _risk(log: _Log, now: datetime, waits_s: float, speed: Speed | None, takes: Duration | None) -> Risk | None:
    found = copy_time.crossing(
        log.oldest,
        now,
        retention_s(log.infos),
        waits_s=waits_s,
        holds_s=log.records / speed.expected if speed is not None and speed.expected > 0 else None,
        reads_s=takes.expected_s if takes is not None else None,
    )
    if found is None:
        return None
    crossing = now + timedelta(seconds=found.in_s)
    return Risk(found.tp, crossing, found.in_s, _risk_text(log, found, waits_s, speed))


def _risk_text(log: _Log, found: Crossing, waits_s: float, speed: Speed | None) -> str:
    kept = span(log.infos[found.tp.topic].retention_ms / 1000)
    written = f"{log.oldest[found.tp]:%Y-%m-%d %H:%M:%S} UTC"
    where = f"{found.tp.topic}/{found.tp.partition}"
    starts = f"{where}: its records are kept for {kept}, the oldest one is of {written}"
    if found.queued:
        waits = f"about {span(waits_s)}" if math.isfinite(waits_s) else "for a time that is not known"
        return (
            f"{starts}; in {span(found.in_s)} the log's start may pass it, while the run waits {waits} in the queue of "
            f"copies: lengthen the retention, or let the run begin sooner, by its priority or by more copies"
        )
    assert speed is not None, "only what reads is overtaken while it reads"
    return (
        f"{starts}; in {span(found.in_s)} the log's start passes the run, which reads about {speed.expected:,.0f} "
        f"records/s of all partitions: lengthen the retention, or give the run more workers"
    )


def _remarks(
    log: _Log, size: TableSize, speed: Speed | None, takes: Duration | None, waits_s: float
) -> tuple[str, ...]:
    remarks = [size.basis]
    if log.log_range is not None:
        remarks.append(f"only its range of the log is read: {log.log_range}")
    if speed is None:
        remarks.append(
            "the time is unknown: no copy of this job, or of one of its kind, that is long enough has been measured yet"
        )
    else:
        remarks.append(speed.basis)
    if takes is not None and takes.never and speed is not None:
        remarks.append(
            f"it never catches up: the log grows by {log.arriving_per_s:,.0f} records/s at the moment, and the run is "
            f"expected to read {speed.expected:,.0f}: give it more workers, or lift what limits it"
        )
    if waits_s > 0:
        known = (
            f"about {span(waits_s)}, by what the copies under way have left" if math.isfinite(waits_s) else "not known"
        )
        remarks.append(f"its time in the queue of copies is {known}")
    return (*remarks, *(_retention(info) for info in log.infos.values()))


def _retention(info: TopicInfo) -> str:
    if info.compacted:
        return f"{info.topic} is compacted: of older records only the latest of each key is there"
    if info.retention_ms < 0:
        return f"{info.topic} keeps its records for ever"
    return (
        f"{info.topic} keeps its records for {span(info.retention_ms / 1000)}: what the replay has not read by then is "
        f"gone, and the run fails rather than pass over it"
    )
