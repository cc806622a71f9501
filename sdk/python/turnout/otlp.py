"""Export by OTLP over gRPC, off unless the standard environment variables name an endpoint.

The distributions that export are an extra: `turnout[otlp]`. Without them an endpoint that is named is an error, because
silence would look like a trace without spans.
"""

from __future__ import annotations

import os
import uuid
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from opentelemetry.sdk.resources import Resource

_ANY = "OTEL_EXPORTER_OTLP_ENDPOINT"
_SPANS = (_ANY, "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_METRICS = (_ANY, "OTEL_EXPORTER_OTLP_METRICS_ENDPOINT")
_FLUSH_MS = 2_000


def wanted() -> bool:
    """Whether the environment asks for spans."""
    return _wanted(_SPANS)


def export_spans(service: str) -> Callable[[], None]:
    """Begin to export this process's spans as `service` (or OTEL_SERVICE_NAME); call the answer before it ends.

    Does nothing where the environment asks for nothing. ImportError where the extra is not installed.
    """
    if not _wanted(_SPANS):
        return _nothing
    with _extra(_SPANS):
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor

        provider = TracerProvider(resource=_resource(service))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)

    def flush() -> None:
        provider.force_flush(_FLUSH_MS)

    return flush


def export_metrics(service: str) -> Callable[[], None]:
    """Begin to export this process's metrics, every OTEL_METRIC_EXPORT_INTERVAL ms (default 60000); the rest is as for
    spans."""
    if not _wanted(_METRICS):
        return _nothing
    with _extra(_METRICS):
        from opentelemetry import metrics
        from opentelemetry.exporter.otlp.proto.grpc.metric_exporter import OTLPMetricExporter
        from opentelemetry.sdk.metrics import MeterProvider
        from opentelemetry.sdk.metrics.export import PeriodicExportingMetricReader

        provider = MeterProvider([PeriodicExportingMetricReader(OTLPMetricExporter())], _resource(service))
    metrics.set_meter_provider(provider)

    def flush() -> None:
        provider.force_flush(_FLUSH_MS)

    return flush


def _wanted(endpoints: tuple[str, str]) -> bool:
    return os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true" and any(map(os.environ.get, endpoints))


@contextmanager
def _extra(endpoints: tuple[str, str]) -> Iterator[None]:
    try:
        yield
    except ImportError as error:
        raise ImportError(
            f"{' or '.join(endpoints)} is set, but {error.name} is missing: install turnout[otlp], or unset it."
        ) from error


def _resource(service: str) -> Resource:
    from opentelemetry.sdk.resources import Resource

    name = os.environ.get("OTEL_SERVICE_NAME", service)
    return Resource.create({"service.name": name, "service.instance.id": _INSTANCE})


_INSTANCE = str(uuid.uuid4())  # two replicas of a service must not write to one series


def _nothing() -> None:
    pass
