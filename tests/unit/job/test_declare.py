"""What is refused when a job is declared: each message says what is wrong and what to do."""

import re
from collections.abc import AsyncIterator, Iterable, Iterator
from datetime import UTC, date, datetime, timedelta
from typing import Any

import pytest

from turnout import (
    Delete,
    Job,
    Key,
    LastBy,
    Max,
    Meta,
    Record,
    Row,
    Sum,
    aggregate,
    fold,
    map,  # noqa: A004 - the name users import
)
from turnout.job.errors import CAN_EXPRESS, JobDefinitionError
from turnout.schema import Expiry, Index, JobKind, Keep, OnMalformed, TopicSource


class Event(Record):
    id: str
    at: datetime = datetime(2013, 1, 1, tzinfo=UTC)


class Other(Record):
    key: str


class Total(Row):
    id: Key[str]
    n: Sum[int] = 1


class Latest(Row):
    id: Key[str]
    at: datetime
    note: str = ""


class Last(Row):
    id: Key[str]
    place: LastBy[str]
    at: Max[datetime]


def total(event: Event) -> Total:
    return Total(event.id)


def latest(event: Event) -> Latest:
    return Latest(event.id, event.at)


def last(event: Event) -> Last:
    return Last(event.id, "", event.at)


def running(state: Latest | None, event: Event) -> Latest | None:
    return Latest(event.id, event.at)


def test_a_job_is_still_the_function() -> None:
    job = aggregate("totals", topic="events")(total)
    assert isinstance(job, Job)
    assert job(Event("a")) == Total("a")
    assert vars(job)["__name__"] == "total"
    assert repr(job) == "<aggregate job 'totals'>"
    assert job.row_type is Total


def test_everything_that_is_declared_is_in_the_definition() -> None:
    definition = map(
        "orders",
        topic="events",
        event_time="at",
        order_by="at",
        indexes=["note", ("at", "note")],
        derived={"upper_note": "upper(note)"},
        expire_after=("at", timedelta(days=1)),
        keep="last",
        on_malformed="set_aside",
        requirements=["zlib-ng==1.0", "attrs==2.0"],
    )(latest).definition
    assert (definition.job, definition.kind, definition.keep) == ("orders", JobKind.MAP, Keep.LAST)
    assert definition.topics == (TopicSource("events", "at"),)
    assert definition.order_by == "at"
    assert definition.indexes == (Index(("note",)), Index(("at", "note")))
    assert [(one.name, one.expression) for one in definition.derived] == [("upper_note", "upper(note)")]
    assert definition.expiry == Expiry("at", 86400)
    assert definition.on_malformed is OnMalformed.SET_ASIDE
    assert definition.requirements == ("attrs==2.0", "zlib-ng==1.0")
    assert definition.python == "3.11"
    assert aggregate("lasts", topic="events", last_by="at")(last).definition.column("place").last_by == "at"
    assert fold("folds", topic="events")(running).definition.keyed_by_partition
    assert map("maps", topic="events", keyed_by_partition=True)(latest).definition.tombstones


# --- functions --------------------------------------------------------------------------------------------------------


async def waits(event: Event) -> Total: ...  # type: ignore[empty-body]
async def yields(event: Event) -> AsyncIterator[Total]:
    yield Total("a")


def no_parameter() -> Total: ...  # type: ignore[empty-body]
def two_parameters(event: Event, more: int) -> Total: ...  # type: ignore[empty-body]
def untyped(event) -> Total: ...  # type: ignore[no-untyped-def, empty-body]
def returns_nothing(event: Event): ...  # type: ignore[no-untyped-def]
def no_record(event: dict[str, Any]) -> Total: ...  # type: ignore[empty-body]
def no_row(event: Event) -> dict[str, Any]: ...  # type: ignore[empty-body]
def bare_row(event: Event) -> Row: ...  # type: ignore[empty-body]
def only_none(event: Event) -> None: ...
def two_rows(event: Event) -> Total | Last: ...  # type: ignore[empty-body]
def deletes(event: Event) -> Total | Delete: ...  # type: ignore[empty-body]
def unknown(event: "Nowhere") -> Total: ...  # type: ignore[name-defined, empty-body]  # noqa: F821
def many(state: Latest | None, event: Event) -> list[Latest]: ...  # type: ignore[empty-body]
def not_optional(state: Latest, event: Event) -> Latest: ...  # type: ignore[empty-body]
def other_state(state: Total | None, event: Event) -> Latest: ...  # type: ignore[empty-body]
def fold_deletes(state: Latest | None, event: Event) -> Latest | Delete: ...  # type: ignore[empty-body]
def one_parameter(event: Event) -> Latest: ...  # type: ignore[empty-body]


