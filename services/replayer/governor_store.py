"""What the governor keeps in PostgreSQL: who governs, what was learnt, what holds each copy down.

Every method raises Unavailable (POSTGRES_UNAVAILABLE) while PostgreSQL is away.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from datetime import timedelta
from typing import Any, Final

from core.postgres import postgres_errors
from services.replayer.budget import Capacity
from services.replayer.capacity import capacity_of
from services.replayer.governor import Decision
from services.replayer.ladder import Reason, Throttle
from services.replayer.store import QUERIES, Store
from turnout.names import VersionId, parse_version

LEASE: Final = timedelta(seconds=5)
STALE: Final = timedelta(seconds=15)  # a governor that has been gone for longer holds nobody up


@dataclass(frozen=True, slots=True)
class Learnt:
    """What outlives a governor: the rung, and the quiet value of the reads' p99 (None = not known) with its age."""

    rung: int
    quiet_p99_s: float | None
    quiet_reads: float
    quiet_age_s: float


class GovernorStore:
    """The tables replayer.governor and replayer.throttles."""

    def __init__(self, store: Store, instance: str) -> None:
        self._store = store
        self._instance = instance

    async def govern(self) -> Learnt | None:
        """Take the right to govern, and what the governor before has learnt; None while another replica has it."""
        with postgres_errors():
            row = await self._store.pool.fetchrow(QUERIES.govern, self._instance, LEASE)
        if row is None:
            return None
        return Learnt(row["rung"], row["quiet_p99_s"], row["quiet_reads"], row["quiet_age_s"] or 0.0)

    async def keep(self, learnt: Learnt, decision: Decision, full_per_s: Mapping[VersionId, float]) -> Capacity | None:
        """Keep the right, what was learnt and decided, in one transaction. The budget as it stands; None when another
        replica governs by now, and then nothing was stored."""
        throttles = sorted(decision.throttles.items())
        async with self._store.transaction() as connection:
            row = await connection.fetchrow(
                QUERIES.keep_governing,
                self._instance,
                LEASE,
                learnt.rung,
                decision.write_s_max,
                learnt.quiet_p99_s,
                learnt.quiet_reads,
                None if learnt.quiet_p99_s is None else timedelta(seconds=learnt.quiet_age_s),
            )
            if row is None:
                return None
            names = [version.name for version, _ in throttles]
            await connection.execute(QUERIES.clear_throttles, names)
            if throttles:
                await connection.execute(
                    QUERIES.set_throttles,
                    names,
                    [throttle.reason.value for _, throttle in throttles],
                    [throttle.records_per_s for _, throttle in throttles],
                    [throttle.message for _, throttle in throttles],
                    [full_per_s.get(version) for version, _ in throttles],
                )
            return capacity_of(await connection.fetchrow(QUERIES.capacity))

    async def decided(self) -> tuple[Decision, dict[VersionId, float]]:
        """What the governor of this moment holds down, be it another replica, and how fast those copies can go."""
        with postgres_errors():
            rows = await self._store.pool.fetch(QUERIES.throttles, STALE)
        held = {parse_version(row["version"]): row for row in rows if row["version"] is not None}
        throttles = {version: _throttle_of(row) for version, row in held.items()}
        full = {version: row["full_per_s"] for version, row in held.items() if row["full_per_s"] is not None}
        return Decision(throttles, rows[0]["write_s_max"] if rows else None), full

    async def stop(self) -> None:
        """Let another replica govern at once."""
        with postgres_errors():
            await self._store.pool.execute(QUERIES.stop_governing, self._instance)


def _throttle_of(row: Any) -> Throttle:
    return Throttle(Reason(row["reason"]), row["records_per_s"], row["message"])
