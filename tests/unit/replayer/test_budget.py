"""Who may copy the log, what the others wait for, and how many rows a second each copy may write."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replayer.budget import (
    Books,
    Capacity,
    Copy,
    CopyRates,
    Table,
    books_of,
    copy_rates,
    decide,
    expected_size,
    offsets_to_read,
    place,
    row_rate_limits,
    rows_per_s,
    size,
    table_of,
)
from services.replayer.run import LogEnds
from services.replayer.states import State
from tests.unit.replayer.made import NOW, at, run, sample, tp
from turnout.names import VersionId

GB = 1_000_000_000


def copy(number: int, state: State = State.QUEUED, *, age: int = 0, **changes: object) -> Copy:
    """A copy of version `number`; the higher `age`, the longer it has waited."""
    made = Copy(VersionId("orders", number), state, 0, NOW - timedelta(seconds=age))
    return replace(made, **changes)  # type: ignore[arg-type]  # each test gives what the field takes


def admitted(capacity: Capacity, *copies: Copy, storage_bytes: int = 0) -> list[int]:
    return [version.number for version in decide(capacity, Books(copies, storage_bytes)).admitted]


def reasons(capacity: Capacity, *copies: Copy, storage_bytes: int = 0) -> dict[int, str]:
    waiting = decide(capacity, Books(copies, storage_bytes)).waiting
    return {version.number: one.reason for version, one in waiting.items()}


# --- admission ---


def test_an_empty_budget_admits_at_once() -> None:
    assert admitted(Capacity(), copy(1)) == [1]
    assert decide(Capacity(), Books(())) == decide(Capacity(copies_max=0), Books(()))


def test_as_many_as_may_run_the_higher_priority_first_then_the_older() -> None:
    queue = (copy(1, age=1), copy(2, age=9), copy(3, age=5), copy(4, priority=1), copy(5, age=99, priority=-1))
    assert admitted(Capacity(copies_max=3), *queue) == [4, 2, 3]
    assert reasons(Capacity(copies_max=3), *queue) == {
        1: "3 of 3 copies run; 1st in the queue",
        5: "3 of 3 copies run; 2nd in the queue",
    }
    assert admitted(Capacity(copies_max=0), *queue) == [4, 2, 3, 1, 5]


def test_copies_under_way_are_counted_tails_are_not() -> None:
    capacity = Capacity(copies_max=2)
    assert admitted(capacity, copy(1, State.REPLAYING), copy(2, age=1), copy(3)) == [2]
    assert admitted(capacity, copy(1, State.TAILING), copy(4, State.TAILING), copy(2, age=1), copy(3)) == [2, 3]
    assert reasons(Capacity(copies_max=1), copy(1, State.REPLAYING), copy(2)) == {
        2: "1 of 1 copy runs; 1st in the queue"
    }


def test_more_copies_than_may_run_go_on_and_nobody_joins_them() -> None:
    under_way = [copy(number, State.REPLAYING) for number in (1, 2, 3)]
    assert admitted(Capacity(copies_max=1), *under_way, copy(4)) == []
    assert reasons(Capacity(copies_max=1), *under_way, copy(4)) == {4: "3 of 1 copies run; 1st in the queue"}


def test_a_run_that_had_caught_up_goes_on_at_once_and_counts() -> None:
    returning = copy(7, returns=True, bytes_to_come=50 * GB)
    full = Capacity(copies_max=1, storage_bytes_max=GB)
    assert admitted(full, copy(1, State.REPLAYING), returning, storage_bytes=2 * GB) == [7]
    assert admitted(Capacity(copies_max=1), copy(1, age=99, priority=100), returning) == [7]
    assert admitted(Capacity(copies_max=2), copy(1, age=99), copy(2), returning) == [7, 1]


def test_a_table_that_does_not_fit_waits_and_so_do_the_small_ones_behind_it() -> None:
    capacity = Capacity(copies_max=9, storage_bytes_max=10 * GB)
    large, small = copy(1, age=9, bytes_to_come=2_100_000_000), copy(2, bytes_to_come=1)
    assert admitted(capacity, large, small, storage_bytes=8_700_000_000) == []
    told = reasons(capacity, large, small, storage_bytes=8_700_000_000)
    assert told[1] == (
        "needs 2.1 GB for its table, 1.3 GB of 10 GB are free: retire a version that nobody reads, or raise the limit; "
        "1st in the queue"
    )
    assert told[2].startswith("waits behind orders v1, which needs 2.1 GB for its table, 1.3 GB of 10 GB are free")
    assert told[2].endswith("; 2nd in the queue")
    assert admitted(capacity, replace(large, priority=-1), small, storage_bytes=8_700_000_000) == [2]


def test_what_copies_under_way_will_add_is_taken() -> None:
    capacity = Capacity(copies_max=9, storage_bytes_max=10 * GB)
    growing = copy(1, State.REPLAYING, bytes_to_come=6 * GB)
    assert admitted(capacity, growing, copy(2, bytes_to_come=4 * GB)) == [2]
    assert admitted(capacity, growing, copy(2, bytes_to_come=4 * GB + 1)) == []
    assert admitted(capacity, copy(2, age=2, bytes_to_come=6 * GB), copy(3, bytes_to_come=5 * GB)) == [2]


def test_what_can_never_fit_blocks_nobody() -> None:
    capacity = Capacity(copies_max=9, storage_bytes_max=10 * GB)
    hopeless, small = copy(1, age=9, bytes_to_come=21 * GB), copy(2, bytes_to_come=GB)
    assert admitted(capacity, hopeless, small) == [2]
    assert reasons(capacity, hopeless, small)[1] == (
        "needs 21 GB for its table, more than the 10 GB that all tables together may take: raise that limit; "
        "1st in the queue"
    )


def test_a_table_of_unknown_size_is_admitted_while_something_is_free() -> None:
    capacity = Capacity(storage_bytes_max=10 * GB)
    assert admitted(capacity, copy(1), storage_bytes=10 * GB - 1) == [1]
    assert admitted(capacity, copy(1), storage_bytes=10 * GB) == []
    assert "needs storage for its table, 0 bytes of 10 GB" in reasons(capacity, copy(1), storage_bytes=10 * GB)[1]


def test_with_a_limit_of_storage_nobody_is_admitted_before_the_end_of_its_log_is_known() -> None:
    unknown = copy(1, bytes_to_come=None)
    assert admitted(Capacity(), unknown) == [1]
    assert admitted(Capacity(storage_bytes_max=10 * GB), unknown) == []
    assert "how far its log goes" in reasons(Capacity(storage_bytes_max=10 * GB), unknown)[1]


copies = st.builds(
    Copy,
    version=st.builds(VersionId, st.sampled_from("ab"), st.integers(1, 40)),
    state=st.sampled_from([State.QUEUED, State.REPLAYING]),
    priority=st.integers(-2, 2),
    queue_time=st.integers(0, 5).map(lambda age: NOW - timedelta(seconds=age)),
    returns=st.sampled_from([False, False, False, True]),
    bytes_to_come=st.integers(0, 12) | st.none(),
)
books = st.builds(
    Books, st.lists(copies, max_size=12, unique_by=lambda one: one.version).map(tuple), st.integers(0, 12)
)
capacities = st.builds(Capacity, copies_max=st.integers(0, 4), storage_bytes_max=st.integers(0, 20))


@given(capacities, books)
def test_never_more_copies_than_may_run_beyond_those_under_way(capacity: Capacity, made: Books) -> None:
    by_version = {one.version: one for one in made.copies}
    joining = [by_version[version] for version in decide(capacity, made).admitted]
    assert all(one.state is State.QUEUED for one in joining)
    exempt = [one for one in joining if one.returns]
    assert exempt == [one for one in made.queue if one.returns]
    if capacity.copies_max:
        places = max(0, capacity.copies_max - len(made.under_way) - len(exempt))
        assert len(joining) - len(exempt) <= places
    others = [one for one in joining if not one.returns]
    if capacity.storage_bytes_max and others:
        taken = made.storage_bytes + made.storage_bytes_expected + sum(one.bytes_to_come or 0 for one in joining)
        assert taken <= capacity.storage_bytes_max


@given(capacities, books)
def test_everyone_in_the_queue_is_admitted_or_told_a_place_and_a_reason(capacity: Capacity, made: Books) -> None:
    decision = decide(capacity, made)
    assert {*decision.admitted, *decision.waiting} == {one.version for one in made.queue}
    assert not set(decision.admitted) & decision.waiting.keys()
    waiting = [version for version in (one.version for one in made.queue) if version in decision.waiting]
    assert [decision.waiting[version].position for version in waiting] == list(range(1, len(waiting) + 1))
    assert all(one.reason.endswith("in the queue") for one in decision.waiting.values())


@given(capacities, books, st.randoms(use_true_random=False))
def test_the_same_books_give_the_same_decision(capacity: Capacity, made: Books, random: object) -> None:
    shuffled = list(made.copies)
    random.shuffle(shuffled)  # type: ignore[attr-defined]  # Hypothesis gives a random.Random
    assert decide(capacity, Books(tuple(shuffled), made.storage_bytes)) == decide(capacity, made)


@given(capacities, books)
def test_nobody_is_passed_by_unless_the_whole_limit_is_too_small_for_it(capacity: Capacity, made: Books) -> None:
    decision = decide(capacity, made)
    queue = [one for one in made.queue if not one.returns]
    for number, one in enumerate(queue):
        if one.version in decision.waiting:
            passed = [other for other in queue[number:] if other.version in decision.admitted]
            assert not passed or (one.bytes_to_come or 0) > capacity.storage_bytes_max > 0


@given(capacities, books)
def test_whoever_fits_the_limit_is_admitted_once_all_others_are_gone(capacity: Capacity, made: Books) -> None:
    """Nobody starves: as those ahead end and their tables go, everyone gets to the head, and on."""
    for one in made.queue:
        alone = decide(capacity, Books((one,), 0))
        fits = not capacity.storage_bytes_max or (
            one.bytes_to_come is not None and one.bytes_to_come <= capacity.storage_bytes_max
        )
        assert (one.version in alone.admitted) == (fits or one.returns)


# --- where a run would stand ---


def test_a_run_that_would_be_admitted_stands_nowhere() -> None:
    found = place(Capacity(), Books((copy(1, State.REPLAYING, bytes_to_come=5),), 10), copy(2, bytes_to_come=7))
    assert (found.waiting, found.peak_bytes) == (None, 22)


def test_those_ahead_count_in_the_peak_those_behind_do_not() -> None:
    capacity = Capacity(copies_max=1)
    books = Books(
        (copy(1, State.REPLAYING, bytes_to_come=5), copy(2, age=9, bytes_to_come=7), copy(3, bytes_to_come=11)), 10
    )
    found = place(capacity, books, copy(4, age=5, bytes_to_come=13))
    assert found.waiting is not None
    assert (found.waiting.position, found.waiting.reason) == (2, "1 of 1 copy runs; 2nd in the queue")
    assert found.peak_bytes == 10 + 5 + 7 + 13


def test_what_the_books_say_of_the_run_is_replaced() -> None:
    books = Books((copy(1, State.REPLAYING, bytes_to_come=5),), 10)
    assert place(Capacity(copies_max=1), books, copy(1, bytes_to_come=3)).waiting is None
    assert place(Capacity(copies_max=1), books, copy(1, State.REPLAYING, bytes_to_come=3)).peak_bytes == 13


# --- what the tables take ---

OLD = Table("version 1", 4000, 100, complete=True)


def test_a_table_is_judged_by_the_jobs_other_one_scaled_by_offsets() -> None:
    assert expected_size(200, None, [OLD]).size_bytes == 8000
    assert expected_size(50, None, [OLD]).size_bytes == 4000  # it may have grown for other reasons than offsets
    assert expected_size(200, None, [OLD]).basis.endswith("that of version 1, 4,000 bytes for 100 offsets")


def test_a_part_of_a_table_is_enough_where_it_is_no_mere_beginning() -> None:
    begun = Table("version 2", 900, 30, complete=False)
    assert expected_size(300, None, [begun]).size_bytes == 9000
    assert expected_size(301, None, [begun]).size_bytes is None
    assert expected_size(300, begun, []).size_bytes == 9000
    assert expected_size(300, begun, [OLD]).size_bytes == 12_000
    assert "unknown" in expected_size(301, begun, []).basis


def test_what_a_table_takes_with_its_first_row_does_not_grow() -> None:
    tiny = Table("version 1", 82_000, 200, complete=True, fixed_bytes=80_000)
    assert expected_size(200_000, None, [tiny]).size_bytes == 80_000 + 2_000_000
    assert expected_size(200_000, None, [replace(tiny, fixed_bytes=90_000)]).size_bytes == 82_000
    assert expected_size(100, None, [tiny]).size_bytes == 82_000


def test_a_table_of_nothing_but_the_first_pages_is_all_fixed() -> None:
    assert table_of(run(1), {tp(0): at(9)}, 65_536).at(10**6) == 65_536


def test_a_table_that_holds_nothing_says_nothing() -> None:
    assert expected_size(0, Table("version 2", 0, 0, complete=False), []).size_bytes is None


def test_how_much_there_is_to_read() -> None:
    ends = {tp(0): LogEnds(0, 100, 0.0), tp(1): LogEnds(0, 100, 0.0)}
    assert offsets_to_read({tp(0): at(5, start=5), tp(1): at(120, start=0)}, ends) == 95 + 120
    assert offsets_to_read({tp(0): replace(at(5, start=5), range_end=50)}, ends) == 45
    assert offsets_to_read({tp(2): at(5)}, ends) is None


def test_the_books_hold_copies_and_all_tables() -> None:
    old = run(1, State.TAILING, catch_up_time=NOW)
    new = run(2, State.REPLAYING)
    queued = run(3, State.QUEUED, queue_time=NOW, priority=5)
    ended = run(4, State.STOPPED)
    positions = {old.version: {tp(0): at(100)}, new.version: {tp(0): at(25)}, queued.version: {tp(0): at(0)}}
    fixed = table_of(old, {}, 0).fixed_bytes
    found = books_of(
        [old, new, queued, ended],
        positions,
        {tp(0): LogEnds(0, 200, 0.0)},
        {old.version: fixed + 1000, new.version: fixed + 300, queued.version: fixed + 10, ended.version: fixed + 90},
    )
    assert found.storage_bytes == 4 * fixed + 1400
    assert [one.version for one in found.under_way] == [new.version]
    assert found.storage_bytes_expected == 2000 - 300
    [waiting] = found.queue
    assert (waiting.bytes_to_come, waiting.priority, waiting.returns) == (2000 - 10, 5, False)


def test_a_log_whose_end_is_not_known_is_waited_for_unless_its_topic_is_gone() -> None:
    queued = run(3, State.QUEUED, catch_up_time=NOW)
    positions = {queued.version: {tp(0): at(0)}}
    assert books_of([queued], positions, {}, {}).queue[0].bytes_to_come is None
    assert books_of([queued], positions, {}, {}, ["flights"]).queue[0].bytes_to_come == 0
    assert books_of([queued], positions, {}, {}).queue[0].returns


# --- rows a second ---


def test_rows_are_shared_equally_and_told_as_records() -> None:
    capacity = Capacity(rows_per_s_max=1000)
    a, b = VersionId("a", 1), VersionId("b", 1)
    assert row_rate_limits(Capacity(), [CopyRates(a)]) == {}
    assert row_rate_limits(capacity, []) == {}
    assert row_rate_limits(capacity, [CopyRates(a), CopyRates(b, rows_per_record=0.1)]) == {
        a: 500,
        b: pytest.approx(5000),
    }
    assert row_rate_limits(capacity, [CopyRates(a, 2.0, 100), CopyRates(b)]) == {a: 100, b: 800}


@given(
    st.integers(1, 10**6),
    st.lists(
        st.builds(
            CopyRates,
            version=st.builds(VersionId, st.just("a"), st.integers(1, 99)),
            rows_per_record=st.floats(0.001, 100),
            records_per_s_max=st.none() | st.integers(1, 10**6).map(float),
        ),
        max_size=6,
        unique_by=lambda one: one.version,
    ),
)
def test_together_they_never_write_more_rows_than_they_may(rows_max: int, made: list[CopyRates]) -> None:
    limits = row_rate_limits(Capacity(rows_per_s_max=rows_max), made)
    rows = {one.version: limits[one.version] * one.rows_per_record for one in made}
    assert sum(rows.values()) <= rows_max * (1 + 1e-9)
    assert all(0 < limits[one.version] <= (one.records_per_s_max or float("inf")) * (1 + 1e-9) for one in made)
    if any(one.records_per_s_max is None for one in made):  # somebody wants all that is left: nothing is left
        assert sum(rows.values()) == pytest.approx(rows_max)
        assert max(rows.values()) == pytest.approx(rows[next(o.version for o in made if o.records_per_s_max is None)])


def test_rates_of_copies_come_from_what_they_have_written() -> None:
    begun, writing = run(1, State.REPLAYING, rate_limit=7), run(2, State.REPLAYING)
    written = {0: replace(at(100), rows_written=25), 1: replace(at(100), rows_written=35)}
    now = sample([(begun, {0: at(0)}), (writing, written), (run(3, State.TAILING), {0: at(9)})], {0: 100})
    assert copy_rates(now) == [
        CopyRates(begun.version, 1.0, 7.0),
        CopyRates(writing.version, pytest.approx(0.3), None),  # type: ignore[arg-type]  # compares like a float
    ]


def test_rows_that_copies_write_together() -> None:
    copying, tailing = run(1, State.REPLAYING), run(2, State.TAILING)

    def then(rows: int, at_s: float) -> object:
        positions = {0: replace(at(rows), rows_written=rows)}
        return sample([(copying, positions), (tailing, positions)], {0: 9999}, at_s=at_s)

    assert rows_per_s([]) == 0.0
    assert rows_per_s([then(100, 0.0)]) == 0.0  # type: ignore[list-item]
    assert rows_per_s([then(100, 0.0), then(400, 2.0)]) == 150.0  # type: ignore[list-item]


@pytest.mark.parametrize(
    ("number", "said"),
    [
        (0, "0 bytes"),
        (999, "999 bytes"),
        (1500, "1.5 kB"),
        (10 * GB, "10 GB"),
        (2_100_000_000, "2.1 GB"),
        (10**15, "1,000 TB"),
    ],
)
def test_sizes_in_words(number: int, said: str) -> None:
    assert size(number) == said