FUNCTIONS = [
    (aggregate, waits, "'waits' is async", CAN_EXPRESS),
    (aggregate, yields, "'yields' is async", CAN_EXPRESS),
    (aggregate, no_parameter, "has 0 parameters", "(record: MyRecord) -> MyRow | None"),
    (aggregate, two_parameters, "has 2 parameters", "(record: MyRecord) -> MyRow | None"),
    (aggregate, untyped, "does not say the type of 'event'", "(record: MyRecord)"),
    (aggregate, returns_nothing, "does not say what it returns", "-> MyRow | None"),
    (aggregate, no_record, "which is not a Record", "derive a class from Record"),
    (aggregate, no_row, "which is not a row type", CAN_EXPRESS),
    (aggregate, bare_row, "returns Row, which is not a row type", "derive a class from Row"),
    (aggregate, only_none, "returns no row", "-> MyRow | None"),
    (aggregate, two_rows, "rows of 2 types (Total, Last), but a job has one table", "one job for each"),
    (aggregate, deletes, "returns Delete, which only a map does", "in an aggregate subtract"),
    (aggregate, unknown, "annotations that cannot be read: name 'Nowhere'", "at the top level of the file"),
    (fold, many, "a fold keeps one row per key", CAN_EXPRESS),
    (fold, not_optional, "does not take Latest | None", "(state: MyRow | None, record: MyRecord)"),
    (fold, other_state, "does not take Latest | None", "(state: MyRow | None, record: MyRecord)"),
    (fold, fold_deletes, "returns Delete, which only a map does", "in a fold return None"),
    (fold, one_parameter, "has 1 parameters", "(state: MyRow | None, record: MyRecord)"),
]


@pytest.mark.parametrize(
    ("kind", "function", "reason", "remedy"), FUNCTIONS, ids=[one[1].__name__ for one in FUNCTIONS]
)
def test_refused_functions(kind: Any, function: Any, reason: str, remedy: str) -> None:
    with pytest.raises(JobDefinitionError) as error:
        kind("totals", topic="events")(function)
    assert reason in error.value.reason
    assert remedy in error.value.remedy
    assert error.value.subject == function.__name__


def rows_list(event: Event) -> list[Latest]: ...  # type: ignore[empty-body]
def rows_tuple(event: Event) -> tuple[Latest, ...]: ...  # type: ignore[empty-body]
def rows_iterator(event: Event) -> Iterator[Latest | Delete]: ...  # type: ignore[empty-body]
def rows_optional(event: Event) -> Iterable[Latest] | None: ...
def with_meta(event: Event, meta: Meta) -> Latest | None: ...


@pytest.mark.parametrize("function", [rows_list, rows_tuple, rows_iterator, rows_optional, with_meta])
def test_shapes_of_a_map(function: Any) -> None:
    assert map("maps", topic="events", order_by="at")(function).row_type is Latest


# --- parameters -------------------------------------------------------------------------------------------------------


def declare_untyped_topics(topics: Any) -> Any:
    return aggregate("totals", topics=topics)(total)


def composite_key(state: Latest | None, event: Other) -> Latest: ...  # type: ignore[empty-body]


