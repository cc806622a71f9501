"""Windows that are over are added up: many at once whatever PostgreSQL expects, and before what rests on them."""

from __future__ import annotations

from datetime import timedelta
from typing import Any, cast

from core.postgres import Pool, migrate, open_pool
from services.switcher.experiments.guardrails import Guardrails
from services.switcher.experiments.ledger import Ledger
from services.switcher.experiments.spec import Arm, Spec, spec_to_json
from services.switcher.experiments.store import Counted, ExperimentStore
from services.switcher.rows import MIGRATIONS
from turnout.routing import Units

SPEC = Spec((Arm(1, 7500), Arm(2, 2500)), Units.CALLER, window_s=1.0, delay_s=0.0)
UNITS = 20_000
# Each with each, it takes minutes; otherwise a second at most.
PATIENCE_S = 30.0

EXPERIMENT = """
insert into switcher.experiments
    (job, experiment, state, spec, owner, claimed_actor, reason, request_id, fingerprint)
values ($1, 'e', $2, $3, '', '', '', '', '') returning number
"""
EPOCH = """
insert into switcher.experiment_epochs (number, epoch, weights, start_time)
values ($1, 2, '{"1": 7500, "2": 2500}', clock_timestamp())
"""
EXPOSED = """
insert into switcher.experiment_units (number, unit, epoch, version, exposed_at, closed)
select $1, unit, 2, 1 + (unit % 4 = 0)::int, clock_timestamp() - interval '1 minute', $3
from generate_series(1, $2::bigint) as unit
"""
ERRED = """
insert into switcher.experiment_outcomes (number, unit, metric, key, epoch, version, at, value)
select $1, unit, 'ERROR', 0, 2, 1, clock_timestamp() - interval '1 minute', 0
from generate_series(1, $2::bigint, 5) as unit
"""


async def test_those_of_an_experiment_that_came_after_the_last_analyse(postgres: str) -> None:
    pool = await open_pool(postgres, application_name="test", command_timeout_s=PATIENCE_S, settings={})
    try:
        await migrate(pool, "switcher", MIGRATIONS)
        async with pool.acquire() as connection:
            before = await connection.fetchval(EXPERIMENT, "one", "STOPPED", spec_to_json(SPEC))
            await connection.execute(EXPOSED, before, 3000, True)
            await connection.execute(ERRED, before, 3000)
            # From here on PostgreSQL believes that every row is of that experiment.
            await connection.execute("analyze switcher.experiment_units")
            await connection.execute("analyze switcher.experiment_outcomes")
            number = await connection.fetchval(EXPERIMENT, "two", "RUNNING", spec_to_json(SPEC))
            await connection.execute(EXPOSED, number, UNITS, False)
            await connection.execute(ERRED, number, UNITS)
        assert await Ledger(pool).close_windows(number) == UNITS
    finally:
        await pool.close()


class Watched(ExperimentStore):
    """Keeps what was read of an experiment's counts, which is done under the lock that reports wait for."""

    def __init__(self, pool: Pool) -> None:
        super().__init__(pool)
        self.read_counts: list[Counted] = []

    async def counted(self, number: int, stale_after: timedelta) -> Counted:
        self.read_counts.append(await super().counted(number, stale_after))
        return self.read_counts[-1]


async def test_a_look_reads_the_counts_once_after_it_has_added_up(postgres: str) -> None:
    pool = await open_pool(postgres, application_name="test", command_timeout_s=PATIENCE_S, settings={})
    try:
        await migrate(pool, "switcher", MIGRATIONS)
        async with pool.acquire() as connection:
            number = await connection.fetchval(EXPERIMENT, "one", "RUNNING", spec_to_json(SPEC))
            await connection.execute(EPOCH, number)
            await connection.execute(EXPOSED, number, 40, False)
        store, not_asked = Watched(pool), cast(Any, None)  # of an experiment that no route names
        await Guardrails(store, Ledger(pool), not_asked, not_asked, "here").one(number)
        [read] = store.read_counts
        assert [arm.closed for one in read.epochs for arm in one.arms] == [30, 10]
    finally:
        await pool.close()
