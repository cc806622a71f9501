"""One trace shows a cutover from the caller to the front that adopted it, over processes and the watch stream."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import grpc
import pytest
from opentelemetry import trace
from opentelemetry.proto.collector.trace.v1 import trace_service_pb2, trace_service_pb2_grpc
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from tests.acceptance.conftest import LEASES, client_of
from tests.acceptance.orders import JOB, Orders
from tests.acceptance.test_life_cycle import caught_up
from tests.support.eventually import eventually
from tests.support.processes import ServiceProcesses
from tests.support.topics import Topics

EXPECTED = {
    ("turnout-switcher", "turnout.switcher.v1.Switcher/CutOverRoute"),
    ("turnout-switcher", "switcher.propose"),
    ("turnout-switcher", "switcher.commit"),
    ("turnout-replayer", "turnout.replayer.v1.Replayer/CheckGates"),
    ("turnout-query", "front.prepare"),
    ("turnout-query", "front.adopt"),
}


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
    collector: tuple[Collector, str],
    postgres: str,
    kafka: Topics,
    orders: Orders,
    tmp_path: Path,
    spans: InMemorySpanExporter,
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
        # The caller's own span, as in a service that uses the SDK.
        span = TracerProvider().get_tracer("caller").start_span("deploy")
        with trace.use_span(span, end_on_exit=True):
            await client.cut_over(JOB, 1, override_gates=["catch-up"])  # on a busy machine it may lag for a moment
        called = span.get_span_context()

        async def complete() -> list[tuple[str, Any]]:
            found = [(service, one) for service, one in received.spans if one.trace_id == called.trace_id.to_bytes(16)]
            names = {(service, one.name) for service, one in found}
            assert names >= EXPECTED, names
            # Whole: every span hangs on another one of the trace, the first on the client's.
            known = {one.span_id for _, one in found} | {client_span.context.span_id.to_bytes(8)}
            assert all(one.parent_span_id in known for _, one in found)
            return found

        [client_span] = [one for one in spans.get_finished_spans() if one.name.endswith("/CutOverRoute")]
        assert client_span.parent == called
        found = await eventually(complete, 60)
        [first] = [one for _, one in found if one.name.endswith("/CutOverRoute")]
        assert first.parent_span_id == client_span.context.span_id.to_bytes(8)


async def test_the_command_line_begins_a_trace(
    collector: tuple[Collector, str], postgres: str, kafka: Topics, tmp_path: Path
) -> None:
    received, endpoint = collector
    environment = {"OTEL_EXPORTER_OTLP_ENDPOINT": endpoint, "OTEL_BSP_SCHEDULE_DELAY": "100"}
    async with ServiceProcesses(
        postgres=postgres, kafka=kafka.bootstrap, data_dir=tmp_path / "services", environment=environment
    ) as processes:
        process = await asyncio.create_subprocess_exec(
            Path(sys.executable).parent / "turnout", "show", "--target", processes.target("registry"),
            env={**os.environ, **environment},
            stdout=asyncio.subprocess.DEVNULL,
        )  # fmt: skip
        assert await process.wait() == 0

        async def joined() -> bool:
            [root] = [one for service, one in received.spans if service == "turnout-cli" and one.name == "turnout show"]
            inside = {service for service, one in received.spans if one.trace_id == root.trace_id}
            return inside >= {"turnout-cli", "turnout"}

        async def arrived() -> bool:
            return any(service == "turnout-cli" for service, _ in received.spans) and await joined()

        await eventually(arrived, 60)
