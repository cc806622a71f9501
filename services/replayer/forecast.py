"""When a run reaches the end of the log, from what it has done so far: an estimate with its spread. Pure.

Theory of operation. The partitions of one worker are a *hand*: it reads them by turns, so that one which ends early
leaves its share to the others, and the hand as a whole goes on at the same rate. Hands go on
beside one another, and a run ends when its slowest one does: its time is the largest of theirs, not the sum of the lags
by the sum of the rates, which an uneven topic would make far too short.

Of each hand a line is kept: when it came how far. Positions move in leaps, a batch at a time. So a rate is measured
from leap to leap, and one over a window that cuts leaps in two is off by as much. Older leaps are thinned out, as many
as can be told apart at that distance: a line has some dozens of points however long the run takes.

A worker gathers a batch for up to two seconds. So it is no standstill that positions have not moved for that long, and
nothing is known of a line that is shorter than one such batch. It begins with small ones, each record of which costs
more, and makes them larger as fast as it may: once there are larger ones, what the small ones took is left out.

Hands of one run do the same work on the same machines. What one differs from the others counts the more, the longer it
has been measured; with only some seconds of each, it is mostly chance.

The whole line counts, the newer part the more: a short window is noisy, while the mean of the whole run is slow to
believe that anything has changed. Where the last stretches are unlike everything before them, the line begins anew
there: another job began to write, an index grew out of memory, Kafka was away. What the service knows to change the
rate (a limit, the number of workers, who reads what) begins it anew at once.

A table that grows is written to more and more slowly, steadily. So the time that a record takes is fitted as a straight
line over the records. How far its slope is followed depends on how well it is known against the noise: a run of a few
seconds has no slope worth following, one of an hour has. The end of the log moves while it is read, and counts.

The spread holds the true time about nine times in ten, if the rates go on to vary as they have so far.
"""

import itertools
import math
from bisect import bisect_right
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Final

from services.replayer.engine.batch import AGE_MAX_S
from services.replayer.progress import target_of
from services.replayer.protocol import TopicPartition
from services.replayer.run import Position, Run, Sample
from services.replayer.states import State

ETA_S_MAX: Final = 30 * 86400.0  # beyond this a forecast says nothing
AT_END_S: Final = 2.0  # what comes within this time may be missing at any moment: that is the end of the log
NEVER_AFTER_S: Final = 3.0  # of measuring; a run that has just begun is not hopeless yet

_GAP_S: Final = 1.0  # between two samples: more was not measured, and does not count
_LEAP_S_MAX: Final = AGE_MAX_S + 0.5  # the next one is not late before: gathered, and written
_KNOWN_S: Final = AGE_MAX_S - 0.25  # a batch gathered for as long as it may, as samples show it
_GROWS_S: Final = 10.0  # batches have their size by then
_GROWN: Final = 2.0  # so many times larger than another one is a batch of another size
_KEPT_S: Final = 0.5  # of a line at least, however small the batches were: less cannot be told from samples
_ALIKE_S: Final = 10.0  # measured, before a hand's own rate counts as much as that of all hands
_POINTS_MAX: Final = 96
_THIN: Final = 0.02  # of a point's age: points that lie closer than that are not told apart
_BLOCK_S: Final = 1.5  # the shortest stretch that has a rate of its own; several leaps
_BLOCKS_MAX: Final = 16
_CHANGE_S: Final = 2.5  # two stretches at least this long must be unlike all before
_BLOCKS_BEFORE_CHANGE: Final = 3
_UNLIKE: Final = 1.25  # so many times faster or slower than all before: something has changed
_SLOPE_PRIOR: Final = 0.5  # standard deviation of the change, over the whole run, of the time that a record takes
_NOISE_RUNS_ON: Final = 4.0  # how many times the variance of a mean is that of independent stretches
_Z: Final = 1.8
_SPREAD_MIN: Final = 0.03


@dataclass(frozen=True, slots=True)
class Forecast:
    """When the end is reached; all None when it is not known, or nothing is left to do.

    never: at this rate it never is. eta_max_s is None besides when, with the spread, it may be never.
    """

    eta_s: float | None = None
    eta_min_s: float | None = None
    eta_max_s: float | None = None
    never: bool = False


UNKNOWN: Final = Forecast()


@dataclass(slots=True)
class _Point:
    """Active seconds, and the offsets that the hand has moved and the end of its log has moved by then; leap: of those
    that the hand has moved, the last ones."""

    at_s: float
    moved: int
    arrived: int
    leap: int


