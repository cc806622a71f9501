"""The jobs, and the records that they read. Pure.

Two topics. *Orders* may lie in any partition: an aggregate (with an expiry) and a map ordered by a column read them,
and the topic is widened meanwhile. *Moves* lie in the partition of their account: a fold and a map keyed by partition
read them; that topic keeps its partitions, for both would fail, rightly, on a key that comes from two of them.

Time in the records runs fast, some days a second, and records come up to two days late: late enough to be beaten by
newer ones and by deletions, not so late that a deletion may have been forgotten (docs/jobs.md).

A *poison* record is one that every job must set aside; a header says so, so that nobody has to work out why. A deadly
one kills the worker of one job, which must set it aside too, and is a plain record to the others.
"""

from __future__ import annotations

import json
import random
import zlib
from collections.abc import Iterator
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from typing import Any, Final

PARTITIONS: Final = 4
PARTITIONS_WIDENED: Final = 6
POISON_HEADER: Final = "poison"
POISON_FOR_ALL: Final = b"all"
DEADLY_FOR: Final = "aggregate"
POISON_SHARE: Final = 0.002
ORDERS, MOVES = "orders", "moves"

_BEGIN: Final = datetime(2020, 1, 1, tzinfo=UTC)
_DAYS_A_ROUND: Final = 20.0
_LATE_DAYS_MAX: Final = 2.0
EXPIRES_AFTER_DAYS: Final = 30
_IDS, _USERS, _ACCOUNTS = 1500, 60, 700
_NAMES: Final = ("plain", "ünïcode", "quote'd", "back\\slash", "tab\there", "")

_ORDER = """\
import os
from datetime import date, datetime, timedelta

from turnout import Delete, Key, LastBy, Max, Min, Record, Row, Sum, aggregate, map


class Order(Record):
    id: int
    user: str
    at: datetime
    rank: int
    amount: int
    note: str
    gone: bool = False

"""
_MOVE = """\
from turnout import Key, Record, Row, fold, map


class Move(Record):
    account: str
    amount: int
    note: str
    close: bool = False

"""
SOURCES: Final = {
    "aggregate": _ORDER
    + '''
class Total(Row):
    user: Key[str]
    day: Key[date]
    orders: Sum[int] = 1
    amount: Sum[int] = 0
    smallest: Min[int] = 0
    newest: Max[int] = 0
    note: LastBy[str] = ""


@aggregate("{job}", topic="{topic}", event_time="at", last_by="newest", on_malformed="set_aside",
           expire_after=("day", timedelta(days=30)))
def totals(order: Order) -> Total:
    """What each user ordered on each of the last days."""
    if order.note == "deadly":
        os._exit(9)
    return Total(user=order.user, day=order.at.date(), amount=order.amount, smallest=order.amount,
                 newest=order.rank, note=order.note)
''',
    "map": _ORDER
    + '''
class State(Row):
    id: Key[int]
    rank: int
    amount: int
    note: str


@map("{job}", topic="{topic}", event_time="at", order_by="rank", on_malformed="set_aside")
def states(order: Order) -> State | Delete:
    """The newest state of each order."""
    if order.gone:
        return Delete(id=order.id, rank=order.rank)
    return State(id=order.id, rank=order.rank, amount=order.amount, note=order.note)
''',
    "fold": _MOVE
    + '''
class Account(Row):
    account: Key[str]
    moves: int = 0
    digest: int = 0
    amount: int = 0
    note: str = ""


@fold("{job}", topic="{topic}", on_malformed="set_aside")
def accounts(state: Account | None, move: Move) -> Account | None:
    """A digest of each account's moves, which any move left out, doubled or out of order changes."""
    if move.close:
        return None
    row = state or Account(account=move.account)
    row.moves += 1
    row.digest = (row.digest * 31 + move.amount) % 1_000_000_007
    row.amount = move.amount
    row.note = move.note
    return row
''',
    "keyed map": _MOVE
    + '''
class Latest(Row):
    account: Key[str]
    amount: int
    note: str


@map("{job}", topic="{topic}", keyed_by_partition=True, on_malformed="set_aside")
def latest(move: Move) -> Latest:
    """The last move of each account."""
    return Latest(account=move.account, amount=move.amount, note=move.note)
''',
}
"""By the name of the kind: a job file, to be formatted with `job` and `topic`."""

