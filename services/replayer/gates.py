"""The gates before any reader: has the candidate caught up, does it cover what the active version has, and can readers
of the active version's table read the candidate's?

Every gate answers from facts that are passed in, and says everything that stands against it in sentences with numbers.

Catch-up compares committed positions, not what was merely read. The baseline is the active version's position in the
same partition or, where there is none, the end of the log; that end is no evidence once it was asked for too long ago.
A partition passes at once when it stands there, so that an idle partition holds nothing up. Otherwise it may lack what
the baseline got within the last moments and nothing older: a lag allowed in offsets would be nothing on a busy topic
and everything on a small one. So the candidate is compared with the oldest measurement of the baseline that lies within
the allowed lag. The event time that it is behind must be within its limit too; it is compared with the baseline's,
never with the clock, and stamps in the future count as now. All partitions must have passed at every moment of a stable
window that lies in the past already: it is measured all the time, hence asking never waits.

A candidate of a bounded range is level once it is COMPLETED, for good, where its range goes as far as the baseline's or
there is no baseline. Where the baseline goes further, as one that follows the log always does, the candidate never
catches up, however near they are at the moment.
"""

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime

from services.replayer.outlook import Outlook, expectation, warnings
from services.replayer.progress import measure
from services.replayer.protocol import TopicPartition
from services.replayer.run import Position, Run, Sample, bounded
from services.replayer.spans import span
from services.replayer.states import State
from turnout.schema import Change, JobKind, difference

CATCH_UP = "catch-up"
COVERAGE = "coverage"
SCHEMA = "schema"
_ENDED_SHOWN = 3  # partitions


@dataclass(frozen=True, slots=True)
class Limits:
    """What "caught up" allows."""

    lag_s: float = 2.0  # what came to the baseline within this time may be missing
    event_lag_s: float = 10.0  # of event time, in one partition
    stable_s: float = 1.0  # how long both must have held
    sample_age_s: float = 3.0  # an older measurement is no evidence


@dataclass(frozen=True, slots=True)
class Gate:
    """The answer of one gate: `evidence` is everything that says no, or what says yes."""

    gate: str
    passed: bool
    evidence: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Behind:
    """One partition that has not caught up: the offsets and seconds of event time that are missing."""

    tp: TopicPartition
    offsets: int
    event_s: float
    of: str  # behind what
    range_end: int | None = None  # of the candidate, where it never catches up for that

    def __str__(self) -> str:
        time = f" and {span(self.event_s)} of event time" if self.event_s > 0 else ""
        offsets = "1 offset" if self.offsets == 1 else f"{self.offsets:,} offsets"
        return f"partition {self.tp.topic}/{self.tp.partition} is {offsets}{time} behind {self.of}"


# --- catch-up -------------------------------------------------------------------------------------------------------


def catch_up(
    candidate: Run,
    baseline: Run | None,
    samples: Sequence[Sample],
    now_s: float,
    limits: Limits,
    outlook: Outlook,
) -> Gate:
    """Whether the candidate has caught up with the baseline, or with the log where it is the first version.

    `outlook`: what is to be expected of the candidate; told with a refusal.
    """
    if not samples or now_s - samples[-1].monotonic_s > limits.sample_age_s:
        return Gate(
            CATCH_UP, False, ("nothing has been measured lately, for the database or Kafka is away: ask again",)
        )
    against = list(_problems(candidate, baseline, samples, limits, outlook))
    if against:
        return Gate(CATCH_UP, False, tuple(against))
    count = len(samples[-1].of(candidate.version))
    if candidate.state is State.COMPLETED:
        further = "" if baseline is None else f", which goes as far as that of {baseline.label}"
        return Gate(CATCH_UP, True, (f"all {count} partitions are at the end of the range{further}",))
    held = f"all {count} partitions have been level with {_label(baseline)} for {span(limits.stable_s)} or longer"
    return Gate(CATCH_UP, True, (held,))


def caught_up_with_log(candidate: Run, samples: Sequence[Sample], limits: Limits) -> bool:
    """Whether every partition stands at the end of the log now, within the allowed lag: the copy phase is over.

    The end of a bounded range is stood at exactly, or not at all.
    """
    return bool(samples and samples[-1].of(candidate.version)) and not behind(candidate, None, samples, limits)


