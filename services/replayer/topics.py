"""Kafka's side of a run: is the topic still the one that the positions belong to, and which offsets does it hold?"""

import asyncio
import functools
import itertools
import logging
import math
import time
from collections.abc import Awaitable, Callable, Collection, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any, TypeVar

from aiokafka import AIOKafkaConsumer
from aiokafka import TopicPartition as KafkaPartition
from aiokafka.errors import KafkaError

from core.kafka import KafkaConfig, TopicAdmin, TopicInfo
from services.replayer.consumer import close
from services.replayer.engine.identity import identity_of, same_record
from services.replayer.protocol import TopicPartition
from services.replayer.ranges import Extent, Retained, check_passed, resolve, times_of
from services.replayer.run import LogEnds, Positions, Run
from turnout.errors import FailedPrecondition, Unavailable
from turnout.log_range import LogRange, unix_ms
from turnout.schema import JobDefinition

log = logging.getLogger(__name__)

T = TypeVar("T")

# Applying the file as it is would find the version it belongs to.
_AS_NEW_VERSION = "apply the job's file with any change, a comment will do, as a new version"

_READ_WAIT_MS = 200
_READ_RECORDS = 5000  # at a time
SEARCHED_MAX = 500_000  # records that are looked at for the first one at or after a time: a second or two
_REFRESH_S = 2.0  # for the ends of one topic; with the pause between, ends are younger than the gates ask for
_ANSWER_S = 5.0  # after which the broker counts as away


@dataclass(frozen=True, slots=True)
class Sampled:
    """Records read for a sample: how many, the bytes of their keys and values, and the time of the oldest of each
    partition."""

    records: int
    size_bytes: int
    oldest: Mapping[TopicPartition, datetime]