class Line:
    """How one hand has moved. Seconds are active ones: times that were not measured are left out."""

    def __init__(self) -> None:
        self._points: list[_Point] = []  # leaps, the oldest first
        self._newest: _Point | None = None
        self._leaps = 0
        self._before: tuple[float, int, int] | None = None

    def add(self, at_s: float, position: int, end: int, *, measured: bool) -> None:
        """It stood there then. `measured`: whether all the time since the point before was watched."""
        before, self._before = self._before, (at_s, position, end)
        if before is None or self._newest is None:
            self._newest = _Point(at_s, 0, 0, 0)
            return
        newest = self._newest
        if not measured:
            return
        moved, arrived = max(0, position - before[1]), max(0, end - before[2])
        newest = _Point(newest.at_s + at_s - before[0], newest.moved + moved, newest.arrived + arrived, moved)
        self._newest = newest
        if moved:
            self._points.append(newest)
            self._leaps += 1
            self._leave_out_small_batches()
            if len(self._points) > _POINTS_MAX:
                self._thin()
        self._begin_anew_after_a_change()

    def _leave_out_small_batches(self) -> None:
        points = self._points
        if points[-1].at_s - points[0].at_s > _GROWS_S:
            return
        largest = max(point.leap for point in points)
        # What lies between two points is the leap of the second one.
        while len(points) > 2 and points[1].leap * _GROWN < largest and points[-1].at_s - points[1].at_s >= _KEPT_S:
            del points[0]
            self._leaps -= 1

    def _thin(self) -> None:
        last = self._points[-1]
        kept = [self._points[0]]
        for point in self._points[1:-1]:
            if point.at_s - kept[-1].at_s >= _THIN * (last.at_s - point.at_s):
                kept.append(point)
        kept.append(last)
        self._points = kept if len(kept) < _POINTS_MAX else kept[::2] + ([last] if len(kept) % 2 == 0 else [])

    def _line(self) -> list[_Point]:
        """From the first leap to the last one, and as long after it as the next one is late."""
        points, newest = self._points, self._newest
        if len(points) < 2 or newest is None:
            return []
        usual_s = (points[-1].at_s - points[0].at_s) / max(1, self._leaps - 1)
        late_s = newest.at_s - points[-1].at_s - 2 * usual_s - _LEAP_S_MAX
        if late_s > 0:
            return [*points, _Point(points[-1].at_s + late_s, newest.moved, newest.arrived, 0)]
        return points

    def _begin_anew_after_a_change(self) -> None:
        line = self._line()
        if not line:
            return
        span_s = line[-1].at_s - line[0].at_s
        block_s = max(_CHANGE_S, span_s / _BLOCKS_MAX)
        count = int(span_s / block_s)
        if count < _BLOCKS_BEFORE_CHANGE + 2:
            return
        edges = [line[-1].at_s - block_s * n for n in range(count, -1, -1)]
        moved = _interpolated([p.at_s for p in line], [float(p.moved) for p in line], edges)
        rates = [(b - a) / block_s for a, b in itertools.pairwise(moved)]
        before, lately = rates[:-2], rates[-2:]
        if max(lately) * _UNLIKE < min(before) or min(lately) > max(before) * _UNLIKE:
            since_s = edges[-3]
            kept = [p for p in self._points if p.at_s >= since_s]
            older = [p for p in self._points if p.at_s < since_s][-1:]
            if len(older + kept) >= 2:
                self._leaps = max(2, round(self._leaps * block_s * 2 / span_s))
                self._points = older + kept

    # --- the estimate ---

    @property
    def known_s(self) -> float:
        """How long the rate has been measured."""
        line = self._line()
        return line[-1].at_s - line[0].at_s if line else 0.0

    @property
    def since_leap_s(self) -> float:
        """How long ago the last leap was that the estimate goes by."""
        line = self._line()
        return self._newest.at_s - line[-1].at_s if line and self._newest is not None else 0.0

    @property
    def arriving_per_s(self) -> float:
        """How fast the end moves."""
        line = self._line()
        if not line or self._newest is None or self._newest.at_s <= line[0].at_s:
            return 0.0
        return (self._newest.arrived - line[0].arrived) / (self._newest.at_s - line[0].at_s)

    def seconds_for(self, lag: int, done: int) -> tuple[float, float] | None:
        """How long the next `lag` offsets take from the last leap on, and the standard deviation of that time.

        `done`: offsets that were read before, which tell a slope that matters from one that does not. None: unknown.
        """
        line = self._line()
        if not line or line[-1].moved <= line[0].moved:
            return None
        span_s, moved = line[-1].at_s - line[0].at_s, line[-1].moved - line[0].moved
        if span_s < _KNOWN_S:
            return None
        count = max(1, min(_BLOCKS_MAX, int(span_s / _BLOCK_S)))
        edges = [line[0].moved + moved * n / count for n in range(count + 1)]
        leaps = [next(group) for _, group in itertools.groupby(line, key=lambda p: p.moved)]
        times = _interpolated([float(p.moved) for p in leaps], [p.at_s for p in leaps], edges)
        times[-1] = line[-1].at_s  # a standstill at the end takes time and moves nothing
        size = moved / count
        costs = [(b - a) / size for a, b in itertools.pairwise(times)]
        return _extrapolated(costs, size, float(lag), float(max(done, moved)) + lag)


