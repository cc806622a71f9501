"""Export of spans by OTLP over gRPC, off unless the standard environment variables name an endpoint.

The distributions that export are an extra: `turnout[otlp]`. Without them an endpoint that is named is an error, because
silence would look like a trace without spans.
"""

from __future__ import annotations

import os
from collections.abc import Callable

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")
_FLUSH_MS = 2_000


def wanted() -> bool:
    """Whether the environment asks for spans."""
    return os.environ.get("OTEL_SDK_DISABLED", "").lower() != "true" and any(map(os.environ.get, _ENDPOINTS))


def export_spans(service: str) -> Callable[[], None]:
    """Begin to export this process's spans as `service` (or OTEL_SERVICE_NAME); call the answer before it ends.

    Does nothing where the environment asks for nothing. ImportError where the extra is not installed.
    """
    if not wanted():
        return _nothing
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.resources import Resource
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ImportError as error:
        raise ImportError(
            f"{' or '.join(_ENDPOINTS)} is set, but {error.name} is missing: install turnout[otlp], or unset it."
        ) from error
    resource = Resource.create({"service.name": os.environ.get("OTEL_SERVICE_NAME", service)})
    provider = TracerProvider(resource=resource)
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)

    def flush() -> None:
        provider.force_flush(_FLUSH_MS)

    return flush


def _nothing() -> None:
    pass
