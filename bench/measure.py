"""One replay, measured from outside: the hand loop's and ours by the same observer, from the committed positions."""

import asyncio
import contextlib
import os
import statistics
import sys
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator, Sequence
from contextlib import asynccontextmanager, suppress
from dataclasses import dataclass
from typing import Final

from bench.memory import resident_mib
from bench.stack import Stack
from bench.workload import PARTITIONS, job_file
from turnout.results import Run, RunState
from turnout.tasks import beside

_LOOK_S: Final = 0.02
_MEMORY_S: Final = 0.25  # the system keeps the peak
_GIVE_UP_S: Final = 300.0  # without a single commit

# Records committed, and whether somebody has begun to read.
_HAND_POSITIONS: Final = (
    "select coalesce(sum(next_offset), 0)::bigint as done, count(*) > 0 as begun from hand_positions"
)
_OUR_POSITIONS: Final = (
    "select coalesce(sum(next_offset), 0)::bigint as done, coalesce(bool_or(owner is not null), false) as begun "
    "from serving.positions where version = $1"
)


@dataclass(frozen=True)
class Measured:
    """One replay. seconds: from the start until every record was committed; working_s: of those, since the first worker
    had what it needs and began to read. rss_mib: the largest worker's peak, 0 = not known. eta_errors: see
    `eta_errors`."""

    records: int
    seconds: float
    working_s: float
    rss_mib: float = 0.0
    eta_errors: Sequence[float] = ()
    eta_worst: str = ""
    eta_known_from: float = 0.0

    @property
    def per_s(self) -> float:
        """Records a second, start-up included."""
        return self.records / self.seconds

    @property
    def steady_per_s(self) -> float:
        """Records a second, start-up left out. Filling the first batch and writing the last one are not: a side that
        gathers much would look faster than it is."""
        return self.records / self.working_s


def median(measured: Sequence[Measured]) -> Measured:
    """Of several replays of the same: medians, but the largest memory and all errors."""
    return Measured(
        measured[0].records,
        statistics.median(one.seconds for one in measured),
        statistics.median(one.working_s for one in measured),
        max(one.rss_mib for one in measured),
        [error for one in measured for error in one.eta_errors],
        eta_known_from=max(one.eta_known_from for one in measured),
    )


@dataclass(frozen=True)
class _Observed:
    """Monotonic seconds."""

    begun_s: float
    done_s: float


async def _observe(look: Callable[[], Awaitable[tuple[int, bool]]], records: int) -> _Observed:
    """Wait until the positions say that all records are committed. `look`: how many, and whether reading has begun."""
    done, begun_s, moved_s = 0, 0.0, time.monotonic()
    while done < records:
        await asyncio.sleep(_LOOK_S)
        (now, begun), now_s = await look(), time.monotonic()
        if begun and not begun_s:
            begun_s = now_s
        if now > done:
            done, moved_s = now, now_s
        if now_s - moved_s > _GIVE_UP_S:
            raise RuntimeError(f"nothing was committed for {_GIVE_UP_S:g} s, at {done:,} of {records:,} records")
    return _Observed(begun_s, moved_s)


async def hand_loop(stack: Stack, mode: str, topic: str, records: int, workers: int, flush: int) -> Measured:
    """A replay by `bench.hand_loop`, workers at a time, `flush` records a write."""
    await quiet(stack)
    await stack.look.execute(f"drop table if exists hand_{mode}, hand_positions")
    began_s = time.monotonic()
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.hand_loop", mode, "--kafka", stack.kafka, "--topic", topic),
        *("--partitions", str(PARTITIONS), "--workers", str(workers), "--flush", str(flush)),
        env={**os.environ, "TURNOUT_POSTGRES": stack.postgres},
    )

    async def look() -> tuple[int, bool]:
        if process.returncode:
            raise RuntimeError(f"the hand loop ended with status {process.returncode}")
        if not await stack.look.fetchval("select to_regclass('hand_positions') is not null"):
            return 0, False
        return tuple(await stack.look.fetchrow(_HAND_POSITIONS))

    try:
        observed = await _observe(look, records)
    finally:
        with suppress(ProcessLookupError):
            if sys.exc_info()[0] is not None:
                process.terminate()
        await process.wait()
    await stack.look.execute(f"drop table hand_{mode}, hand_positions")
    return Measured(records, observed.done_s - began_s, observed.done_s - observed.begun_s)


