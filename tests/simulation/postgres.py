"""The product's SQL on a real PostgreSQL, one statement at a time at simulated instants.

A statement is sent, runs at the server and is answered at three instants of the simulated time; what the database does
in between is real: its snapshots, its row locks and the order in which they are given. A statement that has to wait for
a lock is left waiting there, and is looked at again whenever a transaction has ended. `clock_timestamp()` and `now()`
give the simulated time, by functions of these names in a schema that is searched first.
"""

from __future__ import annotations

import asyncio
import functools
import random
import re
import time
from collections import deque
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import asyncpg

from tests.simulation.loop import Loop, Process, current

SCHEMA = "simulated"
_OF_ROUTES = re.compile(r"(insert into|update|delete from) switcher\.(routes|route_changes|released_versions)")
IDLE_IN_TRANSACTION_S = 4.0
_NOTIFY = "pg_notify("  # done by the simulation, which tells its listeners itself
_OF_THE_MACHINE = (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError, asyncpg.InsufficientResourcesError)
_ACTS = re.compile(r"\b(insert|update|delete|share|lock|pg_notify|nextval)\b")
_real_s = time.monotonic  # while a simulation runs, the module's gives its time
_SETTLE_S = 0.02  # of real time, after which a statement that does not end is asked whether it waits for a lock
PREPARE = f"""
create schema if not exists {SCHEMA};
create or replace function {SCHEMA}.clock_timestamp() returns timestamptz language sql volatile
    return pg_catalog.current_setting('simulated.now')::timestamptz;
create or replace function {SCHEMA}.now() returns timestamptz language sql stable
    return pg_catalog.current_setting('simulated.now')::timestamptz;
"""


@functools.cache
def _tells_time(sql: str) -> bool:
    """Whether a statement may ask for the time; an insertion by the default of a column."""
    return any(part in sql.lower() for part in ("clock_timestamp()", "now()", "insert into"))


@functools.cache
def _looks_only(sql: str) -> bool:
    """Whether a statement changes nothing and takes no lock that anybody waits for."""
    return "serving." not in sql and _ACTS.search(sql.lower()) is None


class _Preceded(asyncio.Protocol):
    """Between a connection and asyncpg: takes the answers to statements that were sent before one of asyncpg's, so that
    both need one round trip. Messages are a byte, their length from there on, and their content."""

    def __init__(self, asyncpgs: Any) -> None:
        self.asyncpgs = asyncpgs
        self.refused = b""  # the error that nobody expects
        self._owed = 0
        self._taken = b""

    def precede(self, sql: str) -> None:
        """Send this now; nobody looks at its answer."""
        message = sql.encode() + b"\0"
        self._owed += 1
        self._transport.write(b"Q" + (len(message) + 4).to_bytes(4) + message)

    def connection_made(self, transport: Any) -> None:
        self._transport = transport
        self.asyncpgs.connection_made(transport)

    def data_received(self, data: bytes) -> None:
        if not self._owed:
            self.asyncpgs.data_received(data)
            return
        self._taken += data
        while self._owed and len(self._taken) >= 5:
            end = 1 + int.from_bytes(self._taken[1:5])
            if len(self._taken) < end:
                return
            if self._taken[:1] == b"E":
                self.refused = bytes(self._taken[:end])
            self._owed -= self._taken[:1] == b"Z"  # ready for the next one
            self._taken = self._taken[end:]
        if self._taken and not self._owed:
            data, self._taken = self._taken, b""
            self.asyncpgs.data_received(data)

    def eof_received(self) -> bool | None:
        return bool(self.asyncpgs.eof_received())

    def connection_lost(self, exc: Exception | None) -> None:
        self.asyncpgs.connection_lost(exc)

    def pause_writing(self) -> None:
        self.asyncpgs.pause_writing()

    def resume_writing(self) -> None:
        self.asyncpgs.resume_writing()


class _RealLoop(asyncio.SelectorEventLoop):
    """A loop in real time."""

    def time(self) -> float:
        return _real_s()

    async def create_connection(self, protocol_factory: Any, *args: Any, **options: Any) -> Any:
        transport, protocol = await super().create_connection(lambda: _Preceded(protocol_factory()), *args, **options)
        return transport, protocol.asyncpgs


