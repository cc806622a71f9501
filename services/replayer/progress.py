"""How fast a run goes and how far it is: rates over a sliding window, lag, share, time to go. All from samples."""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

from core.domain.names import VersionId
from services.replayer.protocol import TopicPartition
from services.replayer.run import LogEnds, Position, Run, Sample

WINDOW_S = 3.0  # rates are means over this time: long enough to be steady, short enough to follow a changed limit
ETA_S_MAX = 30 * 86400.0  # beyond this a forecast says nothing


@dataclass(frozen=True, slots=True)
class PartitionRates:
    """Of one partition, per second over the window."""

    records: float  # read
    applied: float  # offsets that the committed position moved on
    arriving: float  # offsets that the log's end moved on


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a whole run. `eta_s` is None when unknown, never, or nothing is left to do."""

    records: int
    set_aside: int
    records_per_s: float
    lag: int  # offsets, an upper bound of the records
    share: float  # 0 to 1
    eta_s: float | None
    never: bool  # the log grows faster than the run reads
    partitions: dict[TopicPartition, PartitionRates]


def lag_of(position: Position, ends: LogEnds | None) -> int:
    """Offsets still to read; 0 when the end of the log is not known, or is behind what has been read since."""
    return 0 if ends is None else max(0, ends.end - position.next_offset)


def measure(samples: Sequence[Sample], version: VersionId) -> Progress:
    """Progress of a run from samples, oldest first. Without samples, or without this run in the newest, all is 0."""
    if not samples:
        return Progress(0, 0, 0.0, 0, 0.0, None, False, {})
    newest = samples[-1]
    positions = newest.of(version)
    rates = _rates(samples, version)
    lag = sum(lag_of(position, newest.ends.get(tp)) for tp, position in positions.items())
    done = sum(position.next_offset - position.start_offset for position in positions.values())
    eta_s, never = _eta(lag, rates)
    return Progress(
        records=sum(position.records for position in positions.values()),
        set_aside=sum(position.set_aside for position in positions.values()),
        records_per_s=sum(rate.records for rate in rates.values()),
        lag=lag,
        share=_share(done, lag, known=bool(positions) and all(tp in newest.ends for tp in positions)),
        eta_s=eta_s,
        never=never,
        partitions=rates,
    )


@dataclass(frozen=True, slots=True)
class Expiry:
    """The retention of a topic overtakes the run: in this partition, in so many seconds."""

    tp: TopicPartition
    in_s: float


def expiry(samples: Sequence[Sample], run: Run, retention_s: Mapping[str, float]) -> Expiry | None:
    """Where the log will lose records before the run has read them, at the present rate; None when it will not.

    The next record expires its retention after its own time, which moves on as the run reads: one that goes through
    less than a second of the log's time each second is overtaken. `retention_s`: of topics that forget; those whose
    event time is a field of the record are left out, for it says nothing about the log's own time.
    """
    if not samples:
        return None
    newest, first = samples[-1], _first_within(samples, run.version)
    span_s = newest.monotonic_s - first.monotonic_s
    kept = {
        s.topic: retention_s[s.topic] for s in run.definition.topics if s.event_time is None and s.topic in retention_s
    }
    eta_s = measure(samples, run.version).eta_s
    found = []
    for tp, position in newest.of(run.version).items():
        before = first.of(run.version).get(tp)
        if tp.topic not in kept or span_s <= 0 or not lag_of(position, newest.ends.get(tp)):
            continue
        if position.event_time is None or before is None or before.event_time is None:
            continue
        speed = (position.event_time - before.event_time).total_seconds() / span_s
        left_s = kept[tp.topic] - (newest.at - position.event_time).total_seconds()
        in_s = max(0.0, left_s) / (1.0 - speed) if speed < 1.0 else math.inf
        if in_s < (ETA_S_MAX if eta_s is None else eta_s):
            found.append(Expiry(tp, in_s))
    return min(found, key=lambda one: one.in_s, default=None)


def _share(done: int, lag: int, *, known: bool) -> float:
    """`known`: whether there is anything to read, and how far it goes. Before that nothing is said to be done."""
    if not known:
        return 0.0
    return done / (done + lag) if done + lag else 1.0


def _eta(lag: int, rates: dict[TopicPartition, PartitionRates]) -> tuple[float | None, bool]:
    """Seconds until the end of the log is reached at the present rates, and whether it never is.

    The moving end counts: a run that reads 900 a second of a log that grows by 600 closes in by 300.
    """
    applied = sum(rate.applied for rate in rates.values())
    closing = applied - sum(rate.arriving for rate in rates.values())
    if lag == 0 or applied <= 0:
        return None, False
    if closing <= 0:
        return None, True
    eta_s = lag / closing
    return (eta_s, False) if eta_s <= ETA_S_MAX else (None, True)


def _rates(samples: Sequence[Sample], version: VersionId) -> dict[TopicPartition, PartitionRates]:
    newest = samples[-1]
    first = _first_within(samples, version)
    span_s = newest.monotonic_s - first.monotonic_s
    earlier = first.of(version)
    found: dict[TopicPartition, PartitionRates] = {}
    for tp, now in newest.of(version).items():
        then = earlier.get(tp)
        if then is None or span_s <= 0:
            found[tp] = PartitionRates(0.0, 0.0, 0.0)
            continue
        end_now, end_then = newest.ends.get(tp), first.ends.get(tp)
        grown = 0 if end_now is None or end_then is None else end_now.end - end_then.end
        found[tp] = PartitionRates(
            records=max(0, now.records - then.records) / span_s,
            applied=max(0, now.next_offset - then.next_offset) / span_s,
            arriving=max(0, grown) / span_s,
        )
    return found


def _first_within(samples: Sequence[Sample], version: VersionId) -> Sample:
    """The oldest sample of the window that knows the run: one that has just begun has a rate too."""
    newest = samples[-1]
    within = (sample for sample in samples if newest.monotonic_s - sample.monotonic_s <= WINDOW_S)
    return next((sample for sample in within if sample.of(version)), newest)
