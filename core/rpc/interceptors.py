"""The chain of cross-cutting concerns, outermost first: tracing, errors, deadline. Streams and unary calls alike."""

import asyncio
import logging
from collections.abc import AsyncIterator
from typing import Any, Protocol, cast

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from opentelemetry import trace
from opentelemetry.trace import SpanKind, StatusCode

from core.domain.errors import InvalidInput, TurnoutError
from core.rpc.errors import DOMAIN, to_status
from core.telemetry import remote_context

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

# Streams that a caller holds open for as long as it lives.
_WITHOUT_DEADLINE = frozenset(
    {
        "/turnout.switcher.v1.Switcher/WatchRoutes",
        "/turnout.replayer.v1.Replayer/WatchRun",
    }
)
_OURS = "/turnout."


class _Around(Protocol):
    """Work around one call: an async context manager."""

    async def __aenter__(self) -> object: ...
    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool | None: ...


class _Interceptor(grpc.aio.ServerInterceptor):
    """Wraps the behaviour of a handler, whichever of the four shapes it has, in `around`."""

    def around(self, method: str, details: grpc.HandlerCallDetails, context: Context) -> _Around:
        raise NotImplementedError

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or not method.startswith(_OURS):
            return handler
        behaviour = _behaviour(handler)

        async def unary(request: Any, context: Context) -> Any:
            async with self.around(method, handler_call_details, context):
                return await behaviour(request, context)

        async def stream(request: Any, context: Context) -> AsyncIterator[Any]:
            async with self.around(method, handler_call_details, context):
                async for response in behaviour(request, context):
                    yield response

        return _rebuilt(handler, stream if handler.response_streaming else unary)


def _behaviour(handler: Any) -> Any:
    return handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream


def _rebuilt(handler: Any, behaviour: Any) -> Any:
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[(handler.request_streaming, handler.response_streaming)]
    return cast(Any, make)(behaviour, handler.request_deserializer, handler.response_serializer)


class _Traced:
    def __init__(self, method: str, details: grpc.HandlerCallDetails) -> None:
        metadata = dict(details.invocation_metadata or ())
        traceparent = metadata.get("traceparent", "")
        self._span = trace.get_tracer("turnout.rpc").start_as_current_span(
            method.lstrip("/"),
            context=remote_context(str(traceparent)),
            kind=SpanKind.SERVER,
            record_exception=False,
            set_status_on_exception=False,
        )

    async def __aenter__(self) -> object:
        self._active = self._span.__enter__()
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        if error is not None:
            self._active.set_status(StatusCode.ERROR, str(error))
        self._span.__exit__(None, None, None)
        return None


class Tracing(_Interceptor):
    """One span a call, a child of the caller's."""

    def around(self, method: str, details: grpc.HandlerCallDetails, context: Context) -> _Around:
        return _Traced(method, details)


class _Mapped:
    def __init__(self, method: str, context: Context) -> None:
        self._method = method
        self._context = context

    async def __aenter__(self) -> object:
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        if error is None or isinstance(error, asyncio.CancelledError | GeneratorExit | grpc.aio.AbortError):
            return None
        if isinstance(error, TurnoutError):
            status = to_status(error)
        else:
            log.error("unexpected error in %s", self._method, exc_info=error)
            status = _masked(self._method)
        await self._context.abort(status.code, status.details, status.trailing_metadata or ())
        return None


def _masked(method: str) -> Any:
    message = f"{method.rsplit('/', 1)[-1]} failed for a reason that only the server's log tells."
    status = status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0], message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN))
    return rpc_status.to_status(status)


class Errors(_Interceptor):
    """Domain errors become statuses with details; anything else is logged in full and masked to the caller."""

    def around(self, method: str, details: grpc.HandlerCallDetails, context: Context) -> _Around:
        return _Mapped(method, context)


class _Bounded:
    def __init__(self, method: str, context: Context) -> None:
        self._method = method
        self._context = context

    async def __aenter__(self) -> object:
        if self._context.time_remaining() is None and self._method not in _WITHOUT_DEADLINE:
            raise InvalidInput("DEADLINE_REQUIRED", "The call has no deadline; set one, such as timeout=10 seconds.")
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        return None


class Deadline(_Interceptor):
    """Every call but the watches needs a deadline, so that nothing waits for ever on our side of it."""

    def around(self, method: str, details: grpc.HandlerCallDetails, context: Context) -> _Around:
        return _Bounded(method, context)


def chain() -> list[grpc.aio.ServerInterceptor]:
    """The interceptors in their order."""
    return [Tracing(), Errors(), Deadline()]
