"""What the tables must hold: plain Python over the records below the positions, sharing nothing with the product. Pure.

Written to be read, not to be fast: no batches, no merging in between, each record once, from the beginning.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, date, datetime, timedelta
from typing import Any

from bench.faults.workload import DEADLY_FOR, EXPIRES_AFTER_DAYS, POISON_FOR_ALL

Key = tuple[Any, ...]
Table = dict[Key, tuple[Any, ...]]
Positions = Mapping[int, int]  # partition -> next offset


@dataclass(frozen=True, slots=True)
class Logged:
    """A record as a plain consumer read it. fields: of its value; None for a tombstone and for what is no JSON.
    poison_for: the kind of job that must set it aside, POISON_FOR_ALL, or None."""

    partition: int
    offset: int
    key: bytes | None
    fields: dict[str, Any] | None
    tombstone: bool
    poison_for: bytes | None


def logged(partition: int, offset: int, key: bytes | None, value: bytes | None, poison_for: bytes | None) -> Logged:
    """A record with its value read."""
    fields = None
    if value is not None:
        try:
            fields = json.loads(value)
        except ValueError:
            assert poison_for, f"record {offset} of partition {partition} is no JSON and was not meant to be poison"
    return Logged(partition, offset, key, fields, value is None, poison_for)


@dataclass(frozen=True, slots=True)
class Expected:
    """The rows by key (key columns included), the records set aside as (partition, offset), and how many there are."""

    rows: Table
    set_aside: frozenset[tuple[int, int]]
    records: int


Log = Mapping[int, Sequence[Logged]]  # partition -> its records in order


def expected(kind: str, log: Log, positions: Positions) -> Expected:
    """What a job of that kind must have made of the records before the positions."""
    before = [record for record in _all(log) if record.offset < positions.get(record.partition, 0)]
    good = [record for record in before if not _malformed(kind, record)]
    bad = frozenset((record.partition, record.offset) for record in before if _malformed(kind, record))
    return Expected(_KINDS[kind](good, before), bad, len(before))


def _all(log: Log) -> Iterator[Logged]:
    for partition in sorted(log):
        yield from log[partition]


def _malformed(kind: str, record: Logged) -> bool:
    poison = record.poison_for in (POISON_FOR_ALL, kind.encode())
    return poison or (record.tombstone and kind != "keyed map")


def _fields(record: Logged) -> dict[str, Any]:
    assert record.fields is not None
    return record.fields


def _totals(good: list[Logged], before: list[Logged]) -> Table:
    rows: dict[Key, list[Any]] = {}
    for record in good:
        order = _fields(record)
        key = (order["user"], _at(order).date())
        one = [1, order["amount"], order["amount"], order["rank"], order["note"]]
        rows[key] = _merged(rows[key], one) if key in rows else one
    # The newest event time of all that could be read, also of what was set aside for another reason.
    times = [_at(record.fields) for record in before if record.fields is not None and not _deadly(record)]
    oldest = (max(times) - timedelta(days=EXPIRES_AFTER_DAYS)).date() if times else date.min
    return {key: (*key, *row) for key, row in rows.items() if key[1] >= oldest}


def _deadly(record: Logged) -> bool:
    """Whether nobody may so much as look at it."""
    return record.poison_for == DEADLY_FOR.encode()


def _merged(old: list[Any], new: list[Any]) -> list[Any]:
    newer = (new[3], new[4]) > (old[3], old[4])
    return [
        old[0] + new[0],
        old[1] + new[1],
        min(old[2], new[2]),
        max(old[3], new[3]),
        new[4] if newer else old[4],
    ]


def _at(order: dict[str, Any]) -> datetime:
    return datetime.fromisoformat(order["at"]).astimezone(UTC)


def _states(good: list[Logged], _: list[Logged]) -> Table:
    newest: dict[int, Logged] = {}
    for record in good:
        old = newest.get(_fields(record)["id"])
        if old is None or _rank(record) > _rank(old):
            newest[_fields(record)["id"]] = record
    return {
        (id_,): (id_, order["rank"], order["amount"], order["note"])
        for id_, order in ((id_, _fields(record)) for id_, record in newest.items())
        if not order.get("gone")
    }


def _rank(record: Logged) -> tuple[int, int, int]:
    return (_fields(record)["rank"], record.partition, record.offset)


def _accounts(good: list[Logged], _: list[Logged]) -> Table:
    rows: Table = {}
    for record in good:
        move = _fields(record)
        key = (move["account"],)
        if move.get("close"):
            rows.pop(key, None)
            continue
        _, moves, digest, *_ = rows.get(key, (None, 0, 0))
        digest = (digest * 31 + move["amount"]) % 1_000_000_007
        rows[key] = (move["account"], moves + 1, digest, move["amount"], move["note"])
    return rows


def _latest(good: list[Logged], _: list[Logged]) -> Table:
    rows: Table = {}
    for record in good:
        if record.tombstone:
            assert record.key is not None
            rows.pop((record.key.decode(),), None)
        else:
            move = _fields(record)
            rows[move["account"],] = (move["account"], move["amount"], move["note"])
    return rows


_KINDS: dict[str, Callable[[list[Logged], list[Logged]], Table]] = {
    "aggregate": _totals,
    "map": _states,
    "fold": _accounts,
    "keyed map": _latest,
}
