"""OpenTelemetry: off unless the standard OTLP environment variables name an endpoint.

A span is a request or a batch, never a record. A trace crosses process borders as a W3C traceparent, in gRPC metadata
and in the messages of the route watch.
"""

import os

from opentelemetry import propagate, trace
from opentelemetry.context import Context
from opentelemetry.sdk.resources import Resource
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import BatchSpanProcessor

_ENDPOINTS = ("OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_TRACES_ENDPOINT")


def setup(service: str) -> None:
    """Export spans by OTLP/gRPC when the standard environment asks for it; otherwise spans cost next to nothing."""
    if os.environ.get("OTEL_SDK_DISABLED", "").lower() == "true" or not any(os.environ.get(e) for e in _ENDPOINTS):
        return
    from opentelemetry.exporter.otlp.proto.grpc.trace_exporter import OTLPSpanExporter

    name = os.environ.get("OTEL_SERVICE_NAME", service)
    provider = TracerProvider(resource=Resource.create({"service.name": name}))
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)


def tracer(name: str) -> trace.Tracer:
    """The tracer of a module; `name` is its service, such as "turnout.switcher"."""
    return trace.get_tracer(name)


def current_traceparent() -> str:
    """The W3C traceparent of the current span; empty when there is none."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent", "")


def remote_context(traceparent: str) -> Context:
    """The context to start a span in, as a child of a span elsewhere; an empty traceparent gives a root."""
    return propagate.extract({"traceparent": traceparent} if traceparent else {}, context=Context())