def _extrapolated(costs: Sequence[float], size: float, lag: float, whole: float) -> tuple[float, float]:
    """The time that `lag` more offsets take, when each of the last ones took these times, in stretches of one size."""
    count = len(costs)
    weights = [float(n + 1) ** 2 for n in range(count)]
    total = sum(weights)
    xs = [(n + 0.5 - count) * size for n in range(count)]  # 0 = where it stands
    mean = sum(w * c for w, c in zip(weights, costs, strict=True)) / total
    mean_x = sum(w * x for w, x in zip(weights, xs, strict=True)) / total
    sxx = sum(w * (x - mean_x) ** 2 for w, x in zip(weights, xs, strict=True))
    sxy = sum(w * (x - mean_x) * (c - mean) for w, x, c in zip(weights, xs, costs, strict=True))
    effective = total**2 / sum(w * w for w in weights)
    slope = slope_variance = 0.0
    steps = [(b - a) ** 2 / 2 for a, b in itertools.pairwise(costs)]  # noise without what a slope adds to it
    variance = sum(steps) / len(steps) if steps else (0.2 * mean) ** 2
    if count >= 4 and sxx > 0 and mean > 0:
        prior = (_SLOPE_PRIOR * mean / whole) ** 2
        measured = _NOISE_RUNS_ON * variance * sum(w * w for w in weights) / total / sxx
        shrink = prior / (prior + measured)
        slope, slope_variance = shrink * sxy / sxx, prior * (1 - shrink)
    ahead = lag / 2 - mean_x  # from the middle of what was measured to the middle of what is left
    cost = min(max(mean + slope * ahead, 0.4 * mean), 4 * mean)
    of_mean = _NOISE_RUNS_ON * variance / effective
    of_future = variance * min(1.0, size / lag) if lag else 0.0
    of_slope = slope_variance * ahead**2 + (slope * ahead / 2) ** 2  # it may bend, too
    deviation = math.sqrt(of_mean + of_future + of_slope)
    return lag * cost, lag * max(deviation, _SPREAD_MIN * mean / _Z)


def _interpolated(xs: Sequence[float], ys: Sequence[float], at: Sequence[float]) -> list[float]:
    """The values at `at` of the line through the points; xs ascending."""
    found = []
    for x in at:
        right = min(max(bisect_right(xs, x), 1), len(xs) - 1)
        x0, x1, y0, y1 = xs[right - 1], xs[right], ys[right - 1], ys[right]
        share = min(1.0, max(0.0, (x - x0) / (x1 - x0))) if x1 > x0 else 1.0
        found.append(y0 + share * (y1 - y0))
    return found


@dataclass(frozen=True, slots=True)
class _Regime:
    """What is known to change the rate of a run."""

    state: State
    rate_limit: int
    workers: int


