"""Topics for tests: uniquely named, filled with records, deleted afterwards."""

from __future__ import annotations

import asyncio
import secrets
from collections.abc import AsyncIterator, Iterable, Mapping
from concurrent.futures import Future
from contextlib import asynccontextmanager
from typing import Any, NamedTuple

from confluent_kafka import KafkaException, Producer, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it re-exports these without saying so
    AdminClient,
    NewPartitions,
    NewTopic,
    OffsetSpec,
)

from tests.support.eventually import eventually

_WITHIN_S = 30.0


class Record(NamedTuple):
    """One record to produce. Without a partition its key decides, as for any producer."""

    value: bytes | None
    key: bytes | None = None
    partition: int = -1
    headers: tuple[tuple[str, bytes], ...] = ()
    timestamp_ms: int = 0  # Unix milliseconds; 0 = now


class Topics:
    """Makes topics on one broker and remembers them for `delete_all`."""

    def __init__(self, bootstrap: str) -> None:
        self.bootstrap = bootstrap
        """HOST:PORT, what clients call bootstrap servers."""
        self._admin = AdminClient({"bootstrap.servers": bootstrap})
        self._made: set[str] = set()

    async def create(
        self, partitions: int = 4, *, name: str | None = None, config: Mapping[str, str] | None = None
    ) -> str:
        """Create a topic (a name of its own unless given) and return its name once every partition has a leader."""
        name = name or f"test-{secrets.token_hex(6)}"
        topic = NewTopic(name, partitions, 1, config=dict(config or {"retention.ms": "-1"}))
        await _all(self._admin.create_topics([topic]))
        self._made.add(name)
        await eventually(lambda: self._led(name, partitions))
        return name

    async def _led(self, topic: str, partitions: int) -> bool:
        """Whether every partition answers: the broker says that a topic is created before its leaders know."""
        try:
            return len(await self.end_offsets(topic)) == partitions
        except KafkaException:
            return False

    async def produce(self, topic: str, records: Iterable[Record], *, compression: str = "lz4") -> None:
        """Produce the records in order and wait until the broker has acknowledged all of them."""
        await asyncio.to_thread(self._produce, topic, list(records), compression)

    @asynccontextmanager
    async def transaction(self, topic: str, records: Iterable[Record], *, commit: bool) -> AsyncIterator[None]:
        """Produce the records, each of which names its partition, in a transaction that is open inside the block.

        At its end it is committed or aborted, and its markers are written.
        """
        producer = Producer({"bootstrap.servers": self.bootstrap, "transactional.id": secrets.token_hex(6)})
        made = list(records)

        def produce() -> None:
            producer.init_transactions(_WITHIN_S)
            producer.begin_transaction()
            for record in made:
                producer.produce(topic, record.value, record.key, record.partition, timestamp=record.timestamp_ms)
            assert producer.flush(_WITHIN_S) == 0

        await asyncio.to_thread(produce)
        open_ends = await self.end_offsets(topic)
        try:
            yield
        finally:
            end = producer.commit_transaction if commit else producer.abort_transaction
            await asyncio.to_thread(end, _WITHIN_S)

        async def marked() -> bool:
            ends = await self.end_offsets(topic)
            return all(ends[record.partition] > open_ends[record.partition] for record in made)

        await eventually(marked)

    async def delete(self, topic: str) -> None:
        """Delete it, and wait until the broker that clients ask knows: deleting is the controller's."""
        self._made.discard(topic)
        await _all(self._admin.delete_topics([topic]))

        async def gone() -> bool:
            metadata = await asyncio.to_thread(self._admin.list_topics, timeout=_WITHIN_S)
            return topic not in metadata.topics

        await eventually(gone)

    async def widen(self, topic: str, partitions: int) -> None:
        """Make it so many partitions, and wait until each has a leader."""
        await _all(self._admin.create_partitions([NewPartitions(topic, partitions)]))
        await eventually(lambda: self._led(topic, partitions))

    async def delete_records_before(self, topic: str, offsets: Mapping[int, int]) -> None:
        """Move the log start of each partition to its offset, as retention would."""
        until = [TopicPartition(topic, partition, offset) for partition, offset in offsets.items()]
        await _all(self._admin.delete_records(until))

    async def end_offsets(self, topic: str) -> dict[int, int]:
        """Offset after the last record of each partition."""
        metadata = await asyncio.to_thread(self._admin.list_topics, topic, timeout=_WITHIN_S)
        partitions = [TopicPartition(topic, partition) for partition in metadata.topics[topic].partitions]
        latest = OffsetSpec.latest()  # type: ignore[no-untyped-call]
        futures = self._admin.list_offsets(dict.fromkeys(partitions, latest))
        return {
            partition.partition: (await asyncio.wait_for(asyncio.wrap_future(future), _WITHIN_S)).offset
            for partition, future in futures.items()
        }

    async def delete_all(self) -> None:
        """Delete every topic made here."""
        made, self._made = self._made, set()
        if made:
            await _all(self._admin.delete_topics(list(made)))

    def _produce(self, topic: str, records: list[Record], compression: str) -> None:
        producer = Producer(
            {
                "bootstrap.servers": self.bootstrap,
                "compression.type": compression,
                "linger.ms": 5,
                "enable.idempotence": True,  # in order, and none twice
                "queue.buffering.max.messages": 1_000_000,
            }
        )
        refused: list[str] = []

        def delivered(error: Any, _: Any) -> None:
            if error is not None:
                refused.append(str(error))

        for record in records:
            while True:
                try:
                    producer.produce(
                        topic,
                        record.value,
                        record.key,
                        record.partition,
                        on_delivery=delivered,
                        headers=list(record.headers),
                        timestamp=record.timestamp_ms,
                    )
                    break
                except BufferError:
                    producer.poll(0.1)
            producer.poll(0)
        left = producer.flush(_WITHIN_S)
        assert left == 0, f"{left} of {len(records)} records were not acknowledged within {_WITHIN_S:g} s"
        assert not refused, f"{len(refused)} of {len(records)} records were refused, the first: {refused[0]}"


async def _all(futures: Mapping[Any, Future[Any]]) -> None:
    for future in futures.values():
        await asyncio.wait_for(asyncio.wrap_future(future), _WITHIN_S)
