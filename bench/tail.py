"""`python -m bench tail`: how long a record takes from the producer to a reader of the table, at a steady rate.

A record counts as visible when a SELECT on another connection has seen its row. Then the run is paused while a backlog
piles up, and resumed: it must work that off in big batches, and come back to small ones.
"""

import argparse
import asyncio
import json
import statistics
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

import asyncpg
from confluent_kafka import Producer

from bench.arguments import above_zero, at_least_one
from bench.goals import at_most, status
from bench.stack import Stack, running
from bench.workload import PARTITIONS, create_topic, ends, job_file, orders, produce, say
from turnout.results import Run, RunState
from turnout.tasks import beside

GOALS: Final = {"p99_ms": at_most(150), "after_p99_ms": at_most(150)}
TICK_S: Final = 0.005
WARM_UP_S: Final = 3.0
WITHIN_S: Final = 120.0  # for a state, or for everything to be visible

_DONE: Final = "select sum(next_offset)::bigint from serving.positions where version = $1"


@dataclass
class Tail:
    """A run at the end of its log, a reader of its table, and a watcher of its positions."""

    stack: Stack
    run: Run
    topic: str
    reader: Any
    watcher: Any
    produced: int = 0  # orders so far: their ids are 0, 1, ...

    @property
    def version(self) -> str:
        return f"jobs/{self.run.job}/versions/{self.run.version}"

    async def done(self) -> int:
        """Records committed."""
        return int(await self.watcher.fetchval(_DONE, self.version))

    async def state(self, *states: RunState) -> None:
        """Wait until the run is in one of these states."""
        deadline_s = time.monotonic() + WITHIN_S
        while (run := await self.stack.client.get_run(self.run.job, self.run.version)).state not in states:
            if run.state is RunState.FAILED or time.monotonic() > deadline_s:
                raise RuntimeError(f"the run is {run.state.name} and not {states}: {run.status_message}")
            await asyncio.sleep(0.1)

    async def load(self, count: int) -> None:
        """Produce so many orders at once."""
        await asyncio.to_thread(produce, self.stack.kafka, self.topic, count, self.produced)
        self.produced += count


@dataclass
class Latencies:
    """Milliseconds from the producer to the reader, of those to Kafka's acknowledgement, and records a commit."""

    milliseconds: list[float] = field(default_factory=list)
    acknowledged: list[float] = field(default_factory=list)
    commits: list[int] = field(default_factory=list)

    @property
    def commit(self) -> float:
        return round(statistics.median(self.commits)) if self.commits else 0


def percentile(values: list[float], percent: float) -> float:
    """By rank, to a tenth."""
    ordered = sorted(values)
    return round(ordered[min(len(ordered) - 1, int(len(ordered) * percent / 100))], 1)


async def at_rate(tail: Tail, per_s: int, seconds: float) -> Latencies:
    """Produce at the rate for so long, and see every record arrive; what is produced first only warms up."""
    sent: dict[int, float] = {}
    counted_from_s = time.monotonic() + WARM_UP_S
    result = Latencies()
    producing = asyncio.create_task(_produce(tail, per_s, WARM_UP_S + seconds, sent, result))
    seen_at_s = time.monotonic()
    async with _commits(tail) as result.commits:
        while not producing.done() or sent:
            await asyncio.sleep(TICK_S)
            if not sent:
                continue
            rows = await tail.reader.fetch(
                f"select order_id from serving.{tail.run.table} where order_id >= $1", min(sent)
            )
            now_s = time.monotonic()
            for (order_id,) in rows:
                produced_s = sent.pop(order_id, None)
                if produced_s is not None:
                    seen_at_s = now_s
                    if produced_s >= counted_from_s:
                        result.milliseconds.append((now_s - produced_s) * 1000)
            if now_s - seen_at_s > WITHIN_S:
                raise RuntimeError(f"{len(sent):,} records were not visible within {WITHIN_S:g} s")
    await producing
    return result


async def _produce(tail: Tail, per_s: int, seconds: float, sent: dict[int, float], result: Latencies) -> None:
    settings = {"linger.ms": 5, "compression.type": "lz4", "log_level": 0}
    # A broker that is slow for a moment then gets fuller requests, not a queue of tiny ones that never ends.
    settings["max.in.flight.requests.per.connection"] = PARTITIONS
    producer = Producer({"bootstrap.servers": tail.stack.kafka, **settings})
    began_s, count = time.monotonic(), int(per_s * seconds)
    for number, (user, value) in enumerate(orders(count, tail.produced)):
        due_s = began_s + number / per_s
        while (wait_s := due_s - time.monotonic()) > 0:
            producer.poll(0)
            await asyncio.sleep(max(wait_s, TICK_S))
        produced_s = sent[tail.produced] = time.monotonic()

        def acknowledged(_error: Any, _message: Any, produced_s: float = produced_s) -> None:
            result.acknowledged.append((time.monotonic() - produced_s) * 1000)

        producer.produce(tail.topic, value, user, on_delivery=acknowledged)
        tail.produced += 1
    await asyncio.to_thread(producer.flush, WITHIN_S)


