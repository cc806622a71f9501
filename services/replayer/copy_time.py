"""How long a copy will take, how long it waits for its turn, and whether the log loses records meanwhile. Pure.

A copy takes the start of its worker processes, which is about the same for all, and then its offsets by their speed.
The speed is that of copies which were measured: of the job, else of jobs of the same kind, which says less. How long
their start took is not known exactly, so the true speed lies between two figures: offsets by the whole time, and by
what is left of it where the start was slow. A long copy brings them together. A short one is nearly all start: it
is asked only where there is none that is long, and about a log that is not much longer than its own.
"""

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime

from services.replayer.protocol import TopicPartition
from services.replayer.run import LogEnds, Positions, Run
from services.replayer.states import State

START_S = 3.0  # until the worker processes of a copy write; up to twice as long on a busy machine
LONG_S, LONG_OFFSETS = 2.0, 20_000  # of copying, beside the start: a copy of less is short
SHORT_REACH = 10  # times the offsets that a short copy read: of a longer log it tells nothing
UNLIKE = 1.25  # no two copies take the same time: the spread is at least so much each way
TELLING = 0.1  # of the longest measured copy: a shorter one adds nothing
DURATION_S_MAX = 365 * 86400.0  # beyond this a forecast says nothing


@dataclass(frozen=True, slots=True)
class Measured:
    """A copy that was measured, whole or up to now: offsets of the log in so many seconds."""

    label: str
    offsets: int
    seconds: float


@dataclass(frozen=True, slots=True)
class Speed:
    """Offsets a second that a copy is expected to read, its spread, and what it rests on, as a remark."""

    expected: float
    slowest: float
    fastest: float
    basis: str


def speed_of(of_job: Sequence[Measured], of_kind: Sequence[Measured], kind: str, offsets: int) -> Speed | None:
    """The expected speed; None when no copy was measured that tells it. `kind`: of the job, for the remark; `offsets`:
    to be read."""
    usable = [[one for one in copies if one.offsets > 0 and one.seconds > 0] for copies in (of_job, of_kind)]
    has_made = "only short ones" if usable[0] else "none yet"
    whose = ("this job", f"other {kind} jobs, for this one has made {has_made}")
    for tells in (_is_long, lambda one: one.offsets * SHORT_REACH >= offsets):
        for copies, name in zip(usable, whose, strict=True):
            if found := [one for one in copies if tells(one)]:
                return _speed(found, name)
    return None


def _is_long(one: Measured) -> bool:
    return one.offsets >= LONG_OFFSETS and one.seconds >= START_S + LONG_S


def _speed(copies: Sequence[Measured], whose: str) -> Speed:
    longest_s = max(one.seconds for one in copies)
    telling = [one for one in copies if one.seconds >= TELLING * longest_s]
    return Speed(
        expected=sum(one.offsets for one in telling) / sum(_without_s(START_S, one) for one in telling),
        slowest=min(one.offsets / one.seconds for one in telling) / UNLIKE,
        fastest=max(one.offsets / _without_s(2 * START_S, one) for one in telling) * UNLIKE,
        basis=f"the time is judged by copies of {whose}: {_examples(telling)}",
    )


def _without_s(start_s: float, one: Measured) -> float:
    return max(one.seconds - start_s, one.seconds / 10)


def _examples(measured: Sequence[Measured]) -> str:
    newest = measured[-1]
    more = f", and {len(measured) - 1} more" if len(measured) > 1 else ""
    return f"{newest.label} read {newest.offsets:,} offsets in {newest.seconds:,.1f} s{more}"


def limited(speed: Speed, per_s: float, why: str) -> Speed:
    """The speed where something holds it at so many records a second; unchanged where that is more than expected."""
    if per_s >= speed.expected:
        return speed
    return Speed(
        expected=per_s,
        slowest=min(per_s, speed.slowest),
        fastest=min(per_s, speed.fastest),
        basis=f"the time is judged by {why}, {per_s:,.0f} records/s, for copies are faster ({speed.basis})",
    )