PARAMETERS = [
    (lambda: aggregate("Totals", topic="events")(total), "'Totals' is not a job id", "single hyphens"),
    (lambda: aggregate("totals")(total), "by topic= or by topics=", "give one of the two"),
    (lambda: aggregate("totals", topic="a", topics={"b": Event})(total), "by topic= or by topics=", "one of the two"),
    (lambda: aggregate("totals", topic="a b")(total), "'a b' is not the name of a Kafka topic", "use 1 to 249"),
    (lambda: aggregate("totals", topics={"a": Other})(total), "are not those that the function takes", "Order | User"),
    (lambda: aggregate("totals", topics={})(total), "are not those that the function takes", "Order | User"),
    (
        lambda: aggregate("totals", topics={"a": Event, "b": Event}, decode=lambda value: None)(total),
        "does not say how each topic is decoded",
        "naming every topic",
    ),
    (
        lambda: aggregate("totals", topic="a", decode={"b": lambda value: None})(total),
        "does not say how each topic is decoded",
        "naming every topic",
    ),
    (
        lambda: aggregate("totals", topic="a", event_time="id")(total),
        "event_time names 'id'",
        "milliseconds since 1970",
    ),
    (lambda: aggregate("totals", topic="a", event_time="nothing")(total), "event_time names 'nothing'", "datetime"),
    (lambda: aggregate("lasts", topic="a")(last), "LastBy column 'place' names no ordering column", "last_by="),
    (lambda: aggregate("totals", topic="a", last_by="n")(total), "orders nothing", "declare a column LastBy"),
    (
        lambda: aggregate("totals", topic="a", on_malformed="skip")(total),  # type: ignore[arg-type]
        "on_malformed='skip' is unknown",
        "'fail', 'set_aside'",
    ),
    (lambda: aggregate("totals", topic="a", requirements=["numpy"])(total), "'numpy' is not pinned", "name==version"),
    (lambda: aggregate("totals", topic="a", requirements=["numpy>=1"])(total), "is not pinned", "name==version"),
    (lambda: aggregate("totals", topic="a", indexes=["nothing"])(total), "an index names the column 'nothing'", "mend"),
    (lambda: aggregate("totals", topic="a", expire_after=("n", timedelta(1)))(total), "has no age", "date or datetime"),
    (lambda: aggregate("totals", topic="a", derived={"n": "1"})(total), "two columns are named 'n'", "rename"),
    (lambda: aggregate("latest", topic="a")(latest), "column 'at' does not say how it merges", "Key, Sum, Min, Max"),
    (lambda: map("maps", topic="a")(latest), "exactly one order", "declare order_by="),
    (lambda: map("maps", topic="a", order_by="at", keyed_by_partition=True)(latest), "exactly one order", "order_by="),
    (lambda: map("maps", topic="a", order_by="nothing")(latest), "order_by names the column 'nothing'", "mend"),
    (
        lambda: map("maps", topic="a", order_by="at", keep="best")(latest),  # type: ignore[arg-type]
        "keep='best' is unknown",
        "'last', 'first'",
    ),
    (lambda: map("maps", topic="a", order_by="at", tombstone_key=bytes)(latest), "tombstone_key is given", "remove it"),
    (
        lambda: map("maps", topic="a", order_by="at")(total),
        "the rows of a map replace one another",
        "make it an aggregate",
    ),
    (
        lambda: fold("folds", topic="a")(composite_key),
        "key column 'id' of Latest is not a field of Other",
        "key=lambda",
    ),
]


@pytest.mark.parametrize(("declare", "reason", "remedy"), PARAMETERS, ids=[one[1] for one in PARAMETERS])
def test_refused_declarations(declare: Any, reason: str, remedy: str) -> None:
    with pytest.raises(JobDefinitionError, match=re.escape(reason)) as error:
        declare()
    assert reason in error.value.reason
    assert remedy in error.value.remedy
    assert str(error.value) == f"{error.value.reason}\n  {error.value.remedy}"


def test_a_refused_column_points_at_its_field() -> None:
    class Bad(Row):
        id: Key[str]
        note: Sum[str]

    def bad(event: Event) -> Bad: ...  # type: ignore[empty-body]

    with pytest.raises(JobDefinitionError, match="Sum column 'note' is string") as error:
        aggregate("totals", topic="events")(bad)
    assert (error.value.subject, error.value.field) == ("Bad", "note")


def test_a_record_type_that_does_not_decode_is_refused() -> None:
    class Bad(Record):
        when: object()  # type: ignore[valid-type]

    def bad(event: Bad) -> Total: ...  # type: ignore[empty-body]

    with pytest.raises(JobDefinitionError, match="the record type Bad cannot be read") as error:
        aggregate("totals", topic="events")(bad)
    assert error.value.subject == "Bad"


def test_a_row_may_put_required_columns_after_others() -> None:
    class Mixed(Row, kw_only=True):
        n: Sum[int] = 1
        id: Key[str]
        day: Key[date]

    def mixed(event: Event) -> Mixed:
        return Mixed(id=event.id, day=date(2013, 1, 1))

    assert aggregate("mixed", topic="events")(mixed).definition.key == ("id", "day")
