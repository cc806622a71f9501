"""The owner interval map keeps its promises for any sequence of weights."""

from collections.abc import Sequence
from itertools import pairwise

from hypothesis import given, settings
from hypothesis import strategies as st

from services.switcher.intervals import INTERVALS_MAX, redraw, sizes, whole
from turnout.routing import HASHES, WHOLE, Interval


@st.composite
def weights(draw: st.DrawFn, versions: Sequence[int] = (1, 2, 3, 4, 5)) -> dict[int, int]:
    chosen = draw(st.lists(st.sampled_from(versions), min_size=1, max_size=len(versions), unique=True))
    cuts = sorted(draw(st.lists(st.integers(0, WHOLE), min_size=len(chosen) - 1, max_size=len(chosen) - 1)))
    parts = [high - low for low, high in pairwise([0, *cuts, WHOLE])]
    return {version: part for version, part in zip(chosen, parts, strict=True) if part}


histories = st.lists(weights(), min_size=1, max_size=12)


def maps(history: Sequence[dict[int, int]]) -> list[tuple[Interval, ...]]:
    result = [whole(1, 1)]
    for epoch, step in enumerate(history, start=2):
        result.append(redraw(result[-1], step, epoch).intervals)
    return result


def size_by_version(intervals: Sequence[Interval]) -> dict[int, int]:
    result: dict[int, int] = {}
    for interval in intervals:
        result[interval.version] = result.get(interval.version, 0) + interval.size
    return result


def moved(before: Sequence[Interval], after: Sequence[Interval]) -> int:
    same = sum(
        max(0, min(old.high, new.high) - max(old.low, new.low))
        for old in before
        for new in after
        if old.version == new.version
    )
    return HASHES - same


def owned(intervals: Sequence[Interval], version: int) -> list[tuple[int, int]]:
    return [(i.low, i.high) for i in intervals if i.version == version]


def overlap(some: Sequence[tuple[int, int]], others: Sequence[tuple[int, int]]) -> int:
    return sum(max(0, min(a[1], b[1]) - max(a[0], b[0])) for a in some for b in others)


@given(weights())
def test_sizes_are_the_weights_share_to_the_hash(step: dict[int, int]) -> None:
    result = sizes(step)
    assert sum(result.values()) == HASHES
    for version, weight in step.items():
        assert abs(result[version] * WHOLE - weight * HASHES) < WHOLE


@given(histories)
def test_a_map_covers_every_hash_once_with_exact_sizes(history: list[dict[int, int]]) -> None:
    for step, intervals in zip(history, maps(history)[1:], strict=True):
        assert intervals[0].low == 0
        assert intervals[-1].high == HASHES
        assert all(left.high == right.low for left, right in pairwise(intervals))
        assert all(interval.size > 0 for interval in intervals)
        assert size_by_version(intervals) == {v: size for v, size in sizes(step).items() if size}


@given(histories)
def test_as_few_hashes_move_as_possible(history: list[dict[int, int]]) -> None:
    for before, after in pairwise(maps(history)):
        old, new = size_by_version(before), size_by_version(after)
        least = sum(max(0, new.get(v, 0) - old.get(v, 0)) for v in {*old, *new})
        assert moved(before, after) == least


@given(histories)
def test_equal_inputs_give_equal_maps(history: list[dict[int, int]]) -> None:
    turned = [dict(reversed(step.items())) for step in history]
    assert maps(history) == maps(turned)


@given(histories)
def test_who_shrinks_gives_up_what_it_acquired_last(history: list[dict[int, int]]) -> None:
    for before, after in pairwise(maps(history)):
        for version in size_by_version(before):
            kept = owned(after, version)
            lost, stayed = [], []
            for interval in (i for i in before if i.version == version):
                remains = overlap([(interval.low, interval.high)], kept)
                if remains < interval.size:
                    lost.append(interval.acquired_epoch)
                if remains:
                    stayed.append(interval.acquired_epoch)
            assert not lost or not stayed or max(stayed) <= min(lost)


@given(st.lists(st.integers(0, WHOLE), min_size=1, max_size=25))
def test_with_two_arms_a_second_ramp_exposes_only_units_already_exposed(shares: list[int]) -> None:
    history = [{v: w for v, w in {1: WHOLE - share, 2: share}.items() if w} for share in shares]
    widest: list[tuple[int, int]] = []
    for intervals in maps(history):
        exposed = owned(intervals, 2)
        seen = overlap(exposed, widest)
        size, size_widest = (sum(high - low for low, high in part) for part in (exposed, widest))
        assert seen == min(size, size_widest), "one of the two must hold the other"
        if size > size_widest:
            widest = exposed


def test_ramping_down_sends_back_first_those_who_came_last() -> None:
    ten, twenty, fifteen = maps([{1: 9000, 2: 1000}, {1: 8000, 2: 2000}, {1: 8500, 2: 1500}])[1:]
    assert overlap(owned(ten, 2), owned(fifteen, 2)) == sizes({1: 9000, 2: 1000})[2]
    assert overlap(owned(twenty, 2), owned(fifteen, 2)) == sizes({1: 8500, 2: 1500})[2]


def checkerboard(count: int) -> tuple[Interval, ...]:
    """A map of `count` intervals, alternating between two versions, with widths that grow."""
    widths = [HASHES // (2 * count) + 1000 * i for i in range(count - 1)]
    result, low = [], 0
    for i, width in enumerate([*widths, HASHES - sum(widths)]):
        result.append(Interval(low, low + width, 1 + i % 2, 1 + i % 7))
        low += width
    return tuple(result)


@settings(max_examples=20)
@given(st.integers(INTERVALS_MAX + 1, INTERVALS_MAX + 200))
def test_a_crowded_map_is_compacted_within_a_bound(count: int) -> None:
    before = checkerboard(count)
    share = size_by_version(before)
    step = {1: round(share[1] * WHOLE / HASHES), 2: 0}
    step[2] = WHOLE - step[1]
    redrawn = redraw(before, step, 9)
    assert len(redrawn.intervals) <= INTERVALS_MAX
    assert size_by_version(redrawn.intervals) == {v: size for v, size in sizes(step).items() if size}
    narrow = sorted(interval.size for interval in before)[: count - INTERVALS_MAX + 70]
    assert 0 < redrawn.compacted <= sum(narrow)


def test_neighbours_of_one_version_are_joined_before_anybody_is_moved() -> None:
    width = 1000
    low = INTERVALS_MAX * width
    before = [Interval(i * width, (i + 1) * width, 1, i + 1) for i in range(INTERVALS_MAX)]
    before.append(Interval(low, HASHES, 1, INTERVALS_MAX + 1))
    redrawn = redraw(before, {1: WHOLE}, INTERVALS_MAX + 2)
    assert redrawn.intervals == whole(1, 1)
    assert redrawn.compacted == 0
