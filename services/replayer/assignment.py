"""Who works on what: partitions to worker slots, shares of the rate, when a dead worker is started again.

A *slot* is a worker's place in a run, 0 to n-1; a process that dies is replaced in its slot. A partition's slot follows
from its number alone, so that one death moves nothing else, and equally numbered partitions of several topics meet in
one worker, as a fold over co-partitioned topics needs.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field

from services.replayer.protocol import TopicPartition
from services.replayer.run import LogEnds, Positions
from services.replayer.states import State

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 15.0
LONG_LIFE_S = 60.0
DEATHS_IN_A_ROW_MAX = 6  # without one committed offset in between: then it is no accident


def slots_wanted(state: State, workers: int, partitions: Collection[TopicPartition]) -> int:
    """How many workers a run has: those of the copy phase, at most one a partition; one for the tail."""
    if not state.wants_workers or not partitions:
        return 0
    if state is State.TAILING:
        return 1
    return max(1, min(workers, len({tp.partition for tp in partitions})))


def spread(partitions: Collection[TopicPartition], slots: int) -> tuple[tuple[TopicPartition, ...], ...]:
    """The partitions of each slot, sorted. Every partition is in exactly one slot."""
    hands: list[list[TopicPartition]] = [[] for _ in range(slots)]
    for tp in sorted(partitions):
        hands[tp.partition % slots].append(tp)
    return tuple(tuple(hand) for hand in hands)


def rate_shares(limit: int, hands: Collection[Collection[TopicPartition]]) -> tuple[float | None, ...]:
    """Each slot's share of the run's limit in records a second, by its number of partitions; None = unlimited."""
    total = sum(len(hand) for hand in hands)
    if limit <= 0 or total == 0:
        return (None,) * len(hands)
    return tuple(limit * len(hand) / total for hand in hands)


@dataclass(frozen=True, slots=True)
class Deaths:
    """What is remembered of the deaths in one slot.

    in_a_row: since the slot last committed something. offsets: the committed position of each partition at the last
    death. record_by_record: partitions at whose offset two workers died one after the other.
    """

    in_a_row: int = 0
    offsets: Mapping[TopicPartition, int] = field(default_factory=dict)
    record_by_record: frozenset[TopicPartition] = frozenset()

    @property
    def backoff_s(self) -> float:
        """How long to wait before the next start; the first is at once, for most deaths are accidents."""
        if self.in_a_row <= 1:
            return 0.0
        return min(BACKOFF_MAX_S, BACKOFF_FIRST_S * 2.0 ** (self.in_a_row - 2))

    @property
    def hopeless(self) -> bool:
        """Whether starting again is no use without a person."""
        return self.in_a_row >= DEATHS_IN_A_ROW_MAX


def died(
    deaths: Deaths,
    hand: Collection[TopicPartition],
    positions: Positions,
    ends: Mapping[TopicPartition, LogEnds],
    *,
    lived_s: float,
) -> Deaths:
    """One more death of a worker that held `hand`; `positions` are the committed ones, read after it.

    A partition is suspected when two workers died while it stood at one offset with records ahead; a partition at its
    end has nothing to die of. Deaths are in a row while a partition is suspected or nothing moves at all, unless the
    worker had lived long: an idle tail that is killed once a month is not hopeless.
    """
    offsets = {tp: positions[tp].next_offset for tp in hand if tp in positions}
    stood = {tp for tp, offset in offsets.items() if deaths.offsets.get(tp) == offset}
    suspected = {tp for tp in stood if tp not in ends or offsets[tp] < ends[tp].end}
    in_a_row = bool(suspected) or len(stood) == len(offsets)
    return Deaths(
        in_a_row=deaths.in_a_row + 1 if in_a_row and lived_s < LONG_LIFE_S else 1,
        offsets=offsets,
        record_by_record=frozenset(suspected | (deaths.record_by_record & stood)),
    )
