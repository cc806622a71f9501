"""A worker's connection to PostgreSQL, with the limits that keep a stopped worker from holding others up."""

import asyncio
import contextlib
import hashlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from turnout.postgres.pool import connect

_NAME_PREFIX: Final = "turnout-worker "
_NAME_BYTES_MAX: Final = 63  # PostgreSQL cuts what is longer
_HASH_CHARACTERS: Final = 12
_PATIENCE_MIN_S: Final = 15.0
_MEMORY: Final = "64MB"  # for the staging table and its sort: a batch stays off the disk


# Whether backend `a` is the session that took the lease in position row `p`. The system gives a process id to another
# backend one day: that one has another name, or began after the lease was last renewed.
IS_OWNERS: Final = f"""(a.pid = p.owner_pid and a.datname = current_database() and a.backend_start < p.lease_expires
  and starts_with(a.application_name, '{_NAME_PREFIX}' || left(md5(p.owner), {_HASH_CHARACTERS}) || ' '))"""


def session_name(owner: str) -> str:
    """How a worker's sessions are called in pg_stat_activity: by a hash of the owner, since owners may be longer than a
    name and differ at their ends only, and for people by as much of the owner as has room."""
    owner_hash = hashlib.md5(owner.encode(), usedforsecurity=False).hexdigest()[:_HASH_CHARACTERS]
    return f"{_NAME_PREFIX}{owner_hash} {owner}".encode()[:_NAME_BYTES_MAX].decode(errors="ignore")


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
