"""A worker: holds the run leases of its partitions and keeps the way of the data going, whatever goes away meanwhile.

Whenever anything around a commit is in doubt the worker starts over from what is committed: a new connection, leases
taken again, positions read, consumers sought there. There is no other recovery, hence none that is rarely used.
"""

import asyncio
import contextlib
import logging
import time
from collections.abc import AsyncIterator
from typing import Final

from services.replayer.engine.batch import Narrowing
from services.replayer.engine.control import Control
from services.replayer.engine.faults import LeaseLostError, LogAwayError, RunFaultError, postgres_away, refused_for_good
from services.replayer.engine.flow import RETRY_S, Flow, Parts
from services.replayer.engine.ingest import Log
from services.replayer.engine.leases import Lease, Leases
from services.replayer.engine.session import Session, open_session
from services.replayer.engine.states import StateLoader
from services.replayer.engine.table import OutputTable
from services.replayer.engine.transform import Transform, transform_of
from services.replayer.engine.watchdog import Watchdog
from services.replayer.protocol import HOLD_CHANNEL, Start, TopicPartition
from turnout.job.compiled import CompiledFold, CompiledJob
from turnout.tasks import end

BACKOFF_FIRST_S: Final = 0.1
BACKOFF_MAX_S: Final = 2.0
REFRESH_S: Final = 1.0  # of the log's ends

log = logging.getLogger("worker")


