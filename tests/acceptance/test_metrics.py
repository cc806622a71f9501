"""A collector gets the figures of runs by OTLP, and they are those that the client is told."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry.proto.collector.metrics.v1 import metrics_service_pb2, metrics_service_pb2_grpc

from tests.acceptance.conftest import LEASES, client_of
from tests.acceptance.orders import JOB, Orders
from tests.acceptance.test_life_cycle import caught_up
from tests.support.eventually import eventually
from tests.support.processes import ServiceProcesses
from tests.support.topics import Topics


class Collector(metrics_service_pb2_grpc.MetricsServiceServicer):
    """A real OTLP endpoint that keeps the newest points of each metric."""

    def __init__(self) -> None:
        self.metrics: dict[str, list[tuple[dict[str, Any], float]]] = {}
        self.resources: set[tuple[str, bool]] = set()

    async def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_metrics:
            named = {one.key: one.value.string_value for one in resource.resource.attributes}
            self.resources.add((named["service.name"], bool(named.get("service.instance.id"))))
            for scope in resource.scope_metrics:
                for metric in scope.metrics:
                    self.metrics[metric.name] = [
                        _point(one) for one in (*metric.gauge.data_points, *metric.sum.data_points)
                    ]
        return metrics_service_pb2.ExportMetricsServiceResponse()


def _point(point: Any) -> tuple[dict[str, Any], float]:
    attributes = {one.key: one.value.int_value or one.value.string_value for one in point.attributes}
    return attributes, point.as_double or point.as_int


@pytest.fixture
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    server = grpc.aio.server()
    collector = Collector()
    metrics_service_pb2_grpc.add_MetricsServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield collector, f"http://127.0.0.1:{port}"
    await server.stop(None)


async def test_runs_are_told_by_otlp(
    collector: tuple[Collector, str], postgres: str, kafka: Topics, orders: Orders, tmp_path: Path
) -> None:
    received, endpoint = collector
    environment = {"OTEL_EXPORTER_OTLP_METRICS_ENDPOINT": endpoint, "OTEL_METRIC_EXPORT_INTERVAL": "200"}
    async with (
        ServiceProcesses(
            postgres=postgres,
            kafka=kafka.bootstrap,
            data_dir=tmp_path / "services",
            separate=False,
            options=LEASES,
            environment=environment,
        ) as processes,
        client_of(processes) as client,
    ):
        await orders.produce(500)
        await client.apply(orders.code(1))
        await client.start_run(JOB, 1)
        await caught_up(client, 1)
        run = await client.get_run(JOB, 1)

        async def complete() -> bool:
            of_run = {"job": JOB, "version": 1}
            assert received.metrics.get("turnout.run.records") == [(of_run, run.records)]
            assert received.metrics["turnout.run.state"] == [({**of_run, "state": "TAILING"}, 1)]
            assert received.metrics["turnout.run.rows_written"] == [(of_run, run.rows_written)]
            positions = received.metrics["turnout.run.partition.position"]
            assert sorted(value for _, value in positions) == sorted(one.next_offset for one in run.partitions)
            return True

        assert await eventually(complete, 60)
    assert received.resources == {("turnout", True)}
