"""Kafka for `produce` and `check --sample`, by the client of the extra `turnout[kafka]`."""

from __future__ import annotations

import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from typing import Any

from turnout.cli.exits import CommandError, ExitCode
from turnout.cli.suggestions import did_you_mean
from turnout.cli.targets import KAFKA_VARIABLE, KafkaClient

ANSWER_S = 10.0
_IN_FLIGHT_RECORDS = 200_000


@dataclass(frozen=True, slots=True)
class SampledRecord:
    """A record as it lies in the topic. timestamp: milliseconds since 1970."""

    topic: str
    partition: int
    offset: int
    timestamp: int
    key: bytes | None
    value: bytes | None
    headers: tuple[tuple[str, bytes], ...]


def _library() -> Any:
    try:
        import confluent_kafka
        import confluent_kafka.admin
    except ImportError:
        raise CommandError(
            ExitCode.USAGE,
            "KAFKA_CLIENT_MISSING",
            "This command speaks to Kafka, and no client for it is installed.",
            next_step="Install it: pip install 'turnout[kafka]'.",
        ) from None
    return confluent_kafka


def _settings(client: KafkaClient) -> dict[str, Any]:
    return {**client.properties, "log_level": 0, "socket.connection.setup.timeout.ms": 5000}


def _away(client: KafkaClient, detail: object) -> CommandError:
    return CommandError(
        ExitCode.UNAVAILABLE,
        "KAFKA_UNAVAILABLE",
        f"Kafka at {client.brokers} does not answer: {detail}.",
        next_step=f"See that it runs, and that --kafka or {KAFKA_VARIABLE} names it. Without both it is that of the "
        "`turnout dev` which runs in this folder or one above.",
    )


def _partitions(client: KafkaClient) -> dict[str, int]:
    """Every topic and its number of partitions."""
    library = _library()
    admin = library.admin.AdminClient(_settings(client))
    try:
        metadata = admin.list_topics(timeout=ANSWER_S)
    except library.KafkaException as error:
        raise _away(client, error.args[0].str()) from None
    return {name: len(topic.partitions) for name, topic in metadata.topics.items() if topic.error is None}


# --- reading a sample -------------------------------------------------------------------------------------------------


def sample(client: KafkaClient, topics: Iterable[str], per_partition: int) -> Iterator[SampledRecord]:
    """The oldest records of each partition, as a replay would meet them first, in the order of the partitions."""
    library = _library()
    known = _partitions(client)
    consumer = library.Consumer(
        {
            **_settings(client),
            "group.id": "turnout-check",
            "enable.auto.commit": False,
            "isolation.level": "read_committed",
            "enable.partition.eof": True,
        }
    )
    try:
        for topic in topics:
            if topic not in known:
                raise CommandError(
                    ExitCode.REFUSED,
                    "TOPIC_NOT_FOUND",
                    f"There is no topic {topic!r}{did_you_mean(topic, known)}",
                    next_step="Create it, for example with `turnout produce`, or mend the job's topic=.",
                )
            for partition in range(known[topic]):
                yield from _first_of(library, client, consumer, topic, partition, per_partition)
    except library.KafkaException as error:
        raise _away(client, error.args[0].str()) from None
    finally:
        consumer.close()


def _first_of(
    library: Any, client: KafkaClient, consumer: Any, topic: str, partition: int, limit: int
) -> Iterator[SampledRecord]:
    start, _ = consumer.get_watermark_offsets(library.TopicPartition(topic, partition), timeout=ANSWER_S)
    consumer.assign([library.TopicPartition(topic, partition, start)])
    given = 0
    ends = time.monotonic() + ANSWER_S
    while given < limit:
        message = consumer.poll(0.2)
        if message is None:
            if time.monotonic() > ends:
                raise _away(client, f"no record of {topic}/{partition} within {ANSWER_S:g} s")
        elif message.error() is not None:
            if message.error().code() == library.KafkaError._PARTITION_EOF:
                return
            raise _away(client, message.error().str())
        else:
            given += 1
            yield SampledRecord(
                topic,
                partition,
                message.offset(),
                message.timestamp()[1],
                message.key(),
                message.value(),
                tuple(message.headers() or ()),
            )


