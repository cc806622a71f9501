"""The command: plays rounds, prints a line for each, stops at the first difference."""

from __future__ import annotations

import argparse
import asyncio
import shutil
import sys
import tempfile
import time
from pathlib import Path

from bench.arguments import at_least_one, not_negative
from bench.faults.plan import first_of_episode, plan
from bench.faults.report import Totals, round_line
from bench.faults.rounds import Episode, RoundResult
from bench.faults.world import World


def main(argv: list[str]) -> int:
    """Exit status 0 when every comparison came out equal, 1 at the first difference."""
    parser = argparse.ArgumentParser(
        prog="python -m bench faults",
        description="Seeded rounds of kills, stops and cuts. After each the tables must equal the reference.",
    )
    parser.add_argument("--seed", type=int, default=1, help="what the plan is drawn from (default: %(default)s)")
    parser.add_argument("--rounds", type=at_least_one, default=20, help="how many rounds (default: %(default)s)")
    parser.add_argument("--round", type=not_negative, help="play this round alone, and those of its episode before it")
    parser.add_argument(
        "--data-dir", type=Path, help="where data and logs go and stay (default: a temporary directory)"
    )
    parser.add_argument("--replicas", type=int, choices=(1, 2), default=2, help="replayers in every other episode")
    given = parser.parse_args(argv)
    numbers = range(given.rounds)
    if given.round is not None:
        numbers = range(first_of_episode(given.round), given.round + 1)
    directory = given.data_dir or Path(tempfile.mkdtemp(prefix="turnout-faults-"))
    totals = asyncio.run(play(given.seed, numbers, directory, replicas=given.replicas))
    if given.data_dir is None and not totals.differences:
        shutil.rmtree(directory, ignore_errors=True)
    elif totals.differences:
        print(f"The logs and data are in {directory}.")
    print(totals.table())
    print(totals.json(given.seed))
    return 1 if totals.differences else 0


async def play(seed: int, numbers: range, directory: Path, *, replicas: int = 2) -> Totals:
    """Play these rounds, to the first difference at most."""
    totals, began_s = Totals(), time.monotonic()
    async with World(directory) as world:
        episode: Episode | None = None
        for number in numbers:
            one = plan(seed, number)
            if one.replays:
                if episode is not None:
                    await episode.leave()
                await world.staff(min(replicas, one.replicas))
                episode = Episode(world, seed, one.episode)
                await episode.begin()
            assert episode is not None
            result = await episode.play(one)
            totals.add(result)
            print(round_line(result), flush=True)
            if result.lines:
                _tell(seed, result)
                break
    totals.took_s = time.monotonic() - began_s
    return totals


def _tell(seed: int, result: RoundResult) -> None:
    number = result.plan.number
    print(
        f"\nDIFFERENCE in round {number} of seed {seed}. Again: python -m bench faults --seed {seed} --round {number}"
    )
    for done in result.done:
        print(f"  fault: {done.fault}{f' ({done.note})' if done.note else ''}")
    for line in result.lines:
        print(f"  {line}")
    sys.stdout.flush()
