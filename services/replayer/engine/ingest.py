"""The log as a worker reads it: partitions assigned by hand, positions kept by us, only committed records.

No consumer group: a lease in PostgreSQL owns a partition, and Kafka's rebalances would only move it elsewhere. With
transactions the offsets have gaps (control records), so how far was read is the consumer's position, never the last
record's offset plus one.

Where a version reads a bounded range of a partition, its log ends there for everybody above: no record at or beyond
the end is given out, and what lies behind it, or what retention has deleted there, is not looked at any more. A
partition that is held for a moment is given out to there, and goes on from there when it is let go.
"""

import asyncio
import logging
import time
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import aiokafka
from aiokafka.errors import IllegalStateError, KafkaError, OffsetOutOfRangeError

from core.kafka.admin import LogRange
from core.kafka.properties import KafkaConfig
from services.replayer.consumer import close
from services.replayer.engine.faults import LogAwayError, RunFaultError
from services.replayer.engine.identity import LogFinding, RecordIdentity, identity_of, judge_position, same_record
from services.replayer.engine.records import use_small_records
from services.replayer.protocol import TopicPartition
from turnout.job.rows import Message

_FETCH_BYTES_TOTAL: Final = 64 << 20  # of all partitions, each of which is fetched ahead once
_FETCH_BYTES_MIN: Final = 256 << 10  # of one partition in one answer; a larger record comes alone
_FETCH_BYTES_MAX: Final = 4 << 20
_FETCH_WAIT_MS: Final = 100  # a partition left out of a waiting fetch is asked for after at most this
_REQUEST_MS: Final = 10_000
_ANSWER_S: Final = 5.0  # after which the broker counts as away
_CONFIRM_S: Final = 1.0  # a broker that has just come back may not know its log's end yet

# Applying the file as it is would find the version it belongs to.
_REPLAY_ANEW: Final = (
    "To replay the topic from its start, apply the job's file with any change, a comment will do, as a new version."
)

# What aiokafka says of a broker that is away, every 100 ms; we say it once, as Waiting.
logging.getLogger("aiokafka").setLevel(logging.CRITICAL)


