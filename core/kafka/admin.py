"""Topics as the broker sees them: identity, partitions, retained range."""

import asyncio
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

from confluent_kafka import IsolationLevel, KafkaError, KafkaException, TopicCollection, TopicPartition
from confluent_kafka.admin import (  # type: ignore[attr-defined]  # it re-exports these without saying so
    AdminClient,
    ConfigResource,
    OffsetSpec,
    ResourceType,
)

from core.kafka.properties import KafkaConfig
from turnout.errors import FailedPrecondition, Unavailable

_TIMEOUT_S = 5.0
_MISSING = frozenset({KafkaError.UNKNOWN_TOPIC_OR_PART, KafkaError.UNKNOWN_TOPIC_ID})


@dataclass(frozen=True, slots=True)
class TopicInfo:
    """A topic: its id tells a re-created topic of the same name from the one before."""

    topic: str
    topic_id: str
    partitions: int
    compacted: bool
    retention_ms: int  # -1 = for ever


@dataclass(frozen=True, slots=True)
class LogRange:
    """The retained offsets of a partition: `start` inclusive, `end` exclusive (read_committed)."""

    start: int
    end: int


class TopicAdmin:
    """Asks the broker about topics. Every method raises Unavailable (KAFKA_UNAVAILABLE) while no broker answers."""

    def __init__(self, config: KafkaConfig) -> None:
        self._client = AdminClient(config.librdkafka())

    async def describe(self, topic: str) -> TopicInfo:
        """The topic's identity; FailedPrecondition (TOPIC_NOT_FOUND) when there is none."""
        described = await self._ask(
            topic,
            lambda: self._client.describe_topics(TopicCollection([topic]), request_timeout=_TIMEOUT_S)[topic],
        )
        resource = ConfigResource(ResourceType.TOPIC, topic)
        configured = await self._ask(
            topic, lambda: self._client.describe_configs([resource], request_timeout=_TIMEOUT_S)[resource]
        )
        return TopicInfo(
            topic=topic,
            topic_id=str(described.topic_id),
            partitions=len(described.partitions),
            compacted="compact" in configured["cleanup.policy"].value,
            retention_ms=int(configured["retention.ms"].value),
        )

    async def log_range(self, topic: str) -> dict[int, LogRange]:
        """The retained offsets of every partition of the topic."""
        described = await self._ask(
            topic,
            lambda: self._client.describe_topics(TopicCollection([topic]), request_timeout=_TIMEOUT_S)[topic],
        )
        partitions = range(len(described.partitions))
        starts, ends = await asyncio.gather(
            self._offsets(topic, partitions, OffsetSpec.earliest()),
            self._offsets(topic, partitions, OffsetSpec.latest()),
        )
        return {p: LogRange(starts[p], ends[p]) for p in partitions}

    async def written_ends(self, topic: str, partitions: int) -> dict[int, int]:
        """The end of every partition, records of open transactions included."""
        return await self._offsets(topic, range(partitions), OffsetSpec.latest(), IsolationLevel.READ_UNCOMMITTED)

    async def first_at(self, topic: str, partitions: int, unix_ms: int) -> dict[int, int | None]:
        """Of every partition the offset of the first record with this timestamp or a later one; None = it has none.

        Records of open transactions count.
        """
        spec = OffsetSpec.for_timestamp(unix_ms)
        found = await self._offsets(topic, range(partitions), spec, IsolationLevel.READ_UNCOMMITTED)
        return {partition: None if offset < 0 else offset for partition, offset in found.items()}

    async def _offsets(
        self, topic: str, partitions: range, spec: Any, isolation: Any = IsolationLevel.READ_COMMITTED
    ) -> dict[int, int]:
        asked = {TopicPartition(topic, p): spec for p in partitions}
        futures = await asyncio.to_thread(
            self._client.list_offsets, asked, isolation_level=isolation, request_timeout=_TIMEOUT_S
        )
        found: dict[int, int] = {}
        for partition, future in futures.items():
            result = await self._ask(topic, partial(_same, future))
            found[partition.partition] = result.offset
        return found

    async def _ask(self, topic: str, send: Callable[[], Any]) -> Any:
        try:
            future = await asyncio.to_thread(send)
            return await asyncio.wrap_future(future)
        except KafkaException as error:
            raise _translated(topic, error) from None


def _same(future: Any) -> Any:
    return future


def _translated(topic: str, error: KafkaException) -> FailedPrecondition | Unavailable:
    code = error.args[0].code()
    if code in _MISSING:
        return FailedPrecondition(
            "TOPIC_NOT_FOUND",
            f"There is no topic {topic!r} in Kafka; create it, or mend the job's topic.",
            metadata={"topic": topic},
        )
    return Unavailable("KAFKA_UNAVAILABLE", f"Kafka does not answer ({error.args[0].name()}); try again.")