class Track:
    """One run: a line for each hand of partitions that one worker reads."""

    def __init__(self) -> None:
        self._regime: _Regime | None = None
        self._owners: dict[TopicPartition, str] = {}
        self._lines: dict[frozenset[TopicPartition], Line] = {}
        self._positions: Mapping[TopicPartition, Position] = {}
        self._newest: Sample | None = None
        self._forecast: Forecast | None = None  # made when it is asked for first

    def add(self, run: Run, sample: Sample) -> None:
        """The run as it was measured."""
        self._forecast = None
        regime = _Regime(run.state, run.rate_limit, run.workers)
        if regime != self._regime:
            self._regime, self._lines, self._owners = regime, {}, {}
        measured = self._newest is not None and sample.monotonic_s - self._newest.monotonic_s <= _GAP_S
        self._newest, self._positions = sample, sample.of(run.version)
        if run.state is not State.REPLAYING:  # a tail reads as fast as records come, which tells nothing
            return
        for tp, position in self._positions.items():
            if position.owner:  # between two workers nobody owns it for a moment
                self._owners[tp] = position.owner
        hands: dict[str, set[TopicPartition]] = {}
        for tp, owner in self._owners.items():
            if tp in self._positions:
                hands.setdefault(owner, set()).add(tp)
        lines = {}
        for hand in map(frozenset, hands.values()):
            line = lines[hand] = self._lines.get(hand) or Line()
            offset = sum(self._positions[tp].next_offset for tp in hand)
            end = sum(self._target(tp) for tp in hand)
            line.add(sample.monotonic_s, offset, end, measured=measured)
        self._lines = lines

    def _target(self, tp: TopicPartition) -> int:
        """The offset that the partition is read up to; where that is not known, or older than what was read, it stands
        there."""
        assert self._newest is not None
        position = self._positions[tp]
        target = target_of(position, self._newest.ends.get(tp))
        return position.next_offset if target is None else max(target, position.next_offset)

    def forecast(self) -> Forecast:
        """When the run reaches the end, as things stand."""
        if self._forecast is None:
            self._forecast = self._made()
        return self._forecast

    def _made(self) -> Forecast:
        if self._newest is None or not self._lines:
            return UNKNOWN
        open_ones = [one for hand, line in self._lines.items() if (one := self._ahead(hand, line)) is not None]
        nobodys = self._positions.keys() - set().union(*self._lines)
        if any(self._target(tp) > self._positions[tp].next_offset for tp in nobodys) or not open_ones:
            return UNKNOWN
        known = [one for one in open_ones if one.cost is not None]
        forecasts = [_alike(one, known) if one.cost is not None else UNKNOWN for one in open_ones]
        if any(one.never for one in forecasts):
            return Forecast(never=True)
        if any(one.eta_s is None for one in forecasts):
            return UNKNOWN
        latest = [one.eta_max_s for one in forecasts]
        return Forecast(
            eta_s=max(one.eta_s or 0.0 for one in forecasts),
            eta_min_s=max(one.eta_min_s or 0.0 for one in forecasts),
            eta_max_s=None if None in latest else max(one or 0.0 for one in latest),
        )

    def _ahead(self, hand: frozenset[TopicPartition], line: Line) -> "_Ahead | None":
        """What one hand has before it; None when it is at the end."""
        lag = sum(max(0, self._target(tp) - self._positions[tp].next_offset) for tp in hand)
        arriving = line.arriving_per_s
        lag -= int(arriving * AT_END_S)
        if lag <= 0:
            return None
        done = sum(self._positions[tp].next_offset - self._positions[tp].start_offset for tp in hand)
        found = line.seconds_for(lag, done)
        cost, deviation = (None, 0.0) if found is None else (found[0] / lag, found[1] / lag)
        return _Ahead(lag, arriving, cost, deviation, line.known_s, line.since_leap_s)


@dataclass(frozen=True, slots=True)
class _Ahead:
    """Offsets before a hand, how fast more arrive, the seconds that an offset takes (None = not known) with their
    standard deviation, how long they were measured, and how long ago the last leap was."""

    lag: int
    arriving: float
    cost: float | None
    deviation: float
    known_s: float
    since_leap_s: float


def _alike(one: _Ahead, all_of: Sequence[_Ahead]) -> Forecast:
    """The forecast of a hand among those of its run. They do the same work: how one differs is believed as it lasts,
    or the one that has had the worst of the last seconds would make the run's time."""
    weight = sum(other.known_s for other in all_of)
    usual = sum((other.cost or 0.0) * other.known_s for other in all_of) / weight
    own = one.known_s / (one.known_s + _ALIKE_S)
    cost = own * (one.cost or 0.0) + (1 - own) * usual
    seconds, deviation_s = cost * one.lag, one.deviation * one.lag
    return forecast_of(one.lag, one.arriving, seconds, deviation_s, ago_s=one.since_leap_s, known_s=one.known_s)


def forecast_of(
    lag: int, arriving: float, seconds: float, deviation_s: float, *, ago_s: float, known_s: float
) -> Forecast:
    """A forecast from the time that the present lag takes; what arrives meanwhile is read at the same cost."""
    cost, deviation = seconds / lag, deviation_s / lag
    central = _closed(lag, arriving, cost, ago_s)
    if central is None:
        return Forecast(never=True) if known_s >= NEVER_AFTER_S else UNKNOWN
    least = _closed(lag, arriving, max(cost - _Z * deviation, cost / 3), ago_s)
    most = _closed(lag, arriving, cost + _Z * deviation, ago_s)
    return Forecast(central, min(central, least if least is not None else central), most)


def _closed(lag: int, arriving: float, cost: float, ago_s: float) -> float | None:
    """Seconds until the moving end is reached at so many seconds an offset; None = never."""
    share = 1.0 - arriving * cost
    if share <= 0:
        return None
    eta_s = lag * cost / share
    return max(0.0, eta_s - ago_s) if eta_s <= ETA_S_MAX else None
