"""Queued runs whose first records the log has lost while they waited: they begin where the log begins by then.

A run reads what is retained when its copy begins. One that has read something is left as it is: what it lacks now would
be a hole in its table, and it fails once it is admitted. The coverage gate says what readers would lose.
"""

import logging
from collections.abc import Mapping

from services.replayer.protocol import TopicPartition
from services.replayer.run import LogEnds, Positions, Run, Sample
from services.replayer.states import State
from services.replayer.surroundings import Surroundings

log = logging.getLogger(__name__)


def lost(positions: Positions, ends: Mapping[TopicPartition, LogEnds]) -> dict[TopicPartition, LogEnds]:
    """The partitions whose log begins later by now than a run that has not read anything was to begin."""
    if any(position.next_offset > position.start_offset for position in positions.values()):
        return {}
    return {tp: ends[tp] for tp, position in positions.items() if tp in ends and ends[tp].start > position.start_offset}


def overtaken(sample: Sample) -> list[Run]:
    """The queued runs that lost records which they were to read, and may begin later."""
    queued = (run for run in sample.runs.values() if run.state is State.QUEUED)
    return [run for run in queued if lost(sample.of(run.version), sample.ends)]


async def begin_later(around: Surroundings, run: Run, sample: Sample) -> None:
    """Let the queued run begin where the log begins now. Unavailable."""
    moved = lost(sample.of(run.version), sample.ends)
    times = await around.topics.first_times(moved)
    kept = {tp: time for tp, time in run.start_times.items() if tp not in moved}
    if await around.store.move_start(run.version, {tp: ends.start for tp, ends in moved.items()}, {**kept, **times}):
        where = ", ".join(f"{tp.topic}/{tp.partition} at {ends.start:,}" for tp, ends in sorted(moved.items()))
        log.warning("%s begins later, for the log lost records while it waited for its copy: %s", run.version, where)
