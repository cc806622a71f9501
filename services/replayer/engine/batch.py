"""What a batch is, when it is written, and how a refused one is narrowed down to its record. Pure: time is passed in.

A batch gathers records of any partitions, as they are fetched, until it is *due*. While behind, big batches pay where
rows of equal keys combine before the write: such a batch gathers as long as it may. Where every record is a row of its
own, size saves only what a transaction costs: a batch gathers as long as the one before it takes to write. At the log's
end a batch is due at once, and what arrives during a write goes into the next one.

Nothing is ever retried: after a refusal the worker reads on from the committed positions, in smaller batches
(`Narrowing`), until the batch that is refused is a single record.
"""

import math
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from services.replayer.engine.identity import RecordIdentity
from services.replayer.protocol import TopicPartition

RECORDS_MAX = 400_000  # in one batch
ROWS_MAX = 100_000  # changed keys in one batch; fewer where that takes the table too long (`Tempo`)
ROWS_MIN = 1_000
BYTES_MAX = 64 << 20  # of values in one batch: bounds memory
SET_ASIDE_MAX = 1_000  # they are kept whole until written
AGE_MAX_S = 2.0  # progress must show, and a restart must not cost much
POSITIONS_AGE_S = 0.25  # positions that moved without records (control records, compaction)
GATHER_MIN_S = 0.1  # while behind, at least, however fast a write is
COMBINES = 0.95  # rows a record, below which gathering longer means writing less
CHUNK_MIN = 100  # records that the job's function is given at a time
CHUNK_MAX = 10_000
CHUNK_S = 0.05  # aimed at for a chunk: nothing else happens in the process meanwhile


@dataclass(slots=True)
class Span:
    """What a batch holds of one partition: the offsets [start, next_offset) and what was seen in them."""

    start: int
    next_offset: int
    records: int = 0
    set_aside: int = 0
    event_time_ms: int | None = None
    last: RecordIdentity | None = None

    @property
    def moved(self) -> bool:
        """Whether there is anything to commit."""
        return self.next_offset > self.start


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A record that is set aside, and why."""

    topic: str
    partition: int
    offset: int
    reason: str
    key: bytes | None
    value: bytes | None


@dataclass(slots=True)
class Batch:
    """Records gathered since the last write. `rows` counts changed keys."""

    began_s: float
    spans: dict[TopicPartition, Span] = field(default_factory=dict)
    dead_letters: list[DeadLetter] = field(default_factory=list)
    records: int = 0
    value_bytes: int = 0
    rows: int = 0

    @property
    def moved(self) -> bool:
        """Whether there is anything to commit."""
        return any(span.moved for span in self.spans.values())

    def full(self, rows_max: int) -> bool:
        """Whether a limit is reached."""
        return (
            self.records >= RECORDS_MAX
            or self.rows >= rows_max
            or self.value_bytes >= BYTES_MAX
            or len(self.dead_letters) >= SET_ASIDE_MAX
        )


def due(batch: Batch, tempo: "Tempo", *, now_s: float, behind: bool) -> bool:
    """Whether the batch is to be written now. `behind`: there is more to read at once."""
    age_s = now_s - batch.began_s
    if not batch.moved:
        return False
    if batch.records == 0:
        return age_s >= POSITIONS_AGE_S
    if not behind or batch.full(tempo.rows_max) or age_s >= AGE_MAX_S:
        return True
    if batch.rows < COMBINES * batch.records:
        return False
    return age_s >= max(GATHER_MIN_S, tempo.write_s)


def span_of(batch: Batch, tp: TopicPartition, start: int) -> Span:
    """The batch's span of the partition, begun at `start` if there is none."""
    span = batch.spans.get(tp)
    if span is None:
        span = batch.spans[tp] = Span(start, start)
    return span


