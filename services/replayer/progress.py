"""How fast a run goes and how far it is: rates over a sliding window, lag, share. All from samples. Pure.

How long it still takes is another question, which needs a longer memory: `forecast.py`.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from services.replayer.protocol import TopicPartition
from services.replayer.run import LogEnds, Position, Positions, Sample
from turnout.names import VersionId

WINDOW_S = 3.0  # rates are means over this time: long enough to be steady, short enough to follow a changed limit


@dataclass(frozen=True, slots=True)
class PartitionRates:
    """Of one partition, per second over the window."""

    records: float  # read
    applied: float  # offsets that the committed position moved on
    arriving: float  # offsets that the log's end moved on


@dataclass(frozen=True, slots=True)
class Progress:
    """Of a whole run. `event_time`: the newest applied in any partition."""

    records: int
    set_aside: int
    rows_written: int
    bytes_written: int
    event_time: datetime | None
    records_per_s: float
    lag: int  # offsets, an upper bound of the records
    share: float  # 0 to 1
    partitions: dict[TopicPartition, PartitionRates]


def target_of(position: Position, ends: LogEnds | None) -> int | None:
    """Where reading ends at present: the end of the version's bounded range, else of the log; None = not known."""
    if position.range_end is not None:
        return position.range_end
    return None if ends is None else ends.end


def lag_of(position: Position, ends: LogEnds | None) -> int:
    """Offsets still to read; 0 when the end of the log is not known, or is behind what has been read since."""
    target = target_of(position, ends)
    return 0 if target is None else max(0, target - position.next_offset)


def measure(samples: Sequence[Sample], version: VersionId) -> Progress:
    """Progress of a run from samples, oldest first. Without samples, or without this run in the newest, all is 0."""
    if not samples:
        return Progress(0, 0, 0, 0, None, 0.0, 0, 0.0, {})
    newest = samples[-1]
    positions = newest.of(version)
    rates = _rates(samples, version)
    lag = sum(lag_of(position, newest.ends.get(tp)) for tp, position in positions.items())
    done = sum(position.next_offset - position.start_offset for position in positions.values())
    return Progress(
        records=sum(position.records for position in positions.values()),
        set_aside=sum(position.set_aside for position in positions.values()),
        rows_written=sum(position.rows_written for position in positions.values()),
        bytes_written=sum(position.bytes_written for position in positions.values()),
        event_time=max((p.event_time for p in positions.values() if p.event_time is not None), default=None),
        records_per_s=sum(rate.records for rate in rates.values()),
        lag=lag,
        share=_share(done, lag, known=_known(positions, newest)),
        partitions=rates,
    )


def _known(positions: Positions, sample: Sample) -> bool:
    return bool(positions) and all(target_of(one, sample.ends.get(tp)) is not None for tp, one in positions.items())


def _share(done: int, lag: int, *, known: bool) -> float:
    """`known`: whether there is anything to read, and how far it goes. Before that nothing is said to be done."""
    if not known:
        return 0.0
    return done / (done + lag) if done + lag else 1.0


def _rates(samples: Sequence[Sample], version: VersionId) -> dict[TopicPartition, PartitionRates]:
    newest = samples[-1]
    first = first_within(samples, version, WINDOW_S)
    span_s = newest.monotonic_s - first.monotonic_s
    earlier = first.of(version)
    found: dict[TopicPartition, PartitionRates] = {}
    for tp, now in newest.of(version).items():
        then = earlier.get(tp)
        if then is None or span_s <= 0:
            found[tp] = PartitionRates(0.0, 0.0, 0.0)
            continue
        end_now, end_then = target_of(now, newest.ends.get(tp)), target_of(then, first.ends.get(tp))
        grown = 0 if end_now is None or end_then is None else end_now - end_then
        found[tp] = PartitionRates(
            records=max(0, now.records - then.records) / span_s,
            applied=max(0, now.next_offset - then.next_offset) / span_s,
            arriving=max(0, grown) / span_s,
        )
    return found


def first_within(samples: Sequence[Sample], version: VersionId, window_s: float) -> Sample:
    """The oldest sample of the window that knows the run: one that has just begun has a rate too."""
    newest = samples[-1]
    within = (sample for sample in samples if newest.monotonic_s - sample.monotonic_s <= window_s)
    return next((sample for sample in within if sample.of(version)), newest)
