"""Telling "PostgreSQL is away" from "the statement is wrong"."""

from collections.abc import Iterator
from contextlib import contextmanager

import asyncpg

from core.domain.errors import Unavailable

# Classes 08 (connection), 53 (resources) and 57P (operator intervention), and what the driver and the kernel raise.
_AWAY = (
    asyncpg.PostgresConnectionError,
    asyncpg.InsufficientResourcesError,
    asyncpg.AdminShutdownError,
    asyncpg.CrashShutdownError,
    asyncpg.CannotConnectNowError,
    asyncpg.InternalClientError,
    ConnectionError,
    OSError,
    TimeoutError,
)


def is_away(error: BaseException) -> bool:
    """Whether the error says that the server or the way to it is gone, so that a new connection may succeed."""
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
