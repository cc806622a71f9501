"""How long ago the switcher last vouched for a front's routes, and what that allows. Pure.

Routes are as fresh as the *sending* of the newest heartbeat that was acknowledged: whatever was committed later may be
unknown here. Times are seconds of the front's own monotonic clock.
"""

from collections import deque
from dataclasses import dataclass
from enum import Enum

_UNACKNOWLEDGED_MAX = 64  # more than a lease holds many times over; a stream is given up long before


class Freshness(Enum):
    """What a front may answer by its routes."""

    FRESH = "fresh"
    ACTIVE_ONLY = "active only"
    """Too old to follow a split: everybody reads the active version."""
    STALE = "stale"
    """Too old to answer at all."""


@dataclass(frozen=True, slots=True)
class Limits:
    """How long a front answers without the switcher, in seconds, counted from the last acknowledged heartbeat."""

    active_s: float
    experiment_s: float

    def judge(self, age_s: float) -> Freshness:
        """What routes of that age allow. A limit is reached, not passed, when the age equals it."""
        if age_s > self.active_s:
            return Freshness.STALE
        return Freshness.ACTIVE_ONLY if age_s > self.experiment_s else Freshness.FRESH


class Heartbeats:
    """The heartbeats of one stream: numbers them and remembers when each was sent until it is acknowledged."""

    def __init__(self) -> None:
        self._sent: deque[tuple[int, float]] = deque(maxlen=_UNACKNOWLEDGED_MAX)
        self._next = 1

    def send(self, now_s: float) -> int:
        """The number of the heartbeat that is sent now."""
        number = self._next
        self._next += 1
        self._sent.append((number, now_s))
        return number

    def acknowledged(self, number: int) -> float | None:
        """When the acknowledged heartbeat was sent; None for a number that is not waited for."""
        sent_s = None
        while self._sent and self._sent[0][0] <= number:
            first, at_s = self._sent.popleft()
            sent_s = at_s if first == number else None
        return sent_s
