"""Run leases: a worker's right to write the rows of a partition, kept in its position row.

Taking and renewing commit synchronously: a lease that a crash of the server forgets would let two workers write. The
fence grows with every take-over, so that whoever held the lease before cannot commit any more.
"""

from collections.abc import Collection
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

import asyncpg

from services.replayer.engine.batch import Span
from services.replayer.engine.faults import LeaseLostError
from services.replayer.engine.identity import RecordIdentity
from services.replayer.engine.session import IS_OWNERS, Session
from services.replayer.protocol import TopicPartition
from services.replayer.states import State

EPOCH: Final = datetime(1970, 1, 1, tzinfo=UTC)

# Where a position is held at the moment; null = it is not (`alignment.py`).
_HOLD = """case when hold_until > clock_timestamp() then hold_at end as hold_at"""
_FIELDS = f"""fence, start_offset, next_offset, range_end, event_time, records, set_aside,
  last_offset, last_timestamp_ms, last_crc, {_HOLD}"""

_TAKE = f"""
update serving.positions
set fence = fence + 1, owner = $4, owner_pid = pg_backend_pid(), lease_expires = clock_timestamp() + $5
where version = $1 and topic = $2 and partition = $3
  and (owner is null or owner = $4 or lease_expires < clock_timestamp())
returning {_FIELDS}"""  # noqa: S608 - a constant

# A run that was paused or stopped is not written any more: whoever does that waits for the leases that there are, and
# the lock lets no other come meanwhile.
_WANTED = "select 1 from replayer.runs where version = $1 and state = any($2::text[]) for share"
_WANTS_WORKERS: Final = [state.value for state in State if state.wants_workers]

_END_EXPIRED = f"""
select pg_terminate_backend(a.pid)
from serving.positions p join pg_stat_activity a on {IS_OWNERS}
where p.version = $1 and p.topic = $2 and p.partition = $3 and a.pid <> pg_backend_pid()
  and (p.owner = $4 or p.lease_expires < clock_timestamp())"""  # noqa: S608 - a constant

_RENEW = """
update serving.positions p set lease_expires = clock_timestamp() + $3
from unnest($4::text[], $5::integer[], $6::bigint[]) as mine(topic, partition, fence)
where p.version = $1 and p.owner = $2 and p.topic = mine.topic and p.partition = mine.partition
  and p.fence = mine.fence"""

_RELEASE = """
update serving.positions p set owner = null, owner_pid = null, lease_expires = '-infinity'
from unnest($3::text[], $4::integer[], $5::bigint[]) as mine(topic, partition, fence)
where p.version = $1 and p.owner = $2 and p.topic = mine.topic and p.partition = mine.partition
  and p.fence = mine.fence"""

_READ = f"""
select {_FIELDS} from serving.positions
where version = $1 and topic = $2 and partition = $3 and owner = $4 and fence = $5"""  # noqa: S608 - a constant

_HOLDS = f"""
select topic, partition, {_HOLD} from serving.positions
where version = $1 and owner = $2 and hold_by is not null"""  # noqa: S608 - a constant


@dataclass(slots=True)
class Lease:
    """A partition that this worker may write, how far it is committed, where its range ends, and where it is held for a
    moment; None = never, or not."""

    tp: TopicPartition
    fence: int
    start_offset: int
    next_offset: int
    range_end: int | None
    event_time_ms: int | None
    records: int
    set_aside: int
    last: RecordIdentity | None
    hold_at: int | None = None

    @property
    def untouched(self) -> bool:
        """Whether nothing was ever committed for the partition: no row of it is in the table."""
        return self.next_offset == self.start_offset

    def applied(self, span: Span) -> None:
        """The span was committed."""
        self.next_offset = span.next_offset
        self.records += span.records
        self.set_aside += span.set_aside
        if span.event_time_ms is not None and (self.event_time_ms is None or span.event_time_ms > self.event_time_ms):
            self.event_time_ms = span.event_time_ms
        self.last = span.last or self.last


