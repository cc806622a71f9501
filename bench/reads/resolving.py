"""How long it takes to resolve a unit in the routing table, alone."""

from __future__ import annotations

import random
import statistics
import time
from typing import Final

from turnout.reading.routing import Committed, RoutingTable
from turnout.routing import HASHES, WHOLE, Arm, Interval, Route

JOBS: Final = 1_000
INTERVALS: Final = 64
_UNITS: Final = 20_000
_ROUNDS: Final = 7


def table() -> RoutingTable:
    """So many jobs, each of two versions that take turns in so many intervals."""
    step = HASHES // INTERVALS
    intervals = tuple(Interval(i * step, (i + 1) * step, 1 + i % 2, 1) for i in range(INTERVALS))
    arms = (Arm(1, WHOLE // 2), Arm(2, WHOLE - WHOLE // 2))
    return RoutingTable().with_snapshot(
        JOBS,
        [Committed(i + 1, f"p{i}", Route(f"job-{i}", 1, 1, arms, f"salt-{i}", intervals)) for i in range(JOBS)],
    )


def resolve_us() -> float:
    """Microseconds to resolve one unit as a read does: the median of some rounds, jobs and units in a random order."""
    routes, rng = table(), random.Random(5)
    asked = [(f"job-{rng.randrange(JOBS)}", f"user-{rng.randrange(1_000_000)}") for _ in range(_UNITS)]
    took_us = []
    for _ in range(_ROUNDS):
        began_s = time.process_time()
        for job, unit in asked:
            routes.resolve(job, unit)
        took_us.append((time.process_time() - began_s) / _UNITS * 1e6)
    return statistics.median(took_us)