def measured(run: Run, positions: Positions, now: datetime) -> Measured | None:
    """The run's first copy as it was measured, or its copy under way up to now; None when it tells no speed."""
    label = str(run.version)
    if run.copy_offsets is not None and run.copy_s is not None:
        return Measured(label, run.copy_offsets, run.copy_s)
    if run.state is not State.REPLAYING or run.admit_time is None or run.rate_limit > 0:
        return None
    read = sum(position.next_offset - position.start_offset for position in positions.values()) - run.admit_offsets
    seconds = (now - run.admit_time).total_seconds()
    return Measured(label, read, seconds) if read > 0 and seconds > START_S else None


@dataclass(frozen=True, slots=True)
class Duration:
    """Seconds from admission to the end of the log. `longest_s` is None when it may be never, all are when it is."""

    expected_s: float | None
    shortest_s: float | None
    longest_s: float | None
    never: bool


def duration(offsets: int, arriving_per_s: float, speed: Speed, *, waits_s: float = 0.0) -> Duration:
    """How long a copy takes. The log goes on: what arrives while it waits, starts and reads is read too."""
    to_read = offsets + arriving_per_s * (waits_s + START_S)

    def seconds(per_s: float) -> float | None:
        closing = per_s - arriving_per_s
        if closing <= 0:
            return None
        found = START_S + to_read / closing
        return found if found <= DURATION_S_MAX else None

    expected_s = seconds(speed.expected)
    if expected_s is None:
        return Duration(None, None, None, never=True)
    return Duration(expected_s, seconds(speed.fastest), seconds(speed.slowest), never=False)


def arriving(before: Mapping[TopicPartition, LogEnds], now: Mapping[TopicPartition, LogEnds]) -> float:
    """Offsets a second by which the log grows, all partitions, between two askings; 0 when they are not apart."""
    total = 0.0
    for tp, end in now.items():
        earlier = before.get(tp)
        if earlier is not None and end.asked_s > earlier.asked_s > -math.inf:
            total += max(0, end.end - earlier.end) / (end.asked_s - earlier.asked_s)
    return total


def queue_wait_s(position: int, copies_max: int, etas_s: Iterable[float | None]) -> float | None:
    """Seconds until so many copies have ended that the run at this place of the queue is admitted; None = not known.

    `position`: from 1, 0 = not queued. `etas_s`: of all copies under way, None = not known. How long those take that
    are ahead in the queue is not known.
    """
    if position == 0:
        return 0.0
    left = sorted(math.inf if eta_s is None else eta_s for eta_s in etas_s)
    ending = len(left) - copies_max + position
    if not 0 < ending <= len(left):
        return None
    wait_s = left[ending - 1]
    return wait_s if wait_s < math.inf else None


@dataclass(frozen=True, slots=True)
class Crossing:
    """The log's start passes the run in this partition, in so many seconds. `queued`: while it still waits."""

    tp: TopicPartition
    in_s: float
    queued: bool


def crossing(
    oldest: Mapping[TopicPartition, datetime],
    now: datetime,
    retention_s: Mapping[str, float],
    *,
    waits_s: float,
    holds_s: float | None,
    reads_s: float | None,
) -> Crossing | None:
    """The first partition whose retention overtakes a run that begins at the log's start; None when none does.

    `oldest`: time of the oldest record, which expires its retention later. The run stands at it for `waits_s`, then
    goes through the log, whose records are taken to be spread evenly over their time, in `reads_s`, None = never ends.
    `holds_s`: how long it takes to read what the log holds now, None = not known, then only the wait is judged. A run
    that goes through more than a second of the log's time each second is not overtaken once it reads.
    """
    found = []
    for tp, time in oldest.items():
        if tp.topic not in retention_s:
            continue
        age_s = max(0.0, (now - time).total_seconds())
        left_s = max(0.0, retention_s[tp.topic] - age_s)
        if left_s < waits_s:
            found.append(Crossing(tp, left_s, queued=True))
        elif holds_s is not None and age_s < holds_s:
            in_s = waits_s + (left_s - waits_s) / (1.0 - age_s / holds_s)
            if reads_s is None or in_s < waits_s + reads_s:
                found.append(Crossing(tp, in_s, queued=False))
    return min(found, key=lambda one: (one.in_s, one.tp), default=None)
