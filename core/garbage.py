"""The cyclic garbage collector of a process that is to answer at any time."""

import gc
from typing import Final

SERVING: Final = (10_000, 20, 10)
"""For a process that answers calls: young objects are looked at seldom, and old ones are then few."""


def pass_over_what_stands(thresholds: tuple[int, int, int]) -> None:
    """Keep the collector away from everything that there is now, and set its thresholds (see `gc.set_threshold`).

    To be called once a process is set up. A full collection walks through all objects, most of which are modules,
    classes and descriptors that last as long as the process: at some 150 reads a second a front stood still for 70 ms
    every ten to twenty seconds, and for a quarter of a second on a busy machine; afterwards for a millisecond.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(*thresholds)
