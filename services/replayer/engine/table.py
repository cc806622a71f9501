"""Rows and positions, in one transaction.

The position rows come first: they are updated only where fence, owner and next_offset are exactly what this worker
believes, and unless all match nothing is written; nor where a comparison holds one of them short of the batch's end
(`alignment.py`). So a batch is in the table once, whatever was cut off, retried,
forgotten by a crashed server, or taken over in between.

Then the rows, one of two ways (`ddl.py`): copied straight into the table, inside a savepoint, while no key of a batch
proves to be there already (`novelty.py`); copied into a staging table and merged from there otherwise. A refused copy
is undone to the savepoint, with the positions moved and nothing else changed, and then merged: the same transaction,
the same rows.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from operator import itemgetter
from typing import Any

import asyncpg

from services.replayer import ddl
from services.replayer.engine.batch import Batch, Span
from services.replayer.engine.faults import (
    DataRefusedError,
    HeldError,
    LeaseLostError,
    RunFaultError,
    reason_of,
    refused_for_data,
)
from services.replayer.engine.leases import Lease, rows_of, time_of
from services.replayer.engine.novelty import Novelty
from services.replayer.engine.session import Session
from services.replayer.engine.volume import bytes_of, shares
from services.replayer.protocol import TopicPartition
from turnout.job.compiled import DELETED, PARTITION
from turnout.schema import JobDefinition, JobKind, Keep
from turnout.sql import SCHEMA

_MOVE = """
update serving.positions p
set next_offset = b.next_offset, event_time = greatest(p.event_time, b.event_time),
    records = p.records + b.records, set_aside = p.set_aside + b.set_aside,
    last_offset = coalesce(b.last_offset, p.last_offset),
    last_timestamp_ms = coalesce(b.last_timestamp_ms, p.last_timestamp_ms),
    last_crc = coalesce(b.last_crc, p.last_crc),
    rows_written = p.rows_written + b.rows_written, bytes_written = p.bytes_written + b.bytes_written
from unnest($3::text[], $4::integer[], $5::bigint[], $6::bigint[], $7::bigint[], $8::timestamptz[], $9::bigint[],
            $10::bigint[], $11::bigint[], $12::bigint[], $13::bigint[], $14::bigint[], $15::bigint[])
  as b(topic, partition, fence, start, next_offset, event_time, records, set_aside,
       last_offset, last_timestamp_ms, last_crc, rows_written, bytes_written)
where p.version = $1 and p.owner = $2 and p.topic = b.topic and p.partition = b.partition
  and p.fence = b.fence and p.next_offset = b.start
  and (p.hold_until < clock_timestamp() or b.next_offset <= p.hold_at)"""

# How many positions are ours and still where we left them. In the transaction that has moved the others, these were not
# moved because they are held, or were a moment ago.
_LEFT = """
select count(*) from serving.positions p
join unnest($3::text[], $4::integer[], $5::bigint[], $6::bigint[]) as b(topic, partition, fence, start)
  on p.topic = b.topic and p.partition = b.partition and p.fence = b.fence and p.next_offset = b.start
