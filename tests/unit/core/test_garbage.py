"""The collector passes over what a process has once it is set up."""

from __future__ import annotations

import subprocess
import sys

# In a process of its own: what is frozen here would stay so for the tests that follow.
PROGRAM = """
import gc
from core.garbage import SERVING, pass_over_what_stands
gc.disable()
old = [[] for _ in range(1000)]
pass_over_what_stands(SERVING)
young = [[] for _ in range(10)]
seen = gc.get_objects()
assert gc.get_threshold() == SERVING
assert gc.get_freeze_count() > 1000
assert not any(thing is old for thing in seen)
assert any(thing is young for thing in seen)
cycle = []
cycle.append(cycle)
del cycle
assert gc.collect() == 1
"""


def test_what_stood_is_passed_over_and_young_cycles_are_still_found() -> None:
    subprocess.run([sys.executable, "-c", PROGRAM], check=True)
