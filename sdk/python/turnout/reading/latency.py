"""How long reads take: counted in buckets, and told with each heartbeat. Pure: time is passed in.

Buckets grow by a twentieth, so that a quantile is known to a fortieth of its value whatever its size is, with a few
hundred counters for all reads and nothing kept of a single one.
"""

import itertools
import math
from dataclasses import dataclass
from typing import Final

from turnout.reading.limits import READ_S_MAX

_SMALLEST_S: Final = 50e-6  # what is faster counts as that
_GROWTH: Final = 1.05
_PER_E: Final = 1 / math.log(_GROWTH)  # buckets while the latency grows e-fold
_BUCKETS: Final = math.ceil(math.log(READ_S_MAX / _SMALLEST_S) * _PER_E) + 1


@dataclass(frozen=True, slots=True)
class ReadLoad:
    """The reads of a span of time: how many, and how long half of them and 99 of 100 took at most. Seconds."""

    reads: int
    window_s: float
    p50_s: float
    p99_s: float


class ReadLatency:
    """The reads since the last `take`."""

    def __init__(self, now_s: float) -> None:
        self._counts = [0] * _BUCKETS
        self._reads = 0
        self._since_s = now_s

    def add(self, took_s: float) -> None:
        """A read has been answered."""
        place = int(math.log(took_s / _SMALLEST_S) * _PER_E) if took_s > _SMALLEST_S else 0
        self._counts[min(place, _BUCKETS - 1)] += 1
        self._reads += 1

    def take(self, now_s: float) -> ReadLoad | None:
        """The reads since the last time, which are forgotten; None when there were none."""
        reads, window_s = self._reads, now_s - self._since_s
        self._since_s = now_s
        if not reads:
            return None
        load = ReadLoad(reads, window_s, self._quantile(0.5), self._quantile(0.99))
        self._counts = [0] * _BUCKETS
        self._reads = 0
        return load

    def _quantile(self, share: float) -> float:
        """The middle of the bucket that holds the read of that rank."""
        rank = math.ceil(self._reads * share)
        place = next(place for place, up_to in enumerate(itertools.accumulate(self._counts)) if up_to >= rank)
        return _SMALLEST_S * math.exp((place + 0.5) / _PER_E)
