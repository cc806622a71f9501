"""What the reads are measured on: two versions in two tables, a front, a bare server, and a process that reads."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from bench.reads.by_hand import Place
from bench.stack import Stack
from bench.workload import create_topic, ends, job_file, produce, say
from deploy.local.ports import HOST, free_port
from turnout.experiments import Units
from turnout.routing import WHOLE

CANDIDATE: Final = 500
"""The candidate's basis points in an experiment."""
_READY_S: Final = 60.0
_POLL_S: Final = 0.1


@dataclass(frozen=True)
class Table:
    """A table that is live, and no longer written to. rows: order ids go from 0 to below that."""

    job: str
    place: Place
    rows: int
    partitions: int
    experiment: str = ""  # a job with the same rows, twice, between which an experiment splits the units; "" = none


class Loader:
    """The process that reads; one thing at a time."""

    def __init__(self, process: asyncio.subprocess.Process) -> None:
        self._process = process

    async def __call__(self, do: str, **arguments: Any) -> Any:
        """Do one thing, and say what came of it."""
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.write(f"{json.dumps({'do': do, **arguments})}\n".encode())
        await self._process.stdin.drain()
        line = await self._process.stdout.readline()
        if not line:
            raise RuntimeError("the process that reads has ended; what it said is above")
        return json.loads(line)


async def live_table(stack: Stack, partitions: int, rows: int) -> Table:
    """Replay so many orders out of a topic with so many partitions, let the version serve, and stop its run."""
    say(f"making a table of {rows:,} rows from {partitions} partitions")
    topic = f"orders-{partitions}-{secrets.token_hex(3)}"
    create_topic(stack.kafka, topic, partitions)
    await asyncio.to_thread(produce, stack.kafka, topic, rows)
    assert ends(stack.kafka, topic, partitions) == rows
    job, source = job_file("append", topic, stack.directory)
    version, place = await _replayed(stack, job, source, None)
    await stack.client.cut_over(job, version)
    await stack.client.stop_run(job, version)
    return Table(job, place, rows, partitions, await _experiment(stack, topic))


async def _experiment(stack: Stack, topic: str) -> str:
    """A job over the topic whose units are split between two versions by an experiment."""
    job, source = job_file("append", topic, stack.directory)
    control, _ = await _replayed(stack, job, source, None)
    await stack.client.cut_over(job, control)
    source.write_text(f"{source.read_text(encoding='utf-8')}# the candidate\n", encoding="utf-8")
    candidate, _ = await _replayed(stack, job, source, control)
    weights = {control: WHOLE - CANDIDATE, candidate: CANDIDATE}
    await stack.client.create_experiment(job, "bench", weights, units=Units.CALLER)
    for version in weights:
        await stack.client.stop_run(job, version)
    return job


async def _replayed(stack: Stack, job: str, source: Path, active: int | None) -> tuple[int, Place]:
    """A version that has caught up, and its table, which is settled."""
    version = (await stack.client.apply(source)).version.number
    run = await stack.client.start_run(job, version)
    while not (await stack.client.check_gates(job, version, baseline=active)).passed:
        await asyncio.sleep(_POLL_S)
    await stack.look.execute(f"vacuum analyze serving.{run.table}")
    await stack.look.execute("vacuum analyze serving.positions")
    return version, Place(run.table, f"jobs/{job}/versions/{version}")


@asynccontextmanager
async def bare(stack: Stack, place: Place) -> AsyncIterator[str]:
    """The bare server for that table: its target."""
    target = f"{HOST}:{free_port()}"
    named = ("--table", place.table, "--version", place.version)
    async with _process(stack, "bench.reads.bare", "--listen", target, *named):
        await _listening(target)
        yield target


@asynccontextmanager
async def loader(stack: Stack) -> AsyncIterator[Loader]:
    """The process that reads."""
    async with _process(stack, "bench.reads.load") as process:
        yield Loader(process)


@asynccontextmanager
async def _process(stack: Stack, *arguments: str) -> AsyncIterator[asyncio.subprocess.Process]:
    process = await asyncio.create_subprocess_exec(
        *(sys.executable, "-m", *arguments),
        stdin=asyncio.subprocess.PIPE,
        stdout=asyncio.subprocess.PIPE,
        env={**os.environ, "TURNOUT_POSTGRES": stack.postgres},
        start_new_session=True,
        limit=16 * 1024 * 1024,
    )
    try:
        yield process
    finally:
        with contextlib.suppress(ProcessLookupError):
            process.terminate()
        await process.wait()


async def _listening(target: str) -> None:
    host, port = target.split(":")
    deadline_s = asyncio.get_running_loop().time() + _READY_S
    while True:
        try:
            _, writer = await asyncio.open_connection(host, int(port))
        except OSError:
            if asyncio.get_running_loop().time() > deadline_s:
                raise RuntimeError(f"nobody listens on {target} after {_READY_S:g} s") from None
            await asyncio.sleep(_POLL_S)
        else:
            writer.close()
            return
