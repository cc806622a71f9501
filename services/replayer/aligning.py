"""Bringing two runs to one cut, and a snapshot of both tables there. The rules are in alignment.py."""

import asyncio
import contextlib
import logging
import random
import time
import uuid
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Any, Final

import asyncpg

from core.postgres import connect, postgres_errors
from services.replayer.alignment import Cut, Side, at_cut, cut_of, obstacles
from services.replayer.evidence import speed_per_s
from services.replayer.protocol import HOLD_CHANNEL, TopicPartition
from services.replayer.run import Positions, Run
from services.replayer.spans import span
from services.replayer.store import QUERIES, positions_of
from services.replayer.surroundings import Surroundings
from turnout.errors import Aborted, FailedPrecondition, TurnoutError
from turnout.names import VersionId

log = logging.getLogger(__name__)

_LOOK_S: Final = 0.005
_LET_GO_LOOKS: Final = 20
_ATTEMPTS: Final = 5  # while another comparison holds one of the runs
_ATTEMPT_S: Final = 0.4


@dataclass(frozen=True, slots=True)
class Snapshot:
    """Both tables at one moment, through a connection inside a REPEATABLE READ transaction.

    why: they are not aligned, in words; empty = they are. held_s: for how long the runs were held, from the first
    position that was held to the last one that was let go.
    """

    connection: Any
    old: Positions
    new: Positions
    at: datetime
    why: str
    held_s: float

    @property
    def aligned(self) -> bool:
        """Whether both tables are made of the records before the same offsets."""
        return not self.why


class _HeldByAnotherError(Exception):
    """Another comparison holds one of the positions."""


