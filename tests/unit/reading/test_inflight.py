"""The count of reads in flight: exact, whatever way a read ends."""

import asyncio
from contextlib import ExitStack

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.reading.inflight import InFlight


def test_drained_at_once_where_nothing_is_in_flight() -> None:
    told: list[str] = []
    InFlight().when_drained("j", 2, lambda: told.append("drained"))
    assert told == ["drained"]


def test_drained_when_the_last_read_of_an_earlier_epoch_ends() -> None:
    flight, told = InFlight(), list[str]()
    with flight.read("j", 2), flight.read("other", 1):
        with flight.read("j", 1):
            with flight.read("j", 1):
                flight.when_drained("j", 2, lambda: told.append("drained"))
            assert flight.count("j", 2) == 1
            assert told == []
        assert told == ["drained"]
    assert told == ["drained"], "once only"


def test_a_later_epoch_waits_for_all_earlier_ones() -> None:
    flight, told = InFlight(), list[int]()
    first, second = ExitStack(), ExitStack()
    first.enter_context(flight.read("j", 1))
    second.enter_context(flight.read("j", 2))
    flight.when_drained("j", 3, lambda: told.append(3))
    flight.when_drained("j", 2, lambda: told.append(2))
    first.close()
    assert told == [2]
    second.close()
    assert told == [2, 3]


def test_errors_count_down() -> None:
    flight = InFlight()
    with pytest.raises(ZeroDivisionError), flight.read("j", 1):
        raise ZeroDivisionError
    assert flight.count("j", 99) == 0


async def test_cancellation_counts_down() -> None:
    flight, begun = InFlight(), asyncio.Event()

    async def read() -> None:
        with flight.read("j", 1):
            begun.set()
            await asyncio.Event().wait()

    task = asyncio.create_task(read())
    await begun.wait()
    assert flight.count("j", 2) == 1
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert flight.count("j", 2) == 0


def test_nobody_is_told_after_forgetting() -> None:
    flight, told = InFlight(), list[str]()
    with flight.read("j", 1):
        flight.when_drained("j", 2, lambda: told.append("drained"))
        flight.forget_waiting()
    assert told == []


@given(st.lists(st.tuples(st.sampled_from(["a", "b"]), st.integers(0, 3), st.booleans()), max_size=40))
def test_the_count_is_that_of_the_open_reads(steps: list[tuple[str, int, bool]]) -> None:
    flight = InFlight()
    is_open: list[tuple[str, int, ExitStack]] = []
    for job, epoch, begin in steps:
        if begin or not is_open:
            stack = ExitStack()
            stack.enter_context(flight.read(job, epoch))
            is_open.append((job, epoch, stack))
        else:
            is_open.pop(epoch % len(is_open))[2].close()
        for one in ("a", "b"):
            for before in range(5):
                assert flight.count(one, before) == sum(j == one and e < before for j, e, _ in is_open)
