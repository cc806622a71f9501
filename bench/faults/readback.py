"""The log as a plain consumer reads it: what the reference is made of."""

from __future__ import annotations

import time
from typing import Any, Final

from confluent_kafka import Consumer, KafkaError, KafkaException, TopicPartition
from confluent_kafka.admin import AdminClient

from bench.faults.feed import SILENT
from bench.faults.reference import Logged, logged
from bench.faults.workload import POISON_HEADER

_WITHIN_S: Final = 60.0
_BATCH: Final = 5_000


class ReadBack:
    """One topic's committed records so far. Blocking: for a thread of the caller's."""

    def __init__(self, bootstrap: str, topic: str) -> None:
        self.topic = topic
        self.log: dict[int, list[Logged]] = {}
        self._read_to: dict[int, int] = {}
        self._bootstrap = bootstrap

    def catch_up(self) -> dict[int, int]:
        """Read to the end of every partition; the ends, behind the last record or control record."""
        consumer = Consumer(
            {
                "bootstrap.servers": self._bootstrap,
                "group.id": "faults-read-back",  # required by the client, never used: nothing is committed
                "enable.auto.commit": False,
                "auto.offset.reset": "error",
                "isolation.level": "read_committed",
                "enable.partition.eof": True,
                "fetch.wait.max.ms": 50,
            },
            logger=SILENT,
        )
        try:
            partitions = list(consumer.list_topics(self.topic, timeout=_WITHIN_S).topics[self.topic].partitions)
            consumer.assign([TopicPartition(self.topic, one, self._read_to.get(one, 0)) for one in partitions])
            self._read_until_eof(consumer, set(partitions))
        finally:
            consumer.close()
        return dict(self._read_to)

    def _read_until_eof(self, consumer: Consumer, waiting: set[int]) -> None:
        deadline_s = time.monotonic() + _WITHIN_S
        while waiting:
            if time.monotonic() > deadline_s:
                raise TimeoutError(f"partitions {sorted(waiting)} of {self.topic} could not be read to their ends")
            for message in consumer.consume(_BATCH, timeout=0.2):
                error = message.error()
                if error is None:
                    self._take(message)
                elif error.code() == KafkaError._PARTITION_EOF:
                    self._at_end(message, waiting)
                elif not error.retriable():
                    raise KafkaException(error)

    def _at_end(self, message: Any, waiting: set[int]) -> None:
        waiting.discard(message.partition())
        self._read_to[message.partition()] = message.offset()

    def _take(self, message: Any) -> None:
        poison_for = dict(message.headers() or ()).get(POISON_HEADER)
        partition, offset = message.partition(), message.offset()
        self.log.setdefault(partition, []).append(logged(partition, offset, message.key(), message.value(), poison_for))
        self._read_to[partition] = offset + 1


def count_partitions(admin: AdminClient, topic: str) -> int:
    """How many partitions the broker says the topic has."""
    return len(admin.list_topics(topic, timeout=_WITHIN_S).topics[topic].partitions)
