"""The log: January to November at once, December flight by flight while the story goes on."""

import asyncio
from collections.abc import Iterable, Iterator
from itertools import islice
from typing import Any

from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # re-exported without saying so

Record = tuple[bytes | None, bytes]

_BATCH = 1_000  # small, so that the readers in the same process are not held up
_TICK_S = 0.05


class Feed:
    """Produces records to one topic: all at once, or in the background at a rate."""

    def __init__(self, bootstrap: str, topic: str, partitions: int) -> None:
        self.topic = topic
        self._partitions = partitions
        self._bootstrap = bootstrap
        self._producer = Producer(
            {"bootstrap.servers": bootstrap, "linger.ms": 20, "compression.type": "lz4", "log_level": 0}
        )
        self._task: asyncio.Task[None] | None = None
        self._failures: list[str] = []
        self.produced = 0

    async def create_topic(self) -> None:
        """Create the topic, with records kept for ever: history is produced with the current time."""
        client = AdminClient({"bootstrap.servers": self._bootstrap, "log_level": 0})
        topic = NewTopic(self.topic, self._partitions, 1, config={"retention.ms": "-1"})
        for future in client.create_topics([topic]).values():
            await asyncio.wrap_future(future)

    async def produce(self, records: Iterable[Record]) -> int:
        """Produce all records now; how many they were."""
        before, pending = self.produced, iter(records)
        while batch := list(islice(pending, _BATCH)):
            self._send(batch)
            await asyncio.sleep(0)
        await self._flush()
        return self.produced - before

    def start(self, records: Iterator[Record], per_s: float) -> None:
        """Go on producing in the background, `per_s` records a second."""
        self._task = asyncio.create_task(self._trickle(records, per_s), name="feed")

    async def finish(self, records: Iterator[Record]) -> None:
        """End the background feed and produce at once what is left of it."""
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)
            self._task = None
        await self.produce(records)

    async def _trickle(self, records: Iterator[Record], per_s: float) -> None:
        while True:
            # No await between taking records and sending them: a cancellation loses none.
            batch = list(islice(records, max(1, round(per_s * _TICK_S))))
            if not batch:
                break
            self._send(batch)
            await asyncio.sleep(_TICK_S)
        await self._flush()

    def _send(self, batch: list[Record]) -> None:
        for key, value in batch:
            while True:
                try:
                    self._producer.produce(self.topic, value, key, on_delivery=self._delivered)
                    break
                except BufferError:
                    self._producer.poll(0.1)
        self._producer.poll(0)
        self.produced += len(batch)

    def _delivered(self, error: Any, _message: Any) -> None:
        if error is not None:
            self._failures.append(str(error))

    async def _flush(self) -> None:
        await asyncio.to_thread(self._producer.flush)
        if self._failures:
            raise RuntimeError(f"Kafka did not take {len(self._failures)} records, the first: {self._failures[0]}")
