"""Maps: which row of a key wins, deletions, tombstones."""

from __future__ import annotations

import operator
from collections.abc import Iterable
from datetime import UTC, date, datetime, timedelta
from typing import Any
from uuid import UUID

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout import Delete, Job, Key, Record, Row, map  # noqa: A004 - the name users import
from turnout.job.compiled import DELETED, EVENT_TIME_MS, HIDDEN, OFFSET, PARTITION, TOPIC, CompiledMap, Failure
from turnout.job.errors import PartitionConflictError
from turnout.testing import MalformedRecordError, Message, run


class Order(Record):
    id: str
    at: int = 0
    state: str = ""
    gone: bool = False


class Latest(Row):
    id: Key[str]
    at: int
    state: str


def latest(order: Order) -> Latest | Delete | None:
    if order.state == "skip":
        return None
    if order.gone:
        return Delete(id=order.id)
    return Latest(order.id, order.at, order.state)


def latest_at(order: Order) -> Latest | Delete:
    return Delete(id=order.id, at=order.at) if order.gone else Latest(order.id, order.at, order.state)


by_partition = map("orders", topic="orders", keyed_by_partition=True)(latest)
first_in_partition = map("orders", topic="orders", keyed_by_partition=True, keep="first")(latest)
by_time = map("orders", topic="orders", order_by="at")(latest_at)
first_by_time = map("orders", topic="orders", order_by="at", keep="first")(latest_at)


def compiled(job: Job[..., Any]) -> CompiledMap:
    made = job.compile()
    assert isinstance(made, CompiledMap)
    return made


def test_the_order_in_the_partition_decides() -> None:
    records: list[Any] = [
        {"id": "a", "at": 2, "state": "new"},
        {"id": "b", "state": "x"},
        {"id": "a", "at": 1, "state": "old"},
        {"id": "a", "state": "skip"},
    ]
    assert run(by_partition, records) == [Latest("a", 1, "old"), Latest("b", 0, "x")]
    assert run(first_in_partition, records) == [Latest("a", 2, "new"), Latest("b", 0, "x")]


def test_delete_and_tombstone_in_the_partition() -> None:
    one = {"id": "a", "state": "new"}
    assert run(by_partition, [one, {"id": "a", "gone": True}]) == []
    assert run(by_partition, [(b"a", one), (b"a", None)]) == []
    assert run(by_partition, [(b"a", one), (b"b", None), (b"a", None), (b"a", one)]) == [Latest("a", 0, "new")]
    with pytest.raises(MalformedRecordError, match="tombstone"):
        run(by_partition, [(None, None)])


@pytest.mark.parametrize(("at", "state"), [(2**63, "big"), (1, "nul\0")])
def test_what_postgres_would_refuse_is_malformed_whatever_comes_after_it(at: int, state: str) -> None:
    """In one batch with a newer row of its key it would never reach PostgreSQL, in a batch of its own it would."""
    bad, good = ({"id": "a", "at": at, "state": state}, {"id": "a", "at": 2**63 - 1, "state": "newer"})
    for job in (by_partition, by_time):
        changes: dict[Any, Any] = {}
        failures: list[Failure] = []
        messages = [Message(msgspec.json.encode(order), offset=n) for n, order in enumerate((bad, good))]
        compiled(job).collect("orders", 0, messages, changes, failures)
        assert [failure.message.offset for failure in failures] == [0]
        assert [change[2] for change in changes.values()] == ["newer"]


def test_the_shape_of_changes() -> None:
    changes: dict[Any, Any] = {}
    messages = [
        Message(b'{"id":"a","at":5,"state":"s"}', offset=7, timestamp=70),
        Message(None, key=b"b", offset=8, timestamp=80),
        Message(b'{"id":"c","gone":true}', offset=9, timestamp=60),
    ]
    assert compiled(by_partition).collect("orders", 3, messages, changes, []) == 80
    assert changes == {
        "a": ("a", 5, "s", 7, 3, False, 70, "orders"),
        "b": ("b", None, None, 8, 3, True, 80, "orders"),
        "c": ("c", None, None, 9, 3, True, 60, "orders"),
    }
    change = changes["a"]
    assert (change[OFFSET], change[PARTITION], change[DELETED], change[EVENT_TIME_MS], change[TOPIC]) == change[3:]
    assert len(change) == 3 + HIDDEN