where p.version = $1 and p.owner = $2"""

_SET_ASIDE = """
insert into serving.dead_letters (version, topic, partition, "offset", reason, key, value)
select $1, * from unnest($2::text[], $3::integer[], $4::bigint[], $5::text[], $6::bytea[], $7::bytea[])
on conflict (version, topic, partition, "offset")
do update set reason = excluded.reason, key = excluded.key, value = excluded.value, recorded_at = now()"""

# With an expiry every transaction must see the event time of all partitions: its job's transactions go one by one.
_ONE_BY_ONE = "select pg_advisory_xact_lock(hashtextextended('turnout expiry ' || $1, 0))"


@dataclass(slots=True)
class Rows:
    """What a batch changes in the table, no key twice. `staged` in the order of `ddl.staged_columns`; `deleted` are
    changes of jobs keyed by partition."""

    staged: Sequence[Sequence[Any]] = ()
    deleted: list[Sequence[Any]] = field(default_factory=list)


class OutputTable:
    """Writes one version's table over one connection."""

    def __init__(self, session: Session, definition: JobDefinition, table: str, version: str, owner: str) -> None:
        self._session = session
        self._connection = session.connection
        self._definition = definition
        self._version = version
        self._owner = owner
        self._table = table
        self._staged = ddl.staged_columns(definition)
        self._inserted = ddl.insert_columns(definition)
        self._novelty = Novelty()
        self._merge = ddl.merge(definition, table)
        self._expire = ddl.expire(definition, table)
        self._purge = ddl.purge_tombstones(definition, table)
        # Whether a key from another partition shows as a staged row that was not written.
        self._all_written = definition.keyed_by_partition and definition.keep is not Keep.FIRST

    async def prepare(self) -> None:
        """Make the session's staging table."""
        with self._session.patience():
            await self._connection.execute(ddl.create_staging(self._definition))

    async def write(self, batch: Batch, rows: Rows, leases: Mapping[TopicPartition, Lease]) -> None:
        """Commit the batch: all of it or nothing.

        HeldError: a position is held for a moment. LeaseLostError: one is not ours or not where we left it.
        DataRefusedError: the rows are at fault. RunFaultError: a key from another partition. After anything else it is
        unknown whether it was committed.
        """
        with self._session.patience():
            await self._write(batch, rows, leases)

    async def _write(self, batch: Batch, rows: Rows, leases: Mapping[TopicPartition, Lease]) -> None:
        async with self._connection.transaction():
            await self._move(batch, rows, leases)
            try:
                await self._change_rows(rows)
            except Exception as error:
                if refused_for_data(error):
                    raise DataRefusedError(reason_of(error)) from error
                raise
            if batch.dead_letters:
                await self._set_aside(batch)

    async def _move(self, batch: Batch, rows: Rows, leases: Mapping[TopicPartition, Lease]) -> None:
        if self._expire is not None:
            await self._connection.execute(_ONE_BY_ONE, self._version)
        moved = [(tp, span, leases[tp].fence) for tp, span in sorted(batch.spans.items()) if span.moved]
        spans = [span for _, span, _ in moved]
        records = [span.records for span in spans]
        bytes_sent = bytes_of(rows.staged, len(self._staged))
        done = await self._connection.execute(
            _MOVE,
            self._version,
            self._owner,
            [tp.topic for tp, _, _ in moved],
            [tp.partition for tp, _, _ in moved],
            [fence for _, _, fence in moved],
            [span.start for span in spans],
            [span.next_offset for span in spans],
            [None if span.event_time_ms is None else time_of(span.event_time_ms) for span in spans],
            records,
            [span.set_aside for span in spans],
            [span.last and span.last.offset for span in spans],
            [span.last and span.last.timestamp_ms for span in spans],
            [span.last and span.last.crc for span in spans],
            shares(len(rows.staged) + len(rows.deleted), records),
            shares(bytes_sent, records),
        )
        if rows_of(done) != len(moved):
            if await self._left(moved) == len(moved) - rows_of(done):
                raise HeldError
            raise LeaseLostError(f"{len(moved) - rows_of(done)} of {len(moved)} positions are not where they were left")

    async def _left(self, moved: Sequence[tuple[TopicPartition, Span, int]]) -> int:
        return int(
            await self._connection.fetchval(
                _LEFT,
                self._version,
                self._owner,
                [tp.topic for tp, _, _ in moved],
                [tp.partition for tp, _, _ in moved],
                [fence for _, _, fence in moved],
                [span.start for _, span, _ in moved],
            )
        )

    async def _change_rows(self, rows: Rows) -> None:
        if rows.deleted:
            await self._delete(rows.deleted)
        if rows.staged and not await self._insert(rows.staged):
            await self._merge_staged(rows.staged)
        if self._expire is not None:
            await self._connection.execute(self._expire, self._version)

    async def _insert(self, staged: Sequence[Sequence[Any]]) -> bool:
        """Add the rows as new ones. False, and nothing is changed, if that was not tried or a key is there already."""
        if self._inserted is None or not self._novelty.expected():
            return False
        if not self._definition.keyed_by_partition:
            # Another worker may write the same keys: in one order, or the two wait for one another.
            staged = sorted(staged, key=itemgetter(*self._definition.key_positions))
        try:
            async with self._connection.transaction():
                await self._connection.copy_records_to_table(
                    self._table, schema_name=SCHEMA, columns=self._inserted, records=staged
                )
        except asyncpg.UniqueViolationError:
            self._novelty.refuted()
            return False
        self._novelty.confirmed()
        return True

    async def _merge_staged(self, staged: Sequence[Sequence[Any]]) -> None:
        await self._connection.copy_records_to_table(
            "staging", schema_name="pg_temp", columns=self._staged, records=staged
        )
        written = rows_of(await self._connection.execute(self._merge))
        if self._definition.keyed_by_partition and written < len(staged):
            await self._look_for_conflict()

    async def _delete(self, deleted: list[Sequence[Any]]) -> None:
        keys = [[change[position] for change in deleted] for position in self._definition.key_positions]
        partitions = [change[PARTITION] for change in deleted]
        conflict = await self._connection.fetchrow(ddl.delete(self._definition, self._table), *keys, partitions)
        if conflict is not None:
            raise _conflict(conflict)

    async def _look_for_conflict(self) -> None:
        conflict = await self._connection.fetchrow(ddl.conflicts(self._definition, self._table))
        if conflict is not None:
            raise _conflict(conflict)
        assert not self._all_written, "rows were not written, and no other partition holds them"

    async def _set_aside(self, batch: Batch) -> None:
        letters = batch.dead_letters
        await self._connection.execute(
            _SET_ASIDE,
            self._version,
            [letter.topic for letter in letters],
            [letter.partition for letter in letters],
            [letter.offset for letter in letters],
            [letter.reason for letter in letters],
            [letter.key for letter in letters],
            [letter.value for letter in letters],
        )

    async def purge_tombstones(self) -> None:
        """Delete tombstones that every partition has left far behind."""
        if self._purge is not None:
            with self._session.patience():
                await self._connection.execute(self._purge, self._version)


def rows_of_changes(definition: JobDefinition, changes: Sequence[Sequence[Any]]) -> Rows:
    """A map's or fold's changes as rows: where rows are keyed by partition, deletions take their own way."""
    if definition.kind is JobKind.AGGREGATE or not definition.keyed_by_partition or definition.keep is Keep.FIRST:
        return Rows(changes)
    deleted = [change for change in changes if change[DELETED]]
    return Rows([change for change in changes if not change[DELETED]] if deleted else changes, deleted)


def _conflict(row: Any) -> RunFaultError:
    values = tuple(row.values())[:-2]
    key = values[0] if len(values) == 1 else values
    return RunFaultError(
        "KEY_FROM_ANOTHER_PARTITION",
        f"The row with key {key!r} was written by partition {row['was']} and now comes from partition {row['now']}: "
        f"its rows are ordered within one partition only. Was the topic widened, or is it not partitioned by this key? "
        f"Replay from a topic that is partitioned by the row key, or declare order_by=.",
    )
