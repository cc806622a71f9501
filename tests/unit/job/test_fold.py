"""Folds: state by key, deletion, keys known before the state."""

from __future__ import annotations

import enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout import Job, Key, Meta, Record, Row, fold
from turnout.job.compiled import DELETED, CompiledFold, Failure
from turnout.job.errors import PartitionConflictError
from turnout.testing import MalformedRecordError, Message, run


class Mood(enum.Enum):
    GOOD = "good"
    BAD = "bad"


class Step(Record):
    id: str | None
    n: int = 1


class State(Row):
    id: Key[str]
    total: int = 0
    mood: Mood = Mood.GOOD
    seen: list[int] | None = None


@fold("states", topic="steps")
def states(state: State | None, step: Step) -> State | None:
    if step.n == 0:
        return None
    row = state or State(id=step.id or "")
    row.total += step.n  # mutating the given row is allowed: it is the function's own
    row.seen = [*(row.seen or []), step.n]
    if step.n < 0:
        raise ValueError("negative")
    row.mood = Mood.BAD if row.total > 5 else Mood.GOOD
    return row


def compiled(job: Job[..., Any]) -> CompiledFold:
    made = job.compile()
    assert isinstance(made, CompiledFold)
    return made


def step(key: str, n: int, **place: Any) -> Message:
    return Message(f'{{"id":"{key}","n":{n}}}'.encode(), **place)


def test_the_state_runs_along_the_key() -> None:
    assert run(states, [step("a", 2), step("b", 9), step("a", 3)]) == [
        State(id="a", total=5, seen=[2, 3]),
        State(id="b", total=9, mood=Mood.BAD, seen=[9]),
    ]


def test_none_deletes_and_the_key_begins_anew() -> None:
    assert run(states, [step("a", 2), step("a", 0)]) == []
    assert run(states, [step("a", 0)]) == []
    assert run(states, [step("a", 2), step("a", 0), step("a", 0), step("a", 1)]) == [State(id="a", total=1, seen=[1])]


def test_a_record_without_a_key_belongs_to_no_row() -> None:
    assert run(states, [{"id": None}]) == []


def test_a_failing_record_leaves_the_state_as_it_was() -> None:
    cache: dict[Any, Any] = {"a": None}
    changes: dict[Any, Any] = {}
    failures: list[Failure] = []
    messages = [step("a", 2, offset=0, timestamp=5), step("a", -1, offset=1), step("a", 3, offset=2, timestamp=4)]
    waiting = compiled(states).collect("steps", 1, messages, cache, changes, failures, False)
    assert waiting.keyed == []
    assert waiting.event_time_ms == 5
    assert changes == cache == {"a": ("a", 5, "good", "[2,3]", 2, 1, False, 4, "steps")}
    assert [failure.message.offset for failure in failures] == [1]
    assert failures[0].reason.startswith("ValueError: negative (test_fold.py line ")


def test_records_wait_for_their_state() -> None:
    job = compiled(states)
    cache: dict[Any, Any] = {"a": ("a", 1, "good", None, 0, 0, False, 0, "steps")}
    changes: dict[Any, Any] = {}
    failures: list[Failure] = []
    messages = [step("b", 1, offset=1), step("a", 1, offset=2), step("b", -1, offset=3), step("b", 2, offset=4)]
    waiting = job.collect("steps", 0, messages, cache, changes, failures, False)
    assert [key for key, *_ in waiting.keyed] == ["b", "b", "b"]
    assert list(changes) == ["a"]
    assert failures == []
    cache["b"] = ("b", 10, "bad", "[10]", 0, 0, False, 0, "steps")
    job.step(waiting, cache, changes, failures)
    assert changes["b"] == ("b", 13, "bad", "[10,1,2]", 4, 0, False, 0, "steps")
    assert cache["b"] is changes["b"]
    assert [failure.message.offset for failure in failures] == [3]


def test_where_all_states_are_known_a_key_without_one_is_new() -> None:
    cache: dict[Any, Any] = {"a": ("a", 1, "good", None, 0, 0, False, 0, "steps")}
    changes: dict[Any, Any] = {}
    messages = [step("b", 1, offset=1), step("a", 1, offset=2), step("b", 2, offset=3), step("c", 0, offset=4)]
    waiting = compiled(states).collect("steps", 0, messages, cache, changes, [], True)
    assert waiting.keyed == []
    assert {key: change[1] for key, change in changes.items()} == {"a": 2, "b": 3}
    assert cache == changes, "a record that makes no row leaves nothing behind"


