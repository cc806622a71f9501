"""Queued runs whose first records the log has lost while they waited: they begin where the log begins by then.

A run reads what is retained when its copy begins. One that has read something is left as it is: what it lacks now would
be a hole in its table, and it fails once it is admitted. So does one whose version names the offset that was lost. The
coverage gate says what readers would lose.
"""

import logging
from collections.abc import Mapping

from services.replayer.protocol import TopicPartition
from services.replayer.ranges import Extent, within
from services.replayer.run import LogEnds, Position, Positions, Run, Sample
from services.replayer.states import State
from services.replayer.surroundings import Surroundings

log = logging.getLogger(__name__)


def lost(run: Run, positions: Positions, ends: Mapping[TopicPartition, LogEnds]) -> dict[TopicPartition, LogEnds]:
    """The partitions whose log begins later by now than a run that has not read anything was to begin, with what it
    holds of them. Those of which the run's version names the offset are left out."""
    if any(position.next_offset > position.start_offset for position in positions.values()):
        return {}
    named = run.log_range.start_offsets if run.log_range is not None else ()
    fixed = {TopicPartition(one.topic, one.partition) for one in named}
    free = {tp: position for tp, position in positions.items() if tp in ends and tp not in fixed}
    held = within(
        ends, {tp: Extent(_start_now(position, ends[tp]), position.range_end) for tp, position in free.items()}
    )
    return {tp: one for tp, one in held.items() if one.start > free[tp].start_offset}


def _start_now(position: Position, ends: LogEnds) -> int:
    """Where the run would begin now: no later than where its range ends."""
    start = max(position.start_offset, ends.start)
    return start if position.range_end is None else min(start, position.range_end)


def overtaken(sample: Sample) -> list[Run]:
    """The queued runs that lost records which they were to read, and may begin later."""
    queued = (run for run in sample.runs.values() if run.state is State.QUEUED)
    return [run for run in queued if lost(run, sample.of(run.version), sample.ends)]


async def begin_later(around: Surroundings, run: Run, sample: Sample) -> None:
    """Let the queued run begin where the log begins now. Unavailable."""
    moved = lost(run, sample.of(run.version), sample.ends)
    times = await around.topics.first_times(moved)
    kept = {tp: time for tp, time in run.start_times.items() if tp not in moved}
    if await around.store.move_start(run.version, {tp: ends.start for tp, ends in moved.items()}, {**kept, **times}):
        where = ", ".join(f"{tp.topic}/{tp.partition} at {ends.start:,}" for tp, ends in sorted(moved.items()))
        log.warning("%s begins later, for the log lost records while it waited for its copy: %s", run.version, where)
