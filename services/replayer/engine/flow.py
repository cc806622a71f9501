"""The way of the data, as long as nothing goes wrong: fetch -> transform -> rows and positions in one transaction.

One batch is gathered while the one before it is written. Of everything that goes wrong only a refusal of the data is
dealt with here, by reading on from the committed positions in smaller batches; the rest is for the worker, which drops
this flow and begins another from what is committed.

A comparison may hold the run's positions for a moment (`alignment.py`). That is written in the position rows, so a
batch that goes too far is refused; a hint lets the worker hear of it before, for a batch may be gathered for seconds.
It reads up to where it may go, again if need be, and looks every few milliseconds whether it was let go.
"""

import asyncio
import contextlib
import time
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from services.replayer.engine.batch import Batch, Narrowing, Tempo, due, span_of
from services.replayer.engine.faults import DataRefusedError, HeldError, RunFaultError
from services.replayer.engine.ingest import Log
from services.replayer.engine.leases import Lease, Leases
from services.replayer.engine.pace import Pace
from services.replayer.engine.table import OutputTable, Rows
from services.replayer.engine.transform import Transform, refuse
from services.replayer.protocol import TopicPartition
from turnout.job.rows import Message

WAIT_S: Final = 0.1  # for records, before looking at commands and leases again
RETRY_S: Final = 0.5  # between attempts to take a partition that another worker holds
HOLD_LOOK_S: Final = 0.01  # between looks at what holds a partition
PURGE_S: Final = 10.0  # between deletions of tombstones that have had their time


@dataclass(slots=True)
class Parts:
    """What a flow is made of. `held` is kept up to date: it is what the worker reports as progress. `pending` are
    partitions whose lease is not to be had yet."""

    log: Log
    leases: Leases
    table: OutputTable
    transform: Transform
    narrowing: Narrowing
    pace: Pace
    tempo: Tempo
    lease_s: float
    held: dict[TopicPartition, Lease]
    pending: set[TopicPartition]
    interrupted: Callable[[], bool]
    hold_hinted: Callable[[], bool]
    trying: Callable[[TopicPartition, int], None]


