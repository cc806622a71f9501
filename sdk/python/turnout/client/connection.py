"""Channels, deadlines, retries, and gRPC statuses as errors: what every call of the client has in common."""

from __future__ import annotations

import asyncio
import random
import re
import time
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable, Callable, Collection, Coroutine, Mapping, Sequence
from contextlib import asynccontextmanager
from typing import Any, TypeVar

import grpc
from google.protobuf.message import Message

from turnout import errors
from turnout.channel import connect
from turnout.client import absent
from turnout.client.either import either
from turnout.client.places import Places
from turnout.errors import InvalidInput, TurnoutError, Unavailable
from turnout.query.v1.query_pb2_grpc import QueryStub
from turnout.registry.v1.registry_pb2_grpc import RegistryStub
from turnout.replayer.v1.replayer_pb2_grpc import ReplayerStub
from turnout.status import DOMAIN, ERRORS, details_of
from turnout.switcher.v1.switcher_pb2_grpc import SwitcherStub
from turnout.tasks import beside

_STUBS: dict[str, Callable[[grpc.aio.Channel], Any]] = {
    "registry": RegistryStub,
    "replayer": ReplayerStub,
    "switcher": SwitcherStub,
    "query": QueryStub,
}
SERVICES = tuple(_STUBS)

# Default deadlines in seconds.
QUICK_S = 10.0
CHANGE_S = 60.0  # a change of a route waits for every front
LONG_S = 120.0

_FIRST_CONTACT_S = 2.0  # a target that never answered is most likely not there: say so soon
_SILENT_S = 1.0  # after which another target is asked as well
_BACKOFF_S = 0.05
_BACKOFF_S_MAX = 1.0

# The servers' own limit; pieces and pages are far smaller, a batch of 10000 rows may not be.
_MESSAGE_BYTES_MAX = 16 * 1024 * 1024
_OPTIONS: list[tuple[str, int]] = [
    ("grpc.max_receive_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.max_send_message_length", _MESSAGE_BYTES_MAX),
    ("grpc.enable_retries", 0),  # this module retries
]

_ERRORS: dict[grpc.StatusCode, type[TurnoutError]] = {
    **ERRORS,
    grpc.StatusCode.CANCELLED: errors.Unavailable,  # by the server, as it stops
    grpc.StatusCode.DEADLINE_EXCEEDED: errors.DeadlineExceeded,
}

# What a target says, or is said of it, that another one may answer; CANCELLED by a server as it stops.
_GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)
# Of what a target says of itself, what another job's calls to it meet, too. All else is of the one request.
_SICK = ("POSTGRES_UNAVAILABLE", "ROUTES_UNKNOWN", "ROUTE_STALE", "STARTING", "STOPPING", "SWITCHER_STARTING")

# Methods that change nothing, by how their names begin.
_READS = ("Get", "List", "Watch", "Estimate", "Check", "Compare")
# Those of them that cost little enough to be asked of two targets.
_OF_TWO = ("Get", "BatchGet", "List", "ExplainRoute")
# Those that a target says at once to have heard, as it may take long over them. Where it does not, another is asked as
# well: it is a read, or the switcher carries a request out once, whomever it is sent to.
_TOLD_AT_ONCE = ("Scan", "SetTraffic", "CutOver", "RollBack", "SetShadow", "RequireGates")
# gRPC has no status of its own for a name without an address; its resolvers say one of these.
_UNRESOLVED = re.compile("DNS resolution failed|name resolution|Name or service not known|Domain name not found", re.I)

T = TypeVar("T")
M = TypeVar("M", bound=Message)


