"""Aggregates: merging is commutative and associative, and a bad record changes nothing."""

from __future__ import annotations

import json
from collections.abc import Iterator
from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout import ApproximateSum, Job, Key, LastBy, Max, Meta, Min, Record, Row, Sum, aggregate
from turnout.job.compiled import CompiledAggregate, Failure
from turnout.testing import MalformedRecordError, Message, run


class Event(Record):
    key: str
    n: int | None = None
    price: Decimal = Decimal(0)
    at: int = 0
    place: str | None = None
    gate: str = ""


class Total(Row):
    key: Key[str]
    last_place: LastBy[str | None]
    last_gate: LastBy[str]
    at: Max[int]
    price: Sum[Decimal]
    low: Min[int | None]
    high: Max[int | None]
    some: Sum[int | None]
    count: Sum[int] = 1


@aggregate("totals", topic="events", last_by="at")
def totals(event: Event) -> Total:
    return Total(
        key=event.key,
        last_place=event.place,
        last_gate=event.gate,
        at=event.at,
        price=event.price,
        low=event.n,
        high=event.n,
        some=event.n,
    )


def compiled(job: Job[..., Any]) -> CompiledAggregate:
    made = job.compile()
    assert isinstance(made, CompiledAggregate)
    return made


DECIMALS = st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**40), max_value=10**40)
COLUMNS = st.tuples(
    st.sampled_from("ab"),
    st.sampled_from([None, "", "x", "y"]),
    st.sampled_from(["1", "2"]),
    st.integers(0, 2),
    DECIMALS,
    st.none() | st.integers(0, 9),
    st.none() | st.integers(0, 9),
    st.none() | st.integers(),
    st.just(1),
)


def merged(*rows: Any) -> list[Any]:
    into = list(rows[0])
    for row in rows[1:]:
        compiled(totals).merge(into, row)
    return into


@given(COLUMNS, COLUMNS, COLUMNS)
def test_merging_is_commutative_and_associative(a: Any, b: Any, c: Any) -> None:
    a, b, c = (("k", *row[1:]) for row in (a, b, c))
    assert merged(a, b) == merged(b, a)
    assert merged(merged(a, b), c) == merged(a, merged(b, c))


@given(st.lists(COLUMNS, max_size=30), st.randoms(use_true_random=False))
def test_any_order_and_any_batching_give_the_same_table(rows: list[Any], random: Any) -> None:
    records = [Event(key=r[0], place=r[1], gate=r[2], at=r[3], price=r[4], n=r[5]) for r in rows]
    messages = [Message(msgspec.json.encode(record)) for record in records]
    expected = run(totals, messages)
    random.shuffle(messages)
    assert run(totals, messages) == expected
    groups: dict[Any, list[Any]] = {}
    half = len(messages) // 2
    for batch in (messages[:half], messages[half:]):
        failures: list[Failure] = []
        compiled(totals).collect("events", 0, batch, groups, failures)
        assert not failures
    assert [compiled(totals).to_row(groups[key]) for key in sorted(groups)] == expected


def test_the_merge_of_each_measure() -> None:
    one = {"key": "k", "n": 3, "price": "1.10", "at": 5, "place": "JFK", "gate": "A"}
    two = {"key": "k", "n": None, "price": "2.2", "at": 4, "place": "EWR", "gate": "B"}
    three = {"key": "k", "n": 1, "price": "-9", "at": 5, "place": None, "gate": "C"}
    (row,) = run(totals, [one, two, three])
    assert row == Total(
        key="k", last_place="JFK", last_gate="A", at=5, price=Decimal("-5.70"), low=1, high=3, some=4, count=3
    )


def test_nulls_alone_stay_null() -> None:
    (row,) = run(totals, [{"key": "k"}, {"key": "k"}])
    assert isinstance(row, Total)
    assert (row.low, row.high, row.some, row.last_place) == (None, None, None, None)


def test_decimal_sums_are_exact() -> None:
    big, small = "1e40", "1e-40"
    (row,) = run(totals, [{"key": "k", "price": big}, {"key": "k", "price": small}, {"key": "k", "price": "-1e40"}])
    assert isinstance(row, Total)
    assert row.price == Decimal(small)


# --- what a function may return ---------------------------------------------------------------------------------------