class Real:
    """Real connections, driven from within the simulated loop: each call returns when the database has answered."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.loop = _RealLoop()
        self._free: list[Any] = []
        self._looked_at: asyncio.Future[Any] | None = None
        self.failed: BaseException | None = None  # what went wrong with the real database: no outcome is one then
        self._monitor = self.run(asyncpg.connect(dsn, server_settings={"synchronous_commit": "off"}))
        self.run(self._monitor.execute(PREPARE))

    def run(self, work: Any) -> Any:
        """The result of a coroutine on the real loop."""
        simulated = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        try:
            return self.loop.run_until_complete(work)
        finally:
            asyncio._set_running_loop(simulated)

    def connection(self) -> Any:
        """A connection for a session of the simulation."""
        if self._free:
            return self._free.pop()
        settings = {"search_path": f"{SCHEMA}, pg_catalog, public", "synchronous_commit": "off"}
        try:
            return self.run(asyncpg.connect(self._dsn, server_settings=settings))
        except Exception as error:
            self.failed = error
            raise

    def give_back(self, connection: Any) -> None:
        """Keep it for another session."""
        self._free.append(connection)

    def execute(self, sql: str, *args: Any) -> None:
        """A statement outside of the simulated time."""
        self.run(self._monitor.execute(sql, *args))

    def fetch(self, sql: str, *args: Any) -> list[Any]:
        """A look from outside."""
        rows: list[Any] = self.run(self._monitor.fetch(sql, *args))
        return rows

    def blockers(self, pid: int) -> list[int]:
        """The sessions for which a session waits."""
        found: list[int] = self.run(self._monitor.fetchval("select pg_blocking_pids($1)", pid))
        return found

    def cancel(self, task: asyncio.Future[Any], pid: int) -> None:
        """Give up a session's statement that waits for a lock. It has ended then, and its session can go on."""
        self.run(self._monitor.execute("select pg_cancel_backend($1)", pid))
        self.run(asyncio.wait({task}))
        task.exception()

    def settled(self, task: asyncio.Future[Any], pid: int) -> bool:
        """Whether a statement has ended; False = it waits for a lock."""
        while not task.done():
            self._look(task)
            if not task.done() and self.blockers(pid):
                return False
        return True

    def _look(self, task: asyncio.Future[Any]) -> None:
        """Let the real loop run until the task is done, or a moment is over. As `asyncio.wait`, at half the cost."""
        simulated = asyncio._get_running_loop()
        asyncio._set_running_loop(None)
        over = self.loop.call_later(_SETTLE_S, self._stop, task)
        task.add_done_callback(self._stop)
        self._looked_at = task
        try:
            self.loop.run_forever()
        finally:
            self._looked_at = None
            over.cancel()
            task.remove_done_callback(self._stop)
            asyncio._set_running_loop(simulated)

    def _stop(self, task: asyncio.Future[Any]) -> None:
        if task is self._looked_at:  # else it is done in the moment that is over, and is told so later
            self.loop.stop()

    def close(self) -> None:
        """Close all connections."""
        for connection in [*self._free, self._monitor]:
            self.run(connection.close())
        self.loop.close()


@dataclass
class _Request:
    method: str  # fetch, fetchrow, fetchval, execute; or begin, commit, rollback, close
    sql: str
    args: tuple[Any, ...]
    reply: Callable[[Any, BaseException | None], None]


