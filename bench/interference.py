"""`python -m bench interference`: what a replay costs the readers of a live version, and what the governor saves them.

One machine bears Kafka, PostgreSQL, the services, the workers and the readers, who ask a front in a process of its own,
as on a cluster. A version of a job is live and is
read at a fixed rate all the time, while phases take turns: *quiet* (nothing is replayed), *ungoverned* (a new version
of the job is replayed at full speed, with `read_p99_ratio_max` at 0), *governed* (the same with its default). Each
replay reads the whole topic into a table of its own. Latencies count from the moment at which a read was due.
"""

import argparse
import asyncio
import contextlib
import json
import math
import struct
import sys
import time
from collections import Counter
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import uvloop

from bench.arguments import above_zero, at_least_one
from bench.reader import FAILED, FORMAT
from bench.stack import Stack, front, running
from bench.workload import job_file, say, topic_of
from turnout.results import RunState

P99_RATIO_MAX: Final = 1.5
SHARE_MIN: Final = 0.25

_RATIO_DEFAULT: Final = 1.3
_REPLAY_S_MAX: Final = 600.0
_POLL_S: Final = 0.25
_SETTLE_S: Final = 4.0  # after a replay: its last checkpoint and its table's statistics are not the next phase's


class Reads:
    """What the reader process tells, as (due, took) in seconds."""

    def __init__(self) -> None:
        self._told: list[tuple[float, float]] = []

    def add(self, due_s: float, took_s: float) -> None:
        self._told.append((due_s, took_s))

    def between(self, begin_s: float, end_s: float) -> list[float]:
        """The latencies of the reads that were due then; failed ones as `FAILED`."""
        return [took_s for due_s, took_s in self._told if begin_s <= due_s < end_s]


@dataclass
class Phase:
    """All phases of one kind together."""

    latencies_s: list[float] = field(default_factory=list)
    records: int = 0
    seconds: float = 0.0
    reasons: Counter[str] = field(default_factory=Counter)
    unexplained: int = 0  # looks at a replay that was slowed down and did not say why

    @property
    def failed(self) -> int:
        return sum(took_s == FAILED for took_s in self.latencies_s)

    @property
    def p99_ms(self) -> float:
        answered = sorted(took_s for took_s in self.latencies_s if took_s != FAILED)
        return answered[math.ceil(len(answered) * 0.99) - 1] * 1000 if answered else math.nan

    @property
    def records_per_s(self) -> float:
        return self.records / self.seconds if self.seconds else 0.0


@dataclass(frozen=True)
class Plan:
    """What is measured."""

    mode: str
    records: int
    reads_per_s: float
    quiet_s: float
    rounds: int


class Bench:
    """The measurement on a running stack."""

    def __init__(self, stack: Stack, plan: Plan, reads: Reads, job: str, source: Path) -> None:
        self._stack = stack
        self._plan = plan
        self._reads = reads
        self._job = job
        self._source = source
        self._code = source.read_text(encoding="utf-8")
        self.phases = {name: Phase() for name in ("quiet", "ungoverned", "governed")}

    async def run(self) -> None:
        """All rounds; the order of the replays changes from one to the next."""
        for number in range(self._plan.rounds):
            order = ("ungoverned", "governed") if number % 2 == 0 else ("governed", "ungoverned")
            for name in order:
                await self._quiet()
                await self._replay(name)

    async def _quiet(self) -> None:
        await asyncio.sleep(_SETTLE_S)
        begin_s = time.monotonic()
        await asyncio.sleep(self._plan.quiet_s)
        self._take("quiet", begin_s)

    def _take(self, name: str, begin_s: float) -> None:
        phase, seen = self.phases[name], self._reads.between(begin_s, time.monotonic())
        phase.latencies_s += seen
        say(f"{name}: {len(seen):,} reads, p99 {Phase(seen).p99_ms:.1f} ms")

    async def _replay(self, name: str) -> None:
        """A new version of the job, from the first record to the end of the topic."""
        ratio = _RATIO_DEFAULT if name == "governed" else 0.0
        await self._stack.look.execute("update replayer.capacity set read_p99_ratio_max = $1", ratio)
        client, phase = self._stack.client, self.phases[name]
        version = await _apply(self._stack, self._source, f"{self._code}\n# {time.monotonic_ns()}\n")
        await client.start_run(self._job, version)
        begin_s = await self._begun(version)
        first = None
        while time.monotonic() - begin_s < _REPLAY_S_MAX:
            run = await client.get_run(self._job, version)
            now_s = time.monotonic()
            if first is None and run.records:
                first = (now_s, run.records)
            if run.throttle is not None:
                phase.reasons[run.throttle.reason.value] += 1
                phase.unexplained += not run.throttle.message
            if run.state is RunState.FAILED:
                raise RuntimeError(f"the replay failed: {run.status_message}")
            if run.records >= self._plan.records:
                break
            if int((now_s - begin_s) / _POLL_S) % 8 == 0:
                why = f"; {run.throttle.reason.value}: {run.throttle.message}" if run.throttle else ""
                say(f"  {run.records:,} records, {run.records_per_s:,.0f}/s{why}")
            await asyncio.sleep(_POLL_S)
        assert first is not None
        phase.records += run.records - first[1]
        phase.seconds += now_s - first[0]
        say(f"  {run.records - first[1]:,} records in {now_s - first[0]:.1f} s")
        self._take(name, begin_s)
        await client.stop_run(self._job, version)

    async def _begun(self, version: int) -> float:
        """When a worker holds a partition: from then on it is a copy."""
        while (await self._stack.client.get_run(self._job, version)).state is RunState.QUEUED:
            await asyncio.sleep(0.02)
        return time.monotonic()

    def result(self) -> dict[str, Any]:
        """The figures, to be printed as JSON."""
        quiet, ungoverned, governed = (self.phases[name] for name in ("quiet", "ungoverned", "governed"))
        return {
            "p99_ratio": round(governed.p99_ms / quiet.p99_ms, 2),
            "replay_share_of_full_speed": round(governed.records_per_s / ungoverned.records_per_s, 2),
            "ungoverned_p99_ratio": round(ungoverned.p99_ms / quiet.p99_ms, 2),
            "quiet_p99_ms": round(quiet.p99_ms, 2),
            "full_speed_records_per_s": round(ungoverned.records_per_s),
            "reads_per_s": self._plan.reads_per_s,
            "reads_failed": sum(phase.failed for phase in self.phases.values()),
            "reasons": dict(governed.reasons),
            "ungoverned_reasons": dict(ungoverned.reasons),  # a lagging tail or long writes slow down this one as well
            "unexplained": governed.unexplained,
        }