@dataclass(slots=True)
class Tempo:
    """How much to do at a time, learnt from how long it takes, so that leases are renewed in time and no transaction
    runs into the time limits of its session, which are a part of the lease.

    chunk: records to give the job's function at a time. slow: a chunk once took so long that the transaction of the
    batch before it, waiting for the process, is in danger; from then on nothing is written while the function runs.
    rows_max: changed keys in one batch. write_was_slow: a write once took too long, so batches grow with care. write_s:
    what the last write took, failed or not. write_s_max: what a write should take at most, so that live work gets its
    turn between two of them; None = as long as the lease allows.
    """

    lease_s: float
    write_s_max: float | None = None
    chunk: int = CHUNK_MIN
    slow: bool = False
    rows_max: int = ROWS_MIN  # the process before this one may have been killed within too large a write
    write_s: float = 0.0
    write_was_slow: bool = False

    def wrote(self, rows: int, took_s: float, *, written: bool = True) -> None:
        """A batch with that many changed keys took that long to write, or to fail."""
        self.write_s = took_s
        slow_s = min(self.lease_s / 8, self.write_s_max or math.inf)
        if took_s > slow_s:
            self.write_was_slow = True
            self.rows_max = max(ROWS_MIN, min(self.rows_max, rows) // 2)
        elif written and took_s < slow_s / 2 and rows >= self.rows_max // 2:
            # Quickly up to where it was once too much, as after a start; with care from then on. A batch far below what
            # is allowed says nothing of larger ones.
            grown = self.rows_max * 5 // 4 if self.write_was_slow else self.rows_max * 2
            self.rows_max = min(ROWS_MAX, grown)

    def took(self, records: int, took_s: float) -> None:
        """A chunk of that many records took that long in the job's function."""
        if took_s > self.lease_s / 8:
            self.slow = True
        if took_s > CHUNK_S:
            self.chunk = max(1, min(self.chunk, int(records * CHUNK_S / took_s)))
        elif records >= self.chunk and took_s < CHUNK_S / 2:
            self.chunk = min(CHUNK_MAX, self.chunk * 2)


# --- narrowing ------------------------------------------------------------------------------------------------------


@dataclass(slots=True)
class _Suspect:
    limit: int  # records in the next batch
    refused_to: int | None  # a refused batch ended here: the bad record is before it; None = not known


class Narrowing:
    """Which partitions are read in small batches, each alone, because something in them was refused.

    A refused batch of several records halves the limit; what is left of it is halved again after each success, which
    is a binary search. Once the record is found the limit doubles with every success until the partition is like any
    other. `one_by_one` partitions take one record a batch until the offset that is given with them, for as many records
    as a batch may hold at most: workers died there, and a dead worker cannot tell of which record. `deadly` are the
    records that are known for it, by partition and offset, with the reason to set them aside.
    """

    def __init__(
        self,
        one_by_one: Mapping[TopicPartition, int] | None = None,
        deadly: Mapping[tuple[TopicPartition, int], str] | None = None,
    ) -> None:
        self._suspects: dict[TopicPartition, _Suspect] = {}
        self._until = dict(one_by_one or {})
        self._one_by_one = dict.fromkeys(self._until, RECORDS_MAX)
        self._deadly = dict(deadly or {})

    def alone(self, tp: TopicPartition) -> bool:
        """Whether the partition is read record by record because workers died in it."""
        return tp in self._one_by_one

    def deadly(self, tp: TopicPartition, offset: int) -> str | None:
        """Why the record must be set aside unseen; None for any other record."""
        return self._deadly.get((tp, offset))

    def next(self, readable: Collection[TopicPartition]) -> tuple[TopicPartition, int] | None:
        """Of the partitions that have something to read, the one to read alone now, and how many records; None = all,
        as they come."""
        for tp, suspect in self._suspects.items():
            if tp in readable:
                return tp, 1 if tp in self._one_by_one else suspect.limit
        for tp in self._one_by_one:
            if tp in readable:
                return tp, 1
        return None

    def refused(self, spans: dict[TopicPartition, Span]) -> None:
        """A batch was refused. Several partitions are first tried one by one, each as a whole."""
        read = {tp: span for tp, span in spans.items() if span.records}
        for tp, span in read.items():
            limit = span.records if len(read) > 1 else max(1, span.records // 2)
            self._suspects[tp] = _Suspect(limit, span.next_offset)

    def written(self, tp: TopicPartition, span: Span) -> None:
        """A batch was written, whether or not its record had to be set aside."""
        if tp in self._one_by_one:
            self._one_by_one[tp] -= max(1, span.records)
            if self._one_by_one[tp] <= 0 or span.next_offset >= self._until[tp]:
                del self._one_by_one[tp]
        suspect = self._suspects.get(tp)
        if suspect is None:
            return
        if suspect.refused_to is not None and span.next_offset < suspect.refused_to and not span.set_aside:
            suspect.limit = max(1, min(suspect.limit, (suspect.refused_to - span.next_offset) // 2))
            return
        suspect.refused_to = None
        suspect.limit *= 2
        if suspect.limit > RECORDS_MAX:
            del self._suspects[tp]