def behind(candidate: Run, baseline: Run | None, samples: Sequence[Sample], limits: Limits) -> list[Behind]:
    """The partitions that have not caught up in the newest of these samples."""
    newest = samples[-1]
    within = _within_lag(candidate, samples, limits)
    ours = newest.of(candidate.version)
    theirs = newest.of(baseline.version) if baseline is not None else {}
    found = []
    for tp, position in sorted(ours.items()):
        if baseline is not None and tp in theirs:
            target_before = within[0].of(baseline.version).get(tp, theirs[tp])
            one = _behind_baseline(tp, position, theirs[tp], target_before, newest, baseline, limits)
            if _ends_earlier(position, theirs[tp]):
                one = _never_level(tp, candidate, position, baseline, theirs[tp])
        else:
            one = _behind_log(tp, position, within, limits)
        if one is not None:
            found.append(one)
    read = {tp.topic for tp in ours}
    why = "its range leaves this partition out" if bounded(ours) else "it has not taken up this new partition yet"
    found += [
        Behind(tp, target.next_offset, 0.0, f"{_label(baseline)}, for {why}")
        for tp, target in sorted(theirs.items())
        if tp not in ours and tp.topic in read
    ]
    return found


def _within_lag(candidate: Run, samples: Sequence[Sample], limits: Limits) -> list[Sample]:
    """The samples within the allowed lag, oldest first, that know the candidate; at least the newest of all.

    A candidate that was not there yet is allowed no lag: it has begun nowhere near.
    """
    newest = samples[-1]
    lasting = [
        sample
        for sample in samples[:-1]
        if newest.monotonic_s - sample.monotonic_s <= limits.lag_s and sample.of(candidate.version)
    ]
    return [*lasting, newest]


def _label(baseline: Run | None) -> str:
    return baseline.label if baseline is not None else "the end of the log"


def _behind_baseline(
    tp: TopicPartition,
    position: Position,
    target: Position,
    target_before: Position,
    sample: Sample,
    baseline: Run,
    limits: Limits,
) -> Behind | None:
    offsets = target.next_offset - position.next_offset
    if offsets <= 0:
        return None
    event_s = _event_lag_s(position.event_time, target.event_time, sample.at)
    if position.next_offset >= target_before.next_offset and event_s <= limits.event_lag_s:
        return None
    return Behind(tp, offsets, event_s, baseline.label)


def _ends_earlier(position: Position, target: Position) -> bool:
    """Whether the candidate reads a bounded range, and the baseline goes further."""
    return position.range_end is not None and (target.range_end is None or target.range_end > position.range_end)


def _never_level(tp: TopicPartition, candidate: Run, position: Position, baseline: Run, target: Position) -> Behind:
    further = "has no end" if target.range_end is None else f"goes on to {target.range_end:,}"
    return Behind(
        tp,
        max(0, target.next_offset - position.next_offset),
        0.0,
        f"{baseline.label}, and it never catches up: the range of {candidate.label} ends at offset "
        f"{position.range_end:,}, and that of {baseline.label} {further}",
        position.range_end,
    )


def _told(lagging: Sequence[Behind], candidate: Run, baseline: Run | None) -> Iterator[str]:
    """Each partition on its own, but those whose range ends for good at once: they are the same news."""
    ended = [one for one in lagging if one.range_end is not None]
    if len(ended) > 1:
        shown = [f"{one.tp.topic}/{one.tp.partition} at offset {one.range_end:,}" for one in ended[:_ENDED_SHOWN]]
        more = f" and {len(ended) - len(shown)} more" if len(ended) > len(shown) else ""
        yield (
            f"{candidate.label} never catches up: its range ends ({', '.join(shown)}{more}), and that of "
            f"{_label(baseline)} goes further; it is {sum(one.offsets for one in ended):,} offsets behind now"
        )
    yield from (str(one) for one in lagging if one.range_end is None or len(ended) == 1)


