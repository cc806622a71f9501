"""The reference of the fault rounds, against tables worked out by hand; and that differences are seen."""

from __future__ import annotations

import json
from dataclasses import replace
from datetime import date
from typing import Any

from bench.faults.reference import Expected, Log, Logged, expected, logged
from bench.faults.tables import Seen, differences
from bench.faults.workload import DEADLY_FOR, POISON_FOR_ALL


def order(partition: int, offset: int, *, poison_for: bytes | None = None, **fields: Any) -> Logged:
    """An order of one user, with what is given otherwise."""
    whole = {"id": 1, "user": "u", "at": "2020-01-10T12:00:00+00:00", "rank": 5, "amount": 10, "note": "n", **fields}
    return logged(partition, offset, None, json.dumps(whole).encode(), poison_for)


def move(offset: int, amount: int = 1, *, close: bool = False) -> Logged:
    """A move of the account "a"."""
    fields = {"account": "a", "amount": amount, "note": "n", "close": close}
    return logged(0, offset, b"a", json.dumps(fields).encode(), None)


def all_of(kind: str, *records: Logged) -> Expected:
    """What the job makes of all these records, each partition's in order."""
    log: dict[int, list[Logged]] = {}
    for record in records:
        log.setdefault(record.partition, []).append(record)
    return expected(kind, log, dict.fromkeys(log, 1000))


def test_only_what_lies_before_the_positions_counts() -> None:
    log: Log = {0: [order(0, 3), order(0, 7)], 1: [order(1, 0)]}
    assert expected("aggregate", log, {0: 7}).records == 1
    assert expected("aggregate", log, {0: 8, 1: 1}).records == 3
    assert expected("aggregate", log, {}).rows == {}


def test_totals_merge_and_the_newest_note_stays() -> None:
    key = ("u", date(2020, 1, 10))
    rows = all_of("aggregate", order(0, 0, rank=9, note="last"), order(1, 0, amount=-3, rank=2, note="z")).rows
    assert rows == {key: (*key, 2, 7, -3, 9, "last")}


def test_totals_expire_by_the_newest_time_of_all_but_a_deadly_record() -> None:
    old, new = order(0, 0), order(0, 1, at="2020-02-10T00:00:00+00:00", user="v")
    assert [key[0] for key in all_of("aggregate", old, new).rows] == ["v"]
    poisoned = replace(new, poison_for=POISON_FOR_ALL)
    assert all_of("aggregate", old, poisoned).rows == {}
    deadly = replace(new, poison_for=DEADLY_FOR.encode())
    assert len(all_of("aggregate", old, deadly).rows) == 1


def test_the_greatest_rank_wins_also_against_what_comes_later() -> None:
    assert all_of("map", order(0, 0, rank=5), order(1, 0, rank=4, note="late")).rows == {(1,): (1, 5, 10, "n")}
    assert all_of("map", order(0, 0, rank=5, gone=True), order(1, 0, rank=4)).rows == {}
    assert all_of("map", order(0, 0), order(1, 0, note="tie")).rows[1,][3] == "tie"


def test_a_fold_is_in_order_and_begins_anew_after_a_close() -> None:
    assert all_of("fold", move(0, 1), move(1, 2)).rows == {("a",): ("a", 2, 33, 2, "n")}
    assert all_of("fold", move(0, 2), move(1, 1)).rows == {("a",): ("a", 2, 63, 1, "n")}
    assert all_of("fold", move(0, 1), move(1, close=True), move(2, 7)).rows == {("a",): ("a", 1, 7, 7, "n")}


def test_a_tombstone_deletes_or_is_set_aside() -> None:
    tombstone = logged(0, 1, b"a", None, None)
    assert all_of("keyed map", move(0), tombstone).rows == {}
    folded = all_of("fold", move(0), tombstone)
    assert (len(folded.rows), set(folded.set_aside)) == (1, {(0, 1)})


def test_what_differs_is_named() -> None:
    log: Log = {0: [move(0, 1), logged(0, 1, b"a", b"{no JSON", POISON_FOR_ALL)]}
    right = Seen({0: 2}, 2, 1, {("a",): ("a", 1, 1, 1, "n")}, frozenset({(0, 1)}))
    assert differences("fold", right, log) == []
    [row] = differences("fold", replace(right, rows={("a",): ("a", 2, 2, 1, "n")}), log)
    assert "key ('a',): the table has ('a', 2, 2, 1, 'n'), not ('a', 1, 1, 1, 'n')" in row
    assert differences("fold", replace(right, rows={}), log) != []
    assert differences("fold", replace(right, letters=frozenset()), log) != []
    assert differences("fold", replace(right, letters=frozenset({(0, 0), (0, 1)})), log) != []
    assert differences("fold", replace(right, records=3), log) != []
    assert differences("fold", replace(right, set_aside=0), log) != []
    assert differences("fold", replace(right, positions={0: 1}), log) != []
