"""The creation of a version's table, in the transaction of whoever asks for it."""

from typing import Any, Final

import asyncpg

from services.replayer import ddl
from turnout.errors import FailedPrecondition
from turnout.schema import JobDefinition

REFUSALS: Final = (
    asyncpg.SyntaxOrAccessError,
    asyncpg.DataError,
    asyncpg.FeatureNotSupportedError,
    asyncpg.ProgramLimitExceededError,  # such as a key of more than 32 columns
)
"""What PostgreSQL raises where the definition is to blame."""


async def create_table(connection: Any, definition: JobDefinition, table: str) -> None:
    """Create the table with the indexes that its writes need. FailedPrecondition (TABLE_REFUSED)."""
    try:
        types: dict[str, str] = {}
        question = ddl.derived_types(definition)
        if question is not None:
            # Prepared, so that text which is more than an expression is refused.
            types = dict(await (await connection.prepare(question)).fetchrow())
        await connection.execute(ddl.create_table(definition, table, types))
        for statement in ddl.create_upkeep_indexes(definition, table):
            await connection.execute(statement)
    except REFUSALS as error:
        raise FailedPrecondition(
            "TABLE_REFUSED",
            f"PostgreSQL refuses the table of {definition.job}: {words(error)}. Mend the columns or derived "
            f"expressions of the job.",
        ) from None


def words(error: asyncpg.PostgresError) -> str:
    """What PostgreSQL says, without its hint, which names what only the statement has, and its full stop."""
    return str(error.args[0]).rstrip(".")
