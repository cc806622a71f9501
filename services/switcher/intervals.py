"""The owner interval map: which version owns which unit hashes, and how little moves when weights change. Pure.

Each version's size is its weight's share of the 2^32 hashes (largest remainder, so that sizes are exact). When weights
change, every version that shrinks gives up its *most recently acquired* intervals first, and those that grow take
them. So the fewest possible units change version; ramping an arm down sends back first those who came last; and with
two arms a second ramp up exposes only units that had seen the version before. Equal inputs give equal maps.

Ties go by a fixed order: versions by number, intervals acquired in one epoch from the highest hash down.
"""

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace

from turnout.routing import HASHES, WHOLE, Interval

INTERVALS_MAX = 1024
"""Above this many intervals a map is compacted."""
_COMPACT_BELOW_MAX = 64
"""So many intervals below the maximum a compaction aims, so that not every change compacts again."""


@dataclass(frozen=True, slots=True)
class Redrawn:
    """A new map, and how many hashes changed version only because the map had to be compacted."""

    intervals: tuple[Interval, ...]
    compacted: int


def whole(version: int, epoch: int) -> tuple[Interval, ...]:
    """The map in which one version owns everything."""
    return (Interval(0, HASHES, version, epoch),)


def sizes(weights: Mapping[int, int]) -> dict[int, int]:
    """How many hashes each version owns at these weights (basis points that sum to 10000)."""
    exact = {version: divmod(weight * HASHES, WHOLE) for version, weight in weights.items()}
    result = {version: size for version, (size, _) in exact.items()}
    missing = HASHES - sum(result.values())
    by_remainder = sorted(exact, key=lambda version: (-exact[version][1], version))
    for version in by_remainder[:missing]:
        result[version] += 1
    return result


def redraw(intervals: Iterable[Interval], weights: Mapping[int, int], epoch: int) -> Redrawn:
    """The map for new weights; what changes version is acquired in `epoch`."""
    intervals = tuple(intervals)
    targets = sizes(weights)
    needs = {version: targets.get(version, 0) for version in {*targets, *_owners(intervals)}}
    for interval in intervals:
        needs[interval.version] -= interval.size
    kept, given = _give_up(intervals, needs)
    drawn = _joined([*kept, *_taken(given, needs, epoch)])
    return _compacted(drawn, epoch)


def _owners(intervals: Iterable[Interval]) -> set[int]:
    return {interval.version for interval in intervals}


def _give_up(intervals: Iterable[Interval], needs: Mapping[int, int]) -> tuple[list[Interval], list[Interval]]:
    """What stays, and what is given up, most recently acquired first."""
    surplus = {version: -need for version, need in needs.items() if need < 0}
    kept: list[Interval] = []
    given: list[Interval] = []
    for interval in sorted(intervals, key=lambda i: (-i.acquired_epoch, -i.low)):
        part = min(surplus.get(interval.version, 0), interval.size)
        if part:
            surplus[interval.version] -= part
            given.append(replace(interval, low=interval.high - part))
        if part < interval.size:
            kept.append(replace(interval, high=interval.high - part))
    return kept, given


def _taken(given: Iterable[Interval], needs: Mapping[int, int], epoch: int) -> Iterator[Interval]:
    """What was given up, dealt out to the versions that grow: both in their fixed order."""
    growing = iter(sorted((version, need) for version, need in needs.items() if need > 0))
    version, need = next(growing, (0, 0))
    for interval in sorted(given, key=lambda i: i.low):
        low = interval.low
        while low < interval.high:
            if not need:
                version, need = next(growing)
            part = min(need, interval.high - low)
            yield Interval(low, low + part, version, epoch)
            low += part
            need -= part


def _joined(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    """Sorted, with neighbours of one version and epoch made one."""
    result: list[Interval] = []
    for interval in sorted(intervals, key=lambda i: i.low):
        last = result[-1] if result else None
        if last and (last.version, last.acquired_epoch) == (interval.version, interval.acquired_epoch):
            result[-1] = replace(last, high=interval.high)
        else:
            result.append(interval)
    return tuple(result)


def _compacted(intervals: tuple[Interval, ...], epoch: int) -> Redrawn:
    """The map with at most INTERVALS_MAX intervals.

    First neighbours of one version are joined, which moves nobody (the older epoch stands for both). If that is not
    enough, the narrowest stretch with enough intervals is put in order by version: sizes stay exact, and at most
    that stretch moves, which holds the smallest intervals of the map.
    """
    if len(intervals) <= INTERVALS_MAX:
        return Redrawn(intervals, 0)
    intervals = _joined_over_epochs(intervals)
    if len(intervals) <= INTERVALS_MAX:
        return Redrawn(intervals, 0)
    excess = len(intervals) - INTERVALS_MAX + _COMPACT_BELOW_MAX
    length = min(excess + len(_owners(intervals)), len(intervals))
    starts = range(len(intervals) - length + 1)
    start = min(starts, key=lambda i: intervals[i + length - 1].high - intervals[i].low)
    stretch = intervals[start : start + length]
    ordered = tuple(_by_version(stretch, epoch))
    drawn = _joined_over_epochs((*intervals[:start], *ordered, *intervals[start + length :]))
    return Redrawn(drawn, _changed_hashes(stretch, ordered))


def _joined_over_epochs(intervals: Iterable[Interval]) -> tuple[Interval, ...]:
    result: list[Interval] = []
    for interval in intervals:
        last = result[-1] if result else None
        if last and last.version == interval.version:
            older = min(last.acquired_epoch, interval.acquired_epoch)
            result[-1] = replace(last, high=interval.high, acquired_epoch=older)
        else:
            result.append(interval)
    return tuple(result)


def _by_version(stretch: tuple[Interval, ...], epoch: int) -> Iterator[Interval]:
    low = stretch[0].low
    for version in sorted(_owners(stretch)):
        size = sum(interval.size for interval in stretch if interval.version == version)
        yield Interval(low, low + size, version, epoch)
        low += size


def _changed_hashes(before: tuple[Interval, ...], after: tuple[Interval, ...]) -> int:
    """How many hashes have another owner in `after`; both cover the same stretch."""
    same = 0
    for old in before:
        for new in after:
            if old.version == new.version:
                same += max(0, min(old.high, new.high) - max(old.low, new.low))
    return before[-1].high - before[0].low - same