TOPIC_OF: Final = {"aggregate": ORDERS, "map": ORDERS, "fold": MOVES, "keyed map": MOVES}
COLUMNS: Final = {
    "aggregate": ("user", "day", "orders", "amount", "smallest", "newest", "note"),
    "map": ("id", "rank", "amount", "note"),
    "fold": ("account", "moves", "digest", "amount", "note"),
    "keyed map": ("account", "amount", "note"),
}
"""Of the tables; the key columns come first."""
KEY_COLUMNS: Final = {"aggregate": 2, "map": 1, "fold": 1, "keyed map": 1}


@dataclass(frozen=True, slots=True)
class Made:
    """A record to produce. partition None = by its order, over as many as the topic has."""

    topic: str
    partition: int | None
    key: bytes | None
    value: bytes | None
    poison_for: bytes | None = None  # what the header says


def records(seed: int, round_number: int, in_episode: int, count: int) -> Iterator[Made]:
    """The records of a round, in_episode rounds after its episode began; the same for the same arguments."""
    chance = random.Random(f"turnout records {seed} {round_number}")
    for i in range(count):
        day = (in_episode + i / count) * _DAYS_A_ROUND
        if chance.random() < 0.55:
            yield _order(chance, day)
        else:
            yield _move(chance)


def deadly(seed: int, round_number: int, in_episode: int) -> Made:
    """A record that kills the worker of one job."""
    chance = random.Random(f"turnout deadly {seed} {round_number}")
    made = _order(chance, (in_episode + 0.5) * _DAYS_A_ROUND, sound=True)
    assert made.value is not None
    value = json.dumps({**json.loads(made.value), "note": "deadly"}).encode()
    return Made(ORDERS, None, None, value, DEADLY_FOR.encode())


def _order(chance: random.Random, day: float, *, sound: bool = False) -> Made:
    at = _BEGIN + timedelta(days=day - chance.random() ** 3 * _LATE_DAYS_MAX)
    rank = int(at.timestamp()) // 60  # by the minute: some are equal
    user = f"u{chance.randrange(_USERS)}"
    fields: dict[str, Any] = {
        "id": chance.randrange(_IDS),
        "user": user,
        "at": at.isoformat(),
        "rank": rank,
        "amount": chance.randrange(-500, 1000),
        "note": chance.choice(_NAMES),
    }
    if chance.random() < 0.15:
        fields["gone"] = True
    poison = chance.random() < POISON_SHARE and not sound
    value = _poisoned(chance, fields, "gone") if poison else json.dumps(fields).encode()
    return Made(ORDERS, None, None, value, POISON_FOR_ALL if poison else None)


def _move(chance: random.Random) -> Made:
    account = f"a{chance.randrange(_ACCOUNTS)}"
    key = account.encode()
    partition = zlib.crc32(key) % PARTITIONS
    fields: dict[str, Any] = {
        "account": account,
        "amount": chance.randrange(-500, 1000),
        "note": chance.choice(_NAMES),
    }
    dice = chance.random()
    if dice < POISON_SHARE:
        return Made(MOVES, partition, key, _poisoned(chance, fields, "close"), POISON_FOR_ALL)
    if dice < 0.05:
        return Made(MOVES, partition, key, None)  # a tombstone, malformed for the fold
    if dice < 0.12:
        fields["close"] = True
    return Made(MOVES, partition, key, json.dumps(fields).encode())


def _poisoned(chance: random.Random, fields: dict[str, Any], deletes: str) -> bytes:
    """A value that no job can take, though each in another place. Not one that deletes: such a record brings no value
    into the table that could be refused."""
    fields.pop(deletes, None)
    how = chance.randrange(3)
    if how == 0:
        return b"{no JSON" + json.dumps(fields).encode()
    if how == 1:
        return json.dumps({**fields, "note": "nul\0"}).encode()
    return json.dumps({**fields, "amount": chance.choice((2**70, -(2**70)))}).encode()
