"""The product's SQL on a real PostgreSQL, one statement at a time at simulated instants: the server's side.

A statement is sent, runs at the server and is answered at three instants of the simulated time; what the database does
in between is real: its snapshots, its row locks and the order in which they are given. A statement that has to wait for
a lock is left waiting there, and is looked at again whenever a transaction has ended. Only one waits there for the same
transaction: two that go on at once would go on in any order. Who else would wait for it is sent anew behind that one.
"""

from __future__ import annotations

import asyncio
import functools
import random
import re
from collections import deque
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Protocol

import asyncpg

from tests.simulation.loop import Loop, Process
from tests.simulation.real import Preceded, Real

_CHANGES = re.compile(
    r"(?:insert into|update|delete from) switcher\."
    r"(route|released_version|rollout|experiment)(?:s|_changes|_decisions)\b"
)
_IDLE_IN_TRANSACTION_S = 4.0
_NOTIFY = "pg_notify("  # the simulation tells its listeners itself
_NOTIFY_ALONE = f"select {_NOTIFY}"
_TRY = "here"  # the savepoint to which a statement that is to be sent anew goes back
_OF_THE_MACHINE = (OSError, asyncpg.InterfaceError, asyncpg.PostgresConnectionError, asyncpg.InsufficientResourcesError)
_ACTS = re.compile(r"\b(insert|update|delete|share|lock|pg_notify|nextval)\b")


@functools.cache
def _tells_time(sql: str) -> bool:
    """Whether a statement may ask for the time; an insertion by the default of a column."""
    return any(part in sql.lower() for part in ("clock_timestamp()", "now()", "insert into"))


@functools.cache
def _looks_only(sql: str) -> bool:
    """Whether a statement changes nothing and takes no lock that anybody waits for."""
    return "serving." not in sql and _ACTS.search(sql.lower()) is None


@dataclass
class Request:
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
    requests: deque[Request] = field(default_factory=deque)
    waiting: tuple[Request, asyncio.Future[Any] | None] | None = None  # None = to be sent anew
    begin: str = ""  # a transaction that was begun and has had no statement yet
    open: bool = False
    closed: bool = False
    aborted: bool = False  # its transaction takes nothing but a rollback
    looks_only: bool = True  # its transaction has changed and locked nothing
    due: str = ""  # the end of such a one, which nobody can see and is sent with the next statement
    saved: bool = False  # whether its transaction has the savepoint
    notify: bool = False
    touched: set[str] = field(default_factory=set)  # what its transaction has changed: "route", "rollout", ...
    replies: int = 0
    now: str = ""

    def __post_init__(self) -> None:
        self.pid = int(self.connection.get_server_pid())
        self.wire: Preceded = self.connection._transport.get_protocol()

    def submit(self, request: Request) -> None:
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

    def _start(self, request: Request) -> None:
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
            if self.open and request.sql.startswith(_NOTIFY_ALONE):
                self._answer(request, None, None)
                return
        self._send(request)
        self.look()

    def _send(self, request: Request) -> None:
        self._prepare(request)
        if request.method in ("commit", "rollback"):
            work = self.connection.execute(request.method)
        else:
            self.looks_only = self.looks_only and _looks_only(request.sql)
            self.touched.update(_CHANGES.findall(request.sql))
            work = getattr(self.connection, request.method)(request.sql, *request.args)
        self.waiting = (request, self.server.real.loop.create_task(work))

    def _prepare(self, request: Request) -> None:
        """Begin the transaction that is to be begun, let the database know the time where it will be asked, and make a
        way back where the statement may have to wait."""
        first, now = [self.due] if self.due else [], self.server.loop.now().isoformat()
        self.due = ""
        if self.begin:
            first.append(self.begin)
            self.begin, self.open, self.looks_only = "", True, True
        if now != self.now and not self.aborted and _tells_time(request.sql):
            first.append(f"set simulated.now = '{now}'")
            self.now = now
        may_wait = request.method not in ("commit", "rollback") and not _looks_only(request.sql)
        if self.open and may_wait and not self.aborted:
            first += [f"release savepoint {_TRY}"] if self.saved else []
            first.append(f"savepoint {_TRY}")
            self.saved = True
        if first:
            self.wire.precede("; ".join(first))

    def look(self) -> bool:
        """Whether what was waiting has ended, and was answered."""
        if self.waiting is not None and self.waiting[1] is None:
            self._send(self.waiting[0])
        assert self.waiting is not None
        request, task = self.waiting
        assert task is not None, "it was sent"
        if not self.server.real.settled(task, self.pid):
            self.server.wait_for_lock(self)
            return False
        self.waiting = None
        error = task.exception()
        if isinstance(error, _OF_THE_MACHINE):
            self.server.real.failed = error
        ended = request.method in ("commit", "rollback") or not self.open
        if ended:
            self.open, self.aborted, self.saved, self.now = False, False, False, ""
        else:
            self.aborted = self.aborted or error is not None
        self._answer(request, None if error else task.result(), error)
        if ended:
            self.server.ended(self, committed=error is None and request.method != "rollback")
        return True

    def _answer(self, request: Request, result: Any, error: BaseException | None) -> None:
        self.replies += 1
        if self.open:
            self.server.loop.in_process(None, _IDLE_IN_TRANSACTION_S, self._idle, self.replies)
        request.reply(result, error)

    def step_back(self) -> None:
        """Take back a statement that waits for a lock, as if it had not come yet."""
        assert self.waiting is not None
        request, task = self.waiting
        assert task is not None, "it was sent"
        self.server.real.cancel(task, self.pid)
        if self.open:
            self.server.real.run(self.connection.execute(f"rollback to savepoint {_TRY}"))
        self.waiting = (request, None)

    def cancel(self, request: Request) -> None:
        """The client waits for this no longer, and has asked for it to be given up. Else it would take its locks and
        keep them, once they are free."""
        if self.waiting is None or self.waiting[0] is not request:
            return
        if self.waiting[1] is None:
            self._send(request)
        assert self.waiting[1] is not None, "it was sent"
        if not self.server.real.settled(self.waiting[1], self.pid):
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
            if self.waiting[1] is not None:
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


