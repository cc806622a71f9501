"""The producer: seeded records at a steady rate, a part of them in transactions, some of which are aborted."""

from __future__ import annotations

import logging
import random
import secrets
import time
from collections.abc import Iterable
from typing import Any, Final

from confluent_kafka import KafkaException, Producer

from bench.faults.workload import POISON_HEADER, Made

_TICK_S: Final = 0.05
_WITHIN_S: Final = 60.0
_ATTEMPT_S: Final = 3.0  # at a transaction; then the records go without one
_TRANSACTIONAL_SHARE: Final = 0.25  # of the ticks
_ABORTED_SHARE: Final = 0.25  # of the transactions
SILENT: Final = logging.getLogger("bench.faults.kafka")
"""For Kafka clients, which tell everybody how often they could not connect."""
SILENT.addHandler(logging.NullHandler())
SILENT.propagate = False


class Feed:
    """Produces to one broker, from threads of the caller's. What is in the log in the end is known by reading it."""

    def __init__(self, bootstrap: str) -> None:
        self._properties = {
            "bootstrap.servers": bootstrap,
            "compression.type": "lz4",
            "linger.ms": 5,
            "topic.metadata.refresh.interval.ms": 1000,
            "message.timeout.ms": int(_WITHIN_S * 1000),
        }
        self._plain = Producer({**self._properties, "enable.idempotence": True}, logger=SILENT)
        self._id = f"faults-{secrets.token_hex(4)}"
        self._transactional: Producer | None = None

    def at_once(self, made: Iterable[Made], names: dict[str, str], partitions: dict[str, int]) -> None:
        """Produce all of it as fast as it goes, outside of transactions."""
        for number, one in enumerate(made):
            _produce(self._plain, one, names, _partition(one, number, partitions))
        self._flush()

    def steadily(
        self, made: list[Made], for_s: float, names: dict[str, str], partitions: dict[str, int], seed: str
    ) -> None:
        """Produce the records within so many seconds. `partitions`, by topic, is looked at anew all the time. Returns
        when the broker has acknowledged everything, which it may not be there to do for a while."""
        chance = random.Random(seed)
        ticks = max(1, round(for_s / _TICK_S))
        began_s = time.monotonic()
        for tick in range(ticks):
            part = made[tick * len(made) // ticks : (tick + 1) * len(made) // ticks]
            placed = [(one, _partition(one, tick + n, partitions)) for n, one in enumerate(part)]
            whole, abort = chance.random() < _TRANSACTIONAL_SHARE, chance.random() < _ABORTED_SHARE
            if not (whole and self._transaction(placed, names, abort=abort)):
                for one, partition in placed:
                    _produce(self._plain, one, names, partition)
            self._plain.poll(0)
            time.sleep(max(0.0, began_s + (tick + 1) * _TICK_S - time.monotonic()))
        self._flush()

    def _transaction(self, placed: list[tuple[Made, int]], names: dict[str, str], *, abort: bool) -> bool:
        """Whether the transaction came to its end; what became of a failed one only the log knows."""
        try:
            if self._transactional is None:
                self._transactional = self._new_transactional()
            producer = self._transactional
            producer.begin_transaction()
            for one, partition in placed:
                _produce(producer, one, names, partition)
            if abort:
                producer.flush(1.0)  # so that there is something in the log to pass over
                producer.abort_transaction(_ATTEMPT_S)
            else:
                producer.commit_transaction(_ATTEMPT_S)
        except KafkaException:
            self._transactional = None  # the next one, of the same id, ends what this one left open
            return False
        return True

    def _new_transactional(self) -> Producer:
        properties = {
            **self._properties,
            "transactional.id": self._id,
            "transaction.timeout.ms": 10_000,
            "message.timeout.ms": 10_000,
        }
        producer = Producer(properties, logger=SILENT)
        producer.init_transactions(_ATTEMPT_S)
        return producer

    def one(self, made: Made, names: dict[str, str], partition: int) -> None:
        """Produce one record beside the others; from any thread."""
        _produce(self._plain, made, names, partition)

    def settle(self) -> None:
        """End what a failed transaction may have left open: until then nobody can read past it."""
        deadline_s = time.monotonic() + _WITHIN_S
        while self._transactional is None:
            try:
                self._transactional = self._new_transactional()
            except KafkaException:
                if time.monotonic() > deadline_s:
                    raise

    def _flush(self) -> None:
        left = self._plain.flush(_WITHIN_S)
        if left:
            raise TimeoutError(f"{left} records were not acknowledged within {_WITHIN_S:.0f} s")


def _partition(one: Made, number: int, partitions: dict[str, int]) -> int:
    return number % partitions[one.topic] if one.partition is None else one.partition


def _produce(producer: Producer, one: Made, names: dict[str, str], partition: int) -> None:
    headers: Any = [(POISON_HEADER, one.poison_for)] if one.poison_for is not None else None
    deadline_s = time.monotonic() + _WITHIN_S
    while True:
        try:
            producer.produce(names[one.topic], one.value, one.key, partition, headers=headers)
        except BufferError:
            producer.poll(0.1)
        except KafkaException as error:
            # A producer learns of new partitions a moment later than the broker.
            if "UNKNOWN_PARTITION" not in str(error).upper() or time.monotonic() > deadline_s:
                raise
            producer.poll(0.1)
        else:
            return
