"""The retention guard: will the log lose records before a run has read them? Pure.

Theory of operation. Every run that may still read on has a *cursor* in each partition, its committed position: also a
run that waits in the queue, that a person has paused, or that failed and can be resumed. The log's start moves towards
it, in one of two ways, and whichever comes first counts:

- by time. A record may be deleted once it is older than the topic's retention. The record under the cursor gets older
  by a second each second, less what the run goes through of the log's time meanwhile. How old it is, is read from the
  log where the cursor stands still, and else taken from the record before it, by the time that Kafka deletes by,
  whatever the job calls its event time.
- by size, or by hand. Nothing says when; so the movement of the start is measured. It moves by whole segments, every
  few minutes. From two such moves on there is a size and a pace, and the next one is expected to be like them.

A crossing that comes after the run has read to its end is none. For a run that stands still there is no such time, and
one that is days away is no news: it is told when half of the retention is gone, and in any case within the last day.

Nothing is said of a cursor that was at its end within the last moments: the log's newest record is always unread for an
instant, and the record before it may be very old.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from typing import Final

from services.replayer.forecast import AT_END_S, ETA_S_MAX, Forecast
from services.replayer.progress import first_within, lag_of
from services.replayer.protocol import TopicPartition
from services.replayer.run import Position, Run, Sample
from services.replayer.spans import span
from services.replayer.states import State
from turnout.names import VersionId

HORIZON_S: Final = 86400.0
URGENT_S: Final = 3600.0  # for a person to do something about it
_BEHIND_S: Final = 5.0  # without a moment at the end: then it is behind
_SPEED_S: Final = 12.0  # over which the speed through the log is measured
_MOVES_MAX: Final = 32
_CALM_S: Final = 300.0  # without a risk: then the next one is news again

NextTimes = Mapping[tuple[TopicPartition, int], datetime]
"""When records that cursors stand before were written, by partition and offset."""


class StartLine:
    """How the start of one partition's log has moved. Seconds are monotonic."""

    def __init__(self) -> None:
        self._moves: list[tuple[float, int]] = []  # (when it was seen, the start then)

    def add(self, at_s: float, start: int) -> None:
        """The start was there then. One that is further back is another log's."""
        if self._moves and start < self._moves[-1][1]:
            self._moves = []
        if not self._moves or start > self._moves[-1][1]:
            self._moves.append((at_s, start))
            del self._moves[1:-_MOVES_MAX]

    def passes_in_s(self, position: int, applied_per_s: float, now_s: float) -> float:
        """Seconds until the start passes a cursor that moves at this rate; infinite when it will not, or when fewer
        than two moves were seen."""
        moves = self._moves[1:]  # the first is where it was found
        if len(moves) < 2:
            return math.inf
        (first_s, first), (last_s, start) = moves[0], moves[-1]
        every_s, by = (last_s - first_s) / (len(moves) - 1), (start - first) / (len(moves) - 1)
        if every_s <= 0:
            return math.inf
        overdue_s = max(0.0, now_s - last_s - every_s)
        next_s = last_s + every_s + overdue_s - now_s
        if position + applied_per_s * next_s < start + by:
            return next_s
        closing = by / every_s - applied_per_s
        if closing <= 0:
            return math.inf
        return next_s + (position + applied_per_s * next_s - start - by) / closing


@dataclass(frozen=True, slots=True)
class Risk:
    """The log's start passes the run's position in this partition. `message`: why, and what to do."""

    tp: TopicPartition
    crossing: datetime
    in_s: float
    message: str

    @property
    def urgent(self) -> bool:
        """Whether little time is left to do something about it."""
        return self.in_s < URGENT_S


@dataclass(frozen=True, slots=True)
class Retention:
    """What is known of the logs: how long topics keep records, of those that forget by time; how starts have moved."""

    keeps_s: Mapping[str, float] = field(default_factory=dict)
    starts: Mapping[TopicPartition, StartLine] = field(default_factory=dict)
    next_times: NextTimes = field(default_factory=dict)


def has_cursor(run: Run) -> bool:
    """Whether the run is meant to read on: not one that a person has stopped."""
    return run.drop_time is None and run.state is not State.STOPPED


def risk_of(run: Run, samples: Sequence[Sample], forecast: Forecast, retention: Retention) -> Risk | None:
    """The first partition in which the log loses records before the run has read them; None when none does."""
    if not samples or not has_cursor(run):
        return None
    found = list(_risks(run, samples, forecast, retention))
    return min(found, key=lambda risk: risk.in_s, default=None)


def standing_cursors(run: Run, samples: Sequence[Sample]) -> Iterator[tuple[TopicPartition, int]]:
    """Partitions and offsets at which the run has not moved lately, with records ahead."""
    if not samples or not has_cursor(run):
        return
    before = first_within(samples, run.version, _SPEED_S).of(run.version)
    for tp in _behind(run, samples):
        position = samples[-1].of(run.version)[tp]
        if tp in before and before[tp].next_offset == position.next_offset:
            yield tp, position.next_offset