@pytest.mark.parametrize("job", [by_partition, first_in_partition])
def test_a_key_from_a_second_partition_fails_the_run(job: Job[..., Any]) -> None:
    with pytest.raises(PartitionConflictError, match="'a' comes from partition 0 and now from partition 1") as error:
        run(job, [Message(b'{"id":"a"}'), Message(b'{"id":"a"}', partition=1)])
    assert (error.value.key, error.value.topic, error.value.partitions) == ("a", "orders", (0, 1))


def test_a_tombstone_from_a_second_partition_fails_the_run() -> None:
    with pytest.raises(PartitionConflictError):
        run(by_partition, [Message(b'{"id":"a"}'), Message(None, key=b"a", partition=1)])


# --- order_by ---------------------------------------------------------------------------------------------------------


def test_the_greater_value_wins_and_a_deletion_holds_its_place() -> None:
    new, old, gone = (
        {"id": "a", "at": 2, "state": "new"},
        {"id": "a", "at": 1, "state": "old"},
        {"id": "a", "at": 3, "gone": True},
    )
    assert run(by_time, [new, old]) == run(by_time, [old, new]) == [Latest("a", 2, "new")]
    assert run(first_by_time, [new, old]) == run(first_by_time, [old, new]) == [Latest("a", 1, "old")]
    assert run(by_time, [gone, new]) == run(by_time, [new, gone]) == []
    assert run(by_time, [gone, {"id": "a", "at": 4, "state": "back"}]) == [Latest("a", 4, "back")]


def test_a_deletion_keeps_its_ordering_value() -> None:
    changes: dict[Any, Any] = {}
    message = Message(b'{"id":"a","at":3,"gone":true}', offset=1, timestamp=5)
    compiled(by_time).collect("orders", 0, [message], changes, [])
    assert changes == {"a": ("a", 3, None, 1, 0, True, 5, "orders")}


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 2), st.integers(0, 3), st.booleans()), max_size=20),
    st.randoms(use_true_random=False),
)
def test_the_table_does_not_depend_on_the_order_across_partitions(records: list[Any], random: Any) -> None:
    messages = [
        Message(
            f'{{"id":"{key}","at":{at},"state":"{n}","gone":{str(gone).lower()}}}'.encode(),
            partition=partition,
            offset=n,
        )
        for n, (key, at, partition, gone) in enumerate(records)
    ]
    expected = run(by_time, messages)
    random.shuffle(messages)
    assert run(by_time, messages) == expected
    kept = [message for message in messages if b"true" not in (message.value or b"")]
    assert run(first_by_time, kept) == run(first_by_time, sorted(kept, key=operator.attrgetter("offset")))


def test_ties_are_decided_by_topic_partition_and_offset() -> None:
    @map("both", topics={"x": Order, "y": Order}, order_by="at")
    def both(order: Order) -> Latest:
        return Latest(order.id, order.at, order.state)

    def record(topic: str, partition: int, offset: int) -> Message:
        return Message(f'{{"id":"a","state":"{topic}{partition}{offset}"}}'.encode(), None, topic, partition, offset)

    messages = [record("y", 0, 1), record("x", 1, 0), record("x", 0, 9), record("y", 0, 0)]
    assert run(both, messages) == run(both, messages[::-1]) == [Latest("a", 0, "y01")]


def test_a_tombstone_needs_a_job_keyed_by_partition() -> None:
    assert not by_time.definition.tombstones
    assert not first_in_partition.definition.tombstones
    for job in (by_time, first_in_partition):
        with pytest.raises(MalformedRecordError, match=r"has no value \(a Kafka tombstone\), and this job has no rule"):
            run(job, [(b"a", None)])


def test_several_rows_and_deletions_of_one_record() -> None:
    @map("lines", topic="orders", keyed_by_partition=True)
    def lines(order: Order) -> Iterable[Latest | Delete]:
        return [Latest("1", 0, order.state), Latest("1", 0, "again"), Delete(id="2"), Latest("3", 0, "")]

    assert run(lines, [{"id": "x"}]) == [Latest("1", 0, "again"), Latest("3", 0, "")]


