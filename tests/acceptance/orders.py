"""Orders: a topic, versions of a job over it, and the table that each must give, computed here by other code."""

from __future__ import annotations

import json
import random
from collections import defaultdict
from collections.abc import Iterator
from pathlib import Path

from tests.support.topics import Record, Topics
from turnout.client import Client

JOB = "order-totals"
USERS = 300

SOURCE = '''\
"""How much has each user ordered?"""
from turnout import Key, Max, Record, Row, Sum, aggregate


class Order(Record):
    user: str
    cents: int
    refunded: bool = False


class Total(Row):
    user: Key[str]
    orders: Sum[int] = 1
    cents: Sum[int] = 0
    largest: Max[int] = 0
{columns}

@aggregate("{job}", topic="{topic}", on_malformed="{on_malformed}")
def totals(order: Order) -> Total:
    return Total(user=order.user, cents={cents}, largest=order.cents{values})
'''

Table = dict[str, dict[str, object]]


class Orders:
    """Produces orders and remembers them. Version 1 counts refunded orders in full, version 2 not at all."""

    def __init__(self, topics: Topics, topic: str, directory: Path) -> None:
        self.topics = topics
        self.topic = topic
        self._directory = directory
        self._random = random.Random(1)
        self._produced: list[tuple[str, int, bool]] = []

    async def produce(self, count: int) -> None:
        """Add `count` orders of 300 users to the topic."""
        orders = [
            (f"user-{self._random.randrange(USERS)}", self._random.randrange(1, 10_000), self._random.random() < 0.1)
            for _ in range(count)
        ]
        await self.topics.produce(self.topic, self._records(orders))
        self._produced += orders

    async def produce_value(self, value: bytes, key: bytes = b"odd") -> None:
        """Add one record that is not an order."""
        await self.topics.produce(self.topic, [Record(value, key)])

    def code(self, version: int, *, on_malformed: str = "fail", job: str = JOB) -> Path:
        """The job's file in one of its versions."""
        file = self._directory / f"{job}-{version}-{on_malformed}.py"
        file.parent.mkdir(parents=True, exist_ok=True)
        cents = "order.cents" if version == 1 else "0 if order.refunded else order.cents"
        file.write_text(
            SOURCE.format(
                job=job,
                topic=self.topic,
                on_malformed=on_malformed,
                cents=cents,
                columns="" if version == 1 else "    refunds: Sum[int] = 0\n",
                values="" if version == 1 else ", refunds=order.refunded",
            ),
            encoding="utf-8",
        )
        return file

    def table(self, version: int) -> Table:
        """What the version's table must hold."""
        rows: Table = {}
        by_user: dict[str, list[tuple[int, bool]]] = defaultdict(list)
        for user, cents, refunded in self._produced:
            by_user[user].append((cents, refunded))
        for user, orders in by_user.items():
            rows[user] = {
                "user": user,
                "orders": len(orders),
                "cents": sum(cents for cents, refunded in orders if version == 1 or not refunded),
                "largest": max(cents for cents, _ in orders),
            }
            if version > 1:
                rows[user]["refunds"] = sum(refunded for _, refunded in orders)
        return rows

    def _records(self, orders: list[tuple[str, int, bool]]) -> Iterator[Record]:
        for user, cents, refunded in orders:
            yield Record(json.dumps({"user": user, "cents": cents, "refunded": refunded}).encode(), user.encode())


async def stored(client: Client, version: int, job: str = JOB) -> Table:
    """What the version's table holds."""
    rows: Table = {}
    async for read in client.scan(job, version=version):
        assert read.row is not None
        assert read.version == version
        rows[str(read.row["user"])] = dict(read.row)
    return rows