def _risks(run: Run, samples: Sequence[Sample], forecast: Forecast, retention: Retention) -> Iterator[Risk]:
    newest = samples[-1]
    for tp in _behind(run, samples):
        position = newest.of(run.version)[tp]
        keeps_s = retention.keeps_s.get(tp.topic)
        speed, applied_per_s = _speed(run.version, tp, samples)
        by_time_s = math.inf
        if keeps_s is not None:
            by_time_s = _expires_in_s(_time_of_next(run, tp, position, retention), keeps_s, speed, newest.at)
        line = retention.starts.get(tp)
        by_size_s = (
            math.inf if line is None else line.passes_in_s(position.next_offset, applied_per_s, newest.monotonic_s)
        )
        in_s = min(by_time_s, by_size_s)
        if in_s < _matters_s(run, tp, position, applied_per_s, samples, forecast, keeps_s):
            why = (
                f"the topic keeps records for {span(keeps_s)}"
                if keeps_s is not None and by_time_s <= by_size_s
                else "the log's start has moved so of late"
            )
            yield Risk(tp, newest.at + timedelta(seconds=in_s), in_s, _message(run, tp, in_s, why))


def _matters_s(
    run: Run,
    tp: TopicPartition,
    position: Position,
    applied_per_s: float,
    samples: Sequence[Sample],
    forecast: Forecast,
    keeps_s: float | None,
) -> float:
    """A crossing sooner than this is a risk: the time that the run takes to its end, else one that is worth a word."""
    if forecast.never:
        return ETA_S_MAX
    if run.state.wants_workers and forecast.eta_s is not None:
        return forecast.eta_s
    if run.state is State.TAILING:
        closing = applied_per_s - _arriving_per_s(run.version, tp, samples, _SPEED_S)
        return lag_of(position, samples[-1].ends.get(tp)) / closing if closing > 0 else ETA_S_MAX
    return max(HORIZON_S, (keeps_s or 0.0) / 2)


def _arriving_per_s(version: VersionId, tp: TopicPartition, samples: Sequence[Sample], window_s: float) -> float:
    newest, first = samples[-1], first_within(samples, version, window_s)
    span_s = newest.monotonic_s - first.monotonic_s
    end, before = newest.ends.get(tp), first.ends.get(tp)
    return max(0, end.end - before.end) / span_s if end is not None and before is not None and span_s > 0 else 0.0


def _behind(run: Run, samples: Sequence[Sample]) -> list[TopicPartition]:
    """Partitions that have had records ahead for a while, more than have just come."""
    newest, first = samples[-1], first_within(samples, run.version, _BEHIND_S)
    lately = [sample for sample in samples if sample.monotonic_s >= first.monotonic_s and sample.of(run.version)]
    if newest.monotonic_s - first.monotonic_s < _BEHIND_S / 2:
        return []
    found = []
    for tp, position in sorted(newest.of(run.version).items()):
        ends = newest.ends.get(tp)
        if ends is None or position.next_offset < ends.start:  # lost already: the run says so itself
            continue
        just_come = _arriving_per_s(run.version, tp, samples, _BEHIND_S) * AT_END_S
        behind = (
            lag_of(sample.of(run.version)[tp], sample.ends.get(tp)) > just_come
            for sample in lately
            if tp in sample.of(run.version)
        )
        if all(behind):
            found.append(tp)
    return found


def _time_of_next(run: Run, tp: TopicPartition, position: Position, retention: Retention) -> datetime | None:
    """When the next record was written, or the one before it, which is no later; None = not known."""
    known = retention.next_times.get((tp, position.next_offset))
    if known is not None:
        return known
    if position.last is not None:
        return datetime.fromtimestamp(position.last.timestamp_ms / 1000, UTC)
    return run.start_times.get(tp) if position.next_offset == position.start_offset else None


def _expires_in_s(written: datetime | None, keeps_s: float, speed: float, now: datetime) -> float:
    if written is None or speed >= 1.0:
        return math.inf
    return max(0.0, keeps_s - (now - written).total_seconds()) / (1.0 - speed)


def _speed(version: VersionId, tp: TopicPartition, samples: Sequence[Sample]) -> tuple[float, float]:
    """Seconds of the log's time, and offsets, that the run goes through each second."""
    newest, first = samples[-1], first_within(samples, version, _SPEED_S)
    span_s = newest.monotonic_s - first.monotonic_s
    now, then = newest.of(version)[tp], first.of(version).get(tp)
    if then is None or span_s <= 0:
        return 0.0, 0.0
    log_s = (now.last.timestamp_ms - then.last.timestamp_ms) / 1000 if now.last and then.last else 0.0
    return log_s / span_s, max(0, now.next_offset - then.next_offset) / span_s


def _message(run: Run, tp: TopicPartition, in_s: float, why: str) -> str:
    when = f"in about {span(in_s)}" if in_s > 0 else "at any moment"
    what = f"partition {tp.topic}/{tp.partition}: the log's start passes the run's position {when}, for {why}"
    if run.state is State.QUEUED:
        return f"{what}, and those records are lost to it: lengthen the retention, or raise the run's priority"
    what = f"{what}; then it fails"
    if not run.state.wants_workers:
        return f"{what} for good: resume it or lengthen the retention; stop it if its table is not needed"
    return f"{what}: lengthen the retention, or raise its rate limit or its workers"


class Alarms:
    """Which risks are to be told: once when one appears, and again when it becomes urgent. Times are monotonic."""

    def __init__(self) -> None:
        self._told: dict[VersionId, tuple[bool, float]] = {}  # urgent by then; when there was a risk last

    def due(self, risks: Mapping[VersionId, Risk], now_s: float) -> list[VersionId]:
        """The runs whose risk is news."""
        news = []
        for version, risk in risks.items():
            before = self._told.get(version)
            if before is None or (risk.urgent and not before[0]):
                news.append(version)
            self._told[version] = (risk.urgent or (before is not None and before[0]), now_s)
        self._told = {version: told for version, told in self._told.items() if now_s - told[1] < _CALM_S}
        return news
