"""A database of its own for every test, cloned from a template."""

from __future__ import annotations

import contextlib
import secrets
from collections.abc import AsyncIterator
from urllib.parse import urlsplit, urlunsplit

import asyncpg


def with_database(dsn: str, database: str) -> str:
    """The same connection string for another database of the server."""
    return urlunsplit(urlsplit(dsn)._replace(path=f"/{database}"))


@contextlib.asynccontextmanager
async def fresh_database(server: str, *, template: str = "template1") -> AsyncIterator[str]:
    """Connection string of a new database, a copy of the template; dropped afterwards, whoever is connected."""
    name = f"test_{secrets.token_hex(6)}"
    await _execute(server, f'CREATE DATABASE "{name}" TEMPLATE "{template}"')
    try:
        yield with_database(server, name)
    finally:
        await _execute(server, f'DROP DATABASE "{name}" WITH (FORCE)')


async def _execute(server: str, statement: str) -> None:
    connection = await asyncpg.connect(with_database(server, "postgres"))
    try:
        await connection.execute(statement)
    finally:
        await connection.close()
