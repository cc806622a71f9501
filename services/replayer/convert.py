"""Between the contract's messages and what the replayer works with."""

from collections.abc import Sequence
from datetime import datetime

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from core.domain.text import sentence
from services.replayer.budget import Books, Capacity
from services.replayer.capacity import NAME as CAPACITY_NAME
from services.replayer.capacity import Change
from services.replayer.estimate import Estimate
from services.replayer.gates import Gate
from services.replayer.ladder import Throttle
from services.replayer.outlook import Outlook, remarks
from services.replayer.progress import PartitionRates, measure
from services.replayer.protocol import TopicPartition
from services.replayer.replicas import instance_of
from services.replayer.retention import Risk
from services.replayer.run import Position, Run, Sample
from services.replayer.states import State
from turnout.errors import InvalidInput
from turnout.kind_values import timestamp
from turnout.replayer.v1 import capacity_pb2, gate_pb2, run_pb2

_NOTHING = PartitionRates(0.0, 0.0, 0.0)
_STATES = {state: run_pb2.Run.State.Value(state.value) for state in State}


def _time(value: datetime | None) -> Timestamp | None:
    return None if value is None else timestamp(value)


def duration(seconds: float | None) -> Duration | None:
    """Seconds as the contract's duration, to the millisecond."""
    if seconds is None:
        return None
    ms = round(seconds * 1000)
    return Duration(seconds=ms // 1000, nanos=ms % 1000 * 1_000_000)


# --- runs -----------------------------------------------------------------------------------------------------------


def run_message(run: Run, samples: Sequence[Sample], status: str, outlook: Outlook) -> run_pb2.Run:
    """A run with its progress as the samples, oldest first, tell it. `status`: what it waits for, in words."""
    progress = measure(samples, run.version)
    owners = {position.owner for position in samples[-1].of(run.version).values()} - {""} if samples else set()
    forecast = outlook.forecast
    told = [part for part in (status, *remarks(run, progress.records_per_s, outlook)) if part]
    if owners and run.state in (State.PAUSED, State.STOPPED):
        told.append(
            f"workers that have not ended yet: {len(owners)}; they finish their batch, or lose their partitions"
        )
    if run.state is State.FAILED:
        told = [run.failure_message]
    return run_pb2.Run(
        name=run.name,
        state=_STATES[run.state],
        status_message="; ".join(told),
        failure_reason=run.failure_reason,
        workers=run.workers,
        rate_limit=run.rate_limit,
        table=run.table,
        partitions=partition_messages(run, samples),
        records=progress.records,
        records_per_s=progress.records_per_s,
        lag=progress.lag,
        progress=progress.share,
        eta=duration(forecast.eta_s),
        eta_min=duration(forecast.eta_min_s),
        eta_max=duration(forecast.eta_max_s),
        never_catches_up=forecast.never,
        records_set_aside=progress.set_aside,
        rows_written=progress.rows_written,
        bytes_written=progress.bytes_written,
        worker_restarts=run.worker_restarts,
        stuck_restarts=run.stuck_restarts,
        create_time=_time(run.create_time),
        catch_up_time=_time(run.catch_up_time),
        live_workers=len(owners),
        live_replicas=len({instance_of(owner) for owner in owners}),
        priority=run.priority,
        retention_risk=_risk_message(outlook.risk),
        event_time=_time(progress.event_time),
    )


def throttle_message(throttle: Throttle) -> run_pb2.Throttle:
    """What holds a run down."""
    return run_pb2.Throttle(
        reason=run_pb2.Throttle.Reason.Value(throttle.reason.value),
        records_per_s=throttle.records_per_s,
        message=throttle.message,
    )


def partition_messages(run: Run, samples: Sequence[Sample]) -> list[run_pb2.PartitionProgress]:
    """Progress of each partition, by topic and number."""
    if not samples:
        return []
    newest, rates = samples[-1], measure(samples, run.version).partitions
    return [
        _partition(tp, position, newest, rates.get(tp, _NOTHING))
        for tp, position in sorted(newest.of(run.version).items())
    ]


def _partition(
    tp: TopicPartition, position: Position, sample: Sample, rates: PartitionRates
) -> run_pb2.PartitionProgress:
    ends = sample.ends.get(tp)
    return run_pb2.PartitionProgress(
        topic=tp.topic,
        partition=tp.partition,
        start_offset=position.start_offset,
        next_offset=position.next_offset,
        log_start_offset=ends.start if ends is not None else position.start_offset,
        end_offset=max(ends.end, position.next_offset) if ends is not None else position.next_offset,
        event_time=_time(position.event_time),
        records_per_s=rates.records,
        owner=position.owner,
        range_end_offset=position.range_end,
        records_set_aside=position.set_aside,
        rows_written=position.rows_written,
    )


def estimate_message(estimate: Estimate) -> run_pb2.EstimateRunResponse:
    """The answer of EstimateRun."""
    takes = estimate.takes
    return run_pb2.EstimateRunResponse(
        records=estimate.records,
        log_bytes=estimate.log_bytes,
        sampled_records=estimate.sampled_records,
        table_bytes=estimate.table_bytes,
        partitions=estimate.partitions,
        remarks=estimate.remarks,
        duration=duration(takes.expected_s) if takes is not None else None,
        duration_min=duration(takes.shortest_s) if takes is not None else None,
        duration_max=duration(takes.longest_s) if takes is not None else None,
        peak_storage_bytes=estimate.peak_bytes,
        queue_position=estimate.queue_position,
        waits_for=estimate.waits_for,
        retention_risk=_risk_message(estimate.risk),
        never_catches_up=takes is not None and takes.never,
    )


def _risk_message(risk: Risk | None) -> run_pb2.RetentionRisk | None:
    if risk is None:
        return None
    return run_pb2.RetentionRisk(
        topic=risk.tp.topic,
        partition=risk.tp.partition,
        crossing_time=timestamp(risk.crossing),
        message=risk.message,
    )


# --- the budget of copies -------------------------------------------------------------------------------------------

_LIMITS = ("copies_max", "rows_per_s_max", "storage_bytes_max", "read_p99_ratio_max")


def check_capacity_name(name: str) -> None:
    """InvalidInput (INVALID_NAME) unless it is that of the budget."""
    if name != CAPACITY_NAME:
        raise InvalidInput("INVALID_NAME", f"{name!r} is not the name of the budget of copies, {CAPACITY_NAME!r}.")


def capacity_change(request: capacity_pb2.UpdateCapacityRequest) -> Change:
    """What the mask selects. InvalidInput (INVALID_NAME, INVALID_UPDATE_MASK)."""
    if not request.HasField("capacity"):
        raise InvalidInput("INVALID_CAPACITY", "The request holds no capacity; say what the budget shall be.")
    if request.capacity.name:
        check_capacity_name(request.capacity.name)
    for path in request.update_mask.paths:
        if path not in _LIMITS:
            raise InvalidInput(
                "INVALID_UPDATE_MASK", f"{path!r} cannot be changed; the mask may name {', '.join(_LIMITS)}."
            )
    chosen = request.update_mask.paths or _LIMITS
    return Change(**{path: getattr(request.capacity, path) for path in chosen})


def capacity_message(capacity: Capacity, books: Books, rows_per_s: float) -> capacity_pb2.Capacity:
    """The budget, and what is used of it."""
    return capacity_pb2.Capacity(
        name=CAPACITY_NAME,
        copies_max=capacity.copies_max,
        rows_per_s_max=capacity.rows_per_s_max,
        storage_bytes_max=capacity.storage_bytes_max,
        read_p99_ratio_max=capacity.read_p99_ratio_max,
        etag=capacity.etag,
        copies=len(books.under_way),
        queued=len(books.queue),
        rows_per_s=rows_per_s,
        storage_bytes=books.storage_bytes,
        storage_bytes_expected=books.storage_bytes_expected,
    )


# --- gates ----------------------------------------------------------------------------------------------------------


def gate_messages(gates: Sequence[Gate]) -> list[gate_pb2.Gate]:
    """The answers of gates, whose evidence are clauses until here."""
    return [gate_pb2.Gate(gate=one.gate, passed=one.passed, evidence=map(sentence, one.evidence)) for one in gates]
