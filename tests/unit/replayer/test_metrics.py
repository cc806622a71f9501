"""Runs as metrics, through OpenTelemetry's own SDK."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence
from datetime import UTC, datetime, timedelta

import pytest
from opentelemetry.sdk.metrics import MeterProvider
from opentelemetry.sdk.metrics.export import InMemoryMetricReader, Sum

from services.replayer.metrics import PARTITION, PARTITIONS_MAX, RUN, UNTOLD, Instrument, RunMetrics
from turnout.replayer.v1 import run_pb2

SOON = datetime.now(UTC) + timedelta(hours=1)
Points = dict[str, list[tuple[dict[str, object], float]]]


def the_run(**changes: object) -> run_pb2.Run:
    made = run_pb2.Run(
        name="jobs/punctuality/versions/2/run",
        state=run_pb2.Run.REPLAYING,
        live_workers=2,
        records=1000,
        records_per_s=50.5,
        lag=200,
        progress=0.8,
        rows_written=990,
        bytes_written=9000,
        records_set_aside=1,
        worker_restarts=3,
        stuck_restarts=2,
        queue_position=4,
        never_catches_up=True,
    )
    made.eta.FromSeconds(10)
    made.eta_min.FromSeconds(8)
    made.event_time.FromSeconds(1_700_000_000)
    made.throttle.CopyFrom(run_pb2.Throttle(reason=run_pb2.Throttle.ROWS_BUDGET, records_per_s=60.0, message="m"))
    made.retention_risk.CopyFrom(run_pb2.RetentionRisk(topic="flights", partition=1, message="m"))
    made.retention_risk.crossing_time.FromDatetime(SOON)
    for number in range(2):
        made.partitions.add(
            topic="flights",
            partition=number,
            next_offset=500 + number,
            log_start_offset=5,
            end_offset=600,
            records_per_s=25.25,
            rows_written=495,
            records_set_aside=number,
        )
    for field, value in changes.items():
        setattr(made, field, value)
    return made


class Collected:
    """The metrics of some runs, collected on a thread as an exporter does."""

    def __init__(self, runs: Sequence[run_pb2.Run]) -> None:
        self.runs = runs
        self.reads = 0
        self._reader = InMemoryMetricReader()
        self._provider = MeterProvider([self._reader])
        self.metrics = RunMetrics(self._read)

    def _read(self) -> Sequence[run_pb2.Run]:
        self.reads += 1
        return self.runs

    async def points(self) -> Points:
        self.metrics.start(self._provider.get_meter("test"))
        return await self.again()

    async def again(self) -> Points:
        data = await asyncio.to_thread(self._reader.get_metrics_data)
        found: Points = {}
        for resource in data.resource_metrics if data is not None else ():
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    found[metric.name] = [(dict(p.attributes or {}), p.value) for p in metric.data.data_points]  # type: ignore[union-attr]  # sums and gauges
                    for kind in (one for one in (*RUN, *PARTITION) if one.name == metric.name):
                        assert isinstance(metric.data, Sum) is kind.counter
                        assert metric.unit == kind.unit
        return found


async def test_every_figure_of_a_run_and_of_its_partitions() -> None:
    points = await Collected([the_run()]).points()
    run = {"job": "punctuality", "version": 2}
    assert points["turnout.run.state"] == [({**run, "state": "REPLAYING"}, 1)]
    assert points["turnout.run.records"] == [(run, 1000)]
    [(_, never)] = points["turnout.run.never_catches_up"]
    assert (never, type(never)) == (1, int)  # OTLP has no booleans
    assert points["turnout.run.rate"] == [(run, 50.5)]
    assert points["turnout.run.eta"] == [(run, 10.0)]
    assert points["turnout.run.eta_min"] == [(run, 8.0)]
    assert points["turnout.run.rows_written"] == [(run, 990)]
    assert points["turnout.run.bytes_written"] == [(run, 9000)]
    assert points["turnout.run.stuck_restarts"] == [(run, 2)]
    assert points["turnout.run.queue_position"] == [(run, 4)]
    assert points["turnout.run.event_time"] == [(run, 1_700_000_000.0)]
    assert points["turnout.run.throttle"] == [({**run, "reason": "ROWS_BUDGET"}, 60.0)]
    [(attributes, left_s)] = points["turnout.run.retention_crossing"]
    assert attributes == {**run, "topic": "flights", "partition": 1}
    assert 0 < left_s <= 3600
    first, second = ({**run, "topic": "flights", "partition": n} for n in range(2))
    assert points["turnout.run.partition.position"] == [(first, 500), (second, 501)]
    assert points["turnout.run.partition.log_start"] == [(first, 5), (second, 5)]
    assert points["turnout.run.partition.log_end"] == [(first, 600), (second, 600)]
    assert points["turnout.run.partition.records_set_aside"] == [(first, 0), (second, 1)]
    assert points[UNTOLD] == [({}, 0)]


async def test_what_is_unknown_has_no_point() -> None:
    made = the_run()
    for field in ("eta", "eta_min", "event_time", "throttle", "retention_risk"):
        made.ClearField(field)
    points = await Collected([made]).points()
    for name in ("eta", "eta_min", "eta_max", "event_time", "throttle", "retention_crossing", "partition.event_time"):
        assert not points.get(f"turnout.run.{name}")


async def test_the_figures_are_made_once_for_all_instruments() -> None:
    collected = Collected([the_run()])
    await collected.points()
    assert collected.reads == 1


async def test_too_many_partitions_have_no_series_of_their_own() -> None:
    wide = the_run(name="jobs/wide/versions/1/run")
    for number in range(2, PARTITIONS_MAX):
        wide.partitions.add(topic="flights", partition=number)
    points = await Collected([wide, the_run()]).points()
    assert len(points["turnout.run.partition.position"]) == PARTITIONS_MAX
    assert points[UNTOLD] == [({}, 2)]
    assert len(points["turnout.run.lag"]) == 2


async def test_after_the_end_nothing_is_answered() -> None:
    collected = Collected([the_run()])
    await collected.points()
    collected.metrics.stop()
    assert not (await collected.again()).get("turnout.run.lag")


@pytest.mark.parametrize("kind", [*RUN, *PARTITION], ids=lambda kind: kind.name)
def test_names_and_units_are_as_opentelemetry_writes_them(kind: Instrument) -> None:
    assert kind.name.startswith("turnout.run.")
    assert kind.name == kind.name.lower()
    assert kind.unit