class Count(Row):
    key: Key[str]
    day: Key[date]
    n: Sum[int] = 1
    share: ApproximateSum[float] = 0.0


class Window(Record):
    key: str
    days: list[int]
    share: float = 0.0


@aggregate("counts", topic="windows")
def counts(window: Window) -> Iterator[Count]:
    for day in window.days:
        yield Count(key=window.key, day=date(2013, 1, day), n=True, share=window.share)
        if day == 13:
            raise RuntimeError("bad luck")


def test_several_rows_of_one_record() -> None:
    rows = run(counts, [{"key": "a", "days": [2, 1]}, {"key": "a", "days": [2]}, {"key": "b", "days": []}])
    assert rows == [Count(key="a", day=date(2013, 1, 1)), Count(key="a", day=date(2013, 1, 2), n=2)]
    assert type(rows[0].n) is int  # type: ignore[attr-defined]


def test_a_record_that_fails_half_way_changes_nothing() -> None:
    groups: dict[Any, list[Any]] = {}
    failures: list[Failure] = []
    messages = [
        Message(b'{"key":"a","days":[1]}', offset=0),
        Message(b'{"key":"a","days":[1,13]}', offset=1),
        Message(b'{"key":"a","days":[1]}', offset=2),
    ]
    compiled(counts).collect("windows", 0, messages, groups, failures)
    assert groups == {("a", date(2013, 1, 1)): ["a", date(2013, 1, 1), 2, 0.0]}
    (failure,) = failures
    assert failure.message is messages[1]
    assert failure.reason.startswith("RuntimeError: bad luck (test_aggregate.py line ")


def test_none_filters_and_a_single_key_is_bare() -> None:
    @aggregate("evens", topic="events")
    def evens(event: Event) -> Pair | None:
        return Pair(key=event.key) if event.n == 2 else None

    groups: dict[Any, list[Any]] = {}
    messages = [Message(json.dumps({"key": "a", "n": n}).encode()) for n in (1, 2, 2)]
    compiled(evens).collect("events", 0, messages, groups, [])
    assert groups == {"a": ["a", 2]}


class Pair(Row):
    key: Key[str]
    n: Sum[int] = 1


@aggregate("loose", topic="events")
def loose(event: Event) -> Pair:
    shapes: dict[int | None, Any] = {
        1: "text",
        2: 7,
        3: Count(key="a", day=date(2013, 1, 1)),
        4: [Pair(key="a"), None],
        5: {"key": "a"},
        6: Pair(key=None),  # type: ignore[arg-type]  # what a careless user's code may return
        7: Pair(key="a", n="1"),  # type: ignore[arg-type]
    }
    return shapes[event.n]  # type: ignore[no-any-return]


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        (b'{"key":"a","n":1}', "the function returned 'text'; expected Pair"),
        (b'{"key":"a","n":2}', "the function returned 7; expected Pair"),
        (b'{"key":"a","n":3}', "expected Pair"),
        (b'{"key":"a","n":4}', "the function returned None; expected Pair"),
        (b'{"key":"a","n":5}', "expected Pair"),
        (b'{"key":"a","n":6}', "column 'key': None, but the field is not optional"),
        (b'{"key":"a","n":7}', "column 'n': expected int, got '1' (str)"),
        (b'{"key":"a","n":8}', "KeyError: 8 (test_aggregate.py line "),
        (b'{"key":1}', "Expected `str`, got `int` - at `$.key`"),
        (b'{"n":1}', "Object missing required field `key`"),
        (b'{"key":', "Input data was truncated"),
        (b"\xff", "JSON is malformed"),
        (None, "the record has no value (a Kafka tombstone)"),
    ],
)
def test_malformed_records(value: bytes | None, reason: str) -> None:
    with pytest.raises(MalformedRecordError) as error:
        run(loose, [Message(value, partition=3, offset=41)])
    assert reason in error.value.reason
    assert "record 0 (partition 3 offset 41): " in str(error.value)


def test_a_long_reason_is_cut() -> None:
    @aggregate("long", topic="events")
    def long(event: Event) -> Pair:
        raise ValueError("x" * 10_000)

    with pytest.raises(MalformedRecordError) as error:
        run(long, [{"key": "a"}])
    assert len(error.value.reason) == 500