class Topics:
    """The topics of runs. Every method raises Unavailable (KAFKA_UNAVAILABLE) while no broker answers."""

    def __init__(self, config: KafkaConfig) -> None:
        self._config = config
        self._admin = TopicAdmin(config)

    async def describe(self, definition: JobDefinition) -> dict[str, TopicInfo]:
        """The job's topics by name. FailedPrecondition (TOPIC_NOT_FOUND, TOPICS_NOT_CO_PARTITIONED)."""
        found = {source.topic: await self._admin.describe(source.topic) for source in definition.topics}
        if definition.co_partitioned and len({info.partitions for info in found.values()}) > 1:
            counts = ", ".join(f"{info.topic} has {info.partitions}" for info in found.values())
            raise FailedPrecondition(
                "TOPICS_NOT_CO_PARTITIONED",
                f"{definition.job} folds several topics by one key, which needs equally many partitions in each: "
                f"{counts}. Copy one of them into a topic with the other's number of partitions.",
            )
        return found

    async def ends(self, topics: Collection[str]) -> dict[TopicPartition, LogEnds]:
        """The retained offsets of every partition of the topics."""
        asked_s = time.monotonic()
        ranges = await asyncio.gather(*(self._admin.log_range(topic) for topic in topics))
        return {
            TopicPartition(topic, partition): LogEnds(one.start, one.end, asked_s)
            for topic, partitions in zip(topics, ranges, strict=True)
            for partition, one in partitions.items()
        }

    async def retention_s(self, topics: Collection[str]) -> dict[str, float]:
        """How long each topic keeps a record, of those that forget by time; topics that are gone are left out."""
        infos = await asyncio.gather(*(self._admin.describe(topic) for topic in topics), return_exceptions=True)
        failures = [one for one in infos if isinstance(one, BaseException) and not isinstance(one, FailedPrecondition)]
        if failures:
            raise failures[0]
        return retention_s({one.topic: one for one in infos if isinstance(one, TopicInfo)})

    async def extents(
        self, log_range: LogRange | None, infos: Mapping[str, TopicInfo], now: datetime
    ) -> tuple[dict[TopicPartition, Extent], dict[TopicPartition, LogEnds]]:
        """What a run reads of each partition, and the retained offsets that this was found from.

        FailedPrecondition (RANGE_NOT_RETAINED, RANGE_NOT_PASSED ...), see `ranges`.
        """
        if log_range is None:
            ends = await self.ends(infos)
            return {tp: Extent(one.start) for tp, one in ends.items()}, ends
        check_passed(log_range, now)
        # In this order: what arrives meanwhile is then behind an end, and never a gap between the two.
        written = await self._of_all(infos, self._admin.written_ends)
        looked_up = {
            one: await self._of_all(infos, functools.partial(self._admin.first_at, unix_ms=unix_ms(one)))
            for one in times_of(log_range)
        }
        ends = await self.ends(infos)
        whole = {tp: LogEnds(ends[tp].start, end, ends[tp].asked_s) for tp, end in written.items() if tp in ends}
        first_at = {one: await self._first_at(one, found, whole) for one, found in looked_up.items()}
        retained = {tp: Retained(ends[tp].start, ends[tp].end, end) for tp, end in written.items() if tp in ends}
        return resolve(log_range, retained, first_at), ends

    async def _of_all(
        self, infos: Mapping[str, TopicInfo], ask: Callable[[str, int], Awaitable[dict[int, T]]]
    ) -> dict[TopicPartition, T]:
        answers = await asyncio.gather(*(ask(topic, info.partitions) for topic, info in infos.items()))
        return {
            TopicPartition(topic, partition): answer
            for topic, found in zip(infos, answers, strict=True)
            for partition, answer in found.items()
        }

    async def check_identity(self, run: Run) -> dict[str, TopicInfo]:
        """The run's topics, when they are those that it was started on.

        FailedPrecondition (TOPIC_NOT_FOUND, TOPIC_RECREATED ...).
        """
        try:
            found = await self.describe(run.definition)
        except FailedPrecondition as error:
            if error.reason != "TOPIC_NOT_FOUND":
                raise
            topic = error.metadata["topic"]
            raise FailedPrecondition(
                error.reason,
                f"The topic {topic} does not exist any more: it was deleted since the run of {run.version} began. The "
                f"stored positions belong to it and mean nothing in another topic of that name; the table stays as it "
                f"is. To read on, create the topic, then {_AS_NEW_VERSION}.",
                metadata={"topic": topic, "run": run.name},
            ) from None
        for topic, info in found.items():
            if run.topic_ids.get(topic) != info.topic_id:
                raise FailedPrecondition(
                    "TOPIC_RECREATED",
                    f"The topic {topic} was deleted and created again since the run of {run.version} began: its stored "
                    f"positions belong to the topic before. To replay the new topic, {_AS_NEW_VERSION}.",
                    metadata={"topic": topic, "run": run.name},
                )
        return found

    async def check_positions(self, run: Run, positions: Positions, *, moving: bool = False) -> None:
        """FailedPrecondition (POSITION_BEYOND_END, LOG_TRUNCATED) unless the log still holds what comes next.

        moving: workers read on meanwhile, who notice themselves what is truncated before they have read it. Where a
        bounded range has been read nothing comes next.
        """
        ends = await self.ends(run.topic_ids)
        for tp, position in sorted(positions.items()):
            at = ends.get(tp)
            if at is None or position.complete:
                continue
            where = f"{tp.topic}/{tp.partition}"
            if position.next_offset > at.end:
                raise FailedPrecondition(
                    "POSITION_BEYOND_END",
                    f"{where}: the table of {run.version} reflects the log up to offset {position.next_offset:,}, and "
                    f"the log ends at {at.end:,}: the topic lost records. To replay it, {_AS_NEW_VERSION}.",
                )
            if position.next_offset < at.start and not moving:
                raise FailedPrecondition(
                    "LOG_TRUNCATED",
                    f"{where}: the next record of {run.version} is at offset {position.next_offset:,}, and the log "
                    f"begins at {at.start:,} by now: {at.start - position.next_offset:,} offsets are gone for ever. "
                    f"Lengthen the topic's retention; to replay what is left, {_AS_NEW_VERSION}.",
                )

    async def check_applied(self, run: Run, positions: Positions) -> None:
        """FailedPrecondition (TOPIC_RECREATED) when the log holds another record than the one that was applied last.

        A topic's id says the same, where the brokers have ids, and where the whole cluster was not made anew. A record
        that the log holds no more, by retention or compaction, says nothing.
        """
        ends = await self.ends(run.topic_ids)
        applied = {tp: one.last for tp, one in positions.items() if one.last is not None and tp in ends}
        offsets = {tp: last.offset for tp, last in applied.items() if ends[tp].start <= last.offset < ends[tp].end}
        for tp, messages in (await self._read(offsets, ends, 1)).items():
            for message in messages:
                found = identity_of(message.offset, message.timestamp, message.key, message.value)
                if not same_record(applied[tp], found):
                    raise FailedPrecondition(
                        "TOPIC_RECREATED",
                        f"{tp.topic}/{tp.partition} holds another record at offset {found.offset:,} than the one that "
                        f"the run of {run.version} applied: the topic was deleted and created again, or its cluster "
                        f"was. To replay the new topic, {_AS_NEW_VERSION}.",
                        metadata={"topic": tp.topic, "run": run.name},
                    )

    async def first_times(self, starts: Mapping[TopicPartition, LogEnds]) -> dict[TopicPartition, datetime]:
        """When the first record of each partition was written; partitions without a record are left out."""
        offsets = {tp: ends.start for tp, ends in starts.items()}
        found: dict[TopicPartition, datetime] = {}
        for tp, messages in (await self._read(offsets, starts, 1)).items():
            if messages:
                found[tp] = _time(messages[0])
        return found

    async def sample(self, ends: Mapping[TopicPartition, LogEnds], places: int, at_each: int) -> Sampled:
        """Read `at_each` records at `places` offsets spread evenly over each partition."""
        records = size = 0
        oldest: dict[TopicPartition, datetime] = {}
        for place in range(places):
            offsets = {
                tp: one.start + (one.end - one.start) * place // places
                for tp, one in ends.items()
                if one.end - one.start > place
            }
            for tp, messages in (await self._read(offsets, ends, at_each)).items():
                if messages and place == 0:
                    oldest[tp] = _time(messages[0])
                records += len(messages)
                size += sum(len(m.key or b"") + len(m.value or b"") for m in messages)
        return Sampled(records, size, oldest)

    async def _first_at(
        self, time_: datetime, found: Mapping[TopicPartition, int | None], ends: Mapping[TopicPartition, LogEnds]
    ) -> dict[TopicPartition, int | None]:
        """Of each partition the first record at or after the time, from where Kafka found a timestamp that is: that may
        be a transaction's marker, which bears the time of its end, and records written before the time may follow it.

        FailedPrecondition (RANGE_NOT_FOUND) when the record is too far away from there.
        """
        at_ms, looked_at = unix_ms(time_), 0

        def wanted(message: Any) -> bool:
            nonlocal looked_at
            looked_at += 1
            if looked_at > SEARCHED_MAX:
                raise FailedPrecondition(
                    "RANGE_NOT_FOUND",
                    f"Which records are the first at or after {time_:%Y-%m-%d %H:%M:%S} UTC cannot be told: the "
                    f"timestamps of {message.topic} are not in order, {SEARCHED_MAX:,} older records follow a later "
                    f"one. Apply the job's file with a range that names offsets, as another version.",
                )
            return bool(message.timestamp >= at_ms)

        offsets = {tp: offset for tp, offset in found.items() if offset is not None}
        records = await self._read(offsets, ends, 1, wanted=wanted, isolation="read_uncommitted")
        return {tp: records[tp][0].offset if records.get(tp) else None for tp in found}

    async def _read(
        self,
        offsets: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, LogEnds],
        count: int,
        *,
        wanted: Callable[[Any], bool] = lambda _: True,
        isolation: str = "read_committed",
    ) -> dict[TopicPartition, list[Any]]:
        """At most `count` wanted records of each partition from its offset on; fewer when the log has no more there."""
        offsets = {tp: offset for tp, offset in offsets.items() if offset < ends[tp].end}
        if not offsets:
            return {}
        consumer = AIOKafkaConsumer(
            **self._config.aiokafka(),
            enable_auto_commit=False,
            auto_offset_reset="none",
            isolation_level=isolation,
        )
        try:
            await consumer.start()
            return await self._collect(consumer, offsets, ends, count, wanted)
        except (KafkaError, OSError) as error:
            raise _away(type(error).__name__) from None
        finally:
            await close(consumer)

    async def _collect(
        self,
        consumer: AIOKafkaConsumer,
        offsets: Mapping[TopicPartition, int],
        ends: Mapping[TopicPartition, LogEnds],
        count: int,
        wanted: Callable[[Any], bool],
    ) -> dict[TopicPartition, list[Any]]:
        partitions = {KafkaPartition(tp.topic, tp.partition): tp for tp in offsets}
        consumer.assign(list(partitions))
        for kafka_partition, tp in partitions.items():
            consumer.seek(kafka_partition, offsets[tp])
        found: dict[TopicPartition, list[Any]] = {tp: [] for tp in offsets}
        waiting, answered_s = set(partitions), time.monotonic()
        while waiting:
            batch = await consumer.getmany(*waiting, timeout_ms=_READ_WAIT_MS, max_records=_READ_RECORDS)
            for kafka_partition, messages in batch.items():
                tp = partitions[kafka_partition]
                fitting = filter(wanted, messages)
                found[tp] += itertools.islice(fitting, count - len(found[tp]))
            # Of control records alone nothing comes, but the position goes past them.
            over = {
                one
                for one in waiting
                if len(found[partitions[one]]) >= count or await consumer.position(one) >= ends[partitions[one]].end
            }
            waiting -= over
            if batch or over:
                answered_s = time.monotonic()
            elif time.monotonic() - answered_s > _ANSWER_S:
                raise _away("no records")
        return found


