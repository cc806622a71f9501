"""gRPC between the processes of the simulation: real stubs, real servicers, and a bad network between them.

Like TCP it keeps the order within a stream and loses nothing of it without breaking it. Across streams and calls
nothing is ordered. A call may be lost on its way, or its answer; the caller then hears UNAVAILABLE or nothing until its
deadline, and does not know which. Between two processes that are cut off from one another nothing arrives; what a
stream holds arrives when they are joined again, unless the stream was given up.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import AsyncIterator, Callable
from dataclasses import dataclass, field
from typing import Any

import grpc

from core.rpc.errors import to_status
from tests.simulation.loop import Loop, Process, current
from turnout.errors import TurnoutError

_END = object()
_RESET_S = 0.02  # longest time between a stream's silence and the news that it is broken
_STALL_S = 12.0  # after which a stream that gets nothing through is given up, as by keepalive


@dataclass
class Faults:
    """How bad the network is; a chance for each message."""

    loss: float = 0.0  # of a call or of its answer
    stream_break: float = 0.0
    stall: float = 0.0  # of a message, for up to some seconds


@dataclass(eq=False)
class Server:
    """Where a process registers its servicers, as a grpc.aio.Server."""

    process: Process
    handlers: dict[str, Any] = field(default_factory=dict)
    open: bool = True

    def add_generic_rpc_handlers(self, handlers: Any) -> None:
        """What the stubs also call; the registered ones are enough."""

    def add_registered_method_handlers(self, service: str, handlers: dict[str, Any]) -> None:
        self.handlers |= {f"/{service}/{name}": handler for name, handler in handlers.items()}


class Network:
    """Who listens where, and who reaches whom."""

    def __init__(self, loop: Loop, rng: random.Random) -> None:
        self.loop = loop
        self.rng = rng
        self.faults = Faults()
        self.cut: set[frozenset[Process]] = set()
        self._targets: dict[str, list[Server]] = {}
        self.streams: dict[_Stream, None] = {}

    def listen(self, target: str, process: Process) -> Server:
        """A server of a process at a target, which several may share."""
        server = Server(process)
        self._targets.setdefault(target, []).append(server)
        process.when_killed.append(lambda: self._gone(target, server))
        return server

    def leave(self, target: str, server: Server) -> None:
        """The server takes no more calls."""
        server.open = False
        if server in self._targets[target]:
            self._targets[target].remove(server)

    def _gone(self, target: str, server: Server) -> None:
        self.leave(target, server)
        for stream in list(self.streams):
            if server.process in (stream.client, stream.server.process):
                self.loop.in_process(None, self.delay_s(), stream.broken)

    def reset_streams(self, process: Process) -> None:
        """Its connections are reset."""
        for stream in list(self.streams):
            if process in (stream.client, stream.server.process):
                stream.broken()

    def reach(self, a: Process, b: Process) -> bool:
        return frozenset((a, b)) not in self.cut

    def delay_s(self) -> float:
        draw = self.rng.random()
        if draw < self.faults.stall:
            return self.rng.uniform(0.1, 4.0)
        return self.rng.uniform(0.0002, 0.003) if draw < 0.98 else self.rng.uniform(0.003, 0.15)

    def pick(self, target: str) -> Server | None:
        """One of the servers at a target, as a balancer or a resolver picks it."""
        servers = self._targets.get(target, [])
        return self.rng.choice(servers) if servers else None


class Channel:
    """A grpc.aio.Channel from the process that opens it."""

    def __init__(self, network: Network, target: str) -> None:
        self._network = network
        self._target = target
        self._process = current()

    def unary_unary(self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        async def call(request: Any, timeout: float | None = None, **_: Any) -> Any:
            return response_deserializer(await self._unary(path, request_serializer(request), timeout))

        return call

    def stream_stream(self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        def call(requests: AsyncIterator[Any], **_: Any) -> _Call:
            return self._streamed(path, requests, request_serializer, response_deserializer)

        return call

    def unary_stream(self, path: str, request_serializer: Any, response_deserializer: Any, **_: Any) -> Any:
        def call(request: Any, timeout: float | None = None, **_: Any) -> _Call:
            return self._streamed(path, _one(request), request_serializer, response_deserializer)

        return call

    def stream_unary(self, path: str, *_: Any, **__: Any) -> Any:
        return None

    async def close(self, grace: float | None = None) -> None:
        """Nothing is kept open."""

    def _streamed(self, path: str, requests: AsyncIterator[Any], serialize: Any, deserialize: Any) -> _Call:
        server = self._network.pick(self._target)
        if server is None or not self._network.reach(self._process, server.process):
            return _Call(None)
        stream = _Stream(self._network, self._process, server)
        stream.start(path, requests, serialize, deserialize)
        return _Call(stream)

    async def _unary(self, path: str, request: bytes, timeout: float | None) -> bytes:
        network = self._network
        await network.loop.step(f"call {path}")
        server = network.pick(self._target)
        if server is None:
            await asyncio.sleep(network.delay_s())
            raise _status(grpc.StatusCode.UNAVAILABLE, "connection refused")
        answer: asyncio.Future[bytes] = network.loop.create_future()
        work: list[asyncio.Task[Any]] = []
        self._send(server, path, request, timeout, answer, work)
        try:
            async with asyncio.timeout(timeout):
                result = await answer
        except TimeoutError:
            raise _status(grpc.StatusCode.DEADLINE_EXCEEDED, "deadline exceeded") from None
        finally:
            if not answer.done() or answer.cancelled():  # the server hears that nobody waits
                network.loop.in_process(None, network.delay_s(), _cancel, work)
        await network.loop.step(f"answer to {path}")
        return result

    def _send(
        self,
        server: Server,
        path: str,
        request: bytes,
        timeout: float | None,
        answer: asyncio.Future[bytes],
        work: list[asyncio.Task[Any]],
    ) -> None:
        network, loop = self._network, self._network.loop

        def settle(result: bytes | grpc.aio.AioRpcError) -> None:
            if not answer.done():
                if isinstance(result, bytes):
                    answer.set_result(result)
                else:
                    answer.set_exception(result)

        def lost() -> None:
            if network.rng.random() < 0.6:  # else nothing is heard until the deadline
                loop.in_process(
                    self._process, network.delay_s(), settle, _status(grpc.StatusCode.UNAVAILABLE, "connection reset")
                )

        def answered(result: bytes | grpc.aio.AioRpcError) -> None:
            if not network.reach(self._process, server.process) or network.rng.random() < network.faults.loss:
                lost()
            else:
                loop.in_process(self._process, network.delay_s(), settle, result)

        def arrived() -> None:
            if not server.open or not server.process.alive:
                answered(_status(grpc.StatusCode.UNAVAILABLE, "connection refused"))
            elif not answer.done():
                server.process.when_killed.append(lambda: None if answer.done() else lost())
                work.append(loop.spawn(server.process, _serve(server, path, request, timeout, answered)))

        if not network.reach(self._process, server.process) or network.rng.random() < network.faults.loss:
            lost()
        else:
            loop.in_process(None, network.delay_s(), arrived)


async def _one(request: Any) -> AsyncIterator[Any]:
    yield request


def channel(network: Network, target: str) -> Any:
    """A channel for a stub."""
    return Channel(network, target)


def _kind(message: Any) -> str:
    """What a message of a stream is of, where it says so."""
    oneofs = () if isinstance(message, bytes) else message.DESCRIPTOR.oneofs
    return str(message.WhichOneof(oneofs[0].name)) if oneofs else ""


def _encoded(handler: Any, response: Any) -> bytes:
    """The answer as bytes; a servicer may have written it already, as core.rpc lets it."""
    written: bytes = response if isinstance(response, bytes) else handler.response_serializer(response)
    return written


def _cancel(work: list[asyncio.Task[Any]]) -> None:
    for task in work:
        task.cancel()


async def _serve(
    server: Server,
    path: str,
    request: bytes,
    timeout: float | None,
    answered: Callable[[bytes | grpc.aio.AioRpcError], None],
) -> None:
    loop: Any = asyncio.get_running_loop()
    await loop.step(f"serve {path}")
    handler = server.handlers[path]
    try:
        async with asyncio.timeout(timeout):
            context = _Context(loop, timeout)
            response = await handler.unary_unary(handler.request_deserializer(request), context)
        result: bytes | grpc.aio.AioRpcError = _encoded(handler, response)
    except TurnoutError as error:
        result = _of(error)
    except TimeoutError:
        result = _status(grpc.StatusCode.DEADLINE_EXCEEDED, "deadline exceeded")
    except Exception as error:
        result = _status(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}")
        server.process.faults.append(error)
    await loop.step(f"answer {path}")
    answered(result)


class _Context:
    """What handlers ask of their call."""

    def __init__(self, loop: Loop, timeout: float | None, stream: _Stream | None = None) -> None:
        self._loop = loop
        self._until_s = None if timeout is None else loop.time() + timeout
        self._stream = stream

    def time_remaining(self) -> float | None:
        return None if self._until_s is None else max(0.0, self._until_s - self._loop.time())

    async def send_initial_metadata(self, _: Any) -> None:
        """Nobody here listens for it."""

    def cancelled(self) -> bool:
        return self._stream is not None and self._stream.told_server

    def done(self) -> bool:
        return self.cancelled()


class _Pipe:
    """One direction of a stream: in order, each message after a delay of its own at least."""

    def __init__(self, stream: _Stream, receiver: Process) -> None:
        self._stream = stream
        self._receiver = receiver
        self._free_s = 0.0
        self._arrived: asyncio.Queue[Any] = asyncio.Queue()
        self._held: list[Any] = []

    def send(self, message: Any) -> None:
        stream, network = self._stream, self._stream.network
        if stream.over:
            return
        if not network.reach(stream.client, stream.server.process):
            self._held.append(message)
            network.loop.in_process(None, _STALL_S, self._stalled, message)
            return
        if network.rng.random() < network.faults.stream_break:
            network.loop.in_process(None, network.delay_s(), stream.broken)
            return
        now_s = network.loop.time()
        self._free_s = max(self._free_s, now_s + network.delay_s()) + 1e-6
        network.loop.in_process(self._receiver, self._free_s - now_s, self.put, message)

    def put(self, message: Any) -> None:
        self._arrived.put_nowait(message)

    def _stalled(self, message: Any) -> None:
        if any(one is message for one in self._held):
            self._stream.broken()

    def joined(self) -> None:
        """The two reach one another again."""
        held, self._held = self._held, []
        for message in held:
            self.send(message)

    async def next(self) -> Any:
        return await self._arrived.get()


class _Stream:
    """A call with a stream each way."""

    def __init__(self, network: Network, client: Process, server: Server) -> None:
        self.network = network
        self.client = client
        self.server = server
        self.over = False
        self.told_server = False
        self.up = _Pipe(self, server.process)
        self.down = _Pipe(self, client)
        self._pump: asyncio.Task[Any] | None = None
        self._work: asyncio.Task[Any] | None = None
        network.streams[self] = None

    def start(self, path: str, requests: AsyncIterator[Any], serialize: Any, deserialize: Any) -> None:
        self.deserialize = deserialize
        loop = self.network.loop
        self._pump = loop.spawn(self.client, self._send_requests(path, requests, serialize))
        loop.in_process(None, self.network.delay_s(), self._arrived, path)

    def _arrived(self, path: str) -> None:
        if self.server.open and self.server.process.alive and not self.over:
            self._work = self.network.loop.spawn(self.server.process, self._serve(path))
        else:
            self.broken()

    async def _send_requests(self, path: str, requests: AsyncIterator[Any], serialize: Any) -> None:
        loop = self.network.loop
        async for request in requests:
            await loop.step(f"send to {path} {_kind(request)}")
            self.up.send(serialize(request))
        self.up.send(_END)

    async def _serve(self, path: str) -> None:
        handler = self.server.handlers[path]

        async def requests() -> AsyncIterator[Any]:
            while (message := await self.up.next()) is not _END:
                yield handler.request_deserializer(message)

        try:
            context = _Context(self.network.loop, None, self)
            if handler.request_streaming:
                responses = handler.stream_stream(requests(), context)
            else:
                responses = handler.unary_stream(await anext(requests()), context)
            async for response in responses:
                await self.network.loop.step(f"send from {path} {_kind(response)}")
                self.down.send(_encoded(handler, response))
            self.down.send(_END)
        except StopAsyncIteration:
            pass  # the stream broke before its request came
        except TurnoutError as error:
            self.down.send(_of(error))
        except Exception as error:
            self.server.process.faults.append(error)
            self.down.send(_status(grpc.StatusCode.UNKNOWN, f"{type(error).__name__}: {error}"))

    def broken(self) -> None:
        """Neither side gets anything through any more. Each hears of it at a time of its own: first of the end of what
        it reads, then that it was no end."""
        if self.over:
            return
        self.over = True
        self.network.streams.pop(self, None)
        loop, rng = self.network.loop, self.network.rng
        loop.in_process(self.server.process, rng.uniform(0, _RESET_S), self.up.put, _END)
        loop.in_process(self.server.process, _RESET_S + rng.uniform(0, _RESET_S), self._tell_server)
        loop.in_process(
            self.client,
            rng.uniform(0, _RESET_S),
            self.down.put,
            _status(grpc.StatusCode.UNAVAILABLE, "the stream was reset"),
        )
        if self._pump is not None:
            loop.in_process(self.client, 0.0, self._pump.cancel)

    def _tell_server(self) -> None:
        self.told_server = True
        if self._work is not None:
            self._work.cancel()

    def joined(self) -> None:
        self.up.joined()
        self.down.joined()


class _Call:
    """The client's side of a stream."""

    def __init__(self, stream: _Stream | None) -> None:
        self._stream = stream

    async def __aiter__(self) -> AsyncIterator[Any]:
        stream = self._stream
        if stream is None:
            await asyncio.sleep(0.01)
            raise _status(grpc.StatusCode.UNAVAILABLE, "connection refused")
        while (message := await stream.down.next()) is not _END:
            if isinstance(message, grpc.aio.AioRpcError):
                raise message
            yield stream.deserialize(message)

    def cancel(self) -> None:
        if self._stream is not None:
            self._stream.broken()


def _of(error: TurnoutError) -> grpc.aio.AioRpcError:
    status = to_status(error)
    metadata = grpc.aio.Metadata(*((key, value) for key, value in status.trailing_metadata))
    return grpc.aio.AioRpcError(status.code, grpc.aio.Metadata(), metadata, details=status.details)


def _status(code: grpc.StatusCode, details: str) -> grpc.aio.AioRpcError:
    return grpc.aio.AioRpcError(code, grpc.aio.Metadata(), grpc.aio.Metadata(), details=details)
