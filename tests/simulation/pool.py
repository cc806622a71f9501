"""The product's SQL on a real PostgreSQL, one statement at a time at simulated instants: the client's side."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Mapping
from contextlib import asynccontextmanager
from typing import Any

from tests.simulation.loop import Process, current
from tests.simulation.postgres import Request, Server, Session


class Connection:
    """The client's side of a session, with the methods of an asyncpg connection that the product uses."""

    def __init__(self, server: Server, session: Session, process: Process, command_timeout_s: float) -> None:
        self._server = server
        self._session = session
        self._process = process
        self._timeout_s = command_timeout_s
        self._arrived_s = 0.0  # what follows arrives no sooner
        self._asked = ""  # the last statement
        self.lost = False

    async def fetch(self, sql: str, *args: Any, timeout: float | None = None) -> Any:
        return await self._ask("fetch", sql, args, timeout)

    async def fetchrow(self, sql: str, *args: Any, timeout: float | None = None) -> Any:
        return await self._ask("fetchrow", sql, args, timeout)

    async def fetchval(self, sql: str, *args: Any, timeout: float | None = None) -> Any:
        return await self._ask("fetchval", sql, args, timeout)

    async def execute(self, sql: str, *args: Any, timeout: float | None = None) -> Any:
        return await self._ask("execute", sql, args, timeout)

    @asynccontextmanager
    async def transaction(self, *, isolation: str | None = None, readonly: bool = False) -> AsyncIterator[None]:
        """BEGIN, and COMMIT or ROLLBACK."""
        level = f" isolation level {isolation.replace('_', ' ')}" if isolation else ""
        await self._ask("begin", f"begin{level}{' read only' if readonly else ''}", (), None)
        try:
            yield
        except BaseException:
            if not self.lost:
                await self._ask("rollback", "", (), None)
            raise
        await self._ask("commit", "", (), None)

    async def _ask(self, method: str, sql: str, args: tuple[Any, ...], timeout: float | None) -> Any:
        loop, self._asked = self._server.loop, sql or self._asked
        what = f"{method} {self._asked}"
        await loop.step(what)
        if self.lost:
            raise ConnectionResetError("the connection is lost")
        answer = loop.create_future()

        def arrived(result: Any, error: BaseException | None) -> None:
            if self._process in self._server.cut:
                return
            loop.in_process(self._process, self._server.delay_s(), settle, result, error)

        def settle(result: Any, error: BaseException | None) -> None:
            if answer.done():
                return
            if error is None:
                answer.set_result(result)
            else:
                answer.set_exception(error)

        cut, request = self._process in self._server.cut, Request(method, sql, args, arrived)
        if not cut:
            self._arrived_s = max(self._arrived_s, loop.time() + self._server.delay_s()) + 1e-9
            loop.in_process(None, self._arrived_s - loop.time(), self._session.submit, request)
        try:
            async with asyncio.timeout(self._timeout_s if timeout is None else timeout):
                result = await answer
        except ConnectionError:
            self.lost = True
            raise
        except BaseException:
            if cut or self._process in self._server.cut:
                self._give_up()
            else:  # as asyncpg does it; what comes too late to be given up is done, and what follows is done after it
                loop.in_process(None, self._server.delay_s(), self._session.cancel, request)
            raise
        await loop.step(f"answer to {what}")
        return result

    def _give_up(self) -> None:
        """The server notices after a while that nobody is there (idle_in_transaction_session_timeout)."""
        self.lost = True
        self._server.loop.in_process(None, 8.0, self._server.gone, self._session)


class Pool:
    """A pool of such connections, of one process."""

    def __init__(self, server: Server, process: Process, command_timeout_s: float, max_size: int) -> None:
        self._server = server
        self._process = process
        self._command_timeout_s = command_timeout_s
        self._places = asyncio.Semaphore(max_size)
        self._idle: list[Connection] = []

    @asynccontextmanager
    async def acquire(self, *, timeout: float | None = None) -> AsyncIterator[Connection]:
        """A connection; TimeoutError, ConnectionRefusedError."""
        async with asyncio.timeout(10.0 if timeout is None else timeout):
            await self._places.acquire()
        try:
            connection = await self._connection(timeout)
            try:
                yield connection
            finally:
                if not connection.lost and not connection._session.closed:
                    self._idle.append(connection)
        finally:
            self._places.release()

    async def _connection(self, timeout: float | None) -> Connection:
        while self._idle:
            connection = self._idle.pop()
            if not connection.lost and not connection._session.closed:
                return connection
        server = self._server
        if self._process in server.cut:
            async with asyncio.timeout(5.0 if timeout is None else min(timeout, 5.0)):
                await asyncio.Event().wait()
        await asyncio.sleep(2 * server.delay_s())
        if not server.up:
            raise ConnectionRefusedError("PostgreSQL is down")
        return Connection(server, server.session(self._process), self._process, self._command_timeout_s)

    async def close(self) -> None:
        self.terminate()

    def terminate(self) -> None:
        for connection in self._idle:
            connection.lost = True
            self._server.loop.in_process(None, self._server.delay_s(), self._server.gone, connection._session)
        self._idle.clear()


class Listener:
    """Instead of LISTEN: hears of commits that notify on whichever channel, unless the notice is lost."""

    def __init__(
        self, server: Server, process: Process, channels: Mapping[str, Callable[[], None]], loss: float
    ) -> None:
        self._server = server
        self._process = process
        self._channels = channels
        self._loss = loss

    def _notified(self) -> None:
        for told in self._channels.values():
            told()

    def tell(self, server: Server) -> None:
        if self._process not in server.cut and server.rng.random() >= self._loss:
            server.loop.in_process(self._process, server.delay_s(), self._notified)

    def start(self) -> None:
        self._server.listen(self)
        self._notified()

    async def stop(self) -> None:
        self._server.unlisten(self)


def here(server: Server, **options: Any) -> Pool:
    """The pool that a process opens for itself."""
    return Pool(server, current(), options.get("command_timeout_s", 10.0), min(options.get("max_size", 8), 4))