def _time(message: Any) -> datetime:
    return datetime.fromtimestamp(message.timestamp / 1000, UTC)


def _away(what: str) -> Unavailable:
    return Unavailable("KAFKA_UNAVAILABLE", f"Kafka does not answer ({what}); try again.")


def retention_s(infos: Mapping[str, TopicInfo]) -> dict[str, float]:
    """How long each topic keeps a record, of those that forget by time."""
    return {topic: i.retention_ms / 1000 for topic, i in infos.items() if i.retention_ms >= 0 and not i.compacted}


class EndsWatch:
    """The newest known ends of the log of all partitions that runs read: asked for once a second, and told by workers.

    While Kafka is away the last ones known stay; `away` says so in words.
    """

    EVERY_S = 1.0

    def __init__(self, topics: Topics) -> None:
        self._topics = topics
        self._ends: dict[TopicPartition, LogEnds] = {}
        self._missing: set[str] = set()
        self.away = ""

    @property
    def ends(self) -> Mapping[TopicPartition, LogEnds]:
        return dict(self._ends)

    def told(self, tp: TopicPartition, start: int, end: int) -> None:
        """A worker read these ends, nobody knows when. Of two workers' news the later may be the older; ends only ever
        move on."""
        known = self._ends.get(tp, LogEnds(start, end, -math.inf))
        self._ends[tp] = LogEnds(max(known.start, start), max(known.end, end), known.asked_s)

    @property
    def missing(self) -> frozenset[str]:
        """Topics that Kafka did not know when it was asked last."""
        return frozenset(self._missing)

    def forget(self, topic: str) -> None:
        """The topic is gone: should it be created again, its ends begin anew."""
        for tp in [tp for tp in self._ends if tp.topic == topic]:
            del self._ends[tp]

    async def refresh(self, topics: Collection[str]) -> None:
        """Ask Kafka about all these topics; one that is missing is passed over, for its run learns it elsewhere.

        At once rather than one after another: a topic that does not answer makes no other one's ends old.
        """
        failures = await asyncio.gather(*(self._refresh(topic) for topic in topics))
        away = next((failure for failure in failures if failure), "")
        if away and not self.away:
            log.warning("%s", away)
        self.away = away

    async def _refresh(self, topic: str) -> str:
        """Ask about one topic; why Kafka counts as away, or nothing."""
        try:
            async with asyncio.timeout(_REFRESH_S):
                # Put in place rather than joined: the topic may have been created again, and begin anew.
                self._ends.update(await self._topics.ends([topic]))
            self._missing.discard(topic)
        except FailedPrecondition:
            self._missing.add(topic)
            self.forget(topic)
        except Unavailable as error:
            return error.message
        except TimeoutError:
            return f"Kafka does not answer about {topic} within {_REFRESH_S:.0f} s; try again."
        return ""