@dataclass(eq=False)
class Session:
    """A session at the server: serves one request after another."""

    server: Server
    process: Process
    connection: Any
    requests: deque[_Request] = field(default_factory=deque)
    waiting: tuple[_Request, asyncio.Future[Any]] | None = None
    begin: str = ""  # a transaction that was begun and has had no statement yet
    open: bool = False
    closed: bool = False
    aborted: bool = False  # its transaction takes nothing but a rollback
    looks_only: bool = True  # its transaction has changed and locked nothing
    due: str = ""  # the end of such a one, which nobody can see and is sent with the next statement
    notify: bool = False
    touched_routes: bool = False
    replies: int = 0
    now: str = ""

    def __post_init__(self) -> None:
        self.pid = int(self.connection.get_server_pid())
        self.wire: _Preceded = self.connection._transport.get_protocol()

    def submit(self, request: _Request) -> None:
        """A request has arrived."""
        if self.closed:
            request.reply(None, ConnectionResetError("the server has closed the connection"))
            return
        self.requests.append(request)
        self.serve()

    def serve(self) -> None:
        """Go on with the requests until one has to wait."""
        while self.requests and self.waiting is None and not self.closed:
            request = self.requests.popleft()
            match request.method:
                case "begin":
                    self.begin = request.sql
                    request.reply(None, None)
                case "close":
                    self.close()
                case _:
                    self._start(request)

    def _start(self, request: _Request) -> None:
        if request.method in ("commit", "rollback") and not self.open:
            self.begin = ""
            request.reply(None, None)
            return
        if request.method == "commit" and self.looks_only and not self.aborted:
            self.due, self.open, self.now = request.method, False, ""
            self._answer(request, None, None)
            self.server.ended(self, committed=True)
            return
        if _NOTIFY in request.sql:
            self.notify = True
            if self.open:
                self._answer(request, None, None)
                return
        self._tell_time(request)
        if request.method in ("commit", "rollback"):
            work = self.connection.execute(request.method)
        else:
            self.looks_only = self.looks_only and _looks_only(request.sql)
            self.touched_routes = self.touched_routes or bool(_OF_ROUTES.search(request.sql))
            work = getattr(self.connection, request.method)(request.sql, *request.args)
        task = self.server.real.loop.create_task(work)
        self.waiting = (request, task)
        self.look()

    def _tell_time(self, request: _Request) -> None:
        """Begin the transaction that is to be begun, and let the database know the time where it will be asked."""
        first, now = [self.due] if self.due else [], self.server.loop.now().isoformat()
        self.due = ""
        if self.begin:
            first.append(self.begin)
            self.begin, self.open, self.looks_only = "", True, True
        if now != self.now and not self.aborted and _tells_time(request.sql):
            first.append(f"set simulated.now = '{now}'")
            self.now = now
        if first:
            self.wire.precede("; ".join(first))

    def look(self) -> bool:
        """Whether what was waiting has ended, and was answered."""
        assert self.waiting is not None
        request, task = self.waiting
        if not self.server.real.settled(task, self.pid):
            self.server.wait_for_lock(self)
            return False
        self.waiting = None
        error = task.exception()
        if isinstance(error, _OF_THE_MACHINE):
            self.server.real.failed = error
        ended = request.method in ("commit", "rollback") or not self.open
        if ended:
            self.open, self.aborted, self.now = False, False, ""
        else:
            self.aborted = self.aborted or error is not None
        self._answer(request, None if error else task.result(), error)
        if ended:
            self.server.ended(self, committed=error is None and request.method != "rollback")
        return True

    def _answer(self, request: _Request, result: Any, error: BaseException | None) -> None:
        self.replies += 1
        if self.open:
            self.server.loop.in_process(None, IDLE_IN_TRANSACTION_S, self._idle, self.replies)
        request.reply(result, error)

    def cancel(self, request: _Request) -> None:
        """The client waits for this no longer, and has asked for it to be given up. Else it would take its locks and
        keep them, once they are free."""
        if self.waiting is not None and self.waiting[0] is request:
            self.server.real.cancel(self.waiting[1], self.pid)
            self.server.waits_no_longer(self)
            self.look()
            self.serve()

    def _idle(self, replies: int) -> None:
        """As idle_in_transaction_session_timeout does it: a client that hangs must not keep its locks."""
        if replies == self.replies and self.open and self.waiting is None:
            self.lose()

    def close(self) -> None:
        """The client is gone: roll back."""
        if self.closed:
            return
        self.closed = True
        if self.waiting is not None:
            # Not by ending the session: it would be told of that before the server has given up its locks.
            self.server.real.cancel(self.waiting[1], self.pid)
            self.waiting = None
        if self.wire.refused or self.connection.is_closed():
            self.server.real.failed = ConnectionError(f"a connection was lost: {self.wire.refused!r}")
        else:
            if self.open or self.due:
                self.server.real.run(self.connection.execute("rollback"))
            self.server.real.give_back(self.connection)
        self.server.closed(self)

    def lose(self) -> None:
        """The server went down: nothing that came is answered, but with an error."""
        lost = [*([self.waiting[0]] if self.waiting else []), *self.requests]
        self.requests.clear()
        self.close()
        for request in lost:
            request.reply(None, ConnectionResetError("the server went down"))


