"""The command: rounds of the front and of what is written by hand, in turn, on the same tables."""

from __future__ import annotations

import argparse
import asyncio
import json
import statistics
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.arguments import above_zero, at_least_one
from bench.goals import Goal, at_most, status
from bench.reads.resolving import resolve_us
from bench.reads.world import Loader, Table, bare, live_table, loader
from bench.stack import Stack, front, running
from bench.workload import say

RATIOS: Final = {
    "get_vs_bare_grpc": Goal(0.85),
    "batch_get_vs_raw_any": Goal(0.5),
    "sdk_coalesced_vs_unary": Goal(6.0),
    "direct_vs_asyncpg": Goal(0.85),
    "get_within_experiment": Goal(0.9),
}
GOALS: Final = {**RATIOS, "resolve_us": at_most(3.0), "get_added_ms_p50": at_most(0.3)}

PARTITIONS: Final = (4, 64)  # the JSON holds the figures of the first
GETS_IN_FLIGHT: Final = 64
CALLERS: Final = 1_000  # who read through one client at a time
BATCH_KEYS: Final = 1_000
BATCHES_IN_FLIGHT: Final = 4
_PACED_PER_S: Final = 100.0

LINES: Final = {
    "get_vs_bare_grpc": ("Get, bare gRPC server", "reads/s"),
    "batch_get_vs_raw_any": ("BatchGet, asyncpg", "keys/s"),
    "sdk_coalesced_vs_unary": ("gathered, one by one", "reads/s"),
    "direct_vs_asyncpg": ("direct mode, asyncpg", "reads/s"),
    "get_within_experiment": ("experiment on, off", "reads/s"),
    "get_added_ms_p50": ("Get, bare gRPC, p50", "ms"),
}


@dataclass(frozen=True)
class Plan:
    """What is measured: rows a table, rounds, seconds of each side in each round; which figures, all = none named."""

    rows: int
    rounds: int
    seconds: float
    only: tuple[str, ...] = ()


@dataclass
class Pair:
    """One claim: what our side and the side written by hand reached in each round."""

    ours: list[float] = field(default_factory=list)
    theirs: list[float] = field(default_factory=list)

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.theirs)

    @property
    def difference(self) -> float:
        return statistics.median(self.ours) - statistics.median(self.theirs)

    def line(self, name: str, unit: str) -> str:
        """For people."""
        ours, theirs = (statistics.median(side) for side in (self.ours, self.theirs))
        return f"  {name:<26}{ours:>12,.2f} {theirs:>12,.2f} {unit:<8} {self.ratio:>8.3f}"


@dataclass(frozen=True)
class Targets:
    """Where the front, the bare server and the other services are."""

    front: str
    bare: str
    services: str


@dataclass(frozen=True)
class Side:
    """A kind of read and what it is told; see `bench.reads.load`."""

    do: str
    arguments: dict[str, Any]


class Bench:
    """The measurement of one table."""

    def __init__(self, load: Loader, table: Table, targets: Targets, plan: Plan) -> None:
        self._load = load
        self._table = table
        self._plan = plan
        wanted = plan.only or LINES
        self._sides = {name: sides for name, sides in _sides(table, targets).items() if name in wanted}
        self.pairs = {name: Pair() for name in self._sides}

    async def run(self) -> None:
        """All rounds; who begins changes from one to the next."""
        for number in range(self._plan.rounds):
            for name, (ours, theirs) in self._sides.items():
                pair = self.pairs[name]
                sides = [(pair.ours, ours), (pair.theirs, theirs)]
                for figures, side in sides if number % 2 == 0 else reversed(sides):
                    figures.append(await self._measured(side))
            say(f"round {number + 1} of {self._plan.rounds}\n{self.table()}")

    async def _measured(self, side: Side) -> float:
        """Reads or keys a second; of paced reads, the median in milliseconds."""
        answer = await self._load(side.do, rows=self._table.rows, seconds=self._plan.seconds, **side.arguments)
        return float(statistics.median(answer) if isinstance(answer, list) else answer)

    def table(self) -> str:
        """For people."""
        head = f"{self._table.partitions} partitions"
        lines = [self.pairs[name].line(*LINES[name]) for name in self.pairs]
        return "\n".join([f"  {head:<26}{'ours':>12} {'beside':>12} {'':<8} {'ratio':>8}", *lines])

    def result(self) -> dict[str, float]:
        """The figures, to be printed as JSON."""
        return {name: round(pair.ratio if name in RATIOS else pair.difference, 3) for name, pair in self.pairs.items()}


