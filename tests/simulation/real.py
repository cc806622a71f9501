"""Real connections to a real PostgreSQL, driven from within the simulated loop.

`clock_timestamp()` and `now()` give the simulated time, by functions of these names in a schema that is searched first.
"""

from __future__ import annotations

import asyncio
import time
from typing import Any

import asyncpg

SCHEMA = "simulated"
_real_s = time.monotonic  # while a simulation runs, the module's gives its time
_SETTLE_S = 0.02  # of real time, after which a statement that does not end is asked whether it waits for a lock
PREPARE = f"""
create schema if not exists {SCHEMA};
create or replace function {SCHEMA}.clock_timestamp() returns timestamptz language sql volatile
    return pg_catalog.current_setting('simulated.now')::timestamptz;
create or replace function {SCHEMA}.now() returns timestamptz language sql stable
    return pg_catalog.current_setting('simulated.now')::timestamptz;
"""


class Preceded(asyncio.Protocol):
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
        transport, protocol = await super().create_connection(lambda: Preceded(protocol_factory()), *args, **options)
        return transport, protocol.asyncpgs


class Real:
    """Real connections, driven from within the simulated loop: each call returns when the database has answered."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self.loop = _RealLoop()
        self._free: list[Any] = []
        self._pids: set[int] = set()  # of the sessions' connections
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
            made = self.run(asyncpg.connect(self._dsn, server_settings=settings))
        except Exception as error:
            self.failed = error
            raise
        self._pids.add(made.get_server_pid())
        return made

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
        """The sessions for which a session waits. Whoever else holds it up, such as autovacuum, does so for a moment
        that has no place in the simulated time."""
        found: list[int] = self.run(self._monitor.fetchval("select pg_blocking_pids($1)", pid))
        return [one for one in found if one in self._pids]

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