async def _apply(stack: Stack, source: Path, code: str) -> int:
    source.write_text(code, encoding="utf-8")
    return (await stack.client.apply(source)).version.number


async def _serve(stack: Stack, job: str, source: Path, records: int) -> None:
    """Version 1, caught up and active."""
    say("replaying the version that is to be read")
    version = await _apply(stack, source, source.read_text(encoding="utf-8"))
    await stack.client.start_run(job, version)
    while not (await stack.client.check_gates(job, version)).passed:
        await asyncio.sleep(_POLL_S)
    assert (await stack.client.get_run(job, version)).records == records
    await stack.client.cut_over(job, version)


@asynccontextmanager
async def _readers(target: str, job: str, per_s: float) -> AsyncIterator[Reads]:
    """Reads in a process of their own."""
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", "bench.reader", "--target", target, "--job", job, "--per-s", str(per_s)),
        stdout=asyncio.subprocess.PIPE,
    )
    reads = Reads()

    async def listen() -> None:
        assert process.stdout is not None
        with contextlib.suppress(asyncio.IncompleteReadError):
            while True:
                reads.add(*struct.unpack(FORMAT, await process.stdout.readexactly(struct.calcsize(FORMAT))))

    listening = asyncio.create_task(listen())
    try:
        yield reads
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.kill()
        await process.wait()
        await listening


async def _measure(plan: Plan, data_dir: Path | None) -> dict[str, Any]:
    async with running(data_dir) as stack:
        topic = topic_of(stack.kafka, plan.records)
        job, source = job_file(plan.mode, topic, stack.directory)
        await _serve(stack, job, source, plan.records)
        async with front(stack) as served, _readers(served.target, job, plan.reads_per_s) as reads:
            bench = Bench(stack, plan, reads, job, source)
            await bench.run()
        return bench.result()


def main(argv: Sequence[str]) -> int:
    """Exit status 0 when the reads kept their p99 and the replay its share."""
    parser = argparse.ArgumentParser(prog="python -m bench interference", description=__doc__)
    parser.add_argument(
        "--mode", choices=("aggregate", "fold"), default="aggregate", help="kind of the job (default: %(default)s)"
    )
    parser.add_argument("--records", type=at_least_one, default=3_000_000, metavar="N")
    parser.add_argument("--reads-per-s", type=above_zero, default=200.0, metavar="N", help="(default: %(default)g)")
    parser.add_argument("--quiet-s", type=above_zero, default=10.0, metavar="S", help="length of a quiet phase")
    parser.add_argument("--rounds", type=at_least_one, default=2, metavar="N")
    parser.add_argument("--quick", action="store_true", help="300,000 records, one round: a look, not a measurement")
    parser.add_argument("--data-dir", type=Path, help="keep the topic here for the next time")
    given = parser.parse_args(argv)
    plan = Plan(
        mode=given.mode,
        records=300_000 if given.quick else given.records,
        reads_per_s=given.reads_per_s,
        quiet_s=given.quiet_s,
        rounds=1 if given.quick else given.rounds,
    )
    result = uvloop.run(_measure(plan, given.data_dir))
    print(json.dumps(result), flush=True)
    return 0 if result["p99_ratio"] <= P99_RATIO_MAX and result["replay_share_of_full_speed"] >= SHARE_MIN else 1
