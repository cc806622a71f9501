"""Messages of the contract -> results."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import UTC, datetime
from functools import lru_cache
from typing import TypeVar

from google.protobuf.timestamp_pb2 import Timestamp

from turnout import contract_proto, readiness, results
from turnout.client.calls import span_of, split_job, split_version, time_of
from turnout.client.values import from_row, from_value
from turnout.definition_proto import from_proto
from turnout.log_range_proto import from_proto as range_from_proto
from turnout.query.v1 import query_pb2
from turnout.registry.v1 import registry_pb2
from turnout.replayer.v1 import capacity_pb2, comparison_pb2, gate_pb2, run_pb2
from turnout.shadow import Shadow, ShadowReport, ShadowVerdict
from turnout.shadow_proto import counts_of
from turnout.switcher.v1 import change_pb2, route_pb2, shadow_pb2

T = TypeVar("T")


def _time(stamp: Timestamp) -> datetime:
    return stamp.ToDatetime(tzinfo=UTC)


# --- registry -------------------------------------------------------------------------------------------------------


def job(message: registry_pb2.Job) -> results.Job:
    return results.Job(
        job=split_job(message.name),
        description=message.description,
        create_time=_time(message.create_time),
        newest_version=message.newest_version or None,
    )


def version(message: registry_pb2.Version) -> results.Version:
    name, number = split_version(message.name)
    return results.Version(
        job=name,
        number=number,
        state=results.VersionState(registry_pb2.Version.State.Name(message.state)),
        definition=from_proto(message.definition),
        artifact_digest=message.artifact_digest,
        artifact_bytes=message.artifact_bytes,
        create_time=_time(message.create_time),
        retirement=_retirement(message.retirement) if message.HasField("retirement") else None,
        log_range=range_from_proto(message.log_range),
    )


def _retirement(message: registry_pb2.Retirement) -> results.Retirement:
    return results.Retirement(
        step=results.RetirementStep(registry_pb2.Retirement.Step.Name(message.step)),
        drop_time=time_of(message, "drop_time"),
        waiting_for=message.waiting_for,
        claimed_actor=message.claimed_actor,
        start_time=_time(message.start_time),
    )


# --- replayer -------------------------------------------------------------------------------------------------------


def run(message: run_pb2.Run) -> results.Run:
    name, number = split_version(message.name)
    return results.Run(
        job=name,
        version=number,
        state=results.RunState(run_pb2.Run.State.Name(message.state)),
        status_message=message.status_message,
        failure_reason=message.failure_reason,
        workers=message.workers,
        live_workers=message.live_workers,
        rate_limit=message.rate_limit or None,
        table=message.table,
        partitions=tuple(_partition(partition) for partition in message.partitions),
        records=message.records,
        records_per_s=message.records_per_s,
        lag=message.lag,
        progress=message.progress,
        eta=span_of(message, "eta"),
        records_set_aside=message.records_set_aside,
        worker_restarts=message.worker_restarts,
        create_time=_time(message.create_time),
        catch_up_time=time_of(message, "catch_up_time"),
        eta_min=span_of(message, "eta_min"),
        eta_max=span_of(message, "eta_max"),
        never_catches_up=message.never_catches_up,
        throttle=_throttle(message.throttle) if message.HasField("throttle") else None,
        retention_risk=_retention_risk(message.retention_risk) if message.HasField("retention_risk") else None,
        rows_written=message.rows_written,
        bytes_written=message.bytes_written,
        stuck_restarts=message.stuck_restarts,
        live_replicas=message.live_replicas,
        priority=message.priority,
        queue_position=message.queue_position or None,
        event_time=time_of(message, "event_time"),
    )


def _throttle(message: run_pb2.Throttle) -> results.Throttle:
    reason = results.ThrottleReason(run_pb2.Throttle.Reason.Name(message.reason))
    return results.Throttle(reason, message.records_per_s, message.message)


def _partition(message: run_pb2.PartitionProgress) -> results.PartitionProgress:
    return results.PartitionProgress(
        topic=message.topic,
        partition=message.partition,
        start_offset=message.start_offset,
        next_offset=message.next_offset,
        log_start_offset=message.log_start_offset,
        end_offset=message.end_offset,
        event_time=time_of(message, "event_time"),
        records_per_s=message.records_per_s,
        owner=message.owner,
        range_end_offset=message.range_end_offset if message.HasField("range_end_offset") else None,
        records_set_aside=message.records_set_aside,
        rows_written=message.rows_written,
    )


def estimate(message: run_pb2.EstimateRunResponse) -> results.Estimate:
    return results.Estimate(
        records=message.records,
        log_bytes=message.log_bytes,
        sampled_records=message.sampled_records,
        table_bytes=message.table_bytes if message.HasField("table_bytes") else None,
        partitions=message.partitions,
        remarks=tuple(message.remarks),
        duration=span_of(message, "duration"),
        duration_min=span_of(message, "duration_min"),
        duration_max=span_of(message, "duration_max"),
        peak_storage_bytes=message.peak_storage_bytes if message.HasField("peak_storage_bytes") else None,
        queue_position=message.queue_position or None,
        waits_for=message.waits_for,
        retention_risk=_retention_risk(message.retention_risk) if message.HasField("retention_risk") else None,
        never_catches_up=message.never_catches_up,
    )


def _retention_risk(message: run_pb2.RetentionRisk) -> results.RetentionRisk:
    return results.RetentionRisk(message.topic, message.partition, _time(message.crossing_time), message.message)


def capacity(message: capacity_pb2.Capacity) -> results.Capacity:
    return results.Capacity(
        copies_max=message.copies_max or None,
        rows_per_s_max=message.rows_per_s_max or None,
        storage_bytes_max=message.storage_bytes_max or None,
        read_p99_ratio_max=message.read_p99_ratio_max or None,
        etag=message.etag,
        copies=message.copies,
        queued=message.queued,
        rows_per_s=message.rows_per_s,
        storage_bytes=message.storage_bytes,
        storage_bytes_expected=message.storage_bytes_expected,
    )


def gate_check(message: gate_pb2.CheckGatesResponse, candidate: int) -> results.GateCheck:
    gates = tuple(
        results.Gate(gate.gate, candidate, gate.passed, overridden=False, evidence=tuple(gate.evidence))
        for gate in message.gates
    )
    return results.GateCheck(gates, tuple(_partition(partition) for partition in message.partitions))


def comparison(message: comparison_pb2.Comparison) -> results.Comparison:
    job, old = split_version(message.old_version)
    _, new = split_version(message.new_version)
    return results.Comparison(
        job=job,
        id=message.name.rpartition("/")[2],
        old=old,
        new=new,
        finished=message.state == comparison_pb2.Comparison.FINISHED,
        contract=contract_proto.from_proto(message.contract) if message.HasField("contract") else None,
        passed=_PASSED.get(message.verdict),
        findings=tuple(message.findings),
        aligned=message.aligned,
        exact=message.exact,
        rows_old=message.rows_old,
        rows_new=message.rows_new,
        rows_only_old=message.rows_only_old,
        rows_only_new=message.rows_only_new,
        rows_changed=message.rows_changed,
        columns=tuple(_column_difference(column) for column in message.columns),
        columns_added=tuple(message.columns_added),
        columns_removed=tuple(message.columns_removed),
        samples=tuple(_row_difference(row) for row in message.samples),
        ranges=tuple(_compared_range(one) for one in message.ranges),
        ranges_done=message.ranges_done,
        rows_expected=message.rows_expected,
        held_max=message.held_max.ToTimedelta(),
        create_time=_time(message.create_time),
        end_time=time_of(message, "end_time"),
    )


_PASSED = {comparison_pb2.Comparison.PASSED: True, comparison_pb2.Comparison.FAILED: False}


def _compared_range(message: comparison_pb2.ComparedRange) -> results.ComparedRange:
    return results.ComparedRange(
        number=message.number,
        after_key=tuple(message.after_key),
        last_key=tuple(message.last_key),
        aligned=message.aligned,
        exact=message.exact,
        unaligned_reason=message.unaligned_reason,
        positions_old=_positions(message.positions_old),
        positions_new=_positions(message.positions_new),
        cut_time=_time(message.cut_time),
        held=message.held.ToTimedelta(),
        took=message.took.ToTimedelta(),
        rows_old=message.rows_old,
        rows_new=message.rows_new,
    )


def _column_difference(message: comparison_pb2.ColumnDifference) -> results.ColumnDifference:
    return results.ColumnDifference(
        column=message.column,
        rows=message.rows,
        largest_absolute=message.largest_absolute if message.HasField("largest_absolute") else None,
        total=message.total if message.HasField("total") else None,
    )


def _row_difference(message: comparison_pb2.RowDifference) -> results.RowDifference:
    def side(values: Sequence[query_pb2.Value]) -> dict[str, object] | None:
        return _by_column(message.columns, values) if values else None

    key = _by_column(message.key_columns, message.key)
    return results.RowDifference(key, old=side(message.old_values), new=side(message.new_values))


def _by_column(columns: Iterable[str], values: Sequence[query_pb2.Value]) -> dict[str, object]:
    return {name: from_value(value) for name, value in zip(columns, values, strict=True)}


# --- switcher -------------------------------------------------------------------------------------------------------


def route(message: route_pb2.Route) -> results.Route:
    return results.Route(
        job=split_job(message.name),
        epoch=message.epoch,
        active_version=message.active_version,
        weights={arm.version: arm.weight for arm in message.arms},
        salt=message.salt,
        intervals=tuple(
            results.Interval(interval.low, interval.high, interval.version, interval.acquired_epoch)
            for interval in message.intervals
        ),
        rollback_version=message.rollback_version or None,
        rollback_protected_until=time_of(message, "rollback_protected_until"),
        update_time=time_of(message, "update_time"),
        etag=message.etag,
        view=_view(message.view) if message.HasField("view") else None,
        group=message.group,
        owner=message.owner or None,
        experiment=message.experiment.name.rpartition("/")[2] or None,
        shadow=Shadow(message.shadow.version, message.shadow.share) if message.HasField("shadow") else None,
        required_gates=tuple(message.required_gates),
    )


def shadow_report(message: shadow_pb2.ShadowReport) -> ShadowReport:
    return ShadowReport(
        job=split_job(message.name),
        version=message.version,
        active_version=message.active_version,
        share=message.shadow.share if message.HasField("shadow") else None,
        counts=counts_of(message.counts),
        compared_share=message.compared_share if message.HasField("compared_share") else None,
        e_value=message.e_value,
        threshold=message.threshold,
        verdict=ShadowVerdict(shadow_pb2.ShadowReport.Verdict.Name(message.verdict)),
        sentence=message.sentence,
        update_time=time_of(message, "update_time"),
    )


def _rows_differing(message: change_pb2.RowsDiffering) -> readiness.RowsDiffering:
    return readiness.RowsDiffering(
        keys=message.keys,
        share=message.share,
        compare_time=time_of(message, "compare_time"),
        comparison=message.comparison.rpartition("/")[2] or None,
    )


def rollback_readiness(message: change_pb2.RollbackReadiness) -> readiness.RollbackReadiness:
    stale = message.staleness
    return readiness.RollbackReadiness(
        job=split_job(message.name),
        possible=message.possible,
        problems=tuple(message.problems),
        warnings=tuple(message.warnings),
        version=message.version or None,
        weights={arm.version: arm.weight for arm in message.arms},
        staleness=readiness.Staleness(stale.offsets, stale.event_time.ToTimedelta())
        if message.HasField("staleness")
        else None,
        lag=message.lag,
        rows_differing=_rows_differing(message.rows_differing) if message.HasField("rows_differing") else None,
        protected_until=time_of(message, "protected_until"),
        fresh_until=time_of(message, "fresh_until"),
    )


def _view(message: route_pb2.View) -> results.View | None:
    if message.state == route_pb2.View.STATE_UNSPECIFIED:
        return None
    state = results.ViewState(route_pb2.View.State.Name(message.state))
    return results.View(state, message.version or None, message.waiting_for)


def route_change(message: change_pb2.RouteChange) -> results.RouteChange:
    return results.RouteChange(
        route=route(message.route),
        command=results.Command(change_pb2.RouteChange.Command.Name(message.command)),
        claimed_actor=message.claimed_actor,
        reason=message.reason,
        gates=tuple(
            results.Gate(gate.gate, gate.version, gate.passed, gate.overridden, tuple(gate.evidence))
            for gate in message.gates
        ),
        commit_time=time_of(message, "commit_time"),
        adoptions=tuple(
            results.Adoption(adoption.front, span_of(adoption, "adoption_time")) for adoption in message.adoptions
        ),
        fronts_not_counted=tuple(message.fronts_not_counted),
        adoption_time=span_of(message, "adoption_time"),
        warnings=tuple(message.warnings),
        changed=message.changed,
        group=message.group,
    )


# --- query ----------------------------------------------------------------------------------------------------------


def read(
    served: query_pb2.ServedVersion, row: query_pb2.Row | None, token: bytes, exposure_id: str = ""
) -> results.Read:
    version, epoch, applied_positions, cause = _served(served.SerializeToString())
    return results.Read(
        row=None if row is None else from_row(served.columns, row),
        version=version,
        epoch=epoch,
        applied_positions=applied_positions,
        cause=cause,
        token=token,
        exposure_id=exposure_id,
    )


@lru_cache(maxsize=64)
def _served(encoded: bytes) -> tuple[int, int, tuple[results.AppliedPosition, ...], results.Cause]:
    """Who answered; the same with every read, until the positions change."""
    served = query_pb2.ServedVersion.FromString(encoded)
    cause = results.Cause(query_pb2.ServedVersion.Cause.Name(served.cause))
    return served.version, served.epoch, _positions(served.applied_positions), cause


def explanation(message: query_pb2.ExplainRouteResponse) -> results.Explanation:
    return results.Explanation(
        unit=message.unit,
        unit_hash=message.unit_hash,
        version=message.version,
        active_version=message.active_version,
        epoch=message.epoch,
        interval_low=message.interval_low,
        interval_high=message.interval_high,
        acquired_epoch=message.acquired_epoch,
        front=message.front,
        route_age_s=message.route_age_s,
    )


def _positions(messages: Iterable[query_pb2.AppliedPosition]) -> tuple[results.AppliedPosition, ...]:
    return tuple(
        results.AppliedPosition(
            position.topic, position.partition, position.next_offset, time_of(position, "event_time")
        )
        for position in messages
    )
