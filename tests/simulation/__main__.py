"""`python -m tests.simulation --seed N [--rounds R]`: simulations of switching, each from its seed alone.

`--every-step` takes one change after another instead, in a calm world, and kills each process at each step of it, or
freezes it (`--freeze`).

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
from tests.simulation.courses import COURSES
from tests.simulation.database import simulated_database
from tests.simulation.real import Real
from tests.simulation.simulation import plan_of, run
from tests.simulation.stepwise import FROZEN_S, few_of, halted_at, steps_of


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


def _every_step(real: Real, given: argparse.Namespace) -> int:
    seed, freeze_s, courses = given.seed, FROZEN_S if given.freeze else 0.0, given.course or list(COURSES)
    failed, runs, began_s = 0, 0, time.perf_counter()
    for name in courses:
        outcome, steps = steps_of(real, COURSES[name], seed)
        for violation in outcome.violations:
            failed += 1
            print(f"{name}, nobody halted: {violation}", file=sys.stderr, flush=True)
        steps = few_of(steps, given.few, seed) if given.few else steps
        for at in steps:
            halted = halted_at(real, COURSES[name], seed, at, freeze_s)
            failed += bool(halted.violations)
            for violation in halted.violations[:3]:
                print(
                    f"{name}, {at.process} at step {at.step} ({_line(at.what)}): {violation}",
                    file=sys.stderr,
                    flush=True,
                )
        runs += len(steps)
        print(f"{name}: {len(steps)} steps, {time.perf_counter() - began_s:.0f} s", file=sys.stderr, flush=True)
    print(json.dumps({"steps": runs, "failed": failed, "seconds": round(time.perf_counter() - began_s)}))
    return 1 if failed else 0


def _line(what: str) -> str:
    return " ".join(what.split())[:70]


async def _dsn(stack: AsyncExitStack) -> str:
    if given := os.environ.get("TURNOUT_TEST_POSTGRES"):
        return given
    directory = stack.enter_context(tempfile.TemporaryDirectory(prefix="turnout-simulation-"))
    return (await stack.enter_async_context(LocalStack(Path(directory)))).postgres


async def _main(given: argparse.Namespace) -> int:
    async with AsyncExitStack() as stack:
        real = Real(await stack.enter_async_context(simulated_database(await _dsn(stack))))
        stack.callback(real.close)
        if given.every_step:
            return _every_step(real, given)
        return _rounds(real, given.seed, given.rounds)


def main() -> int:
    """The exit status says whether every seed held."""
    parser = argparse.ArgumentParser(prog="python -m tests.simulation", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, metavar="N", help="the first seed (default: %(default)s)")
    parser.add_argument("--rounds", type=int, default=1, metavar="R", help="how many seeds (default: %(default)s)")
    parser.add_argument("--every-step", action="store_true", help="halt each process at each step of some changes")
    parser.add_argument("--freeze", action="store_true", help="with --every-step: freeze it for a while, not kill it")
    parser.add_argument("--course", choices=COURSES, action="append", help="with --every-step: this change only")
    parser.add_argument(
        "--few",
        type=int,
        default=0,
        metavar="N",
        help="with --every-step: at most N steps of a process that do the same",
    )
    return asyncio.run(_main(parser.parse_args()))


if __name__ == "__main__":
    sys.exit(main())
