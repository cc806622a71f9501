"""The declared indexes of a table, built after the copy, while the live tail goes on."""

from core.postgres import Pool
from services.replayer import ddl
from services.replayer.store import QUERIES
from turnout.schema import JobDefinition


async def build_indexes(pool: Pool, definition: JobDefinition, table: str) -> None:
    """Build what is missing. An index that an interrupted build left invalid is dropped and built again.

    asyncpg.PostgresError when PostgreSQL refuses one.
    """
    async with pool.acquire() as connection:
        for number, statement in enumerate(ddl.create_indexes(definition, table)):
            name = ddl.qualified(ddl.index_name(table, number))
            valid = await connection.fetchval(QUERIES.index_is_valid, name)
            if valid is False:
                await connection.execute(f"drop index concurrently {name}")
            if not valid:
                await connection.execute(statement)
