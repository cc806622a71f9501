"""The measurement: reads at a steady rate while a route is cut over and rolled back, calmly and while processes die."""

import argparse
import asyncio
import json
import random
import signal
import tempfile
import time
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import numpy as np
import uvloop

from bench.arguments import above_zero, at_least_one, not_negative
from bench.cutover.readings import Readings, failed, p99_ms, reading, within, wrong
from bench.cutover.stage import Stage, staged
from bench.faults.product import Addresses, Service
from bench.goals import at_most, status
from bench.waits import cores
from bench.workload import say
from deploy.local.stack import LocalStack
from turnout.errors import Aborted, FailedPrecondition, TurnoutError
from turnout.results import RouteChange

_FULL_S: Final = 5.0
_QUIET_S: Final = 4.0
_QUIET_EVERY: Final = 100  # changes
_PAUSE_S: Final = 0.05
_AGAIN_S: Final = 0.02
_CHANGE_S: Final = 30.0
_KILL_WITHIN_S: Final = 0.1  # of the begin of a change
_DEAD_S: Final = (0.2, 1.5)
_SLACK_S: Final = 1.0  # beyond the lease, for a change after a kill

Span = tuple[float, float]


@dataclass(frozen=True)
class Plan:
    """What is measured. kill_every: changes from one kill to the next."""

    changes: int = 1000
    kill_every: int = 20
    lease_s: float = 3.0
    full_s: float = _FULL_S
    quiet_s: float = _QUIET_S
    seed: int = 1
    share: float = 0.6  # of the throughput measured before


@dataclass
class Pass:
    """What happened in one pass."""

    changes: list[Span] = field(default_factory=list)
    quiet: list[Span] = field(default_factory=list)
    adoptions_ms: list[float] = field(default_factory=list)
    adopted: list[tuple[float, int]] = field(default_factory=list)  # when answered, and which epoch
    refused: dict[str, int] = field(default_factory=dict)
    not_adopted: int = 0  # answered without a whole adoption
    kills: int = 0
    after_kill_ms: list[float] = field(default_factory=list)


class Bench:
    """Both passes on one stage."""

    def __init__(self, stage: Stage, readings: Readings, plan: Plan) -> None:
        self._stage = stage
        self._readings = readings
        self._plan = plan
        self._rng = random.Random(plan.seed)
        self._killed_at_s: float | None = None
        self._dead: set[int] = set()  # process ids

    async def calm(self, rate: float) -> Pass:
        """Cutovers and rollbacks by turns, with quiet times between."""
        done = Pass()
        self._readings.at(rate)
        for number in range(self._plan.changes):
            if number % _QUIET_EVERY == 0:
                await self._quiet(done)
            await self._change(done)
            await asyncio.sleep(_PAUSE_S)
        await self._quiet(done)
        self._readings.at(0)
        return done

    async def with_kills(self, rate: float) -> Pass:
        """The same, while fronts and switchers are killed and come back."""
        done = Pass()
        self._readings.at(rate)
        restarting: asyncio.Task[None] | None = None
        for number in range(self._plan.changes):
            if number % self._plan.kill_every == 0:
                if restarting is not None:
                    await restarting
                victim = self._rng.choice([*self._stage.fronts, *self._stage.switchers])
                restarting = asyncio.create_task(self._kill(victim, done))
            await self._change(done)
            await asyncio.sleep(_PAUSE_S)
        if restarting is not None:
            await restarting
            await self._change(done)
        self._readings.at(0)
        return done

    async def _quiet(self, done: Pass) -> None:
        begin_s = time.monotonic()
        await asyncio.sleep(self._plan.quiet_s)
        done.quiet.append((begin_s, time.monotonic()))

    async def _kill(self, victim: Service, done: Pass) -> None:
        await asyncio.sleep(self._rng.uniform(0.0, _KILL_WITHIN_S))
        say(f"kill -9 {victim.name}")
        assert victim.pid is not None
        done.kills += 1
        self._dead.add(victim.pid)
        self._killed_at_s = time.monotonic()
        await victim.kill()
        await asyncio.sleep(self._rng.uniform(*_DEAD_S))
        await victim.start()

    async def _change(self, done: Pass) -> None:
        """One cutover or rollback, tried until it is answered."""
        begin_s = time.monotonic()
        while True:
            try:
                change = await self._next()
                break
            except TurnoutError as error:
                done.refused[error.reason] = done.refused.get(error.reason, 0) + 1
                if not isinstance(error, Aborted | FailedPrecondition):
                    say(f"a change was refused: {error}")
            await asyncio.sleep(_AGAIN_S)
        end_s = time.monotonic()
        done.changes.append((begin_s, end_s))
        self._note(done, change, begin_s, end_s)

    async def _next(self) -> RouteChange:
        """A rollback where there is a way back, else a cutover to the other version."""
        client, job = self._stage.client, self._stage.job
        route = await client.route(job)
        if route.rollback_version:
            return await client.roll_back(job, timeout_s=_CHANGE_S)
        return await client.cut_over(job, 3 - route.active_version, timeout_s=_CHANGE_S)

    def _note(self, done: Pass, change: RouteChange, begin_s: float, at_s: float) -> None:
        if self._killed_at_s is not None:
            done.after_kill_ms.append((at_s - self._killed_at_s) * 1000)
            if begin_s > self._killed_at_s:  # else it may have been through before the kill
                self._killed_at_s = None
        late = [one.front for one in change.adoptions if one.adoption_time is None]
        if late or not change.adoptions:
            done.not_adopted += 1
            say(f"epoch {change.route.epoch} without a whole adoption: {late or 'answered by a later request'}")
            return
        assert change.adoption_time is not None
        done.adoptions_ms.append(change.adoption_time.total_seconds() * 1000)
        if all(self._is_dead(front) for front in change.fronts_not_counted):
            done.adopted.append((at_s, change.route.epoch))

    def _is_dead(self, front: str) -> bool:
        """Whether it is one of the fronts that were killed; their ids name their processes."""
        return any(f"-{pid}-" in front for pid in self._dead)


