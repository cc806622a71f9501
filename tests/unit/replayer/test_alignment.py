"""When two runs can stand at one cut, and why not."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replayer.alignment import TAIL_LAG, Side, at_cut, cut_of, obstacles
from services.replayer.run import Positions
from services.replayer.states import State
from tests.unit.replayer.made import at, run, tp

WITHIN_S = 2.0


def side(number: int, *offsets: int, state: State = State.TAILING, until: int | None = None, **changes: Any) -> Side:
    positions = {tp(partition): at(offset, until=until) for partition, offset in enumerate(offsets)}
    return Side(run(number, state), positions, **changes)


def against(old: Side, new: Side) -> str:
    return "; ".join(obstacles(old, new, WITHIN_S))


def test_two_tails_a_little_apart_can() -> None:
    assert against(side(1, 100, 90), side(2, 80, 95)) == ""
    assert cut_of(side(1, 100, 90).positions, side(2, 80, 95).positions) == {tp(0): 100, tp(1): 95}


@pytest.mark.parametrize("state", State)
def test_a_run_that_reads_nothing_can_only_be_waited_for_where_it_is_ahead(state: State) -> None:
    still, moving = side(1, 100, state=state), side(2, 100)
    assert against(still, moving) == against(moving, still) == ""
    ahead = side(1, 101, state=state)
    assert against(ahead, side(2, 100)) == against(side(2, 100), ahead) == ""
    behind = against(side(1, 99, state=state), side(2, 100))
    assert (behind == "") is state.wants_workers
    if state is State.FAILED:
        assert "version 1 has FAILED (" in behind
        assert "1 offsets behind version 2 in flights/0" in behind
        assert "resume it" not in behind
    elif not state.wants_workers:
        assert f"version 1 is {state.value} and 1 offsets behind version 2 in flights/0" in behind


def test_a_range_that_the_other_has_left_behind() -> None:
    ended = side(1, 50, state=State.COMPLETED, until=50)
    assert "version 2 has gone past the end of the range of version 1 in flights/0" in against(ended, side(2, 51))
    assert against(ended, side(2, 49)) == ""  # it is stopped there
    reading = side(1, 40, state=State.REPLAYING, until=50)
    assert "gone past the end" in against(reading, side(2, 51))
    assert against(reading, side(2, 50)) == ""


def test_partitions_that_one_alone_reads() -> None:
    assert against(side(1, 1), side(2, 1, 1, 1, 1, 1, 1)) == (
        "version 2 reads flights/1, flights/2, flights/3 and 2 more, which version 1 does not"
    )


def test_one_that_is_too_slow_for_the_time() -> None:
    ahead = side(1, 1_000_000)
    copy = side(2, 0, state=State.REPLAYING, speed_per_s=100_000.0)
    assert "does 100,000 records a second: it would take 10 s, and 2.0 s are allowed" in against(ahead, copy)
    assert against(ahead, side(2, 0, state=State.REPLAYING, speed_per_s=600_000.0)) == ""
    assert against(ahead, side(2, 0, state=State.REPLAYING)) == ""  # nobody knows: it is tried
    assert "for ever" in against(ahead, side(2, 0, state=State.REPLAYING, speed_per_s=0.0))
    assert "not allowed to read" in against(ahead, side(2, 0, state=State.REPLAYING, held_still=True))


def test_a_tail_is_tried_whatever_it_does_while_little_comes() -> None:
    assert against(side(1, TAIL_LAG), side(2, 0, speed_per_s=1.0)) == ""
    assert "1 records a second" in against(side(1, TAIL_LAG + 1), side(2, 0, speed_per_s=1.0))


OFFSETS = st.lists(st.integers(0, 100), min_size=1, max_size=4)


@given(old=OFFSETS, new=OFFSETS)
def test_the_cut_is_the_nearest_that_both_can_reach(old: list[int], new: list[int]) -> None:
    ours, theirs = side(1, *old).positions, side(2, *new).positions
    cut = cut_of(ours, theirs)
    for positions in (ours, theirs):
        assert all(positions[one].next_offset <= offset for one, offset in cut.items())
    assert all(offset in (ours[one].next_offset, theirs[one].next_offset) for one, offset in cut.items())
    stands = at_cut(ours, cut) and at_cut(theirs, cut)
    assert stands is (old == new)


@given(old=OFFSETS, new=OFFSETS, states=st.tuples(st.sampled_from(State), st.sampled_from(State)))
def test_where_nothing_is_missing_nothing_stands_against_it(
    old: list[int], new: list[int], states: tuple[State, State]
) -> None:
    ours, theirs = side(1, *old, state=states[0]), side(2, *new, state=states[1])
    missing = ours.behind(cut_of(ours.positions, theirs.positions)) or theirs.behind(
        cut_of(ours.positions, theirs.positions)
    )
    if not missing and len(old) == len(new):
        assert against(ours, theirs) == ""


def test_no_table_stands_at_a_cut_of_other_partitions() -> None:
    positions: Positions = {tp(0): at(5), tp(1): at(6)}
    assert at_cut(positions, {tp(0): 5, tp(1): 6})
    assert not at_cut(positions, {tp(0): 5})
    assert not at_cut(positions, {tp(0): 5, tp(1): 6, tp(2): 0})