def circle_from(start: int, waits: Mapping[int, Iterable[int]]) -> tuple[int, ...]:
    """A shortest circle of waits through `start`, which comes first; empty where there is none. waits: whom each waits
    for, of whom there may be several: a row that several share is free when the last of them has ended."""
    way: dict[int, int] = {}  # who was come from
    reached = deque([start])
    while reached:
        at = reached.popleft()
        for other in waits.get(at, ()):
            if other == start:
                circle = [at]
                while circle[-1] != start:
                    circle.append(way[circle[-1]])
                return tuple(reversed(circle))
            if other not in way:
                way[other] = at
                reached.append(other)
    return ()


class Listening(Protocol):
    """Whoever hears of commits that notify."""

    def tell(self, server: Server) -> None:
        """There was one."""


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
        self._behind: dict[Session, list[int]] = {}  # those to be sent anew, and what they would wait for
        self._listeners: dict[Listening, None] = {}

    def delay_s(self) -> float:
        """Of a message one way."""
        return self.rng.uniform(0.0001, 0.002) if self.rng.random() < 1 - self.slow else self.rng.uniform(0.002, 0.15)

    def session(self, process: Process) -> Session:
        """A new session for a process that has connected."""
        session = Session(self, process, self.real.connection())
        self._sessions[session] = None
        process.when_killed.append(lambda: self.loop.in_process(None, self.delay_s(), self.gone, session))
        return session

    def gone(self, session: Session) -> None:
        if session.waiting is not None:
            session.close()
        else:
            session.submit(Request("close", "", (), lambda *_: None)) if not session.closed else None

    def wait_for_lock(self, session: Session) -> None:
        """Remember to look at it again; a circle of waits is a fault of the product."""
        awaited = self.real.blockers(session.pid)
        if self._would_follow(awaited):
            session.step_back()
            self._behind[session] = awaited
        else:
            self._waiting[session] = awaited
        waits = {one.pid: (one, others) for one, others in [*self._waiting.items(), *self._behind.items()]}
        if circle := circle_from(session.pid, {pid: others for pid, (_, others) in waits.items()}):
            names = ", ".join(waits[pid][0].process.name for pid in circle)
            self.deadlocks.append(f"sessions of {names} wait in a circle")

    def _would_follow(self, awaited: list[int]) -> bool:
        """Whether somebody waits for one of these already, or one of these waits."""
        return any(one.pid in awaited or set(others) & set(awaited) for one, others in self._waiting.items())

    def waits_no_longer(self, session: Session) -> None:
        """It need not be looked at again."""
        self._waiting.pop(session, None)
        self._behind.pop(session, None)

    def ended(self, session: Session, *, committed: bool) -> None:
        """A transaction has ended: tell listeners, look at who waited, check."""
        self._rest(session)
        if committed:
            self.commits += 1
            if session.notify:
                for listener in list(self._listeners):
                    listener.tell(self)
            for check in self.checks:
                check(session)
        session.notify = False
        session.touched.clear()
        self._look_again(session)

    def closed(self, session: Session) -> None:
        self._sessions.pop(session, None)
        self.waits_no_longer(session)
        self._look_again(session)

    def _rest(self, ended: Session) -> None:
        """Let what went on by itself come to rest, before anybody looks at what there is."""
        for session, awaited in self._waiting.items():
            if ended.pid in awaited and session.waiting is not None and session.waiting[1] is not None:
                self.real.settled(session.waiting[1], session.pid)

    def _look_again(self, ended: Session) -> None:
        """At those who waited for a session that has given up its locks."""
        for session in [one for one, awaited in self._waiting.items() if ended.pid in awaited]:
            if session.waiting is not None and session in self._waiting:
                del self._waiting[session]
                if session.look():
                    session.serve()
        for session, awaited in list(self._behind.items()):
            if session in self._behind and not self._would_follow(awaited):
                del self._behind[session]
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

    def listen(self, listener: Listening) -> None:
        self._listeners[listener] = None

    def unlisten(self, listener: Listening) -> None:
        self._listeners.pop(listener, None)

    def close(self) -> None:
        for session in list(self._sessions):
            session.close()
