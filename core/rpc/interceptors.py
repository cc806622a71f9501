"""The chain of cross-cutting concerns, outermost first: tracing, errors, deadline, watches; for streams too."""

import asyncio
import logging
from collections.abc import AsyncIterator
from contextlib import aclosing, nullcontext
from typing import Any, Protocol, cast

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from opentelemetry import context, trace
from opentelemetry.trace import SpanKind, StatusCode

from core.domain.errors import InvalidInput, TurnoutError, Unavailable
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

    def around(self, method: str, details: grpc.HandlerCallDetails, call: Context) -> _Around:
        raise NotImplementedError

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        handler = await continuation(handler_call_details)
        method = str(handler_call_details.method)
        if handler is None or not method.startswith(_OURS):
            return handler
        behaviour = _behaviour(handler)

        async def unary(request: Any, call: Context) -> Any:
            async with self.around(method, handler_call_details, call):
                return await behaviour(request, call)

        async def stream(request: Any, call: Context) -> AsyncIterator[Any]:
            async with self.around(method, handler_call_details, call), aclosing(behaviour(request, call)) as responses:
                async for response in responses:
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
        parent = remote_context(str(metadata.get("traceparent", "")))
        tracer = trace.get_tracer("turnout.rpc")
        self._span = tracer.start_span(method.lstrip("/"), context=parent, kind=SpanKind.SERVER)

    async def __aenter__(self) -> object:
        self._token = context.attach(trace.set_span_in_context(self._span))
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        if isinstance(error, GeneratorExit):
            # The caller left a stream: this runs wherever the generator is collected, outside of the call's own
            # context, which ends with it.
            self._span.end()
            return None
        context.detach(self._token)
        if error is not None:
            self._span.set_status(StatusCode.ERROR, str(error))
        self._span.end()
        return None


class Tracing(_Interceptor):
    """One span a call, a child of the caller's."""

    def around(self, method: str, details: grpc.HandlerCallDetails, call: Context) -> _Around:
        return _Traced(method, details)


class _Mapped:
    def __init__(self, method: str, call: Context) -> None:
        self._method = method
        self._call = call

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
        await self._call.abort(status.code, status.details, status.trailing_metadata or ())
        return None


def _masked(method: str) -> Any:
    message = f"{method.rsplit('/', 1)[-1]} failed for a reason that only the server's log tells."
    status = status_pb2.Status(code=grpc.StatusCode.INTERNAL.value[0], message=message)
    status.details.add().Pack(error_details_pb2.ErrorInfo(reason="INTERNAL", domain=DOMAIN))
    return rpc_status.to_status(status)


class Errors(_Interceptor):
    """Domain errors become statuses with details; anything else is logged in full and masked to the caller."""

    def around(self, method: str, details: grpc.HandlerCallDetails, call: Context) -> _Around:
        return _Mapped(method, call)


class _Bounded:
    def __init__(self, method: str, call: Context) -> None:
        self._method = method
        self._call = call

    async def __aenter__(self) -> object:
        if self._call.time_remaining() is None and self._method not in _WITHOUT_DEADLINE:
            raise InvalidInput("DEADLINE_REQUIRED", "The call has no deadline; set one, such as timeout=10 seconds.")
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        return None


class Deadline(_Interceptor):
    """Every call but the watches needs a deadline, so that nothing waits for ever on our side of it."""

    def around(self, method: str, details: grpc.HandlerCallDetails, call: Context) -> _Around:
        return _Bounded(method, call)


class _Held:
    def __init__(self, watches: "Watches") -> None:
        self._watches = watches

    async def __aenter__(self) -> object:
        task = asyncio.current_task()
        assert task is not None
        self._task = task
        self._watches.tasks.add(task)
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        self._watches.tasks.discard(self._task)
        if isinstance(error, asyncio.CancelledError) and self._watches.ending:
            self._task.uncancel()
            raise Unavailable("STOPPING", "The service is stopping; open the watch again.") from None
        return None


class Watches(_Interceptor):
    """Knows the watches that callers hold open, and ends them when the server stops: they would never end alone."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self.ending = False

    def around(self, method: str, details: grpc.HandlerCallDetails, call: Context) -> _Around:
        return _Held(self) if method in _WITHOUT_DEADLINE else nullcontext()

    def end(self) -> None:
        """Let every watch fail with UNAVAILABLE."""
        self.ending = True
        for task in self.tasks:
            task.cancel()


def chain(watches: Watches) -> list[grpc.aio.ServerInterceptor]:
    """The interceptors in their order."""
    return [Tracing(), Errors(), Deadline(), watches]
