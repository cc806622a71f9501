"""Connections and pools. asyncpg ships no types, so these two names stand for its classes.

Nothing waits without limit: a network that lost a connection on the server's side only never answers. A statement that
takes too long ends with TimeoutError, and its connection too unless the server confirms that it has been cancelled.
"""

from typing import Any

import asyncpg

Pool = asyncpg.Pool
Connection = asyncpg.Connection

CONNECT_TIMEOUT_S = 5.0
COMMAND_TIMEOUT_S = 10.0
"""Longest a statement of a pool may take. One that may take longer is given its own `timeout`."""
ACQUIRE_TIMEOUT_S = 10.0
"""Longest wait for a connection of a pool, where the caller gives no other."""


class _BoundedPool(asyncpg.Pool):  # type: ignore[misc]  # asyncpg ships no types
    def acquire(self, *, timeout: float | None = None) -> Any:
        return super().acquire(timeout=ACQUIRE_TIMEOUT_S if timeout is None else timeout)


async def open_pool(
    dsn: str,
    *,
    application_name: str,
    min_size: int = 1,
    max_size: int = 8,
    command_timeout_s: float = COMMAND_TIMEOUT_S,
    settings: dict[str, str] | None = None,
) -> Any:
    """A pool on `dsn` that shows up as `application_name` and reconnects by itself. The caller closes it.

    A connection that comes back is not reset, which costs more than a short read itself: leave nothing behind in a
    session, but `set local` what a transaction needs. A transaction that was left open is rolled back all the same.
    """
    return await _BoundedPool(
        dsn,
        min_size=min_size,
        max_size=max_size,
        max_queries=50_000,
        max_inactive_connection_lifetime=300.0,
        loop=None,
        connection_class=asyncpg.Connection,
        record_class=asyncpg.Record,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=command_timeout_s,
        reset=_nothing,
        server_settings={"application_name": application_name, **(settings or {})},
    )


async def _nothing(_connection: Any) -> None:
    """The pool itself has rolled back what was open."""


async def connect(
    dsn: str,
    *,
    application_name: str,
    command_timeout_s: float | None = None,
    settings: dict[str, str] | None = None,
) -> Any:
    """One connection of its own. The caller closes it, and bounds its statements here or one by one."""
    return await asyncpg.connect(
        dsn,
        timeout=CONNECT_TIMEOUT_S,
        command_timeout=command_timeout_s,
        server_settings={"application_name": application_name, **(settings or {})},
    )
