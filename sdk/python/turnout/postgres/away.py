"""Telling "PostgreSQL is away" from "the statement is wrong"."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from turnout.errors import Unavailable

# Classes 08 (connection), 53 (resources) and 57 (operator intervention, a cancelled statement among it), and what the
# driver and the kernel raise. TimeoutError: the server may be there and slow; for the caller that is the same.
_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.QueryCanceledError,
    asyncpg.InternalClientError,
    ConnectionError,
    OSError,
    TimeoutError,
)


def is_away(error: BaseException) -> bool:
    """Whether the error says nothing against the statement: the server, the way to it or its patience is gone, so that
    a new try on a new connection may succeed."""
    if isinstance(error, asyncpg.InterfaceError):
        return "closed" in str(error) or "released" in str(error)
    return isinstance(error, _AWAY)


@contextmanager
def postgres_errors() -> Iterator[None]:
    """Turn "away" into Unavailable; everything else passes through."""
    try:
        yield
    except Exception as error:
        if is_away(error):
            raise Unavailable(
                "POSTGRES_UNAVAILABLE", f"PostgreSQL does not answer ({type(error).__name__}); try again."
            ) from error
        raise
