"""The chain of cross-cutting concerns, outermost first: tracing, errors, deadline, places, watches; for streams too.

gRPC asks its interceptors for the handler anew with each call. All concerns are one interceptor of it, which wraps the
handler of a method once and keeps it: with one for each concern, a read spent a tenth of its time there.
"""

import asyncio
import logging
from collections.abc import AsyncIterator, Mapping, Sequence
from contextlib import aclosing, nullcontext
from typing import Any, Protocol, cast

import grpc
from google.rpc import error_details_pb2, status_pb2
from grpc_status import rpc_status
from opentelemetry import context, trace
from opentelemetry.trace import SpanKind, StatusCode

from core.rpc.errors import to_status
from turnout.errors import InvalidInput, ResourceExhausted, TurnoutError, Unavailable
from turnout.status import DOMAIN
from turnout.telemetry import meter, remote_context

log = logging.getLogger(__name__)

Context = grpc.aio.ServicerContext[Any, Any]

# Streams that a caller holds open for as long as it lives.
_WITHOUT_DEADLINE = frozenset(
    {
        "/turnout.switcher.v1.Switcher/WatchRoutes",
        "/turnout.switcher.v1.Switcher/WatchRollout",
        "/turnout.replayer.v1.Replayer/WatchRun",
        "/turnout.query.v1.Query/StreamOutcomes",
    }
)
_OURS = "/turnout."
REFUSED = "turnout.rpc.refused"


class _Around(Protocol):
    """Work around one call: an async context manager."""

    async def __aenter__(self) -> object: ...
    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool | None: ...


class _Concern(Protocol):
    """What is done around the calls of the methods that it covers."""

    def covers(self, method: str) -> bool: ...
    def around(self, method: str, call: Context) -> _Around: ...


class Chain(grpc.aio.ServerInterceptor):
    """Wraps the handlers of our methods, whichever of the four shapes they have, in the concerns that cover them."""

    def __init__(self, concerns: Sequence[_Concern]) -> None:
        self._concerns = concerns
        self._wrapped: dict[str, Any] = {}

    async def intercept_service(self, continuation: Any, handler_call_details: grpc.HandlerCallDetails) -> Any:
        method = str(handler_call_details.method)
        wrapped = self._wrapped.get(method)
        if wrapped is not None:
            return wrapped
        handler = await continuation(handler_call_details)
        if handler is None or not method.startswith(_OURS):
            return handler
        behaviour, streams = _behaviour(handler), handler.response_streaming
        for concern in reversed(self._concerns):
            if concern.covers(method):
                behaviour = (_stream if streams else _unary)(concern, method, behaviour)
        self._wrapped[method] = wrapped = _rebuilt(handler, behaviour)
        return wrapped


def _unary(concern: _Concern, method: str, behaviour: Any) -> Any:
    async def unary(request: Any, call: Context) -> Any:
        async with concern.around(method, call):
            return await behaviour(request, call)

    return unary


def _stream(concern: _Concern, method: str, behaviour: Any) -> Any:
    async def stream(request: Any, call: Context) -> AsyncIterator[Any]:
        async with concern.around(method, call), aclosing(behaviour(request, call)) as responses:
            async for response in responses:
                yield response

    return stream


def _behaviour(handler: Any) -> Any:
    return handler.unary_unary or handler.unary_stream or handler.stream_unary or handler.stream_stream


def _rebuilt(handler: Any, behaviour: Any) -> Any:
    make = {
        (False, False): grpc.unary_unary_rpc_method_handler,
        (False, True): grpc.unary_stream_rpc_method_handler,
        (True, False): grpc.stream_unary_rpc_method_handler,
        (True, True): grpc.stream_stream_rpc_method_handler,
    }[(handler.request_streaming, handler.response_streaming)]
    return cast(Any, make)(behaviour, handler.request_deserializer, _encoder(handler.response_serializer))