async def measure(addresses: Addresses, directory: Path, plan: Plan) -> dict[str, Any]:
    """Both passes; the figures, to be printed as JSON."""
    async with staged(addresses, directory, plan.lease_s) as stage:
        async with reading(stage.job, [front.target for front in stage.fronts]) as readings:
            full = await readings.full(plan.full_s)
            rate = full * plan.share
            say(f"{full:,.0f} reads/s at full speed; from now on {rate:,.0f}/s")
            bench = Bench(stage, readings, plan)
            fronts = [front.pid for front in stage.fronts if front.pid is not None]
            before = cores(fronts)
            calm = await bench.calm(rate)
            spent = cores(fronts).since(before)
            calm_reads = await readings.take()
            killed = await bench.with_kills(rate)
            killed_reads = await readings.take()
        active = {one.route.epoch: one.route.active_version async for one in stage.client.route_changes(stage.job)}
    wrongs = [wrong(calm_reads, active, calm.adopted), wrong(killed_reads, active, killed.adopted)]
    for word in [word for _, words in wrongs for word in words]:
        say(word)
    quiet_ms = p99_ms(within(calm_reads, calm.quiet))
    during_ms = p99_ms(within(calm_reads, calm.changes))
    return {
        "cutovers": len(calm.changes) + len(killed.changes),
        "reads": len(calm_reads) + len(killed_reads),
        "reads_failed": failed(calm_reads) + failed(killed_reads),
        "reads_wrong": sum(number for number, _ in wrongs),
        "adoption_ms_p50": _percentile(calm.adoptions_ms, 50),
        "adoption_ms_p99": _percentile(calm.adoptions_ms, 99),
        "read_p99_ratio_during_cutover": round(during_ms / quiet_ms, 2),
        "adoption_after_kill_ms_max": round(max(killed.after_kill_ms)) if killed.after_kill_ms else None,
        "kills": killed.kills,
        "changes_not_adopted": calm.not_adopted,
        "changes_not_adopted_with_kills": killed.not_adopted,
        "changes_checked_with_kills": len(killed.adopted),
        "lease_s": plan.lease_s,
        "reads_per_s": round(rate),
        "quiet_read_p99_ms": round(quiet_ms, 2),
        "fronts_waited_to_ran": round(spent.waited_s / spent.ran_s, 2),
        "change_ms_p50": _percentile([(end - begin) * 1000 for begin, end in calm.changes], 50),
        "refused": calm.refused,
        "refused_with_kills": killed.refused,
    }


def _percentile(values: Sequence[float], percent: int) -> float:
    return round(float(np.percentile(values, percent)), 1) if values else float("nan")


async def _measure(plan: Plan) -> dict[str, Any]:
    task = asyncio.current_task()
    assert task is not None
    # Like Ctrl-C: whoever ends a benchmark that takes too long leaves nothing running.
    asyncio.get_running_loop().add_signal_handler(signal.SIGTERM, task.cancel)
    with ExitStack() as cleanup:
        directory = Path(cleanup.enter_context(tempfile.TemporaryDirectory(prefix="turnout-bench-")))
        async with LocalStack(directory) as local:
            return await measure(Addresses(local.postgres, local.kafka), directory, plan)


def main(argv: Sequence[str]) -> int:
    """Exit status 0 when no read failed or was wrong, and the times were kept."""
    parser = argparse.ArgumentParser(prog="python -m bench cutover", description=__doc__)
    parser.add_argument(
        "--changes", type=at_least_one, default=1000, metavar="N", help="of each pass (default: %(default)s)"
    )
    parser.add_argument(
        "--kill-every", type=at_least_one, default=20, metavar="N", help="changes from one kill to the next"
    )
    parser.add_argument("--lease-s", type=above_zero, default=3.0, metavar="S", help="a front's (default: %(default)g)")
    parser.add_argument(
        "--share", type=above_zero, default=0.6, metavar="N", help="of full speed, to read at (default: %(default)g)"
    )
    parser.add_argument("--seed", type=not_negative, default=1, metavar="N", help="of the kills (default: %(default)s)")
    given = parser.parse_args(argv)
    plan = Plan(given.changes, given.kill_every, given.lease_s, seed=given.seed, share=given.share)
    result = uvloop.run(_measure(plan))
    print(json.dumps(result), flush=True)
    goals = {
        "reads_failed": at_most(0),
        "reads_wrong": at_most(0),
        "changes_not_adopted": at_most(0),
        "adoption_ms_p99": at_most(50),
        "read_p99_ratio_during_cutover": at_most(1.2),
        "adoption_after_kill_ms_max": at_most((plan.lease_s + _SLACK_S) * 1000),
    }
    return status(result, goals)
