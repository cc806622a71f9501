"""When a fold needs to ask the table for a state, and when it knows that there is none."""

import itertools
from collections.abc import Hashable, Sequence

import pytest

from services.replayer.engine.batch import Batch, Span
from services.replayer.engine.leases import Lease
from services.replayer.engine.transform import Transform, complete_partitions, transform_of
from services.replayer.engine.watchdog import Watchdog
from services.replayer.protocol import TopicPartition
from turnout import Key, Record, Row, fold
from turnout.job.compiled import Change
from turnout.schema import Column, ColumnType, JobDefinition, JobKind, Merge, TopicSource
from turnout.testing import Message


def _fold(*topics: str) -> JobDefinition:
    sources = tuple(TopicSource(topic) for topic in topics)
    key = Column("id", ColumnType.STRING, merge=Merge.KEY)
    return JobDefinition("j", JobKind.FOLD, sources, (key,), ("id",), keyed_by_partition=True)


def _held(*leases: tuple[str, int, bool]) -> dict[TopicPartition, Lease]:
    """Leases by topic, partition, and whether something was committed."""
    return {
        (tp := TopicPartition(topic, number)): Lease(tp, 1, 10, 11 if committed else 10, None, None, 0, 0, None)
        for topic, number, committed in leases
    }


def test_a_partition_of_which_nothing_is_committed_is_known_completely() -> None:
    assert complete_partitions(_fold("a"), _held(("a", 0, False), ("a", 1, True), ("a", 5, False))) == {0, 5}
    assert complete_partitions(_fold("a"), {}) == set()


class Steps(Record):
    id: str
    n: int


class Total(Row):
    id: Key[str]
    n: int


@fold("totals", topic="a")
def totals(state: Total | None, record: Steps) -> Total:
    return Total(record.id, (state.n if state else 0) + record.n)


class Table:
    """A table as a fold asks it."""

    def __init__(self) -> None:
        self.rows: dict[Hashable, Change] = {}
        self.asked: list[Hashable] = []

    async def load(self, keys: Sequence[Hashable]) -> dict[Hashable, Change]:
        self.asked += keys
        return {key: self.rows[key] for key in keys if key in self.rows}


async def _fold_batch(transform: Transform, table: Table, keys: str, offset: int) -> None:
    tp = TopicPartition("a", 0)
    batch = Batch(0.0, {tp: Span(offset, offset + len(keys))})
    values = [f'{{"id":"{key}","n":1}}'.encode() for key in keys]
    messages = [Message(value, None, "a", 0, offset + number) for number, value in enumerate(values)]
    await transform.collect({tp: messages}, batch)
    table.rows.update((change[0], tuple(change)) for change in transform.take().staged)


@pytest.fixture
def table() -> Table:
    return Table()


@pytest.fixture
def transform(table: Table) -> Transform:
    return transform_of(totals.compile(), Watchdog(1.0, lambda _: None), table.load)


async def test_a_replay_from_the_start_asks_the_table_for_nothing(transform: Transform, table: Table) -> None:
    transform.begin(_held(("a", 0, False)))
    await _fold_batch(transform, table, "abab", 10)
    await _fold_batch(transform, table, "bcb", 14)
    assert table.asked == []
    assert {key: change[1] for key, change in table.rows.items()} == {"a": 2, "b": 4, "c": 1}


async def test_what_was_committed_before_is_asked_for_once(transform: Transform, table: Table) -> None:
    transform.begin(_held(("a", 0, False)))
    await _fold_batch(transform, table, "ab", 10)
    transform.begin(_held(("a", 0, True)))
    await _fold_batch(transform, table, "aac", 12)
    await _fold_batch(transform, table, "ac", 15)
    assert table.asked == ["a", "c"]
    assert {key: change[1] for key, change in table.rows.items()} == {"a": 4, "b": 1, "c": 2}


async def test_once_states_were_forgotten_an_unknown_key_is_asked_for(
    transform: Transform, table: Table, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("services.replayer.engine.transform.STATES_BYTES_MAX", 2 * 500)  # two states and a bit
    transform.begin(_held(("a", 0, False)))
    await _fold_batch(transform, table, "abc", 10)
    await _fold_batch(transform, table, "d", 13)  # what was taken last stays; all before it goes
    assert table.asked == ["d"]
    await _fold_batch(transform, table, "ad", 14)
    assert table.asked == ["d", "a"]
    assert {key: change[1] for key, change in table.rows.items()} == {"a": 2, "b": 1, "c": 1, "d": 2}


@pytest.mark.parametrize(("a", "b"), list(itertools.product([None, False, True], repeat=2)))
def test_of_several_topics_every_partition_of_the_number_must_be_held_and_untouched(
    a: bool | None, b: bool | None
) -> None:
    leases = [(topic, 0, committed) for topic, committed in (("a", a), ("b", b)) if committed is not None]
    assert complete_partitions(_fold("a", "b"), _held(*leases)) == ({0} if a is False and b is False else set())