class Log:
    """Reads the topics of one job. `start` first; `close` at the end."""

    def __init__(self, properties: dict[str, str]) -> None:
        self._config = KafkaConfig.of_properties(properties, "the run's Kafka properties")
        self._consumer: Any = None
        self._names: dict[Any, TopicPartition] = {}
        self._range_ends: Mapping[TopicPartition, int] = {}
        self._holds: Mapping[TopicPartition, int] = {}
        self._paused: set[TopicPartition] = set()
        self.ranges: dict[TopicPartition, LogRange] = {}

    async def start(self) -> None:
        """Connect. LogAwayError while no broker answers."""
        use_small_records()
        consumer = aiokafka.AIOKafkaConsumer(
            group_id=None,
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level="read_committed",
            max_partition_fetch_bytes=_FETCH_BYTES_MAX,
            fetch_max_wait_ms=_FETCH_WAIT_MS,
            request_timeout_ms=_REQUEST_MS,
            **self._config.aiokafka(),
        )
        try:
            await consumer.start()
        except (KafkaError, OSError) as error:
            await close(consumer)
            raise LogAwayError(_away(error)) from error
        self._consumer = consumer

    async def close(self) -> None:
        """Disconnect."""
        if self._consumer is not None:
            await close(self._consumer)

    def assign(self, positions: Mapping[TopicPartition, int], range_ends: Mapping[TopicPartition, int]) -> None:
        """Read these partitions, and no others, from these offsets on, and no further than the ends of ranges."""
        self._range_ends = range_ends
        self._holds, self._paused = {}, set()
        self._names = {aiokafka.TopicPartition(tp.topic, tp.partition): tp for tp in positions}
        self.ranges = {tp: known for tp, known in self.ranges.items() if tp in positions}
        if positions:
            # aiokafka takes it at the start only, where the partitions are not known yet; it reads it for each request.
            self._consumer._fetcher._max_partition_fetch_bytes = fetch_bytes(len(positions))
            self._consumer.assign(list(self._names))
            self.seek(positions)
        else:
            self._consumer.unsubscribe()

    def hold(self, holds: Mapping[TopicPartition, int], positions: Mapping[TopicPartition, int]) -> None:
        """Give out nothing at or beyond these offsets, and hold no other partition any more. positions: up to which the
        partitions are read; those whose hold changes go on from there."""
        changed = {tp for tp in positions if self._holds.get(tp) != holds.get(tp)}
        self._holds = dict(holds)
        self.seek({tp: positions[tp] for tp in changed})

    def seek(self, positions: Mapping[TopicPartition, int]) -> None:
        """Go on from these offsets; what was fetched from elsewhere is thrown away."""
        for tp, offset in positions.items():
            self._consumer.seek(_theirs(tp), offset)
            self._pause_at_end(tp, offset)

    async def fetch(
        self, records_max: int, wait_s: float, only: TopicPartition | None = None
    ) -> dict[TopicPartition, list[Message]]:
        """The next records of some partitions, in order within each; empty if none come within `wait_s`.

        RunFaultError when a position is not within the log any more.
        """
        partitions = [_theirs(only)] if only is not None else []
        try:
            fetched = await self._consumer.getmany(*partitions, timeout_ms=int(wait_s * 1000), max_records=records_max)
        except OffsetOutOfRangeError:
            await self.check_positions()
            return {}
        except KafkaError as error:
            raise LogAwayError(_away(error)) from error
        return dict(self._within_range({self._names[tp]: messages for tp, messages in fetched.items()}))

    async def position(self, tp: TopicPartition) -> int:
        """Where the partition is read on: everything before it was fetched or is no record. No further than the end of
        the range or where it is held, behind which nothing is fetched from then on."""
        try:
            position = int(await self._consumer.position(_theirs(tp)))
        except KafkaError as error:
            raise LogAwayError(_away(error)) from error
        self._pause_at_end(tp, position)
        limit = self._limit(tp)
        return position if limit is None else min(position, limit)

    def _capped(self, tp: TopicPartition, offset: int) -> int:
        """No further than the end of the range."""
        return min(offset, self._range_ends.get(tp, offset))

    def _limit(self, tp: TopicPartition) -> int | None:
        """From where on nothing is given out at the moment."""
        limits = [limits[tp] for limits in (self._range_ends, self._holds) if tp in limits]
        return min(limits, default=None)

    def _pause_at_end(self, tp: TopicPartition, position: int) -> None:
        """Fetch nothing from behind the end of the range, or while held."""
        limit = self._limit(tp)
        over = limit is not None and position >= limit
        if over and tp not in self._paused:
            self._consumer.pause(_theirs(tp))
            self._paused.add(tp)
        elif not over and tp in self._paused:
            self._consumer.resume(_theirs(tp))
            self._paused.discard(tp)

    def _within_range(
        self, fetched: Mapping[TopicPartition, list[Message]]
    ) -> Iterator[tuple[TopicPartition, list[Message]]]:
        for tp, messages in fetched.items():
            end = self._limit(tp)
            kept = messages if end is None or messages[-1].offset < end else [m for m in messages if m.offset < end]
            if kept:
                yield tp, kept

    def end_of(self, tp: TopicPartition) -> int:
        """The newest known end of the log, as a read_committed reader sees it, or of the range if that comes first."""
        known = self.ranges[tp].end if tp in self.ranges else 0
        try:
            fetched = self._consumer.last_stable_offset(_theirs(tp))
        except IllegalStateError:  # just unassigned
            fetched = None
        return self._capped(tp, max(known, fetched or 0))

    def readable_to(self, tp: TopicPartition) -> int:
        """Up to where there is something to read now: the end of the log, or where the partition is held."""
        return min(self.end_of(tp), self._holds.get(tp, self.end_of(tp)))

    async def refresh(self) -> None:
        """Ask for the ends of the log of all partitions. LogAwayError if no answer comes."""
        names = dict(self._names)
        if not names:
            return
        try:
            async with asyncio.timeout(_ANSWER_S):
                ends = await self._consumer.end_offsets(list(names))
                starts = await self._consumer.beginning_offsets(list(names))
        except (KafkaError, OSError, TimeoutError) as error:
            raise LogAwayError(_away(error)) from error
        for theirs, tp in names.items():
            if theirs in self._names and theirs in ends and theirs in starts:
                self.ranges[tp] = LogRange(self._capped(tp, starts[theirs]), self._capped(tp, ends[theirs]))

    async def check_positions(self, positions: Mapping[TopicPartition, int] | None = None) -> None:
        """RunFaultError if the log cannot be read on at a position (where none are given: the consumer's own)."""
        await self.refresh()
        if not await self._unreadable(positions):
            return
        await asyncio.sleep(_CONFIRM_S)
        await self.refresh()
        for tp, offset, finding in await self._unreadable(positions):
            raise _fault(tp, offset, finding, self.ranges[tp])

    async def _unreadable(
        self, positions: Mapping[TopicPartition, int] | None
    ) -> list[tuple[TopicPartition, int, LogFinding]]:
        if positions is None:
            positions = {tp: await self.position(tp) for tp in self._names.values()}
        judged = [
            (tp, offset, judge_position(offset, self.ranges[tp].start, self.end_of(tp)))
            for tp, offset in positions.items()
            if tp in self.ranges
        ]
        return [one for one in judged if one[2] is not LogFinding.READABLE]

    async def check_identity(self, applied: Mapping[TopicPartition, RecordIdentity]) -> None:
        """Compare the last applied records with those that the log holds; RunFaultError if one is another record.

        A record that was compacted away shows as one with a later offset, or as a position that went past it.
        LogAwayError when no answer comes, for then nothing is known. Leaves the consumer's positions there: seek
        afterwards. Ranges must be fresh."""
        waiting = {
            tp: identity
            for tp, identity in applied.items()
            if tp in self.ranges and self.ranges[tp].start <= identity.offset < self.ranges[tp].end
        }
        self.seek({tp: identity.offset for tp, identity in waiting.items()})
        deadline = time.monotonic() + _ANSWER_S
        while waiting:
            if time.monotonic() > deadline:
                raise LogAwayError(_away(TimeoutError()))
            partitions = [_theirs(tp) for tp in waiting]
            try:
                fetched = await self._consumer.getmany(*partitions, timeout_ms=200, max_records=1)
            except KafkaError as error:
                raise LogAwayError(_away(error)) from error
            for theirs, messages in fetched.items():
                tp = self._names[theirs]
                _compare(tp, waiting.pop(tp), messages)
                deadline = time.monotonic() + _ANSWER_S
            for tp, identity in list(waiting.items()):
                if await self.position(tp) > identity.offset:
                    del waiting[tp]