class Aligner:
    """Makes snapshots in which two runs stand at one cut."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._store = around.store

    @contextlib.asynccontextmanager
    async def snapshot(
        self, old: VersionId, new: VersionId, within_s: float, *, allow_unaligned: bool
    ) -> AsyncIterator[Snapshot]:
        """A snapshot at one cut that both reach within the time; where there is none, and that is allowed, one as they
        stand. FailedPrecondition (CANNOT_ALIGN); Aborted (ALIGNMENT_EXPIRED, COMPARISON_UNDER_WAY); Unavailable."""
        with postgres_errors():
            async with self._store.pool.acquire() as connection:
                try:
                    made = await self._aligned(connection, old, new, within_s)
                except (FailedPrecondition, Aborted) as error:
                    if not allow_unaligned:
                        raise
                    made = await self._open(connection, old, new, error.message)
                try:
                    yield made
                finally:
                    await _end(connection)

    async def _aligned(self, connection: Any, old: VersionId, new: VersionId, within_s: float) -> Snapshot:
        """Without holding anybody where both stand at one cut already."""
        made = await self._open(connection, old, new)
        if made.old and at_cut(made.new, cut_of(made.old, made.new)) and at_cut(made.old, cut_of(made.old, made.new)):
            return made
        await _end(connection)
        self._check(await self._sides(old, new, made.old, made.new), within_s)
        for attempt in range(1, _ATTEMPTS + 1):
            try:
                return await self._held(connection, old, new, within_s)
            except _HeldByAnotherError:
                if attempt < _ATTEMPTS:
                    await asyncio.sleep(_ATTEMPT_S * random.uniform(0.5, 1.5))  # noqa: S311  # keeps no secret
        raise Aborted(
            "COMPARISON_UNDER_WAY", f"Other comparisons keep holding {old} or {new}; try again when they are over."
        )

    async def _held(self, connection: Any, old: VersionId, new: VersionId, within_s: float) -> Snapshot:
        hold = Hold(old, new, within_s)
        async with hold.connected(self._around.settings.postgres):
            cut = await hold.at_one_cut(lambda positions: self._check_held(old, new, positions, within_s))
            made = await self._open(connection, old, new)
            await hold.let_go()
        if not (at_cut(made.old, cut) and at_cut(made.new, cut)):
            await _end(connection)
            raise _expired(hold, "one of them went on before its table was read")
        return Snapshot(made.connection, made.old, made.new, made.at, "", hold.held_s)

    async def _check_held(
        self, old: VersionId, new: VersionId, positions: Mapping[VersionId, Positions], within_s: float
    ) -> None:
        self._check(await self._sides(old, new, positions.get(old, {}), positions.get(new, {})), within_s)

    async def _open(self, connection: Any, old: VersionId, new: VersionId, why: str = "") -> Snapshot:
        """Begin the transaction; its snapshot is that of the positions."""
        await connection.execute("begin isolation level repeatable read read only")
        try:
            positions = positions_of(await connection.fetch(QUERIES.positions_of, [old.name, new.name]))
            at = await connection.fetchval("select now()")
        except BaseException:
            await _end(connection)
            raise
        return Snapshot(connection, positions.get(old, {}), positions.get(new, {}), at, why, 0.0)

    async def _sides(
        self, old: VersionId, new: VersionId, old_positions: Positions, new_positions: Positions
    ) -> tuple[Side, Side]:
        return (
            self._side(await self._store.get(old), old_positions),
            self._side(await self._store.get(new), new_positions),
        )

    def _side(self, run: Run, positions: Positions) -> Side:
        measured = speed_per_s(self._around.sampler.samples, run.version)
        copied = run.copy_offsets / run.copy_s if run.copy_offsets and run.copy_s else None
        known = [speed for speed in (measured, copied) if speed]
        throttle, _ = self._around.governing.pace_of(run)
        limits = [float(run.rate_limit)] if run.rate_limit else []
        if throttle is not None:
            limits.append(throttle.records_per_s)
        speed = min([max(known), *limits]) if known else min(limits, default=None)
        return Side(run, positions, speed, held_still=0.0 in limits)

    def _check(self, sides: tuple[Side, Side], within_s: float) -> None:
        """FailedPrecondition (CANNOT_ALIGN)."""
        against = obstacles(*sides, within_s)
        if against:
            old, new = (side.run.version for side in sides)
            raise FailedPrecondition(
                "CANNOT_ALIGN",
                f"{old} and v{new.number} cannot stand at one cut within {span(within_s)}: {'; '.join(against)}.",
                metadata={"old_version": old.name, "new_version": new.name},
            )


class Hold:
    """Two runs held for a moment; `held_s` tells for how long they were."""

    def __init__(self, old: VersionId, new: VersionId, within_s: float) -> None:
        self.old = old
        self.new = new
        self.within_s = within_s
        self.held_s = 0.0
        self._id = uuid.uuid4().hex
        self._names = sorted({old.name, new.name})
        self._began_s: float | None = None
        self._ends_s = 0.0  # monotonic
        self._until: datetime | None = None  # the same moment by PostgreSQL's clock
        self._connection: Any = None

    @contextlib.asynccontextmanager
    async def connected(self, dsn: str) -> AsyncIterator[None]:
        """Over a connection of its own, whose commits need not reach a disk; whatever happens, lets both go at the end.

        What cannot be let go, because the connection is lost, lets itself go when its time is over."""
        self._connection = await connect(
            dsn,
            application_name="turnout alignment",
            command_timeout_s=self.within_s + 1.0,
            settings={"synchronous_commit": "off", "lock_timeout": _milliseconds(timedelta(seconds=self.within_s))},
        )
        try:
            yield
        finally:
            try:
                await asyncio.shield(self.let_go())
            except (TurnoutError, asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError) as error:
                log.warning("what was held of %s and %s lets itself go: %r", self.old, self.new, error)
            finally:
                self._connection.terminate()

    async def at_one_cut(self, check: Callable[[Mapping[VersionId, Positions]], Awaitable[None]]) -> Cut:
        """Hold both and wait until they stand at one cut. `check` may refuse the positions at which both are held.

        Aborted (ALIGNMENT_EXPIRED); _HeldByAnotherError; what `check` raises."""
        self._began_s = time.monotonic()
        self._ends_s = self._began_s + self.within_s
        try:
            positions = await self._hold_all()
            await check(positions)
            cut = cut_of(positions.get(self.old, {}), positions.get(self.new, {}))
            await self._let_reach(cut, positions)
            await self._reached(cut)
        except asyncpg.LockNotAvailableError:
            raise _expired(self, "a transaction of one of them took longer") from None
        return cut

    async def let_go(self) -> None:
        """Let both go on, without waiting for a transaction that is about to be refused; it releases itself."""
        if self._began_s is None:
            return
        for _ in range(_LET_GO_LOOKS):
            await self._connection.execute(QUERIES.let_go, self._id)
            if not await self._connection.fetchval(QUERIES.still_held, self._id):
                break
            await asyncio.sleep(_LOOK_S)
        self.held_s = time.monotonic() - self._began_s
        self._began_s = None

    async def _hold_all(self) -> dict[VersionId, Positions]:
        # Once, before anybody is waited for: else what is held last would be held for that time longer.
        self._until = await self._connection.fetchval("select clock_timestamp() + $1::interval", self._left)
        await self._connection.execute(QUERIES.hold_free_positions, self._names, self._id, self._until)
        await self._hint()
        for row in await self._look():
            if not row["held"]:
                await self._connection.execute(QUERIES.limit_lock_waits, _milliseconds(self._left))
                held = await self._connection.fetchval(
                    QUERIES.hold_position, row["version"], row["topic"], row["partition"], self._id, self._until
                )
                if held is None:
                    raise _HeldByAnotherError
        return positions_of(await self._connection.fetch(QUERIES.positions_of, self._names))

    async def _let_reach(self, cut: Cut, positions: dict[VersionId, Positions]) -> None:
        for version, held in positions.items():
            for tp, offset in cut.items():
                if held[tp].next_offset < offset:
                    await self._connection.execute(
                        QUERIES.hold_further, version.name, tp.topic, tp.partition, self._id, offset
                    )
        await self._hint()

    async def _reached(self, cut: Cut) -> None:
        while True:
            rows = await self._look()
            short = [row for row in rows if row["next_offset"] < cut.get(_tp(row), 0)]
            if not short and all(row["held"] for row in rows):
                return
            if self._left <= timedelta(0):
                raise _expired(self, _short_text(short, cut))
            await asyncio.sleep(_LOOK_S)

    async def _hint(self) -> None:
        """Let the workers look at their positions now, rather than when a batch is refused."""
        await self._connection.execute(f"notify {HOLD_CHANNEL}")

    async def _look(self) -> list[Any]:
        return list(await self._connection.fetch(QUERIES.held_positions, self._names, self._id))

    @property
    def _left(self) -> timedelta:
        return timedelta(seconds=self._ends_s - time.monotonic())


def _milliseconds(limit: timedelta) -> str:
    """For PostgreSQL, to which 0 is no limit at all."""
    return str(max(1, int(limit.total_seconds() * 1000)))


def _tp(row: Any) -> TopicPartition:
    return TopicPartition(row["topic"], row["partition"])


def _short_text(short: list[Any], cut: Cut) -> str:
    for row in short:
        offset = cut[_tp(row)]
        number = row["version"].rpartition("/")[2]
        return (
            f"version {number} stood at offset {row['next_offset']:,} of {row['topic']}/{row['partition']} by then, "
            f"and the cut is {offset:,}"
        )
    return "the time was over when both stood there"


def _expired(hold: Hold, why: str) -> Aborted:
    return Aborted(
        "ALIGNMENT_EXPIRED",
        f"{hold.old} and v{hold.new.number} did not stand at one cut within {span(hold.within_s)}: {why}. Both go on; "
        f"try again, or allow more time.",
    )


async def _end(connection: Any) -> None:
    """End the transaction, if there is one and the connection still answers."""
    if not connection.is_closed() and connection.is_in_transaction():
        with contextlib.suppress(asyncpg.PostgresError, asyncpg.InterfaceError, OSError, TimeoutError):
            await connection.execute("rollback")
