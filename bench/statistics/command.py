"""`python -m bench statistics`: how often the rules of an experiment are wrong, and how soon they are right.

Simulated experiments with a known truth, seeded, each decided by the product's own rules at its defaults. Beside each
figure stands the probability that was promised, and the test that many would write first. The last line is one JSON
object.
"""

import argparse
import json
import sys
import time
from collections.abc import Iterator
from typing import Final

import numpy as np

from bench.arguments import at_least_one
from bench.goals import Goal, status
from bench.statistics.bandit import bandit_figures
from bench.statistics.figure import Figure
from bench.statistics.harm import conversion_figures, harm_figures
from bench.statistics.mismatch import mismatch_figures
from bench.statistics.promotion import promotion_figures
from bench.statistics.records import record_figures

PARTS: Final = (
    harm_figures,
    mismatch_figures,
    promotion_figures,
    bandit_figures,
    record_figures,
    conversion_figures,
)


def figures(seed: int, rounds: int) -> Iterator[Figure]:
    """All figures; each part has a stream of random numbers of its own, so that a part alone gives the same."""
    for part, stream in zip(PARTS, np.random.SeedSequence(seed).spawn(len(PARTS)), strict=True):
        began_s = time.monotonic()
        yield from part(np.random.default_rng(stream), rounds)
        sys.stderr.write(f"{part.__name__}: {time.monotonic() - began_s:.0f} s\n")


def main(arguments: list[str]) -> int:
    """Print the table and the JSON object. Exit status 0 when all goals are reached."""
    parser = argparse.ArgumentParser(prog="python -m bench statistics", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the simulated experiments (default: %(default)s)")
    parser.add_argument("--rounds", type=at_least_one, default=2000, help="experiments a figure, fewer for slow ones")
    given = parser.parse_args(arguments)
    found = list(figures(given.seed, given.rounds))
    print(f"{'':<56}{'measured':>10}{'goal':>9}{'nominal':>9}{'naive':>9}")
    for one in found:
        print(f"{one.what:<56}{one.value:>10.4g}{one.goal:>9g}{_beside(one.nominal)}{_beside(one.naive)}")
    answer = {one.name: round(one.value, 4) for one in found}
    code = status(answer, {one.name: Goal(one.goal, at_least=one.at_least) for one in found})
    print(json.dumps(answer))
    return code


def _beside(value: float | None) -> str:
    return f"{'' if value is None else format(value, '.3f'):>9}"