def _sides(table: Table, targets: Targets) -> dict[str, tuple[Side, Side]]:
    """Both sides of each claim, by its name in the JSON."""
    job, place = {"job": table.job}, {"table": table.place.table, "version": table.place.version}
    front, bare = {"target": targets.front, **job}, {"target": targets.bare, **job}
    gets = {"in_flight": GETS_IN_FLIGHT}
    batches = {"keys": BATCH_KEYS, "in_flight": BATCHES_IN_FLIGHT}
    paced = {"per_s": _PACED_PER_S}
    return {
        "get_vs_bare_grpc": (Side("get", {**front, **gets}), Side("get", {**bare, **gets})),
        "batch_get_vs_raw_any": (Side("batch", {**front, **batches}), Side("raw_batch", {**place, **batches})),
        "sdk_coalesced_vs_unary": (
            Side("gathered", {**front, "in_flight": CALLERS}),
            Side("one_by_one", {**front, "in_flight": CALLERS}),
        ),
        "direct_vs_asyncpg": (
            Side("direct", {"target": targets.services, **job, **gets}),
            Side("raw_get", {**place, **gets}),
        ),
        "get_within_experiment": (
            Side("get_by_unit", {"target": targets.front, "job": table.experiment, "counted": True, **gets}),
            Side("get_by_unit", {**front, "counted": False, **gets}),
        ),
        "get_added_ms_p50": (Side("paced", {**front, **paced}), Side("paced", {**bare, **paced})),
    }


async def _bench(stack: Stack, load: Loader, front_target: str, partitions: int, plan: Plan) -> Bench:
    table = await live_table(stack, partitions, plan.rows)
    async with bare(stack, table.place) as bare_target:
        bench = Bench(load, table, Targets(front_target, bare_target, stack.target), plan)
        await bench.run()
    return bench


async def _measure(plan: Plan, data_dir: Path | None) -> dict[str, Any]:
    async with running(data_dir) as stack, front(stack) as served, loader(stack) as load:
        benches = [await _bench(stack, load, served.target, partitions, plan) for partitions in PARTITIONS]
    for bench in benches:
        say(bench.table())
    few, many = (bench.result() for bench in benches)
    return {
        **few,
        "resolve_us": round(await asyncio.to_thread(resolve_us), 2),
        **{f"{name}_{PARTITIONS[1]}_partitions": figure for name, figure in many.items()},
    }


def main(argv: Sequence[str]) -> int:
    """Exit status 0 when all goals are reached."""
    parser = argparse.ArgumentParser(prog="python -m bench reads", description=__doc__)
    parser.add_argument("--rows", type=at_least_one, default=200_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--rounds", type=at_least_one, default=5, metavar="N", help="default: %(default)s")
    parser.add_argument("--seconds", type=above_zero, default=4.0, metavar="S", help="of each side in each round")
    parser.add_argument("--only", choices=LINES, action="append", default=[], help="this figure; repeat it")
    parser.add_argument("--quick", action="store_true", help="20,000 rows, 1 round: a look, not a measurement")
    parser.add_argument("--data-dir", type=Path, help="keep everything here (default: a temporary directory)")
    given = parser.parse_args(argv)
    rows, rounds, seconds = (20_000, 1, 2.0) if given.quick else (given.rows, given.rounds, given.seconds)
    plan = Plan(rows, rounds, seconds, tuple(given.only))
    result = uvloop.run(_measure(plan, given.data_dir))
    code = status(result, GOALS)
    print(json.dumps(result), flush=True)
    return code
