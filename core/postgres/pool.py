"""Connections and pools. asyncpg ships no types, so these two names stand for its classes."""

from typing import Any

import asyncpg

Pool = asyncpg.Pool
Connection = asyncpg.Connection

CONNECT_TIMEOUT_S = 5.0


async def open_pool(
    dsn: str,
    *,
    application_name: str,
    min_size: int = 1,
    max_size: int = 8,
    settings: dict[str, str] | None = None,
) -> Any:
    """A pool on `dsn` that shows up as `application_name` and reconnects by itself. The caller closes it."""
    return await asyncpg.create_pool(
        dsn,
        min_size=min_size,
        max_size=max_size,
        timeout=CONNECT_TIMEOUT_S,
        server_settings={"application_name": application_name, **(settings or {})},
    )


async def connect(dsn: str, *, application_name: str, settings: dict[str, str] | None = None) -> Any:
    """One connection of its own. The caller closes it."""
    return await asyncpg.connect(
        dsn,
        timeout=CONNECT_TIMEOUT_S,
        server_settings={"application_name": application_name, **(settings or {})},
    )
