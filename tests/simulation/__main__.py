"""`python -m tests.simulation --seed N [--rounds R]`: simulations of switching, each from its seed alone.

Needs a PostgreSQL to run the product's statements on: TURNOUT_TEST_POSTGRES, or else one is started. A failing seed is
named with what did not hold; the same seed fails in the same way.
"""

import argparse
import asyncio
import json
import os
import sys
import tempfile
import time
from collections import Counter
from contextlib import AsyncExitStack
from pathlib import Path

from deploy.local.stack import LocalStack
from tests.simulation.database import simulated_database
from tests.simulation.postgres import Real
from tests.simulation.simulation import plan_of, run


def _rounds(real: Real, first: int, rounds: int) -> int:
    failed, counts, began_s = 0, Counter[str](), time.perf_counter()
    for seed in range(first, first + rounds):
        outcome = run(real, plan_of(seed))
        counts.update(outcome.counts)
        if rounds == 1:
            print(f"{outcome.seconds:.6f} s simulated, trace {outcome.trace:08x}", file=sys.stderr)
        if outcome.violations:
            failed += 1
            print(f"seed {seed}: {outcome.violations[0]}", file=sys.stderr, flush=True)
            for other in outcome.violations[1:3]:
                print(f"    {other}", file=sys.stderr, flush=True)
        elif (seed - first) % 50 == 49:
            print(f"seed {seed}: {time.perf_counter() - began_s:.0f} s", file=sys.stderr, flush=True)
    print(json.dumps({"seeds": rounds, "failed": failed, "seconds": round(time.perf_counter() - began_s), **counts}))
    return 1 if failed else 0


async def _dsn(stack: AsyncExitStack) -> str:
    if given := os.environ.get("TURNOUT_TEST_POSTGRES"):
        return given
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="turnout-simulation-"))
    return (await stack.enter_async_context(LocalStack(Path(directory)))).postgres


async def _main(first: int, rounds: int) -> int:
    async with AsyncExitStack() as stack:
        real = Real(await stack.enter_async_context(simulated_database(await _dsn(stack))))
        stack.callback(real.close)
        return _rounds(real, first, rounds)


def main() -> int:
    """The exit status says whether every seed held."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the first seed (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, metavar="R", help="how many seeds (default: %(default)s)")
    given = parser.parse_args()
    return asyncio.run(_main(given.seed, given.rounds))


if __name__ == "__main__":
    sys.exit(main())