class Connections:
    """The channels to the services, and calls over them."""

    def __init__(self, targets: Mapping[str, Sequence[str]], timeout_s: float | None) -> None:
        if timeout_s is not None and timeout_s <= 0:
            raise InvalidInput("INVALID_TIMEOUT", f"timeout_s is {timeout_s:g}; give a number of seconds above 0.")
        # Each client has an order of its own, so that many of them spread over the fronts.
        self._places = {service: Places(random.sample(some, len(some))) for service, some in targets.items()}
        self._timeout_s = timeout_s
        self._channels: dict[str, grpc.aio.Channel] = {}
        self._stubs: dict[tuple[str, str], Any] = {}
        self._answered: set[str] = set()

    def open(self) -> None:
        """Make the channels; they connect with the first call."""
        for service, places in self._places.items():
            for target in places:
                if target not in self._channels:
                    self._channels[target] = connect(target, _OPTIONS)
                self._stubs[service, target] = _STUBS[service](self._channels[target])

    def channel(self, service: str) -> grpc.aio.Channel:
        """The channel to a service, to the first that answers where it has replicas, for as long as that one does.

        InvalidInput (INVALID_TARGETS) where the client has no target for it; (INVALID_TARGET) for replicas by name.
        """
        target = ",".join(self._of(service))
        if target not in self._channels:
            self._channels[target] = connect(target, _OPTIONS)
        return self._channels[target]

    def channels(self, service: str) -> Callable[[], grpc.aio.Channel]:
        """Opens channels of the caller's own to a service: as `channel`, each with connections of its own."""
        target = ",".join(self._of(service))
        return lambda: connect(target, _OPTIONS)

    async def close(self) -> None:
        """Close the channels; calls in flight are cancelled."""
        channels, self._channels = self._channels, {}
        self._stubs.clear()
        for channel in channels.values():
            await channel.close()

    async def unary(
        self,
        service: str,
        method: str,
        request: Message,
        answer: type[M],
        *,
        timeout_s: float | None,
        default_s: float,
        at_once: Collection[str] = (),
        waits_s: float = 0.0,
    ) -> M:
        """One request, one answer. `timeout_s`: the caller's own deadline; `default_s`: the method's.

        at_once: reasons that are raised at once, not tried again. waits_s: what a target may wait on purpose before it
        answers, half of the deadline at most.
        """

        heard = asyncio.Event() if method.startswith(_TOLD_AT_ONCE) else None

        async def attempt(target: str, left_s: float) -> M:
            if heard is None:
                response = await self._call(service, target, method)(request, timeout=left_s)
            else:
                response = await self._once_heard(service, target, method, request, answer, left_s, heard)
            assert isinstance(response, answer)
            return response

        deadline_s = self.deadline_s(timeout_s, default_s)
        patience_s = _patience_s(deadline_s, waits_s) if method.startswith((*_OF_TWO, *_TOLD_AT_ONCE)) else None
        return await self._retried(service, method, attempt, deadline_s, at_once, patience_s, heard)

    async def _once_heard(
        self,
        service: str,
        target: str,
        method: str,
        request: Message,
        answer: type[Message],
        left_s: float,
        heard: asyncio.Event,
    ) -> Any:
        """The answer to a call, of which is noted when it is heard.

        Of a call with one answer gRPC tells everything at its end; on the wire it is a stream of one message.
        """
        open_stream = self._channels[target].unary_stream(
            f"/turnout.{service}.v1.{service.capitalize()}/{method}",
            request_serializer=type(request).SerializeToString,
            response_deserializer=answer.FromString,
        )
        opened = open_stream(request, timeout=left_s)
        async with _listening(opened, heard):
            _, message = await _begun(opened)
        await _read(opened)
        return message

    async def upload(
        self,
        service: str,
        method: str,
        requests: Callable[[], AsyncIterator[Message]],
        answer: type[M],
        *,
        timeout_s: float | None,
    ) -> M:
        """A stream of requests, one answer. A retry calls `requests` again and begins at its start."""

        async def attempt(target: str, left_s: float) -> M:
            response = await self._call(service, target, method)(requests(), timeout=left_s)
            assert isinstance(response, answer)
            return response

        return await self._retried(service, method, attempt, self.deadline_s(timeout_s, LONG_S))

    async def stream(
        self,
        service: str,
        method: str,
        request: Message,
        answer: type[M],
        *,
        timeout_s: float | None,
        default_s: float = LONG_S,
    ) -> AsyncGenerator[M, None]:
        """One request, a stream of answers, retried only while none has come. The stream is cancelled at the end."""
        deadline_s = self.deadline_s(timeout_s, default_s)
        heard = asyncio.Event() if method.startswith(_TOLD_AT_ONCE) else None

        async def begun(target: str, left_s: float) -> tuple[str, Any, Any]:
            call = self._call(service, target, method)(request, timeout=left_s)
            async with _listening(call, heard):
                return target, *await _begun(call)

        patience_s = None if heard is None else _patience_s(deadline_s, 0.0)
        target, opened, message = await self._retried(
            service, method, begun, deadline_s, patience_s=patience_s, heard=heard
        )
        try:
            while message is not grpc.aio.EOF:
                assert isinstance(message, answer)
                yield message
                try:
                    message = await _read(opened)
                except grpc.aio.AioRpcError as error:
                    raise self._error(error, service, target, method, deadline_s) from None
        finally:
            opened.cancel()

    async def exchange(
        self, service: str, method: str, requests: AsyncIterator[Message], answer: type[M], *, timeout_s: float | None
    ) -> AsyncGenerator[M, None]:
        """A stream each way, without an end of its own and without retries: what was not answered is the caller's."""
        target = self._of(service).first(time.monotonic())
        opened = self._call(service, target, method)(requests, timeout=timeout_s)
        try:
            while (message := await _read(opened)) is not grpc.aio.EOF:
                assert isinstance(message, answer)
                yield message
        except grpc.aio.AioRpcError as error:
            raise self._error(error, service, target, method, timeout_s or 0.0) from None
        finally:
            opened.cancel()

    async def watch(
        self, service: str, method: str, request: Message, answer: type[M], *, timeout_s: float | None
    ) -> AsyncGenerator[M, None]:
        """A stream without an end. It is opened again when the server goes away, for as long as a call would retry."""
        deadline_s = self.deadline_s(timeout_s, QUICK_S)

        async def begun_soon(target: str, left_s: float) -> tuple[str, Any, Any]:
            async with asyncio.timeout(left_s):
                return target, *await _begun(self._call(service, target, method)(request))

        while True:
            try:
                target, opened, message = await self._retried(service, method, begun_soon, deadline_s)
            except TimeoutError:
                raise too_late(service, method, deadline_s) from None
            try:
                while message is not grpc.aio.EOF:
                    assert isinstance(message, answer)
                    yield message
                    message = await _read(opened)
            except grpc.aio.AioRpcError as error:
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                    raise self._error(error, service, target, method, deadline_s) from None
                await asyncio.sleep(_BACKOFF_S)
            else:
                return
            finally:
                opened.cancel()

    def _of(self, service: str) -> Places:
        if service not in self._places:
            raise InvalidInput("INVALID_TARGETS", f"This client has no target for the {service}; name it in targets.")
        if not self._channels:
            raise RuntimeError("the client is not open: use it as `async with Client() as client:`")
        return self._places[service]

    def _call(self, service: str, target: str, method: str) -> Any:
        return getattr(self._stubs[service, target], method)

    def deadline_s(self, timeout_s: float | None, default_s: float) -> float:
        """The deadline of a call in seconds: the caller's own, else the client's, else the method's."""
        own = timeout_s if timeout_s is not None else self._timeout_s
        return default_s if own is None else own

    async def _retried(
        self,
        service: str,
        method: str,
        attempt: Callable[[str, float], Awaitable[T]],
        deadline_s: float,
        at_once: Collection[str] = (),
        patience_s: float | None = None,
        heard: asyncio.Event | None = None,
    ) -> T:
        """The result of an attempt on a target. UNAVAILABLE is tried again, unless for a reason that is told at once.

        Where there are several targets once, at once, and on another one: who asks them all in turn brings down the
        last. That is asked as well when the first has said nothing for `patience_s`, not even that it has `heard`.
        Where there is one, until the deadline, with pauses.
        """
        places = self._of(service)
        started = time.monotonic()
        first = places.first(started)
        if len(places) == 1:
            return await self._until(service, first, method, attempt, deadline_s, at_once)

        def left_s() -> float:
            return deadline_s - (time.monotonic() - started)

        async def on(target: str) -> T:
            try:
                return await self._tried(places, target, attempt, max(left_s(), 0.001))
            except grpc.aio.AioRpcError as error:
                raise self._error(error, service, target, method, deadline_s) from None

        def on_another(silent: bool) -> Coroutine[Any, Any, T]:
            if silent:
                places.failed(first, time.monotonic())  # is it slow only, its next answer takes that back
            return on(places.other(first, time.monotonic()))

        def again(error: BaseException) -> bool:
            return isinstance(error, Unavailable) and error.reason not in at_once and left_s() > 0

        return await either(on(first), on_another, again=again, patience_s=patience_s, heard=heard)

    async def _tried(
        self, places: Places, target: str, attempt: Callable[[str, float], Awaitable[T]], left_s: float
    ) -> T:
        """One attempt. A target that does not answer, or can answer nothing, rests; not for what it refuses."""
        try:
            result = await attempt(target, left_s)
        except grpc.aio.AioRpcError as error:
            reason = _reason(error)
            if reason is not None:
                self._answered.add(target)
            away = error.code() in _GONE or error.code() is grpc.StatusCode.DEADLINE_EXCEEDED
            if away and (reason is None or reason in _SICK):
                places.failed(target, time.monotonic())
            else:
                places.answered(target)
            raise
        places.answered(target)
        self._answered.add(target)
        return result

    async def _until(
        self,
        service: str,
        target: str,
        method: str,
        attempt: Callable[[str, float], Awaitable[T]],
        deadline_s: float,
        at_once: Collection[str],
    ) -> T:
        started = time.monotonic()
        backoff_s = _BACKOFF_S
        while True:
            spent_s = time.monotonic() - started
            try:
                result = await attempt(target, max(deadline_s - spent_s, 0.001))
            except grpc.aio.AioRpcError as error:
                spent_s = time.monotonic() - started
                if _reason(error) is not None:
                    self._answered.add(target)
                wait_s = backoff_s * random.uniform(0.5, 1.0)  # noqa: S311  # spreads retries, keeps no secret
                patience_s = deadline_s if target in self._answered else _FIRST_CONTACT_S
                ends = error.code() is not grpc.StatusCode.UNAVAILABLE or _reason(error) in at_once
                if ends or spent_s + wait_s >= min(deadline_s, patience_s):
                    raise self._error(error, service, target, method, deadline_s) from None
            else:
                self._answered.add(target)
                return result
            await asyncio.sleep(wait_s)
            backoff_s = min(backoff_s * 2, _BACKOFF_S_MAX)

    def _error(
        self, error: grpc.aio.AioRpcError, service: str, target: str, method: str, deadline_s: float
    ) -> TurnoutError:
        kind = _ERRORS.get(error.code(), errors.ServerError)
        info, violations = details_of(error)
        if info is not None:
            message = error.details() or info.reason
            return kind(info.reason, message, metadata=dict(info.metadata), violations=violations)
        if kind is errors.DeadlineExceeded:
            return too_late(service, method, deadline_s)
        if kind is not Unavailable:
            return kind("UNKNOWN", f"{method} at {target} failed: {error.code().name}: {error.details()}")
        if target in self._answered:
            return kind("CONNECTION_LOST", absent.stopped(target))
        if _UNRESOLVED.search(error.details() or ""):
            host = target.rpartition(":")[0]
            return kind(
                "HOST_UNKNOWN",
                f"The name {host} has no address on this machine (name resolution failed), so Turnout at {target} "
                f"cannot be reached. Mend the name, or how this machine looks names up.",
            )
        return kind("NOT_RUNNING", absent.not_running(target))


