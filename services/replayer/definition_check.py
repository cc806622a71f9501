"""What would refuse the run of a version, found out before there is one, so that no number is used up for nothing."""

import secrets
from datetime import datetime

from services.replayer import ddl
from services.replayer.creation import REFUSALS, create_table, words
from services.replayer.store import Store
from services.replayer.surroundings import Surroundings
from turnout.errors import FailedPrecondition
from turnout.log_range import LogRange
from turnout.schema import JobDefinition


class _RolledBackError(Exception):
    """Takes back what was only tried."""


async def problems_of(
    around: Surroundings, definition: JobDefinition, log_range: LogRange | None, now: datetime
) -> list[FailedPrecondition]:
    """The errors that the start of such a run would answer, of the table and of the log one each at most."""
    found = []
    for check in (_try_table(around.store, definition), _try_log(around, definition, log_range, now)):
        try:
            await check
        except FailedPrecondition as error:
            found.append(error)
    return found


async def _try_log(around: Surroundings, definition: JobDefinition, log_range: LogRange | None, now: datetime) -> None:
    infos = await around.topics.describe(definition)
    await around.topics.extents(log_range, infos, now)


async def _try_table(store: Store, definition: JobDefinition) -> None:
    """PostgreSQL alone knows what it takes for an expression or an index: let it make them, and take them back."""
    table = f"check__{secrets.token_hex(8)}"
    try:
        async with store.transaction() as connection:
            await create_table(connection, definition, table)
            try:
                for statement in ddl.create_indexes(definition, table, concurrently=False):
                    await connection.execute(statement)
            except REFUSALS as error:
                raise FailedPrecondition(
                    "INDEX_REFUSED",
                    f"PostgreSQL cannot build an index of {definition.job}: {words(error)}. Change the job's indexes.",
                ) from None
            raise _RolledBackError
    except _RolledBackError:
        pass