def _compare(tp: TopicPartition, applied: RecordIdentity, messages: Sequence[Message]) -> None:
    message = messages[0]
    found = identity_of(message.offset, message.timestamp, message.key, message.value)
    if not same_record(applied, found):
        raise RunFaultError(
            "TOPIC_RECREATED",
            f"The log of {tp.topic}, partition {tp.partition} holds another record at offset {applied.offset} than the "
            f"one that was applied: the topic was deleted and created again. Its positions mean nothing any more. "
            f"{_REPLAY_ANEW}",
            tp,
            applied.offset,
        )


def _fault(tp: TopicPartition, offset: int, finding: LogFinding, known: LogRange) -> RunFaultError:
    where = f"{tp.topic}, partition {tp.partition}"
    if finding is LogFinding.TRUNCATED:
        return RunFaultError(
            "LOG_TRUNCATED",
            f"The log of {where} now begins at offset {known.start}, but the run has read to {offset} only: "
            f"retention deleted {known.start - offset} offsets unread, which this table would miss. Lengthen the "
            f"topic's retention. {_REPLAY_ANEW}",
            tp,
            offset,
        )
    return RunFaultError(
        "POSITION_BEYOND_END",
        f"The run stands at offset {offset} of {where}, but the log ends at {known.end}: the topic was deleted and "
        f"created again, or lost records. {_REPLAY_ANEW}",
        tp,
        offset,
    )


def fetch_bytes(partitions: int) -> int:
    """How much of each of so many partitions is fetched at a time, so that all of them together fit into memory."""
    return max(_FETCH_BYTES_MIN, min(_FETCH_BYTES_MAX, _FETCH_BYTES_TOTAL // partitions))


def _theirs(tp: TopicPartition) -> Any:
    return aiokafka.TopicPartition(tp.topic, tp.partition)


def _away(error: BaseException) -> str:
    return f"Kafka does not answer ({type(error).__name__}); the run goes on by itself once it does."