class Server:
    """The database of the simulation. `checks` are called after each commit."""

    def __init__(self, real: Real, loop: Loop, rng: random.Random) -> None:
        self.real = real
        self.loop = loop
        self.rng = rng
        self.up = True
        self.slow = 0.02  # share of the messages that take long
        self.cut: set[Process] = set()  # processes that do not reach it
        self.checks: list[Callable[[Session], None]] = []
        self.deadlocks: list[str] = []
        self.commits = 0
        self._sessions: dict[Session, None] = {}
        self._waiting: dict[Session, list[int]] = {}  # and the sessions that it waits for
        self._listeners: dict[Listener, None] = {}

    def delay_s(self) -> float:
        """Of a message one way."""
        return self.rng.uniform(0.0001, 0.002) if self.rng.random() < 1 - self.slow else self.rng.uniform(0.002, 0.15)

    def session(self, process: Process) -> Session:
        """A new session for a process that has connected."""
        session = Session(self, process, self.real.connection())
        self._sessions[session] = None
        process.when_killed.append(lambda: self.loop.in_process(None, self.delay_s(), self._gone, session))
        return session

    def _gone(self, session: Session) -> None:
        if session.waiting is not None:
            session.close()
        else:
            session.submit(_Request("close", "", (), lambda *_: None)) if not session.closed else None

    def wait_for_lock(self, session: Session) -> None:
        """Remember to look at it again; a circle of waits is a fault of the product."""
        self._waiting[session] = self.real.blockers(session.pid)
        by_pid = {one.pid: one for one in self._waiting}
        seen, at = [], session.pid
        while at in by_pid and at not in seen:
            seen.append(at)
            at = next(iter(self.real.blockers(at)), 0)
        if at in seen:
            self.deadlocks.append(f"sessions of {', '.join(by_pid[pid].process.name for pid in seen)} wait in a circle")

    def waits_no_longer(self, session: Session) -> None:
        """It need not be looked at again."""
        self._waiting.pop(session, None)

    def ended(self, session: Session, *, committed: bool) -> None:
        """A transaction has ended: tell listeners, look at who waited, check."""
        if committed:
            self.commits += 1
            if session.notify:
                for listener in list(self._listeners):
                    listener.tell(self)
            for check in self.checks:
                check(session)
        session.notify = False
        self._look_again(session)

    def closed(self, session: Session) -> None:
        self._sessions.pop(session, None)
        self._waiting.pop(session, None)
        self._look_again(session)

    def _look_again(self, ended: Session) -> None:
        """At those who waited for a session that has given up its locks."""
        for session in [one for one, awaited in self._waiting.items() if ended.pid in awaited]:
            if session.waiting is not None and session in self._waiting:
                del self._waiting[session]
                if session.look():
                    session.serve()

    def restart(self, down_s: float) -> None:
        """Every session ends; connections are refused for a while."""
        self.up = False
        for session in list(self._sessions):
            session.lose()
        self.loop.in_process(None, down_s, self._start)

    def _start(self) -> None:
        self.up = True

    def listen(self, listener: Listener) -> None:
        self._listeners[listener] = None

    def close(self) -> None:
        for session in list(self._sessions):
            session.close()


class Connection:
    """The client's side of a session, with the methods of an asyncpg connection that the product uses."""

    def __init__(self, server: Server, session: Session, process: Process, command_timeout_s: float) -> None:
        self._server = server
        self._session = session
        self._process = process
        self._timeout_s = command_timeout_s
        self._arrived_s = 0.0  # what follows arrives no sooner
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
        loop = self._server.loop
        await loop.step()
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

        cut, request = self._process in self._server.cut, _Request(method, sql, args, arrived)
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
        await loop.step()
        return result

    def _give_up(self) -> None:
        """The server notices after a while that nobody is there (idle_in_transaction_session_timeout)."""
        self.lost = True
        self._server.loop.in_process(None, 8.0, self._server._gone, self._session)


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
            self._server.loop.in_process(None, self._server.delay_s(), self._server._gone, connection._session)
        self._idle.clear()


class Listener:
    """Instead of LISTEN: hears of commits that notify, unless the notice is lost."""

    def __init__(self, server: Server, process: Process, on_notify: Callable[[], None], loss: float) -> None:
        self._server = server
        self._process = process
        self._on_notify = on_notify
        self._loss = loss

    def tell(self, server: Server) -> None:
        if self._process not in server.cut and server.rng.random() >= self._loss:
            server.loop.in_process(self._process, server.delay_s(), self._on_notify)

    def start(self) -> None:
        self._server.listen(self)
        self._on_notify()

    async def stop(self) -> None:
        self._server._listeners.pop(self, None)


def here(server: Server, **options: Any) -> Pool:
    """The pool that a process opens for itself."""
    return Pool(server, current(), options.get("command_timeout_s", 10.0), min(options.get("max_size", 8), 4))