@pytest.mark.parametrize(
    ("delete", "reason"),
    [
        (Delete(), r"Delete\(\): name exactly id, at"),
        (Delete(id="a"), r"Delete\(id\): name exactly id, at"),
        (Delete(id="a", at=1, state="x"), r"Delete\(id, at, state\): name exactly id, at"),
        (Delete(id=1, at=1), "column 'id': expected str"),
        (Delete(id="a", at=None), "column 'at': None"),
    ],
)
def test_malformed_deletions(delete: Delete, reason: str) -> None:
    @map("deletes", topic="orders", order_by="at")
    def deletes(order: Order) -> Latest | Delete:
        return delete

    with pytest.raises(MalformedRecordError, match=reason):
        run(deletes, [{"id": "a"}])


def test_a_map_that_keeps_the_first_row_deletes_none() -> None:
    with pytest.raises(MalformedRecordError, match="keeps the first row of a key deletes none"):
        run(first_in_partition, [{"id": "a", "gone": True}])
    assert repr(Delete(id="a")) == "Delete(id='a')"


# --- tombstones of other keys -----------------------------------------------------------------------------------------


class Numbered(Row):
    n: Key[int]


class Identified(Row):
    n: Key[UUID]


class Raw(Row):
    n: Key[bytes]


class Two(Row):
    a: Key[str]
    b: Key[int]


class Item(Record):
    n: int = 1


def tombstoned(made: Row, **parameters: Any) -> Any:
    def job(item: Item) -> Any:
        return made

    job.__annotations__["return"] = type(made)
    return map("items", topic="items", keyed_by_partition=True, **parameters)(job)


@pytest.mark.parametrize(
    ("row", "record_key"),
    [(Numbered(1), b"1"), (Identified(UUID(int=1)), str(UUID(int=1)).encode()), (Raw(b"\xff"), b"\xff")],
)
def test_record_keys_read_as_text_of_the_key_column(row: Row, record_key: bytes) -> None:
    job = tombstoned(row)
    assert job.definition.tombstones
    assert run(job, [{}]) == [row]
    assert run(job, [{}, (record_key, None)]) == []


def test_a_record_key_that_cannot_be_read_is_malformed() -> None:
    with pytest.raises(MalformedRecordError, match="invalid literal for int"):
        run(tombstoned(Numbered(1)), [(b"x", None)])


def test_a_key_of_several_columns_needs_a_function() -> None:
    assert not tombstoned(Two("a", 1)).definition.tombstones
    job = tombstoned(Two("a", 1), tombstone_key=lambda key: (key[:1].decode(), int(key[1:])))
    assert job.definition.tombstones
    assert run(job, [{}, (b"a1", None)]) == []
    with pytest.raises(MalformedRecordError, match="shorter"):
        run(tombstoned(Two("a", 1), tombstone_key=lambda key: (key,)), [(b"a1", None)])


# --- expiry -----------------------------------------------------------------------------------------------------------


class Daily(Row):
    id: Key[str]
    day: date
    at: datetime


class Dated(Record):
    id: str
    at: datetime


@pytest.mark.parametrize("column", ["day", "at"])
def test_rows_expire_by_the_newest_event_time(column: str) -> None:
    @map("daily", topic="dated", keyed_by_partition=True, event_time="at", expire_after=(column, timedelta(days=2)))
    def daily(record: Dated) -> Daily:
        return Daily(record.id, record.at.date(), record.at)

    records = [{"id": str(day), "at": datetime(2013, 1, day, 12, tzinfo=UTC).isoformat()} for day in (1, 2, 3, 4, 5)]
    assert [row.id for row in run(daily, records)] == ["3", "4", "5"]  # type: ignore[attr-defined]
    assert run(daily, []) == []


def test_failures_name_the_message() -> None:
    failures: list[Failure] = []
    bad = Message(b"{", offset=5)
    changes: dict[Any, Any] = {}
    compiled(by_partition).collect("orders", 0, [bad, Message(b'{"id":"a"}', offset=6)], changes, failures)
    assert [failure.message for failure in failures] == [bad]
    assert list(changes) == ["a"]
