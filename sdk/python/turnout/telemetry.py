"""Spans, metrics, and the way of a trace between processes. `turnout.otlp` exports where the environment asks for it.

A span is a request or a batch, never a record. A trace crosses process borders as a W3C traceparent, in gRPC metadata
and in the messages of the route watch.
"""

from opentelemetry import metrics, propagate, trace
from opentelemetry.context import Context


def tracer(name: str) -> trace.Tracer:
    """The tracer of a module; `name` is its service, such as "turnout.switcher"."""
    return trace.get_tracer(name)


def meter(name: str) -> metrics.Meter:
    """The meter of a service, such as "turnout.replayer". Nobody asks its instruments where nothing is exported."""
    return metrics.get_meter(name)


def current_traceparent() -> str:
    """The W3C traceparent of the current span; empty when there is none."""
    carrier: dict[str, str] = {}
    propagate.inject(carrier)
    return carrier.get("traceparent", "")


def remote_context(traceparent: str) -> Context:
    """The context to start a span in, as a child of a span elsewhere; an empty traceparent gives a root."""
    return propagate.extract({"traceparent": traceparent} if traceparent else {}, context=Context())
