"""What fronts have compared, in PostgreSQL. Each method is one transaction.

A front tells its whole counts each time, numbered, so that repeats and late ones change nothing.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict
from typing import Any

from core.postgres import Pool
from services.switcher.rows import SQL, read_route, statement, transaction
from services.switcher.shadow_report import ShadowTally, report
from turnout.errors import NotFound
from turnout.shadow import ShadowCounts, ShadowReport


class ShadowStore:
    """Counts of shadows, and what they say."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def record(self, front: str, source: str, tallies: Sequence[ShadowTally]) -> None:
        """Keep the newest counts of a front. What is no shadow of that epoch's route is passed over."""
        async with transaction(self._pool) as connection:
            # In one order: two calls of a front wait for one another, and never both.
            for one in sorted(tallies, key=lambda tally: (tally.job, tally.epoch)):
                await connection.execute(
                    SQL.record_shadow,
                    *(one.job, one.epoch, one.version, one.active_version, source, front, one.sequence),
                    json.dumps(asdict(one.counts)),
                )

    async def report(self, job: str) -> ShadowReport:
        """What is said of the job's shadow, or of the last one. NotFound (SHADOW_NOT_FOUND, ROUTE_NOT_FOUND)."""
        async with transaction(self._pool) as connection:
            route = (await read_route(connection, job)).state.route
            if route is None:
                raise NotFound("ROUTE_NOT_FOUND", f"{job} has no route yet: its first cutover creates it.")
            if route.shadow is not None:
                pair: tuple[int, int] | None = (route.shadow.version, route.active_version)
            else:
                last = await connection.fetchrow(SQL.last_shadow, job)
                pair = (last["version"], last["active_version"]) if last else None
            if pair is None:
                raise NotFound(
                    "SHADOW_NOT_FOUND",
                    f"Nothing is compared with what {job} answers, nor was it. `turnout shadow set {job} vN` begins.",
                )
            rows = await connection.fetch(SQL.shadow_tallies, job, *pair)
        return _report(job, pair, route.shadow.share if route.shadow else None, rows)

    async def between(self, job: str, version: int, active_version: int) -> ShadowReport | None:
        """What is said of a version beside an active one; None where nothing was compared."""
        async with statement(self._pool) as connection:
            rows = await connection.fetch(SQL.shadow_tallies, job, version, active_version)
        return _report(job, (version, active_version), None, rows) if rows else None

    async def at_present(self, job: str, version: int, active_version: int) -> ShadowReport | None:
        """What is said of a version beside an active one since it last became its shadow, and stayed it.

        None where nothing was compared since, or it is the shadow no more.
        """
        async with statement(self._pool) as connection:
            rows = await connection.fetch(SQL.tallies_of_present_shadow, job, version, active_version)
        return _report(job, (version, active_version), None, rows) if rows else None


def _report(job: str, pair: tuple[int, int], share: int | None, rows: Sequence[Any]) -> ShadowReport:
    told = max((row["update_time"] for row in rows), default=None)
    return report(job, pair, share, [_counts(row) for row in rows], told)


def _counts(row: Any) -> ShadowCounts:
    return ShadowCounts(**json.loads(row["counts"]))
