"""Running a comparison: both tables and their positions in one snapshot."""

from dataclasses import dataclass
from typing import Any

from core.domain.errors import InvalidInput
from core.domain.names import VersionId
from core.postgres import postgres_errors
from services.replayer import compare
from services.replayer.run import Positions
from services.replayer.store import QUERIES, Store, positions_of


@dataclass(frozen=True, slots=True)
class Comparison:
    """What a comparison found. `totals` and `samples` hold the columns that `compare.Plan` describes."""

    plan: compare.Plan
    exact: bool
    totals: Any
    samples: list[Any]
    old_positions: Positions
    new_positions: Positions


async def compare_tables(
    store: Store, old: VersionId, new: VersionId, sample_size: int, timeout_s: float
) -> Comparison:
    """Compare in one REPEATABLE READ snapshot, within the time that the caller has."""
    if sample_size < 0:
        raise InvalidInput("INVALID_SAMPLE_SIZE", f"sample_size is {sample_size}; give 0 to {compare.SAMPLES_MAX}.")
    size = min(sample_size, compare.SAMPLES_MAX) or compare.SAMPLES_DEFAULT
    old_run, new_run = await store.get(old), await store.get(new)
    plan = compare.plan(
        old_run, new_run, await store.column_types(old_run.table), await store.column_types(new_run.table)
    )
    with postgres_errors():
        async with (
            store.pool.acquire() as connection,
            connection.transaction(isolation="repeatable_read", readonly=True),
        ):
            # Ended by the server too, should the caller be gone.
            await connection.execute(f"set local statement_timeout = {max(1, int(timeout_s * 1000))}")
            positions = positions_of(await connection.fetch(QUERIES.positions_of, [old.name, new.name]))
            totals = await connection.fetchrow(plan.totals, timeout=timeout_s)
            samples = await connection.fetch(plan.samples, size, timeout=timeout_s)
    old_positions, new_positions = positions.get(old, {}), positions.get(new, {})
    return Comparison(
        plan=plan,
        exact=compare.exact(old_positions, new_positions),
        totals=totals,
        samples=samples,
        old_positions=old_positions,
        new_positions=new_positions,
    )
