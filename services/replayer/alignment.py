"""When two runs can be brought to one cut of the log, and what stands against it. Pure.

Theory of operation. Two tables can be compared exactly only where both are made of the same records: at a *cut*, one
offset for each partition. Two tails stand at the same offsets about one time in a hundred, so they are brought there.
Whoever compares writes into the position rows of both runs that no batch goes beyond an offset before a time that is
near (two seconds, unless told otherwise). A data transaction moves its position rows first, and is refused where it
would go too far: that holds for every worker, also for one that takes a partition over in between, and it ends by
itself, whatever becomes of whoever asked.

First each run is held where it stands. The cut is, for each partition, the further of the two positions; the run that
is behind is let go up to there, reads at most that little, and stands. Both tables are then read in one snapshot, in
which the positions are seen to equal the cut, and both runs are let go before anything is compared. So nobody waits for
the comparison: the runs are held for as long as the slower one takes to the cut.

Where one of them cannot reach the cut in time, nobody is held at all. That the positions equal the cut is verified in
the snapshot itself: these rules only save waiting in vain.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass

from services.replayer.protocol import TopicPartition
from services.replayer.run import Positions, Run
from services.replayer.spans import span
from services.replayer.states import State

WITHIN_DEFAULT_S = 2.0
WITHIN_MAX_S = 30.0
TAIL_LAG = 10_000  # offsets that a tail is behind another one for a moment, whatever its speed
_SHOWN = 3  # partitions

Cut = Mapping[TopicPartition, int]


@dataclass(frozen=True, slots=True)
class Side:
    """One of the two runs. speed_per_s: the most records a second that it is known to do; None = not known. held_still:
    it may not read at all at the moment."""

    run: Run
    positions: Positions
    speed_per_s: float | None = None
    held_still: bool = False

    def behind(self, cut: Cut) -> dict[TopicPartition, int]:
        """Offsets that are missing to the cut, of the partitions that have not reached it."""
        return {
            tp: at - p.next_offset for tp, at in cut.items() if (p := self.positions.get(tp)) and p.next_offset < at
        }


def cut_of(old: Positions, new: Positions) -> dict[TopicPartition, int]:
    """The nearest offsets that both runs can stand at: the further of the two, for each partition that both read."""
    return {tp: max(old[tp].next_offset, new[tp].next_offset) for tp in sorted(old.keys() & new.keys())}


def at_cut(positions: Positions, cut: Cut) -> bool:
    """Whether the table is made of the records before the cut, in all of its partitions."""
    return {tp: position.next_offset for tp, position in positions.items()} == dict(cut)


def obstacles(old: Side, new: Side, within_s: float) -> tuple[str, ...]:
    """Why the two cannot stand at one cut within the time, in sentences; empty = they can, as far as is known."""
    return (*_partitions_differ(old, new), *_unreached(old, new, within_s), *_unreached(new, old, within_s))


def _partitions_differ(old: Side, new: Side) -> Iterator[str]:
    for one, other in ((old, new), (new, old)):
        only = sorted(one.positions.keys() - other.positions.keys())
        if only:
            yield f"{one.run.label} reads {_names(only)}, which {other.run.label} does not"


def _unreached(side: Side, other: Side, within_s: float) -> Iterator[str]:
    cut = cut_of(side.positions, other.positions)
    behind = side.behind(cut)
    if not behind:
        return
    run = side.run
    tp, missing = max(behind.items(), key=lambda one: (one[1], one[0]))
    where = f"{missing:,} offsets behind {other.run.label} in {tp.topic}/{tp.partition}"
    past = [tp for tp in behind if (end := side.positions[tp].range_end) is not None and cut[tp] > end]
    if past:
        yield (
            f"{other.run.label} has gone past the end of the range of {run.label} in {_names(past)}: the two never "
            f"stand at one cut again"
        )
    elif run.state is State.FAILED:
        yield f"{run.label} has FAILED ({run.failure_reason}), {where}: {run.failure_message.rstrip('.')}"
    elif not run.state.wants_workers:
        yield f"{run.label} is {run.state.value} and {where}: {_remedy(run.state)}"
    elif side.held_still:
        yield f"{run.label} is {where} and is not allowed to read at the moment"
    else:
        yield from _too_slow(side, sum(behind.values()), where, within_s)


def _too_slow(side: Side, missing: int, where: str, within_s: float) -> Iterator[str]:
    if side.speed_per_s is None or (side.run.state is State.TAILING and missing <= TAIL_LAG):
        return
    takes_s = missing / side.speed_per_s if side.speed_per_s > 0 else float("inf")
    if takes_s > within_s:
        yield (
            f"{side.run.label} is {where} and does {side.speed_per_s:,.0f} records a second: it would take "
            f"{span(takes_s) if takes_s < float('inf') else 'for ever'}, and {span(within_s)} are allowed"
        )


def _remedy(state: State) -> str:
    if state is State.QUEUED:
        return "wait until its copy is admitted and has caught up"
    return "resume it, or pause the other one where both stand"


def _names(partitions: list[TopicPartition]) -> str:
    shown = ", ".join(f"{tp.topic}/{tp.partition}" for tp in partitions[:_SHOWN])
    more = len(partitions) - _SHOWN
    return f"{shown} and {more} more" if more > 0 else shown
