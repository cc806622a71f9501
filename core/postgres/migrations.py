"""Migrations: numbered SQL files, each applied once, in order, in a transaction, by one process at a time."""

import re
from pathlib import Path

from turnout.postgres.away import postgres_errors
from turnout.postgres.pool import Pool

_FILE = re.compile(r"(\d{4})_[a-z0-9_]+\.sql")
_LOCK = 0x7475726E6F7574  # "turnout": one migration at a time in a database
_TIMEOUT_S = 600.0  # of a statement: it may wait for another process's migration, or rewrite a large table


async def migrate(pool: Pool, schema: str, directory: Path) -> None:
    """Bring the schema of a service up to the newest file in `directory`.

    What has been applied stands in `<schema>.migrations`. ValueError for a file name that is not NNNN_words.sql.
    """
    files = sorted(directory.glob("*.sql"))
    for file in files:
        if _FILE.fullmatch(file.name) is None:
            raise ValueError(f"{file.name} is not a migration's name; use NNNN_words.sql.")
    with postgres_errors():
        async with pool.acquire() as connection, connection.transaction():
            await connection.execute("select pg_advisory_xact_lock($1)", _LOCK, timeout=_TIMEOUT_S)
            await connection.execute(f'create schema if not exists "{schema}"')
            await connection.execute(
                f'create table if not exists "{schema}".migrations '
                "(name text primary key, applied_at timestamptz not null default now())"
            )
            applied = {row["name"] for row in await connection.fetch(f'select name from "{schema}".migrations')}  # noqa: S608  # our own schema names
            for file in files:
                if file.name not in applied:
                    await connection.execute(file.read_text(encoding="utf-8"), timeout=_TIMEOUT_S)
                    await connection.execute(f'insert into "{schema}".migrations (name) values ($1)', file.name)  # noqa: S608  # our own schema names
