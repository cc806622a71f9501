"""One trace shows a cutover from the caller to the front that adopted it, over processes and the watch stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider

from tests.acceptance.conftest import LEASES, client_of
from tests.acceptance.orders import JOB, Orders
from tests.acceptance.test_life_cycle import caught_up
from tests.support.eventually import eventually
from tests.support.processes import ServiceProcesses
from tests.support.topics import Topics


class Collector(trace_service_pb2_grpc.TraceServiceServicer):
    """A real OTLP endpoint that keeps what it is sent."""

    def __init__(self) -> None:
        self.spans: list[tuple[str, Any]] = []

    async def Export(self, request: Any, context: Any) -> Any:
        for resource in request.resource_spans:
            service = next(a.value.string_value for a in resource.resource.attributes if a.key == "service.name")
            for scope in resource.scope_spans:
                self.spans += [(service, span) for span in scope.spans]
        return trace_service_pb2.ExportTraceServiceResponse()


@pytest.fixture
async def collector() -> AsyncIterator[tuple[Collector, str]]:
    server = grpc.aio.server()
    collector = Collector()
    trace_service_pb2_grpc.add_TraceServiceServicer_to_server(collector, server)  # type: ignore[no-untyped-call]
    port = server.add_insecure_port("127.0.0.1:0")
    await server.start()
    yield collector, f"http://127.0.0.1:{port}"
    await server.stop(None)


async def test_a_cutover_is_one_trace(
    collector: tuple[Collector, str], postgres: str, kafka: Topics, orders: Orders, tmp_path: Path
) -> None:
    received, endpoint = collector
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    async with (
        ServiceProcesses(
            postgres=postgres,
            kafka=kafka.bootstrap,
            data_dir=tmp_path / "services",
            separate=True,
            options=LEASES,
            environment=environment,
        ) as processes,
        client_of(processes) as client,
    ):
        await orders.produce(500)
        await client.apply(orders.code(1))
        await client.start_run(JOB, 1)
        await caught_up(client, 1)
        # The caller's own span, as in a service that uses the SDK; its provider exports nothing itself.
        span = TracerProvider().get_tracer("caller").start_span("deploy")
        with trace.use_span(span, end_on_exit=True):
            await client.cut_over(JOB, 1)
        trace_id = span.get_span_context().trace_id.to_bytes(16, "big")

        async def complete() -> dict[str, set[str]]:
            names: dict[str, set[str]] = {}
            for service, one in received.spans:
                if one.trace_id == trace_id:
                    names.setdefault(service, set()).add(one.name)
            assert "turnout.switcher.v1.Switcher/CutOverRoute" in names.get("turnout-switcher", set()), names
            assert {"switcher.propose", "switcher.commit"} <= names["turnout-switcher"], names
            assert {"front.prepare", "front.adopt"} <= names.get("turnout-query", set()), names
            assert "turnout.replayer.v1.Replayer/CheckGates" in names.get("turnout-replayer", set()), names
            return names

        await eventually(complete, 20)