def test_floats_that_do_not_merge_are_refused() -> None:
    @aggregate("infinite", topic="windows")
    def infinite(window: Window) -> Count:
        return Count(key=window.key, day=date(2013, 1, 1), share=float("inf"))

    with pytest.raises(MalformedRecordError, match="column 'share': inf does not merge"):
        run(infinite, [{"key": "a", "days": []}])


# --- meta, event time, decoding, several topics -----------------------------------------------------------------------


class Seen(Row):
    key: Key[str]
    at: Max[datetime]
    where: Max[str]


def test_meta() -> None:
    @aggregate("seen", topic="events")
    def seen(event: Event, meta: Meta) -> Seen:
        headers = ";".join(f"{name}={value.decode()}" for name, value in meta.headers)
        return Seen(
            key=(meta.key or b"none").decode(),
            at=meta.time,
            where=f"{meta.topic}/{meta.partition}/{meta.offset} {headers}",
        )

    message = Message(
        b'{"key":"x"}', key=b"k", partition=2, offset=9, timestamp=1500, headers=(("a", b"1"), ("a", b"2"))
    )
    assert run(seen, [message]) == [
        Seen(key="k", at=datetime(1970, 1, 1, 0, 0, 1, 500_000, UTC), where="events/2/9 a=1;a=2")
    ]
    assert seen(Event(key="x"), Meta(message)).key == "k"  # still the function


class Timed(Record):
    key: str
    ms: int
    time: datetime


def timed(event_time: str | None) -> CompiledAggregate:
    @aggregate("timed", topic="timed", event_time=event_time)
    def job(record: Timed) -> Pair:
        return Pair(key=record.key)

    return compiled(job)


@pytest.mark.parametrize(("event_time", "newest"), [(None, 99), ("ms", 50), ("time", 7_000)])
def test_event_time(event_time: str | None, newest: int) -> None:
    messages = [
        Message(b'{"key":"a","ms":50,"time":"1970-01-01T00:00:07Z"}', timestamp=12),
        Message(b'{"key":"a","ms":40,"time":"1970-01-01T01:00:06+01:00"}', timestamp=99),
    ]
    assert timed(event_time).collect("timed", 0, messages, {}, []) == newest
    assert timed(event_time).collect("timed", 0, [], {}, []) is None


def test_event_time_without_a_zone_is_malformed() -> None:
    failures: list[Failure] = []
    message = Message(b'{"key":"a","ms":50,"time":"1970-01-01T00:00:07"}')
    assert timed("time").collect("timed", 0, [message], {}, failures) is None
    assert failures[0].reason == "the event time 1970-01-01T00:00:07 has no time zone"


def test_decode_takes_any_format() -> None:
    def semicolons(value: bytes) -> Event:
        key, n = value.decode().split(";")
        return Event(key=key, n=int(n))

    @aggregate("text", topic="events", decode=semicolons)
    def text(event: Event) -> Pair:
        return Pair(key=event.key, n=event.n or 0)

    assert run(text, [b"a;3", b"a;4"]) == [Pair(key="a", n=7)]
    with pytest.raises(MalformedRecordError, match=r"ValueError: .* \(test_aggregate.py line \d+\)"):
        run(text, [b"nothing"])
    with pytest.raises(MalformedRecordError, match="the record has no value"):
        run(text, [(b"k", None)])


def test_decode_that_returns_something_else_is_malformed() -> None:
    @aggregate("text", topic="events", decode=lambda value: value)
    def text(event: Event) -> Pair:
        return Pair(key=event.key)

    with pytest.raises(MalformedRecordError, match="decode returned a bytes, not a Event"):
        run(text, [b"a"])


def test_several_topics() -> None:
    @aggregate("both", topics={"events": Event, "windows": Window})
    def both(record: Event | Window) -> Pair:
        return Pair(key=record.key, n=1 if isinstance(record, Event) else 10)

    records = [Message(b'{"key":"a"}', topic="events"), Message(b'{"key":"a","days":[]}', topic="windows")]
    assert run(both, records) == [Pair(key="a", n=11)]
    with pytest.raises(ValueError, match="reads several topics"):
        run(both, [{"key": "a"}])
    with pytest.raises(ValueError, match="does not read the topic 'other'"):
        run(both, [Message(b"{}", topic="other")])
