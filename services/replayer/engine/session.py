"""A worker's connection to PostgreSQL, with the limits that keep a stopped worker from holding others up."""

import asyncio
import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from core.postgres.pool import connect

_NAME_PREFIX: Final = "turnout-worker "
_NAME_BYTES_MAX: Final = 63
_PATIENCE_MIN_S: Final = 15.0
_MEMORY: Final = "64MB"  # for the staging table and its sort: a batch stays off the disk


def session_name(owner: str) -> str:
    """How a worker's sessions are called in pg_stat_activity. A take-over ends a backend only under this name."""
    return (_NAME_PREFIX + owner)[:_NAME_BYTES_MAX]


@dataclass(frozen=True, slots=True)
class Session:
    """A connection, and how long to wait for its answers."""

    connection: Any
    patience_s: float

    @contextlib.contextmanager
    def patience(self) -> Iterator[None]:
        """Cut the connection if what is asked inside takes too long: a network that lost the connection on the server's
        side only would let us wait for ever, with our leases long in other hands."""
        cut = asyncio.get_running_loop().call_later(self.patience_s, self.connection.terminate)
        try:
            yield
        finally:
            cut.cancel()


async def open_session(dsn: str, owner: str, lease_s: float) -> Session:
    """A connection for the worker `owner`; the caller closes it.

    A worker that is stopped inside a transaction, or whose network is gone, keeps its locks until the server ends its
    session: every limit is below a third of the lease. Transactions of rows may commit asynchronously, since each one
    checks its positions; leases commit synchronously (`leases.py`).
    """
    limit_ms = str(max(100, int(lease_s * 1000 / 4)))
    keepalive_s = str(max(1, int(lease_s / 4)))
    connection = await connect(
        dsn,
        application_name=session_name(owner),
        settings={
            "synchronous_commit": "off",
            "idle_in_transaction_session_timeout": limit_ms,
            "lock_timeout": limit_ms,
            "tcp_user_timeout": limit_ms,
            "tcp_keepalives_idle": keepalive_s,
            "tcp_keepalives_interval": keepalive_s,
            "tcp_keepalives_count": "2",
            "temp_buffers": _MEMORY,
            "work_mem": _MEMORY,
            "timezone": "UTC",
        },
    )
    return Session(connection, max(_PATIENCE_MIN_S, 6 * lease_s))
