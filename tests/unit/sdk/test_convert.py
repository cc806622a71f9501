"""Messages become results: every field, absent ones as None."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

from google.protobuf.duration_pb2 import Duration
from google.protobuf.timestamp_pb2 import Timestamp

from turnout import readiness, results, rollouts
from turnout.client import convert
from turnout.client.values import to_value
from turnout.contract import Contract, Expected, ExpectedColumn
from turnout.query.v1 import query_pb2
from turnout.registry.v1 import registry_pb2
from turnout.replayer.v1 import capacity_pb2, comparison_pb2, gate_pb2, run_pb2
from turnout.switcher.v1 import change_pb2, rollout_pb2, route_pb2

T = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
STAMP = Timestamp(seconds=int(T.timestamp()))
ZERO = datetime(1970, 1, 1, tzinfo=UTC)
DEFINITION = (
    '{"job":"a","kind":"aggregate","topics":[{"topic":"t"}],'
    '"columns":[{"name":"k","type":"string","merge":"key"}],"key":["k"]}'
)
POSITION = query_pb2.AppliedPosition(topic="t", partition=1, next_offset=2, event_time=STAMP)


def test_job() -> None:
    message = registry_pb2.Job(name="jobs/a", description="d", create_time=STAMP, newest_version=3)
    assert convert.job(message) == results.Job("a", "d", T, 3)
    assert convert.job(registry_pb2.Job(name="jobs/a")).newest_version is None


def test_version() -> None:
    message = registry_pb2.Version(
        name="jobs/a/versions/2",
        state=registry_pb2.Version.RETIRED,
        definition=registry_pb2.Definition(definition_json=DEFINITION),
        artifact_digest="d",
        artifact_bytes=7,
        create_time=STAMP,
        retirement=registry_pb2.Retirement(
            step=registry_pb2.Retirement.RETAIN,
            drop_time=STAMP,
            waiting_for="the end",
            claimed_actor="ann",
            start_time=STAMP,
        ),
    )
    version = convert.version(message)
    assert (version.job, version.number, version.state) == ("a", 2, results.VersionState.RETIRED)
    assert (version.artifact_digest, version.artifact_bytes, version.create_time) == ("d", 7, T)
    assert version.definition.key == ("k",)
    assert version.retirement == results.Retirement(results.RetirementStep.RETAIN, T, "the end", "ann", T)
    message.ClearField("retirement")
    assert convert.version(message).retirement is None


def test_run() -> None:
    fields: dict[str, Any] = {
        "status_message": "s",
        "failure_reason": "f",
        "workers": 1,
        "live_workers": 2,
        "rate_limit": 3,
        "table": "t",
        "records": 4,
        "records_per_s": 5.5,
        "lag": 6,
        "progress": 0.5,
        "records_set_aside": 7,
        "worker_restarts": 8,
        "never_catches_up": True,
        "rows_written": 9,
        "bytes_written": 10,
        "stuck_restarts": 11,
        "live_replicas": 12,
        "priority": 13,
        "queue_position": 14,
    }
    partition: dict[str, Any] = {
        "topic": "t",
        "partition": 1,
        "start_offset": 2,
        "next_offset": 30,
        "log_start_offset": 4,
        "end_offset": 50,
        "records_per_s": 6.5,
        "owner": "o",
        "range_end_offset": 60,
        "records_set_aside": 3,
        "rows_written": 4,
    }
    message = run_pb2.Run(
        name="jobs/a/versions/2/run",
        state=run_pb2.Run.REPLAYING,
        eta=Duration(seconds=9),
        eta_min=Duration(seconds=8),
        eta_max=Duration(seconds=12),
        throttle=run_pb2.Throttle(reason=run_pb2.Throttle.READ_LATENCY, records_per_s=2.5, message="m"),
        retention_risk=run_pb2.RetentionRisk(topic="t", partition=1, crossing_time=STAMP, message="m"),
        event_time=STAMP,
        create_time=STAMP,
        catch_up_time=STAMP,
        partitions=[run_pb2.PartitionProgress(event_time=STAMP, **partition)],
        **fields,
    )
    (progress,) = convert.run(message).partitions
    assert progress == results.PartitionProgress(event_time=T, **partition)
    assert progress.lag == 30  # to the end of the range
    assert convert.run(message) == results.Run(
        job="a",
        version=2,
        state=results.RunState.REPLAYING,
        partitions=(progress,),
        eta=timedelta(seconds=9),
        eta_min=timedelta(seconds=8),
        eta_max=timedelta(seconds=12),
        throttle=results.Throttle(results.ThrottleReason.READ_LATENCY, 2.5, "m"),
        retention_risk=results.RetentionRisk("t", 1, T, "m"),
        event_time=T,
        create_time=T,
        catch_up_time=T,
        **fields,
    )
    bare = convert.run(run_pb2.Run(name=message.name, state=run_pb2.Run.QUEUED))
    assert (bare.eta, bare.catch_up_time, bare.rate_limit, bare.queue_position) == (None, None, None, None)
    assert (bare.eta_min, bare.eta_max, bare.throttle, bare.retention_risk, bare.event_time) == (None,) * 5


def test_estimate() -> None:
    plain: dict[str, Any] = {
        "records": 1,
        "log_bytes": 2,
        "sampled_records": 3,
        "table_bytes": 0,
        "partitions": 4,
        "peak_storage_bytes": 0,
        "queue_position": 5,
        "waits_for": "w",
        "never_catches_up": True,
    }
    message = run_pb2.EstimateRunResponse(
        remarks=["r"],
        duration=Duration(seconds=2),
        duration_min=Duration(seconds=1),
        duration_max=Duration(seconds=3),
        retention_risk=run_pb2.RetentionRisk(topic="t", partition=1, crossing_time=STAMP, message="m"),
        **plain,
    )
    assert convert.estimate(message) == results.Estimate(
        remarks=("r",),
        duration=timedelta(seconds=2),
        duration_min=timedelta(seconds=1),
        duration_max=timedelta(seconds=3),
        retention_risk=results.RetentionRisk("t", 1, T, "m"),
        **plain,
    )
    bare = convert.estimate(run_pb2.EstimateRunResponse())
    absent = (bare.table_bytes, bare.peak_storage_bytes, bare.duration, bare.duration_min, bare.duration_max)
    assert absent == (None, None, None, None, None)
    assert (bare.queue_position, bare.retention_risk) == (None, None)


def test_capacity() -> None:
    fields: dict[str, Any] = {
        "copies_max": 1,
        "rows_per_s_max": 2,
        "storage_bytes_max": 3,
        "read_p99_ratio_max": 1.5,
        "etag": "e",
        "copies": 4,
        "queued": 5,
        "rows_per_s": 6.5,
        "storage_bytes": 7,
        "storage_bytes_expected": 8,
    }
    assert convert.capacity(capacity_pb2.Capacity(name="capacity", **fields)) == results.Capacity(**fields)
    bare = convert.capacity(capacity_pb2.Capacity())
    limits = (bare.copies_max, bare.rows_per_s_max, bare.storage_bytes_max, bare.read_p99_ratio_max)
    assert limits == (None, None, None, None)


def test_gates() -> None:
    message = gate_pb2.CheckGatesResponse(
        gates=[
            gate_pb2.Gate(gate="catch-up", passed=True, evidence=["yes"]),
            gate_pb2.Gate(gate="schema", passed=False, evidence=["no", "no"]),
        ],
        partitions=[run_pb2.PartitionProgress(topic="t")],
    )
    check = convert.gate_check(message, 2)
    assert check.gates[1] == results.Gate("schema", 2, False, False, ("no", "no"))
    assert not check.passed
    assert check.partitions[0].topic == "t"
    del message.gates[1]
    assert convert.gate_check(message, 2).passed


def test_comparison() -> None:
    numbers: dict[str, Any] = {
        "rows_old": 1,
        "rows_new": 2,
        "rows_only_old": 3,
        "rows_only_new": 4,
        "rows_changed": 5,
    }
    row = comparison_pb2.RowDifference(key=[to_value("UA")], key_columns=["carrier"], columns=["on_time"])
    changed, added, removed = (comparison_pb2.RowDifference() for _ in range(3))
    for sample in (changed, added, removed):
        sample.CopyFrom(row)
    changed.old_values.append(to_value(1))
    changed.new_values.append(to_value(None))
    added.new_values.append(to_value(2))
    removed.old_values.append(to_value(3))
    message = comparison_pb2.Comparison(
        name="jobs/a/comparisons/0123456789ab",
        old_version="jobs/a/versions/1",
        new_version="jobs/a/versions/2",
        state=comparison_pb2.Comparison.FINISHED,
        contract=comparison_pb2.ComparisonContract(
            columns=[
                comparison_pb2.ExpectedColumn(
                    column="on_time", expected=comparison_pb2.ExpectedDifference(share_max=0.5)
                )
            ]
        ),
        verdict=comparison_pb2.Comparison.PASSED,
        findings=["as it is"],
        aligned=True,
        exact=True,
        columns=[
            comparison_pb2.ColumnDifference(column="on_time", rows=5, largest_absolute=0.0, total=-1.5),
            comparison_pb2.ColumnDifference(column="name", rows=1),
        ],
        columns_added=["cancelled"],
        columns_removed=["old"],
        samples=[changed, added, removed],
        ranges=[
            comparison_pb2.ComparedRange(
                number=3,
                after_key=["UA"],
                aligned=True,
                exact=True,
                positions_old=[POSITION],
                cut_time=STAMP,
                held=Duration(seconds=1),
                took=Duration(seconds=2),
                rows_old=7,
                rows_new=8,
            )
        ],
        ranges_done=4,
        rows_expected=30,
        held_max=Duration(seconds=1),
        create_time=STAMP,
        **numbers,
    )
    key = {"carrier": "UA"}
    position = results.AppliedPosition("t", 1, 2, T)
    second = timedelta(seconds=1)
    assert convert.comparison(message) == results.Comparison(
        job="a",
        id="0123456789ab",
        old=1,
        new=2,
        finished=True,
        contract=Contract(columns=(ExpectedColumn("on_time", Expected(0.5)),)),
        passed=True,
        findings=("as it is",),
        aligned=True,
        exact=True,
        columns=(
            results.ColumnDifference("on_time", 5, 0.0, -1.5),
            results.ColumnDifference("name", 1, None, None),
        ),
        columns_added=("cancelled",),
        columns_removed=("old",),
        samples=(
            results.RowDifference(key, {"on_time": 1}, {"on_time": None}),
            results.RowDifference(key, None, {"on_time": 2}),
            results.RowDifference(key, {"on_time": 3}, None),
        ),
        ranges=(
            results.ComparedRange(
                number=3,
                after_key=("UA",),
                last_key=(),
                aligned=True,
                exact=True,
                unaligned_reason="",
                positions_old=(position,),
                positions_new=(),
                cut_time=T,
                held=second,
                took=2 * second,
                rows_old=7,
                rows_new=8,
            ),
        ),
        ranges_done=4,
        rows_expected=30,
        held_max=second,
        create_time=T,
        end_time=None,
        **numbers,
    )
    message.verdict = comparison_pb2.Comparison.FAILED
    assert convert.comparison(message).passed is False
    message.ClearField("verdict")
    message.ClearField("contract")
    assert (convert.comparison(message).passed, convert.comparison(message).contract) == (None, None)


def test_route_and_change() -> None:
    route = route_pb2.Route(
        name="jobs/a/route",
        epoch=4,
        active_version=1,
        arms=[route_pb2.Arm(version=1, weight=9000), route_pb2.Arm(version=2, weight=1000)],
        salt="s",
        intervals=[route_pb2.Interval(low=0, high=2**32, version=1, acquired_epoch=3)],
        rollback_version=7,
        rollback_protected_until=STAMP,
        update_time=STAMP,
        etag="e",
        view=route_pb2.View(state=route_pb2.View.PENDING, version=6, waiting_for="session 7"),
        group=11,
    )
    expected = results.Route(
        job="a",
        epoch=4,
        active_version=1,
        weights={1: 9000, 2: 1000},
        salt="s",
        intervals=(results.Interval(0, 2**32, 1, 3),),
        rollback_version=7,
        rollback_protected_until=T,
        update_time=T,
        etag="e",
        view=results.View(results.ViewState.PENDING, 6, "session 7"),
        group=11,
    )
    assert convert.route(route) == expected
    change = change_pb2.RouteChange(
        route=route,
        command=change_pb2.RouteChange.CUT_OVER,
        claimed_actor="ann",
        reason="why",
        gates=[change_pb2.Gate(gate="schema", version=2, passed=False, overridden=True, evidence=["x"])],
        commit_time=STAMP,
        adoptions=[
            change_pb2.Adoption(front="f", adoption_time=Duration(nanos=5_000_000)),
            change_pb2.Adoption(front="g"),
        ],
        fronts_not_counted=["h"],
        adoption_time=Duration(nanos=6_000_000),
        warnings=["w"],
        changed=True,
        group=12,
    )
    assert convert.route_change(change) == results.RouteChange(
        route=expected,
        command=results.Command.CUT_OVER,
        claimed_actor="ann",
        reason="why",
        gates=(results.Gate("schema", 2, False, True, ("x",)),),
        commit_time=T,
        adoptions=(results.Adoption("f", timedelta(milliseconds=5)), results.Adoption("g", None)),
        fronts_not_counted=("h",),
        adoption_time=timedelta(milliseconds=6),
        warnings=("w",),
        changed=True,
        group=12,
    )


def test_rollback_readiness() -> None:
    message = change_pb2.RollbackReadiness(
        name="jobs/a/route",
        possible=True,
        problems=["p"],
        warnings=["w"],
        version=1,
        arms=[route_pb2.Arm(version=1, weight=10_000)],
        staleness=change_pb2.Staleness(offsets=3, event_time=Duration(seconds=2)),
        lag=4,
        rows_differing=change_pb2.RowsDiffering(
            keys=5, share=0.5, compare_time=STAMP, comparison="jobs/a/comparisons/c-1"
        ),
        protected_until=STAMP,
        fresh_until=STAMP,
    )
    assert convert.rollback_readiness(message) == readiness.RollbackReadiness(
        job="a",
        possible=True,
        problems=("p",),
        warnings=("w",),
        version=1,
        weights={1: 10_000},
        staleness=readiness.Staleness(3, timedelta(seconds=2)),
        lag=4,
        rows_differing=readiness.RowsDiffering(5, 0.5, T, "c-1"),
        protected_until=T,
        fresh_until=T,
    )
    nothing = convert.rollback_readiness(change_pb2.RollbackReadiness(name="jobs/a/route", problems=["none"]))
    assert (nothing.possible, nothing.version, nothing.staleness, nothing.rows_differing) == (False, None, None, None)
    assert (nothing.protected_until, nothing.fresh_until) == (None, None)
    bare = convert.route(route_pb2.Route(name="jobs/a/route", view=route_pb2.View()))
    assert (bare.rollback_version, bare.rollback_protected_until, bare.view) == (None, None, None)


def test_read_and_explanation() -> None:
    served = query_pb2.ServedVersion(
        version=2,
        epoch=3,
        columns=["k", "n"],
        applied_positions=[POSITION],
        cause=query_pb2.ServedVersion.PINNED,
    )
    row = query_pb2.Row(values=[to_value("UA"), to_value(1)])
    positions = (results.AppliedPosition("t", 1, 2, T),)
    read = convert.read(served, row, b"token")
    assert read == results.Read({"k": "UA", "n": 1}, 2, 3, positions, results.Cause.PINNED, b"token")
    assert convert.read(served, None, b"").row is None
    fields: dict[str, Any] = {
        "unit": "u",
        "unit_hash": 1,
        "version": 2,
        "active_version": 3,
        "epoch": 4,
        "interval_low": 0,
        "interval_high": 5,
        "acquired_epoch": 6,
        "front": "f",
        "route_age_s": 0.5,
    }
    assert convert.explanation(query_pb2.ExplainRouteResponse(**fields)) == results.Explanation(**fields)


def test_the_enums_are_those_of_the_contract() -> None:
    pairs: list[tuple[Any, Any]] = [
        (results.VersionState, registry_pb2.Version.State),
        (results.RetirementStep, registry_pb2.Retirement.Step),
        (results.RunState, run_pb2.Run.State),
        (results.ViewState, route_pb2.View.State),
        (results.Command, change_pb2.RouteChange.Command),
        (results.Cause, query_pb2.ServedVersion.Cause),
        (rollouts.RolloutState, rollout_pb2.Rollout.State),
        (rollouts.RolloutPhase, rollout_pb2.Rollout.Phase),
        (rollouts.RolloutHold, rollout_pb2.Rollout.Hold),
        (rollouts.StepKind, rollout_pb2.RolloutStep.Kind),
        (rollouts.GateVerdict, rollout_pb2.RolloutFinding.Verdict),
    ]
    for ours, theirs in pairs:
        known = {name for name in theirs.keys() if not name.endswith("_UNSPECIFIED")}  # noqa: SIM118  # not a mapping
        assert set(ours.__members__) == known