async def ours(stack: Stack, mode: str, topic: str, records: int, workers: int) -> Measured:
    """A replay by the product: applied and started through its client, run by its services."""
    job, file = job_file(mode, topic, stack.directory)
    version = (await stack.client.apply(file)).version.number
    file.unlink()
    await quiet(stack)

    async def look() -> tuple[int, bool]:
        return tuple(await stack.look.fetchrow(_OUR_POSITIONS, f"jobs/{job}/versions/{version}"))

    began_s = time.monotonic()
    run = await stack.client.start_run(job, version, workers=workers)
    async with _memory(stack) as peak_mib, _watched(stack, run) as told:
        observed = await _observe(look, records)
    await stack.client.stop_run(job, version)
    await stack.look.execute(f"truncate serving.{run.table}")
    return Measured(
        records,
        observed.done_s - began_s,
        observed.done_s - observed.begun_s,
        max(peak_mib, default=0.0),
        eta_errors(told, observed.done_s),
        eta_worst(told, observed.done_s),
        told[0][1] if told else 1.0,
    )


async def quiet(stack: Stack) -> None:
    """Nothing left over from the measurement before: what it wrote is on the disk."""
    await stack.look.execute("checkpoint")


@asynccontextmanager
async def _memory(stack: Stack) -> AsyncIterator[list[float]]:
    """Peaks of the workers' resident memory in MiB, one for each look; complete at the end."""
    peaks: list[float] = []

    async def sample() -> None:
        while True:
            for pid in stack.workers():
                with suppress(OSError):
                    peaks.append(resident_mib(pid, peak=True))
            await asyncio.sleep(_MEMORY_S)

    async with beside(sample()):
        yield peaks


# --- the forecast -----------------------------------------------------------------------------------------------------

ETA_FROM: Final = 0.1  # share of the way from which on the forecast counts
ETA_FLOOR_S: Final = 5.0

Told = list[tuple[float, float, float]]  # when, share of the way, seconds still to go as the run says


def eta_errors(told: Told, ended_s: float) -> list[float]:
    """How wrong each forecast was, as a share of the time that really was left.

    Towards the end, of `ETA_FLOOR_S` seconds: positions move about once a second, so that a forecast is no finer.
    """
    return [error for error, _ in _judged(told, ended_s)]


def eta_worst(told: Told, ended_s: float) -> str:
    """The worst forecast with what it said and what was true, for whoever wants to know why."""
    error, text = max(_judged(told, ended_s), default=(0.0, ""))
    return f"worst forecast {text}, off by {error:.2f}" if text else "no forecast"


def _judged(told: Told, ended_s: float) -> Iterator[tuple[float, str]]:
    for at_s, share, eta_s in told:
        left_s = ended_s - at_s
        if share >= ETA_FROM and left_s > 0:
            error = abs(eta_s - left_s) / max(left_s, ETA_FLOOR_S)
            yield error, f"at {share:.0%} of the way: {eta_s:.1f} s, and {left_s:.1f} s were left"


@asynccontextmanager
async def _watched(stack: Stack, run: Run) -> AsyncIterator[Told]:
    """What WatchRun tells of the time to go, while the run replays."""
    told: Told = []

    async def watch() -> None:
        async with contextlib.aclosing(stack.client.watch_run(run.job, run.version)) as runs:
            async for seen in runs:
                if seen.state is RunState.REPLAYING and seen.eta is not None:
                    told.append((time.monotonic(), seen.progress, seen.eta.total_seconds()))

    async with beside(watch()):
        yield told
