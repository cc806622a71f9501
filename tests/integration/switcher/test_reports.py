"""What many fronts report at once."""

from __future__ import annotations

import asyncio
from datetime import timedelta
from typing import Any

from core.postgres import open_pool
from services.switcher.presence import FrontStore
from tests.integration.switcher.conftest import Switcher
from tests.support.eventually import eventually

FRONTS = [f"front-{number}" for number in range(12)]
MINUTE = timedelta(minutes=1)


async def _reported(store: FrontStore, proposal: str, state: str) -> None:
    """By all fronts at once, and by the last one again, which counts."""
    again = "" if state == "PREPARED" else "again"  # of a front that is prepared it is why there would be no way back
    reports = [*((front, "") for front in FRONTS), (FRONTS[-1], again)]
    await asyncio.gather(*(store.report(front, proposal, state, reason) for front, reason in reports))


async def test_reports_that_come_at_once_share_a_statement(switcher: Switcher, postgres: str, database: Any) -> None:
    await switcher.cut_over(1)
    pool = await open_pool(postgres, application_name="test")
    try:
        store = FrontStore(pool, MINUTE)
        for front in FRONTS:
            await store.register(front, "127.0.0.1:1", MINUTE)
        changing = asyncio.create_task(switcher.cut_over(2))

        async def newest(state: str) -> str:
            return str(await database.fetchval("select proposal from switcher.proposals where state = $1", state) or "")

        proposal = await eventually(lambda: newest("OPEN"))
        await _reported(store, proposal, "PREPARED")

        async def committed() -> bool:
            route = await switcher.route()
            return route.epoch == 2

        await eventually(committed)
        await _reported(store, proposal, "SERVING")
        change = await changing
        assert sorted(one.front for one in change.adoptions) == sorted(FRONTS)
        assert all(one.HasField("adoption_time") for one in change.adoptions)

        assert await database.fetchval("select bool_or(drained) from switcher.served_versions") is False
        await _reported(store, proposal, "DRAINED")
        left = await database.fetch("select distinct version, drained from switcher.served_versions order by version")
        assert [tuple(row) for row in left] == [(1, True), (2, False)]

        rows = await database.fetch(
            "select state, count(*) as reports, count(distinct xmin::text) as statements from switcher.reports "
            "group by state order by state"
        )
        reasons = await database.fetch("select front from switcher.reports where reason = 'again' order by state")
        assert [row["front"] for row in reasons] == [FRONTS[-1]] * 2
        assert [tuple(row) for row in rows] == [("DRAINED", 12, 2), ("PREPARED", 12, 2), ("SERVING", 12, 2)]
    finally:
        await pool.close()