@asynccontextmanager
async def _commits(tail: Tail) -> AsyncIterator[list[int]]:
    """The sizes of the commits meanwhile, as seen from outside: two that follow at once count as one."""
    sizes: list[int] = []

    done = await tail.done()

    async def watch() -> None:
        nonlocal done
        while True:
            await asyncio.sleep(TICK_S)
            now = await tail.done()
            if now > done:
                sizes.append(now - done)
            done = now

    async with beside(watch()):
        yield sizes


async def backlog(tail: Tail, count: int) -> dict[str, Any]:
    """Pause the run, let so many records pile up, resume it, and wait until they are all committed."""
    await tail.stack.client.pause_run(tail.run.job, tail.run.version)
    await tail.load(count)
    began_s = time.monotonic()
    async with _commits(tail) as sizes:
        await tail.stack.client.resume_run(tail.run.job, tail.run.version)
        while sum(sizes) < count:
            await asyncio.sleep(TICK_S)
            if time.monotonic() - began_s > WITHIN_S:
                raise RuntimeError(f"{count - sum(sizes):,} records of the backlog are left after {WITHIN_S:g} s")
    seconds = time.monotonic() - began_s
    await tail.state(RunState.TAILING)
    return {
        "backlog_records": count,
        "backlog_s": round(seconds, 2),
        "backlog_records_per_s": round(count / seconds),
        "backlog_batch_max": max(sizes),
    }


def _percentiles(latencies: Latencies) -> dict[str, float]:
    """Produce to visible, and to Kafka's acknowledgement."""
    return {
        **{f"p{percent}_ms": percentile(latencies.milliseconds, percent) for percent in (50, 95, 99)},
        "acknowledged_p99_ms": percentile(latencies.acknowledged, 99),
    }


async def _run(given: argparse.Namespace) -> dict[str, Any]:
    async with running(given.data_dir) as stack:
        topic = f"tail-{time.time_ns()}"
        create_topic(stack.kafka, topic)
        await asyncio.to_thread(produce, stack.kafka, topic, 1_000)
        assert ends(stack.kafka, topic) == 1_000
        job, file = job_file("append", topic, stack.directory)
        version = (await stack.client.apply(file)).version.number
        file.unlink()
        run = await stack.client.start_run(job, version)
        reader, watcher = [await asyncpg.connect(stack.postgres) for _ in range(2)]
        try:
            tail = Tail(stack, run, topic, reader, watcher, produced=1_000)
            await tail.state(RunState.TAILING)
            say(f"the run tails; producing {given.rate:,} records/s for {given.seconds:g} s")
            before = await at_rate(tail, given.rate, given.seconds)
            say(f"{json.dumps(_percentiles(before))}, {before.commit:g} records a commit")
            say(f"paused; a backlog of {given.backlog:,} records piles up")
            worked_off = await backlog(tail, given.backlog)
            size = worked_off["backlog_batch_max"]
            say(f"worked off in {worked_off['backlog_s']} s, {size:,} records a commit at the most")
            after = await at_rate(tail, given.rate, given.seconds / 2)
            await stack.client.stop_run(job, version)
        finally:
            await reader.close()
            await watcher.close()
    return {
        "records_per_s": given.rate,
        **_percentiles(before),
        "batch_median": before.commit,
        **worked_off,
        **{f"after_{name}": value for name, value in _percentiles(after).items()},
        "after_batch_median": after.commit,
    }


def main(arguments: Sequence[str]) -> int:
    """Measure, and print the answer as one JSON object in the last line. Exit status 0 when all goals are reached."""
    parser = argparse.ArgumentParser(prog="python -m bench tail", description=__doc__)
    parser.add_argument(
        "--rate", type=at_least_one, default=5_000, metavar="N", help="records a second (default: %(default)s)"
    )
    parser.add_argument("--seconds", type=above_zero, default=20.0, metavar="S", help="default: %(default)g")
    parser.add_argument(
        "--backlog", type=at_least_one, default=500_000, metavar="N", help="records (default: %(default)s)"
    )
    parser.add_argument("--quick", action="store_true", help="5 seconds, a backlog of 100,000")
    parser.add_argument("--data-dir", type=Path, help="keep everything here (default: a temporary directory)")
    given = parser.parse_args(arguments)
    if given.quick:
        given.seconds, given.backlog = 5.0, 100_000
    answer = asyncio.run(_run(given))
    code = status(answer, GOALS)
    print(json.dumps(answer))
    return code
