"""What is replayed: 1,000,000 orders as JSON of about 150 bytes, from 200,000 users, in 4 partitions, lz4."""

import random
import secrets
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Final

import msgspec
from confluent_kafka import Consumer, Producer
from confluent_kafka import TopicPartition as Place
from confluent_kafka.admin import AdminClient, NewTopic  # type: ignore[attr-defined]  # re-exported without saying so

PARTITIONS: Final = 4
USERS: Final = 200_000
MODES: Final = ("append", "aggregate", "fold")

_COUNTRIES: Final = ["DE", "FR", "US", "CN"]
_TOPIC_S: Final = 30.0
_SAY_EVERY: Final = 1_000_000


def orders(count: int, first: int = 0) -> Iterator[tuple[str, bytes]]:
    """User id and JSON of each order; the same for the same arguments."""
    rng = random.Random(1)
    encode = msgspec.json.Encoder().encode
    for i in range(first, first + count):
        user = f"user-{rng.randrange(USERS)}"
        yield (
            user,
            encode(
                {
                    "order_id": i,
                    "user_id": user,
                    "amount_cents": rng.randrange(100, 100_000),
                    "currency": "EUR",
                    "country": rng.choice(_COUNTRIES),
                    "ts": 1_700_000_000_000 + i,
                    "items": [{"sku": f"S{rng.randrange(1000)}", "qty": 1}],
                }
            ),
        )


def create_topic(kafka: str, topic: str, partitions: int = PARTITIONS) -> None:
    """An empty topic whose records are kept for ever."""
    client = AdminClient({"bootstrap.servers": kafka, "log_level": 0})
    new = NewTopic(topic, partitions, 1, config={"retention.ms": "-1"})
    for future in client.create_topics([new]).values():
        future.result(_TOPIC_S)


def produce(kafka: str, topic: str, count: int, first: int = 0) -> None:
    """Append that many orders to the topic; returns when the broker has them."""
    settings = {"linger.ms": 20, "compression.type": "lz4", "queue.buffering.max.messages": 1_000_000, "log_level": 0}
    producer = Producer({"bootstrap.servers": kafka, **settings})
    for i, (user, value) in enumerate(orders(count, first), 1):
        while True:
            try:
                producer.produce(topic, value, user)
                break
            except BufferError:
                producer.poll(0.1)
        if i % 10_000 == 0:
            producer.poll(0)
        if i % _SAY_EVERY == 0:
            say(f"{i:,} of {count:,} records produced to {topic}")
    if left := producer.flush(_TOPIC_S):
        raise RuntimeError(f"Kafka did not take {left} records within {_TOPIC_S:g} s")


def topic_of(kafka: str, records: int) -> str:
    """The topic with so many orders; produced now unless an earlier run on the same data did."""
    topic = f"orders-{records}"
    known = AdminClient({"bootstrap.servers": kafka, "log_level": 0}).list_topics(timeout=_TOPIC_S).topics
    if topic in known:
        if ends(kafka, topic) == records:
            return topic
        topic = f"{topic}-{secrets.token_hex(3)}"  # it was left half-way
    say(f"producing {records:,} records")
    create_topic(kafka, topic)
    produce(kafka, topic, records)
    return topic


def ends(kafka: str, topic: str, partitions: int = PARTITIONS) -> int:
    """The ends of the topic's partitions, summed up."""
    consumer = Consumer({"bootstrap.servers": kafka, "group.id": "bench", "log_level": 0})
    try:
        places = [Place(topic, partition) for partition in range(partitions)]
        return sum(consumer.get_watermark_offsets(place, timeout=_TOPIC_S)[1] for place in places)
    finally:
        consumer.close()


def job_file(mode: str, topic: str, directory: Path) -> tuple[str, Path]:
    """A job of its own, hence a table of its own, over the topic: the job's id and its file."""
    source = (Path(__file__).parent / "jobs" / f"{mode}.py").read_text(encoding="utf-8")
    job = f"{mode}-{secrets.token_hex(3)}"
    path = directory / f"{job.replace('-', '_')}.py"
    path.write_text(source.replace('"orders"', f'"{topic}"').replace(f'"{mode}"', f'"{job}"'), encoding="utf-8")
    return job, path


def say(text: str) -> None:
    """A line of progress, to stderr."""
    print(text, file=sys.stderr, flush=True)