def _patience_s(deadline_s: float, waits_s: float) -> float:
    """How long to wait for one target, so that another one has time left: half of it, if that is less than usual."""
    waits_s = min(waits_s, deadline_s / 2)
    return min(waits_s + _SILENT_S, (waits_s + deadline_s) / 2)


@asynccontextmanager
async def _listening(call: Any, heard: asyncio.Event | None) -> AsyncIterator[None]:
    """Note when the target says that it has the call; nothing where nobody wants to know."""
    if heard is None:
        yield
        return

    async def listen() -> None:
        await call.initial_metadata()
        heard.set()

    async with beside(listen()):
        yield


async def _begun(call: Any) -> tuple[Any, Any]:
    """A stream with its first message, or EOF."""
    try:
        return call, await _read(call)
    except BaseException:
        call.cancel()
        raise


async def _read(call: Any) -> Any:
    """The next message of a stream, or EOF. A stream that ends with an error raises it."""
    message = await call.read()
    if message is grpc.aio.EOF and await call.code() is not grpc.StatusCode.OK:
        raise grpc.aio.AioRpcError(
            await call.code(), await call.initial_metadata(), await call.trailing_metadata(), await call.details()
        )
    return message


def too_late(service: str, method: str, deadline_s: float) -> errors.DeadlineExceeded:
    """That no answer came in time, and what that means for whoever asked."""
    late = f"The {service} did not answer within {deadline_s:g} s"
    if service == "query" or method.startswith(_READS):
        return errors.DeadlineExceeded("DEADLINE_EXCEEDED", f"{late}; it was only asked, so nothing has changed.")
    return errors.DeadlineExceeded(
        "DEADLINE_EXCEEDED", f"{late}. The change may still take effect: look before you repeat it."
    )


def _reason(error: grpc.aio.AioRpcError) -> str | None:
    """The reason that a service of Turnout gives; None for a status of something else, such as gRPC itself."""
    info, _ = details_of(error)
    return info.reason if info is not None and info.domain == DOMAIN else None