@given(
    st.lists(st.tuples(st.sampled_from("abc"), st.integers(0, 5)), max_size=30),
    st.sets(st.sampled_from("abc")),
    st.integers(1, 7),
)
def test_batches_and_loaded_states_make_no_difference(
    records: list[tuple[str, int]], kept: set[str], size: int
) -> None:
    """A table and a cache that forgets at will end like a run in one piece."""
    job = compiled(states)
    table: dict[Any, Any] = {}
    cache: dict[Any, Any] = {}
    messages = [step(key, n, offset=offset) for offset, (key, n) in enumerate(records)]
    for start in range(0, len(messages), size):
        changes: dict[Any, Any] = {}
        waiting = job.collect("steps", 0, messages[start : start + size], cache, changes, [], False)
        cache.update((key, table.get(key)) for key, *_ in waiting.keyed)
        job.step(waiting, cache, changes, [])
        for key, change in changes.items():
            if change[DELETED]:
                table.pop(key, None)
            else:
                table[key] = change
        cache = {key: change for key, change in cache.items() if key in kept}
    assert [job.to_row(table[key]) for key in sorted(table)] == run(states, messages)


def test_a_key_from_a_second_partition_fails_the_run() -> None:
    with pytest.raises(PartitionConflictError, match="partition 0 and now from partition 1"):
        run(states, [step("a", 1), step("a", 1, partition=1)])
    cache: dict[Any, Any] = {}
    waiting = compiled(states).collect("steps", 1, [step("a", 1)], cache, {}, [], False)
    cache["a"] = ("a", 1, "good", None, 0, 0, False, 0, "steps")
    with pytest.raises(PartitionConflictError):
        compiled(states).step(waiting, cache, {}, [])


def test_the_returned_row_has_the_key_of_the_record() -> None:
    @fold("moving", topic="steps")
    def moving(state: State | None, step: Step) -> State | None:
        return State(id="other")

    with pytest.raises(MalformedRecordError, match="returned the row with key 'other' for the key 'a'"):
        run(moving, [step("a", 1)])


def test_only_a_row_or_none_is_returned() -> None:
    @fold("loose", topic="steps")
    def loose(state: State | None, step: Step) -> State | None:
        return [state]  # type: ignore[return-value]

    with pytest.raises(MalformedRecordError, match=r"returned \[None\]; expected State"):
        run(loose, [step("a", 1)])


# --- keys -------------------------------------------------------------------------------------------------------------


class Pair(Row):
    left: Key[str]
    right: Key[int]
    count: int = 0


def test_a_key_function() -> None:
    @fold("pairs", topic="steps", key=lambda step: None if step.id is None else (step.id, step.n % 2 == 1))
    def pairs(state: Pair | None, step: Step) -> Pair:
        row = state or Pair(left=step.id or "", right=step.n % 2)
        row.count += 1
        return row

    records: list[Any] = [{"id": "a", "n": 1}, {"id": "a", "n": 2}, {"id": "a", "n": 3}, {"id": None}]
    assert run(pairs, records) == [Pair("a", 0, 1), Pair("a", 1, 2)]


def test_a_key_function_may_read_the_record_key() -> None:
    @fold("by-record-key", topic="steps", key=lambda step, meta: meta.key and meta.key.decode())
    def by_record_key(state: State | None, step: Step, meta: Meta) -> State:
        assert meta.key is not None
        return State(id=meta.key.decode(), total=(state.total if state else 0) + meta.offset)

    one = b'{"id":"x"}'
    assert run(by_record_key, [(b"k", one), (b"k", one), (b"j", one), (None, one)]) == [
        State(id="j", total=2),
        State(id="k", total=1),
    ]


@pytest.mark.parametrize(
    ("key", "reason"),
    [
        (lambda step: 7, "column 'id': expected str, got 7"),
        (lambda step: step.nothing, "AttributeError"),
    ],
)
def test_a_key_that_fails_is_malformed(key: Any, reason: str) -> None:
    @fold("broken", topic="steps", key=key)
    def broken(state: State | None, step: Step) -> State:
        return State(id="x")

    with pytest.raises(MalformedRecordError, match=reason):
        run(broken, [step("a", 1)])


# --- several topics ---------------------------------------------------------------------------------------------------


class Name(Record):
    id: str
    name: str


class Named(Row):
    id: Key[str]
    name: str | None = None
    total: int = 0


def test_enrichment_from_co_partitioned_topics() -> None:
    @fold("named", topics={"steps": Step, "names": Name})
    def named(state: Named | None, record: Step | Name) -> Named:
        row = state or Named(id=record.id or "")
        if isinstance(record, Name):
            row.name = record.name
        else:
            row.total += record.n
        return row

    assert named.definition.co_partitioned
    records = [
        step("a", 1, topic="steps"),
        Message(b'{"id":"a","name":"Ann"}', topic="names"),
        step("a", 2, topic="steps"),
    ]
    assert run(named, records) == [Named("a", "Ann", 3)]