def _behind_log(tp: TopicPartition, position: Position, within: Sequence[Sample], limits: Limits) -> Behind | None:
    if position.range_end is not None:
        left = position.range_end - position.next_offset
        return Behind(tp, left, 0.0, f"the end of its range, offset {position.range_end:,}") if left > 0 else None
    newest_s, ends = within[-1].monotonic_s, within[-1].ends.get(tp)
    if ends is None or ends.asked_s == -math.inf:
        return Behind(tp, 0, 0.0, "the end of the log, which is not known: Kafka has not answered yet")
    lag = max(0, ends.end - position.next_offset)
    if newest_s - ends.asked_s > limits.sample_age_s:
        age = span(newest_s - ends.asked_s)
        return Behind(tp, lag, 0.0, f"the end of the log as it was {age} ago: Kafka has not answered since; ask again")
    known = (sample.ends.get(tp) for sample in within)
    recent = (one.end for one in known if one is not None and newest_s - one.asked_s <= limits.lag_s)
    if position.next_offset >= min(recent, default=ends.end):
        return None
    return Behind(tp, lag, 0.0, "the end of the log")


def _event_lag_s(ours: datetime | None, theirs: datetime | None, now: datetime) -> float:
    """Seconds of event time that the candidate is behind; all future stamps count as now."""
    if ours is None or theirs is None:
        return 0.0
    return max(0.0, (min(theirs, now) - min(ours, now)).total_seconds())


def _problems(
    candidate: Run,
    baseline: Run | None,
    samples: Sequence[Sample],
    limits: Limits,
    outlook: Outlook,
) -> Iterator[str]:
    newest = samples[-1]
    if candidate.state not in (State.TAILING, State.COMPLETED):
        yield _state_problem(candidate)
    if candidate.state is State.FAILED:
        return  # how far it is behind for that is no news
    if not newest.of(candidate.version):
        yield f"{candidate.label} has no position in any partition"
    lagging = behind(candidate, baseline, samples, limits)
    yield from _told(lagging, candidate, baseline)
    if lagging:
        records_per_s = measure(samples, candidate.version).records_per_s
        yield from warnings(candidate, records_per_s, outlook)
        yield from expectation(candidate, records_per_s, outlook)
        return
    if candidate.state is State.COMPLETED:
        return
    since_s = _level_since(candidate, baseline, samples, limits)
    held_s = newest.monotonic_s - since_s
    if held_s < limits.stable_s:
        yield f"all partitions are level for {held_s:.1f} s only; {limits.stable_s:.1f} s are asked for"


def _state_problem(candidate: Run) -> str:
    if candidate.state is State.FAILED:
        return f"the run of {candidate.label} has FAILED ({candidate.failure_reason}): {candidate.failure_message}"
    if candidate.state is State.QUEUED:
        return f"the run of {candidate.label} is QUEUED, it waits for its place in the budget of copies"
    if not candidate.state.wants_workers:
        return f"the run of {candidate.label} is {candidate.state.value}: nothing keeps its table fresh; resume it"
    if candidate.indexes_built or not candidate.definition.indexes:
        return f"the run of {candidate.label} is {candidate.state.value}, still copying the retained log"
    return f"the run of {candidate.label} is {candidate.state.value}, and the indexes of its table are not built yet"


def _level_since(candidate: Run, baseline: Run | None, samples: Sequence[Sample], limits: Limits) -> float:
    """Monotonic seconds of the first sample of the unbroken stretch, up to the newest, in which all were level."""
    since_s = samples[-1].monotonic_s
    for count in range(len(samples), 0, -1):
        until = samples[:count]
        if not until[-1].of(candidate.version) or behind(candidate, baseline, until, limits):
            break
        since_s = until[-1].monotonic_s
    return since_s


# --- coverage -------------------------------------------------------------------------------------------------------


