"""When a worker that is alive, and says so, counts as stuck: its position stands still while the log goes on. Pure.

Theory of operation. A worker tells how far it has committed and where the log ends, about four times a second. A
partition *stands still* from one such message to the next when its position is the same in both and records lie ahead.
Such time adds up, for each partition by itself, until its position moves or reaches the end. After a while nothing but
a new process is to be hoped for: the part of the client that fetches has died, a broker answers everything but fetches,
a lock is never freed.

Much looks like it and is not, and does not count:

- what the worker waits for and has named: it goes on by itself. That Kafka or PostgreSQL is away counts only while the
  replayer finds so too; otherwise the worker's own client is at fault, and the time counts as one of standing still,
  also for a worker that holds no partition yet;
- time in which it said nothing of its positions: it computes. The job's function is watched in the worker itself,
  record by record, and a process that says nothing at all is somebody else's matter (`liveness.py`);
- a rate of nothing, or one so low that the next record is not due yet;
- what PostgreSQL does for it at the moment, such as a commit: the worker cuts that off itself after its patience, and
  is given that long.

A worker reads its partitions by turns, thousands of records of one before the next, and a batch that was refused it
reads again in small pieces. So a partition's time begins anew whenever another one moves that is on its way through a
backlog, which means: that has had records ahead, and not been at its end, for as long as this one has stood still. In a
tail the others are at their ends again and again, however busy it is, and do not speak for one that is not.
"""

from collections.abc import Sequence
from typing import Final

from services.replayer.protocol import PartitionState, TopicPartition

STANDS_MIN_S: Final = 30.0
_LEASES: Final = 3.0
_RECORDS: Final = 3.0  # so many are due within the time, at the lowest rate
_WRITE_MIN_S: Final = 30.0
_WRITE_LEASES: Final = 9.0  # more than a worker's own patience with PostgreSQL
_BEAT_MAX_S: Final = 1.0  # more than that between two messages: it computed meanwhile


def allowed_s(lease_s: float, rate_per_s: float | None, partitions: int) -> float:
    """How long a worker may stand still with records ahead. `rate_per_s`: None = no limit."""
    slow_s = _RECORDS * partitions / rate_per_s if rate_per_s else 0.0
    return max(STANDS_MIN_S, _LEASES * lease_s, slow_s)


def write_allowed_s(lease_s: float) -> float:
    """How much longer while PostgreSQL does something for it."""
    return max(_WRITE_MIN_S, _WRITE_LEASES * lease_s)


def excuses(reason: str, *, kafka_away: bool, postgres_away: bool) -> bool:
    """Whether a worker may wait for this as long as it lasts. The replayer itself: does it find them away?"""
    return {"KAFKA_UNAVAILABLE": kafka_away, "POSTGRES_UNAVAILABLE": postgres_away}.get(reason, True)


class Standstill:
    """How long one worker has stood still, or its partitions. Times are monotonic seconds."""

    def __init__(self) -> None:
        self._told_s: float | None = None  # when it told of its positions last, or that it waits
        self._offsets: dict[TopicPartition, int] = {}
        self._ahead_s: dict[TopicPartition, float] = {}  # for how long there have been records ahead, without a break
        self._stands_s: dict[TopicPartition, float] = {}  # of partitions with records ahead
        self._waits_s = 0.0  # for what is there, since it got on

    def told(self, states: Sequence[PartitionState], now_s: float) -> None:
        """The worker told of its positions."""
        passed_s = self._passed_s(now_s)
        offsets = {TopicPartition(state.topic, state.partition): state.next_offset for state in states}
        ahead = [TopicPartition(state.topic, state.partition) for state in states if not state.at_end]
        self._ahead_s = {tp: self._ahead_s.get(tp, 0.0) + passed_s for tp in ahead}
        stands_s = {tp: self._stands_s.get(tp, 0.0) + passed_s for tp in ahead if self._offsets.get(tp) == offsets[tp]}
        way_s = max((self._ahead_s[tp] for tp in ahead if tp not in stands_s), default=-1.0)
        self._stands_s = {tp: 0.0 if stood_s <= way_s else stood_s for tp, stood_s in stands_s.items()}
        self._offsets = offsets
        if len(stands_s) < len(ahead) or not ahead:
            self._waits_s = 0.0

    def waits(self, now_s: float) -> None:
        """It said, instead of its positions, that it waits for something that is there."""
        self._waits_s += self._passed_s(now_s)

    def excused(self) -> None:
        """It may stand still: it waits for something that it has named, or was told to."""
        self._told_s = None
        self._ahead_s = {}
        self._stands_s = {}
        self._waits_s = 0.0

    def lasts_s(self) -> float:
        """How long the worker or a partition has stood still, to be held against `allowed_s`; 0 = none does."""
        return self._waits_s + max(self._stands_s.values(), default=0.0)

    def _passed_s(self, now_s: float) -> float:
        passed_s = 0.0 if self._told_s is None else min(max(0.0, now_s - self._told_s), _BEAT_MAX_S)
        self._told_s = now_s
        return passed_s


def is_stuck(stands_s: float, allowed: float, lease_s: float, *, writes: bool) -> bool:
    """Whether a worker that has stood still so long is to be replaced. writes: PostgreSQL works for it right now."""
    return stands_s > allowed + (write_allowed_s(lease_s) if writes else 0.0)
