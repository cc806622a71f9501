"""Who works on what: partitions to worker slots, shares of the rate, when a dead worker is started again.

A *slot* is a worker's place among those that a replica has in a run, 0 to n-1; a process that dies is replaced in its
slot. A partition's slot follows from its number and the live replicas (`replicas.py`), so that one death moves nothing
else, and equally numbered partitions of several topics meet in one worker, as a fold over co-partitioned topics needs.
"""

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import TypeAlias

from services.replayer.protocol import TopicPartition
from services.replayer.replicas import deal, lead
from services.replayer.run import LogEnds, Positions
from services.replayer.states import State
from turnout.names import VersionId

BACKOFF_FIRST_S = 0.5
BACKOFF_MAX_S = 15.0
LONG_LIFE_S = 60.0
_IDLE_WEIGHT = 0.01  # of a partition at its end, beside one that has records to read
DEATHS_IN_A_ROW_MAX = 6  # without one committed offset in between: then it is no accident


def hands(
    version: VersionId,
    state: State,
    workers: int,
    partitions: Collection[TopicPartition],
    replicas: tuple[str, ...],
    instance: str,
) -> tuple[tuple[TopicPartition, ...], ...]:
    """The partitions of each slot of this replica, sorted; over all `replicas` every partition is in exactly one slot.

    In the copy phase each replica has at most `workers` slots, and no slot is empty. A tail is one slot of one replica.
    """
    if instance not in replicas or not partitions:
        return ()
    if state is State.TAILING:
        return (tuple(sorted(partitions)),) if lead(version.name, replicas) == instance else ()
    numbers = tuple(sorted({tp.partition for tp in partitions}))
    mine = deal(version.name, numbers, replicas)[instance]
    dealt = deal(version.name, mine, tuple(range(min(workers, len(mine)))))
    slot_of = {number: slot for slot, hand in dealt.items() for number in hand}
    slots: list[list[TopicPartition]] = [[] for _ in dealt]
    for tp in sorted(partitions):
        if tp.partition in slot_of:
            slots[slot_of[tp.partition]].append(tp)
    return tuple(tuple(hand) for hand in slots)


def rate_shares(
    limit: float | None, hands: Collection[Collection[TopicPartition]], lags: Mapping[TopicPartition, int]
) -> tuple[float | None, ...]:
    """Each slot's share of the run's limit in records a second; None = unlimited. lags: of all partitions of the run,
    in offsets.

    Those with records to read have it to themselves, in equal parts. Those at their ends keep so little that it is
    not missed: what comes to them is read at once, rather than when its lag has been measured.
    """
    if limit is None or not lags:
        return (None,) * len(hands)
    weights = {tp: 1.0 if lag > 0 else _IDLE_WEIGHT for tp, lag in lags.items()}
    whole = sum(weights.values())
    return tuple(limit * sum(weights.get(tp, 0.0) for tp in hand) / whole for hand in hands)


OFFSET_MAX = (1 << 63) - 1

Place: TypeAlias = tuple[TopicPartition, int]  # of a record: its partition and offset


@dataclass(frozen=True, slots=True)
class Deaths:
    """What is remembered of the deaths in one slot.

    in_a_row: since the slot last committed something. offsets: the committed position of each partition at the last
    death. record_by_record: partitions at whose offset two workers died one after the other, or one died alone with a
    record, and the offset before which that record lies. alone_with: the last such record. deadly: records that two
    workers died alone with, and how.
    """

    in_a_row: int = 0
    offsets: Mapping[TopicPartition, int] = field(default_factory=dict)
    record_by_record: Mapping[TopicPartition, int] = field(default_factory=dict)
    alone_with: Place | None = None
    deadly: Mapping[Place, str] = field(default_factory=dict)

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
    alone_with: Place | None = None,
    how: str = "",
) -> Deaths:
    """One more death of a worker that held `hand`; `positions` are the committed ones, read after it. alone_with: the
    record that the job's function was given alone before the worker died of itself; how: it died, in words.

    A partition is suspected when two workers died while it stood at one offset with records ahead; one at its end, or
    at that of its range, has nothing to die of. Deaths are in a row while a partition is suspected or nothing moves at
    all, unless the worker had lived long, or a record has just been found deadly, which is getting further: two workers
    died alone with it, whatever others died of in between. An idle tail that is killed once a month is not hopeless.
    """
    offsets = {tp: positions[tp].next_offset for tp in hand if tp in positions}
    stood = {tp for tp, offset in offsets.items() if deaths.offsets.get(tp) == offset}
    if alone_with is not None and offsets.get(alone_with[0], 0) > alone_with[1]:
        alone_with = None  # committed: it was something else
    if alone_with is not None:  # then no other partition is suspected any more
        suspected = {alone_with[0]: alone_with[1] + 1}
    else:
        # What was not in the log yet when a worker died is not what it died of.
        suspected = {
            tp: deaths.record_by_record.get(tp, ends[tp].end if tp in ends else OFFSET_MAX)
            for tp in stood
            if not positions[tp].complete and (tp not in ends or offsets[tp] < ends[tp].end)
        }
    found = alone_with is not None and alone_with == deaths.alone_with
    in_a_row = (bool(suspected) or len(stood) == len(offsets)) and not found
    return Deaths(
        in_a_row=deaths.in_a_row + 1 if in_a_row and lived_s < LONG_LIFE_S else 1,
        offsets=offsets,
        record_by_record=suspected,
        alone_with=alone_with or deaths.alone_with,
        deadly={**deaths.deadly, alone_with: how} if found and alone_with is not None else deaths.deadly,
    )