def coverage(
    candidate: Run,
    baseline: Run | None,
    starts: Mapping[TopicPartition, int],
    baseline_starts: Mapping[TopicPartition, int],
    compacted: frozenset[str] = frozenset(),
) -> Gate:
    """Whether the candidate began no later than the content of the baseline does."""
    against = list(_compaction_problems(candidate, compacted))
    if baseline is not None:
        against += _coverage_problems(candidate, baseline, starts, baseline_starts)
    if against:
        return Gate(COVERAGE, False, tuple(against))
    if baseline is None:
        return Gate(COVERAGE, True, ("it is the first version: there is nothing that it could lack",))
    return Gate(
        COVERAGE,
        True,
        (f"{candidate.label} begins no later than {baseline.label} in each of {len(starts)} partitions",),
    )


def _coverage_problems(
    candidate: Run,
    baseline: Run,
    starts: Mapping[TopicPartition, int],
    baseline_starts: Mapping[TopicPartition, int],
) -> Iterator[str]:
    missing = sorted({tp.topic for tp in baseline_starts} - {tp.topic for tp in starts})
    for topic in missing:
        yield (
            f"{candidate.label} does not read {topic}, from which {baseline.label} is made: offsets cannot tell "
            f"whether it covers the same; override this gate if you know that it does"
        )
    moved = False
    for tp, begins in sorted(baseline_starts.items()):
        ours = starts.get(tp)
        if ours is None or ours <= begins:
            continue
        moved = True
        yield (
            f"partition {tp.topic}/{tp.partition}: {baseline.label} begins at offset {begins:,}, {candidate.label} "
            f"only at {ours:,}: readers would lose {ours - begins:,} offsets{_lost_time(tp, candidate, baseline)}"
        )
    if moved:
        yield (
            f"{_why_later(candidate, baseline)}: {candidate.label} is not cut over silently; override this gate if "
            f"readers may lose that span"
        )


def _why_later(candidate: Run, baseline: Run) -> str:
    begins_later = candidate.log_range is not None and (
        candidate.log_range.start_time or candidate.log_range.start_offsets
    )
    if begins_later:
        return f"{candidate.label} is made of the log {candidate.log_range}"
    return f"the log start has moved since {baseline.label} began"


def _lost_time(tp: TopicPartition, candidate: Run, baseline: Run) -> str:
    begins, ours = baseline.start_times.get(tp), candidate.start_times.get(tp)
    if begins is None or ours is None:
        return ", of which it is not known when they were written"
    return f", written from {begins:%Y-%m-%d %H:%M:%S} to {ours:%Y-%m-%d %H:%M:%S} UTC"


def _compaction_problems(candidate: Run, compacted: frozenset[str]) -> Iterator[str]:
    if candidate.definition.kind is JobKind.MAP:
        return
    for source in candidate.definition.topics:
        if source.topic in compacted:
            yield (
                f"topic {source.topic} is compacted, so that older records of a key are gone: {_article(candidate)} "
                f"computed from what is left differs from one that saw every record; override this gate if the latest "
                f"is enough"
            )


def _article(candidate: Run) -> str:
    return "an aggregate" if candidate.definition.kind is JobKind.AGGREGATE else "a fold"


# --- schema ---------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class DerivedTypes:
    """PostgreSQL types of derived columns, which only the database knows; by column name."""

    candidate: Mapping[str, str] = field(default_factory=dict)
    baseline: Mapping[str, str] = field(default_factory=dict)


def schema(candidate: Run, baseline: Run | None, derived: DerivedTypes) -> Gate:
    """Whether whoever reads the baseline's table can read the candidate's."""
    if baseline is None:
        return Gate(SCHEMA, True, ("it is the first version: nobody reads another table yet",))
    against, fine = [], []
    for one in difference(baseline.definition, candidate.definition):
        if one.breaking:
            against.append(f"column {one}")
        elif one.change is Change.ADDED:
            fine.append(f"column {one}")
        elif derived.baseline.get(one.column) != derived.candidate.get(one.column):
            against.append(
                f"column {one.column}: type changed from {derived.baseline.get(one.column)} to "
                f"{derived.candidate.get(one.column)} with the expression it is derived by"
            )
        else:
            fine.append(f"column {one.column}: derived by another expression of the same type")
    if against:
        return Gate(SCHEMA, False, tuple(against))
    return Gate(SCHEMA, True, tuple(fine) or (f"the columns are those of {baseline.label}",))