class Worker:
    """Runs one job over the partitions that `control` names, until it says stop."""

    def __init__(self, start: Start, job: CompiledJob, control: Control, watchdog: Watchdog) -> None:
        self._start = start
        self._job = job
        self._control = control
        self._watchdog = watchdog
        self._log = Log(start.kafka)
        self._narrowing = Narrowing(
            {stretch.tp: stretch.until for stretch in start.record_by_record},
            {(one.tp, one.offset): one.reason for one in start.deadly},
        )

    async def run(self) -> None:
        """Until told to stop. RunFaultError when a person must mend something. Leases are released either way."""
        self._control.report_on(self._log)
        refresh = asyncio.create_task(self._refresh())
        try:
            await self._connect_to_log()
            backoff_s = BACKOFF_FIRST_S
            while not self._control.stopping:
                began_s = time.monotonic()
                try:
                    await self._work()
                except LogAwayError as error:
                    self._control.wait_for("KAFKA_UNAVAILABLE", str(error))
                except LeaseLostError as error:
                    log.warning("starting over: %s", error)
                except Exception as error:
                    self._judge(error, again=backoff_s > BACKOFF_FIRST_S)
                if time.monotonic() - began_s > BACKOFF_MAX_S:
                    backoff_s = BACKOFF_FIRST_S
                await self._control.pause(backoff_s)
                backoff_s = min(BACKOFF_MAX_S, backoff_s * 2)
        finally:
            await end(refresh)
            await self._log.close()

    async def _connect_to_log(self) -> None:
        while not self._control.stopping:
            try:
                await self._log.start()
            except LogAwayError as error:
                self._control.wait_for("KAFKA_UNAVAILABLE", str(error))
                await self._control.pause(RETRY_S)
            else:
                return

    async def _refresh(self) -> None:
        """Keep the log's ends fresh, and say so when Kafka is away: fetching just brings nothing then."""
        while True:
            await asyncio.sleep(REFRESH_S)
            try:
                await self._log.refresh()
            except LogAwayError as error:
                self._control.wait_for("KAFKA_UNAVAILABLE", str(error))
            except Exception:
                log.exception("asking for the ends of the log failed; going on")
            else:
                self._control.goes_on("KAFKA_UNAVAILABLE")

    def _judge(self, error: Exception, *, again: bool) -> None:
        """End the run, or start over; said to be waiting when starting over did not help at once, as after a lock that
        was not to be had."""
        if isinstance(error, RunFaultError):
            raise error
        if refused_for_good(error):
            raise RunFaultError(
                "TABLE_REFUSED",
                f"PostgreSQL does not let the worker write serving.{self._start.table}: {error}. Mend the table or the "
                f"rights of the worker's role, then resume the run.",
            ) from error
        if not postgres_away(error):
            raise error
        log.warning("starting over: PostgreSQL: %s: %s", type(error).__name__, error)
        if again:
            self._control.wait_for(
                "POSTGRES_UNAVAILABLE",
                f"PostgreSQL does not take the batch ({type(error).__name__}); the run goes on by itself once it does.",
            )

    async def _work(self) -> None:
        """Connect, and work until told to stop."""
        start = self._start
        async with self._session() as session, self._states_session(session) as states_session:
            definition = self._job.definition
            table = OutputTable(session, definition, start.table, start.version, start.owner)
            await table.prepare()
            await session.connection.add_listener(HOLD_CHANNEL, lambda *_: self._control.hold_hinted())
            transform = transform_of(self._job, self._watchdog, StateLoader(states_session, definition, start.table))
            leases = Leases(session, start.version, start.owner, start.lease_s)
            held: dict[TopicPartition, Lease] = {}
            self._control.report(held)
            self._control.goes_on("POSTGRES_UNAVAILABLE")
            try:
                await self._hold(held, leases, table, transform)
            except RunFaultError:
                with contextlib.suppress(Exception):  # the fault is what matters; a lease left over expires
                    await leases.release(held.values())
                raise
            await leases.release(held.values())

    async def _hold(
        self, held: dict[TopicPartition, Lease], leases: Leases, table: OutputTable, transform: Transform
    ) -> None:
        """Take the leases of the partitions assigned, and let the data flow until that changes; again and again."""
        while not self._control.stopping:
            self._control.assignment_seen()
            wanted = self._control.partitions
            released = [lease for tp, lease in held.items() if tp not in wanted]
            await leases.release(released)
            for lease in released:
                del held[lease.tp]
            pending = await self._take(leases, held, wanted)
            await self._place(held)
            transform.begin(held)
            if not held:
                await self._control.pause(RETRY_S)
                continue
            await Flow(
                Parts(
                    log=self._log,
                    leases=leases,
                    table=table,
                    transform=transform,
                    narrowing=self._narrowing,
                    pace=self._control.pace,
                    tempo=self._control.tempo,
                    lease_s=self._start.lease_s,
                    held=held,
                    pending=pending,
                    interrupted=lambda: self._control.interrupted,
                    hold_hinted=self._control.hold_seen,
                    trying=self._control.trying,
                )
            ).run()

    async def _take(
        self, leases: Leases, held: dict[TopicPartition, Lease], wanted: frozenset[TopicPartition]
    ) -> set[TopicPartition]:
        """Take what is wanted and not yet held; answers what another worker still holds."""
        pending = set()
        for tp in sorted(wanted - held.keys()):
            try:
                lease = await leases.take(tp)
            except LookupError:
                self._control.wait_for("POSITION_MISSING", f"{tp.topic}, partition {tp.partition} has no position yet.")
                pending.add(tp)
                continue
            if lease is None:
                pending.add(tp)
            else:
                held[tp] = lease
        if held or not pending:
            self._control.goes_on("LEASE_HELD")
            self._control.goes_on("POSITION_MISSING")
        else:
            tp = min(pending)
            self._control.wait_for(
                "LEASE_HELD",
                f"Another worker holds {tp.topic}, partition {tp.partition}"
                f"{f' and {len(pending) - 1} more' if len(pending) > 1 else ''}.",
            )
        return pending

    async def _place(self, held: dict[TopicPartition, Lease]) -> None:
        """Read on from the committed positions, having made sure that this is the log they belong to."""
        positions = {tp: lease.next_offset for tp, lease in held.items()}
        self._log.assign(positions, {tp: lease.range_end for tp, lease in held.items() if lease.range_end is not None})
        if not held:
            return
        await self._log.check_positions(positions)
        await self._log.check_identity({tp: lease.last for tp, lease in held.items() if lease.last is not None})
        self._log.seek(positions)

    @contextlib.asynccontextmanager
    async def _session(self) -> AsyncIterator[Session]:
        session = await open_session(self._start.postgres, self._start.owner, self._start.lease_s)
        try:
            yield session
            await session.connection.close(timeout=BACKOFF_MAX_S)
        finally:
            session.connection.terminate()  # after an error its state is not worth a round trip

    @contextlib.asynccontextmanager
    async def _states_session(self, session: Session) -> AsyncIterator[Session]:
        """A fold's second session; it lives exactly as long as the first, and so do the states read from it."""
        if not isinstance(self._job, CompiledFold):
            yield session
            return
        async with self._session() as second:
            yield second
