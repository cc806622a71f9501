"""A TCP proxy that breaks the network on purpose."""

from __future__ import annotations

import asyncio
import contextlib
import socket
import struct
from collections.abc import Awaitable, Callable
from types import TracebackType
from typing import TypeAlias

from tests.support.ports import HOST, own_port

_CHUNK_BYTES = 64 * 1024

Sent: TypeAlias = "Callable[[Connection, bytes], Awaitable[None]]"


class TcpProxy:
    """Forwards 127.0.0.1:PORT to a server, until told otherwise.

        async with TcpProxy("127.0.0.1", 5432) as proxy:
            client connects to proxy.port

    - `cut()`: every connection is reset and new ones are refused, as when the server's machine is gone.
    - `stall()`: connections stay open and accept bytes, nothing arrives any more, as when packets are dropped.
    - `half_open()`: the server's side of every connection is reset, the client's side hears nothing of it.
    - `restore()`: new connections work again; what was stalled flows on.

    `sent` is called with everything that a client sends, before it goes on; it may hold it up, or `mute` the
    connection.
    """

    def __init__(self, host: str, port: int, *, sent: Sent | None = None) -> None:
        self._target = (host, port)
        self._sent = sent
        self._server: asyncio.Server | None = None
        self._flowing = asyncio.Event()
        self._flowing.set()
        self._connections: dict[asyncio.Task[None], Connection] = {}
        self.port = own_port()
        """Port of the proxy on 127.0.0.1, which nobody else takes while it is cut."""

    async def __aenter__(self) -> TcpProxy:
        await self._listen()
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        await self.cut()

    @property
    def connections(self) -> int:
        """How many connections it carries now."""
        return len(self._connections)

    async def cut(self) -> None:
        if self._server is not None:
            self._server.close()
            self._server = None
        tasks = list(self._connections)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await asyncio.sleep(0)  # so that handlers of connections accepted in this moment begin, and reset them

    def stall(self) -> None:
        self._flowing.clear()

    def half_open(self) -> None:
        for connection in self._connections.values():
            connection.forget_server()

    async def restore(self) -> None:
        self._flowing.set()
        if self._server is None:
            await self._listen()

    async def _listen(self) -> None:
        self._server = await asyncio.start_server(self._accept, HOST, self.port)

    async def _accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        task = asyncio.current_task()
        assert task is not None
        if self._server is None:
            _reset(writer)  # accepted just before the cut, which did not know of it yet
            return
        connection = Connection(reader, writer, self._flowing, self._sent)
        self._connections[task] = connection
        try:
            await connection.carry(*self._target)
        except asyncio.CancelledError:
            pass  # a cut; asyncio's own callback for finished handlers expects an ordinary end
        finally:
            del self._connections[task]


class Connection:
    """One client's connection and the one to the server behind it."""

    def __init__(
        self,
        reader: asyncio.StreamReader,
        writer: asyncio.StreamWriter,
        flowing: asyncio.Event,
        sent: Sent | None,
    ) -> None:
        self._reader = reader
        self._writer = writer
        self._flowing = flowing
        self._sent = sent
        self._muted = False
        self._answered = asyncio.Event()
        self._to_server: asyncio.StreamWriter | None = None
        self._half_open = asyncio.Event()

    async def carry(self, host: str, port: int) -> None:
        """Forward both ways until one side ends, then reset both."""
        pumps: list[asyncio.Task[None]] = []
        try:
            await self._flowing.wait()
            from_server, self._to_server = await asyncio.open_connection(host, port)
            pumps = [
                asyncio.create_task(self._to(self._to_server)),
                asyncio.create_task(self._back(from_server)),
            ]
            await asyncio.wait(pumps, return_when=asyncio.FIRST_COMPLETED)
            if self._half_open.is_set():
                await asyncio.Event().wait()  # the client hears nothing until the proxy is cut
        except OSError:
            pass  # the server refused; the client sees its connection reset
        finally:
            for pump in pumps:
                pump.cancel()
            await asyncio.gather(*pumps, return_exceptions=True)
            for writer in (self._writer, self._to_server):
                if writer is not None:
                    _reset(writer)

    @property
    def client_port(self) -> int:
        """The client's own port."""
        return int(self._writer.get_extra_info("peername")[1])

    def forget_server(self) -> None:
        self._half_open.set()
        if self._to_server is not None:
            _reset(self._to_server)

    def mute(self) -> None:
        """Nothing that the server answers from now on reaches the client."""
        self._muted = True

    async def answered(self) -> None:
        """Wait until a muted connection's server has answered."""
        await self._answered.wait()

    def reset(self) -> None:
        """Reset the client's side; the server's follows."""
        _reset(self._writer)

    async def _to(self, server: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError):
            while chunk := await self._reader.read(_CHUNK_BYTES):
                if self._sent is not None:
                    await self._sent(self, chunk)
                await self._flowing.wait()
                server.write(chunk)
                await server.drain()

    async def _back(self, server: asyncio.StreamReader) -> None:
        with contextlib.suppress(OSError):
            while chunk := await server.read(_CHUNK_BYTES):
                await self._flowing.wait()
                if self._muted:
                    self._answered.set()
                    continue
                self._writer.write(chunk)
                await self._writer.drain()


def _reset(writer: asyncio.StreamWriter) -> None:
    """Close at once and tell the other side with RST rather than an orderly end."""
    connection = writer.get_extra_info("socket")
    if connection is not None:
        with contextlib.suppress(OSError):
            connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    writer.transport.abort()