class Flow:
    """Runs over a fixed set of partitions, whose consumer positions are the leases' next offsets."""

    def __init__(self, parts: Parts) -> None:
        self._parts = parts
        self._held = parts.held
        self._read_to = {tp: lease.next_offset for tp, lease in parts.held.items()}
        self._batch = Batch(time.monotonic())
        self._only: Message | None = None  # the batch's record, if it has one
        self._writing: tuple[asyncio.Task[None], Batch, Message | None] | None = None
        self._renewed_s = self._retried_s = self._purged_s = self._held_looked_s = -float("inf")
        self._hold()

    async def run(self) -> None:
        """Until interrupted, or until a pending partition could be taken. What was gathered by then and is not being
        written is left for the next flow; what is being written is committed."""
        try:
            while not self._parts.interrupted():
                await self._keep_up()
                if await self._take_pending():
                    break
                await self._step()
            await self._finish_write()
        finally:
            if self._writing is not None:  # after an error elsewhere; what the write makes of it is read again
                with contextlib.suppress(Exception):
                    await self._writing[0]

    async def _step(self) -> None:
        alone = self._parts.narrowing.next(self._readable())
        if alone is not None:
            await self._step_alone(*alone)
            return
        await self._gather(self._parts.tempo.chunk)
        if self._writing is not None and self._writing[0].done():
            await self._finish_write()
        behind = bool(self._readable())
        if due(self._batch, self._parts.tempo, now_s=time.monotonic(), behind=behind):
            await self._write()

    async def _step_alone(self, tp: TopicPartition, records_max: int) -> None:
        """One small batch of one partition, written before anything else is read."""
        if self._batch.moved:
            await self._write()
        await self._finish_write()
        await self._gather(records_max, tp)
        if self._batch.moved:
            await self._write()
            await self._finish_write()

    def _readable(self) -> list[TopicPartition]:
        """Partitions that have more than was read."""
        readable_to = self._parts.log.readable_to
        return [tp for tp, offset in self._read_to.items() if offset < readable_to(tp)]

    async def _gather(self, records_max: int, only: TopicPartition | None = None) -> None:
        """Fetch what there is, within the pace, and work it into the batch."""
        log, pace, batch = self._parts.log, self._parts.pace, self._batch
        allowed = pace.allowed(records_max, time.monotonic())
        if allowed == 0:
            await asyncio.sleep(min(pace.wait_s(time.monotonic()), WAIT_S))
            return
        fetched = await log.fetch(allowed, HOLD_LOOK_S if self._on_hold else WAIT_S, only)
        for tp in self._held:
            position = await log.position(tp)
            if position > self._read_to[tp]:
                span_of(batch, tp, self._read_to[tp]).next_offset = position
                self._read_to[tp] = position
        records = sum(map(len, fetched.values()))
        if not records:
            return
        pace.spend(records)
        self._only = next(iter(fetched.values()))[0] if batch.records + records == 1 else None
        if self._parts.tempo.slow and not await self._finish_write():
            return
        if only is not None and self._only is not None and self._passed_over(only, self._only, batch):
            return
        try:
            self._parts.tempo.took(records, await self._parts.transform.collect(fetched, batch))
        except DataRefusedError as error:
            if await self._finish_write():
                await self._refused(batch, self._only, error)

    def _passed_over(self, tp: TopicPartition, message: Message, batch: Batch) -> bool:
        """Whether the record is deadly, and set aside unseen. Of one that may be, say first which one it is."""
        reason = self._parts.narrowing.deadly(tp, message.offset)
        if reason is not None:
            self._parts.transform.pass_over(tp, message, reason, batch)
            return True
        if self._parts.narrowing.alone(tp):
            self._parts.trying(tp, message.offset)
        return False

    # --- writing ----------------------------------------------------------------------------------------------------

    async def _write(self) -> None:
        """Begin to write the batch, once the one before it is written, and begin another."""
        if not await self._finish_write():
            return
        batch, rows, only = self._batch, self._parts.transform.take(), self._only
        self._batch, self._only = Batch(time.monotonic()), None
        self._writing = (asyncio.create_task(self._commit(batch, rows)), batch, only)

    async def _commit(self, batch: Batch, rows: Rows) -> None:
        began_s, written = time.monotonic(), False
        try:
            await self._parts.table.write(batch, rows, self._held)
            written = True
        finally:  # a write that was cut for its length would be as long the next time
            self._parts.tempo.wrote(batch.rows, time.monotonic() - began_s, written=written)
        for tp, span in batch.spans.items():
            self._held[tp].applied(span)
            self._parts.narrowing.written(tp, span)

    async def _finish_write(self) -> bool:
        """Wait for the write under way. False if it was refused: then everything gathered since is dropped."""
        if self._writing is None:
            return True
        task, batch, only = self._writing
        try:
            await task
        except DataRefusedError as error:
            self._writing = None
            await self._refused(batch, only, error)
            return False
        except HeldError:
            self._writing = None
            await self._read_again()
            return False
        self._writing = None
        return True

    async def _refused(self, batch: Batch, only: Message | None, error: DataRefusedError) -> None:
        """Nothing of the batch is committed. A single record is set aside; otherwise read it again, in smaller ones."""
        if batch.records == 0:
            raise RunFaultError("TABLE_REFUSED", f"{error}. No record is to blame; look at the table.") from error
        if only is not None:
            refuse(self._parts.transform.definition, batch, only, str(error))
            with contextlib.suppress(HeldError):  # it is refused again when it is let go
                await self._commit(batch, Rows())
        else:
            self._parts.narrowing.refused(batch.spans)
        await self._read_again()

    async def _read_again(self) -> None:
        """Drop what was gathered, and go on from what is committed."""
        self._batch, self._only = Batch(time.monotonic()), None
        for tp, lease in list(self._held.items()):
            self._held[tp] = await self._parts.leases.read_again(lease)
            self._read_to[tp] = self._held[tp].next_offset
        self._parts.transform.begin(self._held)
        self._parts.log.seek(self._read_to)
        self._hold()

    # --- leases and upkeep ------------------------------------------------------------------------------------------

    async def _keep_up(self) -> None:
        """Renew the leases in time, notice a log that retention has cut off under us, purge tombstones."""
        now_s = time.monotonic()
        if now_s - self._renewed_s >= self._parts.lease_s / 4:
            await self._finish_write()
            self._renewed_s = time.monotonic()
            await self._parts.leases.renew(self._held.values())
        if self._parts.hold_hinted() or (self._on_hold and now_s - self._held_looked_s >= HOLD_LOOK_S):
            await self._look_at_holds()
        ranges = self._parts.log.ranges
        if any(tp in ranges and offset < ranges[tp].start for tp, offset in self._read_to.items()):
            await self._parts.log.check_positions(self._read_to)
        if now_s - self._purged_s >= PURGE_S:
            self._purged_s = now_s
            await self._finish_write()
            await self._parts.table.purge_tombstones()

    @property
    def _on_hold(self) -> bool:
        return any(lease.hold_at is not None for lease in self._held.values())

    def _hold(self) -> None:
        """Read no further than the leases say."""
        holds = {tp: lease.hold_at for tp, lease in self._held.items() if lease.hold_at is not None}
        self._parts.log.hold(holds, self._read_to)

    async def _look_at_holds(self) -> None:
        """Go on where a partition was let go, or may be read further."""
        await self._finish_write()
        holds = await self._parts.leases.holds()
        for tp, lease in self._held.items():
            lease.hold_at = holds.get(tp)
        if any(self._read_to[tp] > offset for tp, offset in holds.items() if tp in self._read_to):
            await self._read_again()
        else:
            self._hold()
        self._held_looked_s = time.monotonic()

    async def _take_pending(self) -> bool:
        """Whether a lease was taken; then what is gathered is written first, so that nothing is read twice."""
        parts, now_s = self._parts, time.monotonic()
        if not parts.pending or now_s - self._retried_s < RETRY_S:
            return False
        self._retried_s = now_s
        await self._finish_write()
        taken = False
        for tp in sorted(parts.pending):
            try:
                lease = await parts.leases.take(tp)
            except LookupError:  # it has no position yet
                continue
            if lease is not None:
                if not taken and self._batch.moved:
                    await self._write()
                    await self._finish_write()
                taken = True
                parts.pending.discard(tp)
                self._held[tp] = lease
        return taken
