"""Spans of the client: one a call, its traceparent in the metadata, streams too; one a read in direct mode."""

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import Any

import grpc
from opentelemetry import propagate, trace
from opentelemetry.trace import Span, SpanKind, StatusCode

from turnout.telemetry import remote_context


def _traced(details: grpc.aio.ClientCallDetails) -> tuple[Span, grpc.aio.ClientCallDetails]:
    """The span of a call, in the trace that its metadata name, else in the caller's present one."""
    method = details.method.decode() if isinstance(details.method, bytes) else details.method
    metadata = grpc.aio.Metadata(*(details.metadata or ()))
    named = metadata.get("traceparent")
    parent = remote_context(str(named)) if named else None
    span = trace.get_tracer("turnout.client").start_span(method.lstrip("/"), context=parent, kind=SpanKind.CLIENT)
    carrier: dict[str, str] = {}
    propagate.inject(carrier, context=trace.set_span_in_context(span))
    for key, value in carrier.items():
        metadata[key] = value
    return span, details._replace(metadata=metadata)  # type: ignore[attr-defined]  # a named tuple, typed as a class


def _ended(span: Span) -> Callable[[Any], None]:
    def end(call: Any) -> None:
        if call.cancelled():
            span.set_status(StatusCode.ERROR, "cancelled")
        span.end()

    return end


class _UnaryUnary(grpc.aio.UnaryUnaryClientInterceptor):
    async def intercept_unary_unary(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        span, details = _traced(client_call_details)
        call = await continuation(details, request)
        call.add_done_callback(_ended(span))
        return call


class _UnaryStream(grpc.aio.UnaryStreamClientInterceptor):
    async def intercept_unary_stream(self, continuation: Any, client_call_details: Any, request: Any) -> Any:
        span, details = _traced(client_call_details)
        call = await continuation(details, request)
        call.add_done_callback(_ended(span))
        return call


class _StreamUnary(grpc.aio.StreamUnaryClientInterceptor):
    async def intercept_stream_unary(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        span, details = _traced(client_call_details)
        call = await continuation(details, request_iterator)
        call.add_done_callback(_ended(span))
        return call


class _StreamStream(grpc.aio.StreamStreamClientInterceptor):
    async def intercept_stream_stream(self, continuation: Any, client_call_details: Any, request_iterator: Any) -> Any:
        span, details = _traced(client_call_details)
        call = await continuation(details, request_iterator)
        call.add_done_callback(_ended(span))
        return call


def client_interceptors() -> list[grpc.aio.ClientInterceptor]:
    """One interceptor for each shape of call. Where no tracer is set up, a span costs next to nothing."""
    return [_UnaryUnary(), _UnaryStream(), _StreamUnary(), _StreamStream()]


def is_traced() -> bool:
    """Whether a tracer is set up in this process. Asking costs as much as a tenth of a read by key."""
    return not isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider)


def read_span(method: str, job: str, front: str) -> AbstractContextManager[object]:
    """A span of the caller's trace around a read in direct mode."""
    tracer = trace.get_tracer("turnout.client")
    attributes = {"turnout.job": job, "turnout.front": front}
    return tracer.start_as_current_span(f"turnout.direct/{method}", kind=SpanKind.CLIENT, attributes=attributes)