def _encoder(encode: Any) -> Any:
    """Encodes an answer, unless it comes encoded: a servicer may keep pieces of answers as bytes."""

    def encoded(answer: Any) -> bytes:
        return answer if type(answer) is bytes else cast(bytes, encode(answer))

    return encoded


class _Traced:
    def __init__(self, method: str, traceparent: str) -> None:
        parent = remote_context(traceparent)
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


class Tracing:
    """One span a call, a child of the caller's. Where spans go nowhere and the caller has none, nothing is done."""

    def covers(self, method: str) -> bool:
        return True

    def around(self, method: str, call: Context) -> _Around:
        for key, value in call.invocation_metadata() or ():
            if key == "traceparent":
                return _Traced(method, str(value))
        if isinstance(trace.get_tracer_provider(), trace.ProxyTracerProvider):  # nobody has set one up
            return nullcontext()
        return _Traced(method, "")


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


class Errors:
    """Domain errors become statuses with details; anything else is logged in full and masked to the caller."""

    def covers(self, method: str) -> bool:
        return True

    def around(self, method: str, call: Context) -> _Around:
        return _Mapped(method, call)


class Deadline:
    """Every call but the watches needs a deadline, so that nothing waits for ever on our side of it."""

    def covers(self, method: str) -> bool:
        return method not in _WITHOUT_DEADLINE

    def around(self, method: str, call: Context) -> _Around:
        if call.time_remaining() is None:
            raise InvalidInput("DEADLINE_REQUIRED", "The call has no deadline; set one, such as timeout=10 seconds.")
        return nullcontext()


class Places:
    """Bounds how many calls of a service run at a time. One more is refused at once: a queue without a bound would let
    all of them wait until their callers have gone. Health checks are none of ours and always pass.

    limits: the most calls at a time, by the full name of the service; a service without one is not bounded.
    """

    def __init__(self, limits: Mapping[str, int]) -> None:
        self._limits = {f"/{name}/": limit for name, limit in limits.items()}
        self._taken = dict.fromkeys(self._limits, 0)
        self._refused = meter("turnout.rpc").create_counter(REFUSED, "{call}", "calls that found no place")

    def covers(self, method: str) -> bool:
        return _service(method) in self._limits and method not in _WITHOUT_DEADLINE

    def around(self, method: str, call: Context) -> _Around:
        service = _service(method)
        if self._taken[service] >= self._limits[service]:
            self._refused.add(1, {"method": method.lstrip("/")})
            raise ResourceExhausted(
                "OVERLOADED",
                f"{self._limits[service]} calls of this service run here already, which is the most that it takes; try "
                f"again later or elsewhere, and add another process of it if it lasts.",
                metadata={"service": service.strip("/")},
            )
        return _Place(self._taken, service)


class _Place:
    def __init__(self, taken: dict[str, int], service: str) -> None:
        self._taken = taken
        self._service = service

    async def __aenter__(self) -> object:
        self._taken[self._service] += 1
        return self

    async def __aexit__(self, kind: Any, error: Any, traceback: Any) -> bool | None:
        self._taken[self._service] -= 1
        return None


def _service(method: str) -> str:
    return method[: method.rindex("/") + 1]


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


class Watches:
    """Knows the watches that callers hold open, and ends them when the server stops: they would never end alone."""

    def __init__(self) -> None:
        self.tasks: set[asyncio.Task[Any]] = set()
        self.ending = False

    def covers(self, method: str) -> bool:
        return method in _WITHOUT_DEADLINE

    def around(self, method: str, call: Context) -> _Around:
        return _Held(self)

    def end(self) -> None:
        """Let every watch fail with UNAVAILABLE."""
        self.ending = True
        for task in self.tasks:
            task.cancel()


def chain(watches: Watches, limits: Mapping[str, int] | None = None) -> list[grpc.aio.ServerInterceptor]:
    """The concerns in their order. limits: the most calls at a time, by the full name of the service."""
    return [Chain([Tracing(), Errors(), Deadline(), Places(limits or {}), watches])]