# --- producing --------------------------------------------------------------------------------------------------------


def ensure_topic(client: KafkaClient, topic: str, partitions: int | None, default_partitions: int) -> tuple[int, bool]:
    """(partitions, whether it was created). A new topic keeps its records for ever (retention.ms=-1).

    REFUSED when it exists with another number of partitions than asked for.
    """
    library = _library()
    known = _partitions(client)
    if topic in known:
        if partitions is not None and partitions != known[topic]:
            raise CommandError(
                ExitCode.REFUSED,
                "PARTITIONS_DIFFER",
                f"The topic {topic!r} has {known[topic]} partitions, not {partitions}; widening moves its keys.",
                next_step="Leave out --partitions, or produce to a new topic.",
            )
        return known[topic], False
    wanted = default_partitions if partitions is None else partitions
    admin = library.admin.AdminClient(_settings(client))
    new = library.admin.NewTopic(topic, num_partitions=wanted, config={"retention.ms": "-1"})
    try:
        admin.create_topics([new], operation_timeout=ANSWER_S)[topic].result()
    except library.KafkaException as error:
        raise CommandError(
            ExitCode.REFUSED, "TOPIC_REFUSED", f"Kafka did not create the topic {topic!r}: {error.args[0].str()}."
        ) from None
    return wanted, True


class Sender:
    """Sends records to one topic, acknowledged by all replicas, in order; partitions by key as Java clients do."""

    def __init__(self, client: KafkaClient, topic: str) -> None:
        self._library = _library()
        self._client = client
        self._topic = topic
        self._failure: Any = None
        self.sent = 0
        self.last_line = 0  # of the file, that was handed over
        self.acknowledged = 0
        self.by_partition: dict[int, int] = {}
        self._producer = self._library.Producer(
            {
                **_settings(client),
                "enable.idempotence": True,
                "linger.ms": 20,
                "compression.type": "lz4",
                "partitioner": "murmur2_random",
                "queue.buffering.max.messages": _IN_FLIGHT_RECORDS,
                "message.timeout.ms": 60_000,
            }
        )

    def send(self, key: bytes | None, value: bytes, line: int) -> None:
        """Hand over the record of a line; waits while too many are on their way."""
        while True:
            try:
                self._producer.produce(self._topic, value=value, key=key, on_delivery=self._delivered)
                break
            except BufferError:
                self._producer.poll(0.1)
                self._check()
            except self._library.KafkaException as error:
                raise self._refused(error.args[0]) from None
        self.sent, self.last_line = self.sent + 1, line
        if self.sent % 1000 == 0:
            self._producer.poll(0)
            self._check()

    def wait(self, seconds: float) -> None:
        """Let acknowledgements come in for as long."""
        ends = time.monotonic() + seconds
        while (left := ends - time.monotonic()) > 0:
            self._producer.poll(left)
        self._check()

    def finish(self) -> None:
        """Return when every record is acknowledged."""
        while self._producer.flush(0.5):
            self._check()
        self._check()

    def _delivered(self, error: Any, message: Any) -> None:
        if error is not None:
            self._failure = error
            return
        self.acknowledged += 1
        partition = message.partition()
        self.by_partition[partition] = self.by_partition.get(partition, 0) + 1

    def _check(self) -> None:
        if self._failure is not None:
            raise self._refused(self._failure)

    def _refused(self, error: Any) -> CommandError:
        so_far = f"; {self.acknowledged:,} records were acknowledged before"
        if error.code() in (
            self._library.KafkaError._MSG_TIMED_OUT,
            self._library.KafkaError._ALL_BROKERS_DOWN,
            self._library.KafkaError._TRANSPORT,
        ):
            return _away(self._client, error.str() + so_far)
        return CommandError(ExitCode.REFUSED, "RECORD_REFUSED", f"Kafka refused a record: {error.str()}{so_far}.")