class Leases:
    """Takes, renews and releases this worker's leases on one connection. Whatever the driver raises passes through."""

    def __init__(self, session: Session, version: str, owner: str, lease_s: float) -> None:
        self._session = session
        self._connection = session.connection
        self._version = version
        self._owner = owner
        self._length = timedelta(seconds=lease_s)
        self._short_wait = f"set local lock_timeout = {max(50, int(lease_s * 1000 / 20))}"

    async def take(self, tp: TopicPartition) -> Lease | None:
        """The lease of the partition, or None while another worker's is valid or the run wants no workers. LookupError
        if it has no position.

        The row is locked while its owner's transaction is open. An owner whose lease has expired, or an earlier
        session of this worker, has no right to it any more: its backend is ended.
        """
        with self._session.patience():
            return await self._take_or_end_owner(tp)

    async def _take_or_end_owner(self, tp: TopicPartition) -> Lease | None:
        try:
            row = await self._take(tp)
        except asyncpg.LockNotAvailableError:
            await self._connection.execute(_END_EXPIRED, self._version, tp.topic, tp.partition, self._owner)
            return None
        if row is not None:
            return _lease(tp, row)
        known = await self._connection.fetchval(
            "select 1 from serving.positions where version = $1 and topic = $2 and partition = $3",
            self._version,
            tp.topic,
            tp.partition,
        )
        if known is None:
            raise LookupError(tp)
        return None

    async def _take(self, tp: TopicPartition) -> Any:
        async with self._connection.transaction():
            await self._connection.execute(f"set local synchronous_commit = on; {self._short_wait}")
            if not await self._connection.fetchval(_WANTED, self._version, _WANTS_WORKERS):
                return None
            return await self._connection.fetchrow(
                _TAKE, self._version, tp.topic, tp.partition, self._owner, self._length
            )

    async def renew(self, held: Collection[Lease]) -> None:
        """Make the leases last from now. LeaseLostError if one is no longer ours."""
        if held:
            await self._change_all(_RENEW, held, self._length)

    async def release(self, held: Collection[Lease]) -> None:
        """Give the leases up, so that the next worker need not wait. LeaseLostError if one was no longer ours."""
        if held:
            await self._change_all(_RELEASE, held)

    async def read_again(self, lease: Lease) -> Lease:
        """The lease with its position as committed. LeaseLostError if it is no longer ours."""
        with self._session.patience():
            row = await self._connection.fetchrow(
                _READ, self._version, lease.tp.topic, lease.tp.partition, self._owner, lease.fence
            )
        if row is None:
            raise LeaseLostError(f"{lease.tp.topic}[{lease.tp.partition}] has another owner")
        return _lease(lease.tp, row)

    async def holds(self) -> dict[TopicPartition, int]:
        """Where this worker's partitions are held at the moment."""
        with self._session.patience():
            rows = await self._connection.fetch(_HOLDS, self._version, self._owner)
        return {TopicPartition(r["topic"], r["partition"]): r["hold_at"] for r in rows if r["hold_at"] is not None}

    async def _change_all(self, statement: str, held: Collection[Lease], *arguments: Any) -> None:
        with self._session.patience():
            done = await self._change(statement, held, *arguments)
        if rows_of(done) != len(held):
            raise LeaseLostError(f"{len(held) - rows_of(done)} of {len(held)} leases have another owner")

    async def _change(self, statement: str, held: Collection[Lease], *arguments: Any) -> str:
        async with self._connection.transaction():
            await self._connection.execute("set local synchronous_commit = on")
            return str(
                await self._connection.execute(
                    statement,
                    self._version,
                    self._owner,
                    *arguments,
                    [lease.tp.topic for lease in held],
                    [lease.tp.partition for lease in held],
                    [lease.fence for lease in held],
                )
            )


def rows_of(status: str) -> int:
    """The row count in a command's status, such as "UPDATE 3"."""
    return int(status.rpartition(" ")[2])


def time_of(milliseconds: int) -> datetime:
    """Unix milliseconds as an instant; what is before year 1 becomes year 1."""
    return EPOCH + timedelta(milliseconds=max(milliseconds, -62_135_596_800_000))


def _lease(tp: TopicPartition, row: Any) -> Lease:
    at = row["event_time"]
    last = None
    if row["last_offset"] is not None:
        last = RecordIdentity(row["last_offset"], row["last_timestamp_ms"], row["last_crc"])
    return Lease(
        tp=tp,
        fence=row["fence"],
        start_offset=row["start_offset"],
        next_offset=row["next_offset"],
        range_end=row["range_end"],
        event_time_ms=None if at is None else (at - EPOCH) // timedelta(milliseconds=1),
        records=row["records"],
        set_aside=row["set_aside"],
        last=last,
        hold_at=row["hold_at"],
    )
