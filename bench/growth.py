"""`python -m bench growth`: what one change of a route costs where there are 1,000 jobs instead of one.

A real job of two versions is cut over to and fro on the real services, while simulated fronts watch, prepare and serve
at once; first alone, then among 999 other jobs with ten versions each. Beside it what one change costs a front itself:
to adopt it, and to have it on disk.
"""

import argparse
import asyncio
import contextlib
import json
import statistics
import tempfile
import time
from collections.abc import AsyncIterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, Final, cast

import grpc
import uvloop

from bench.arguments import at_least_one
from bench.goals import at_most, status
from bench.reads.resolving import table
from bench.stack import Stack, running
from bench.workload import create_topic, job_file, produce, say
from turnout.reading.routes_file import RoutesFile, StoredRoutes
from turnout.reading.routing import Committed, RoutingTable
from turnout.routing import Route
from turnout.switcher.v1 import front_pb2, switcher_pb2_grpc

GOALS: Final = {
    "change_many_jobs_vs_one": at_most(1.5),
    "stored_many_jobs_vs_one": at_most(1.5),
}
VERSIONS_A_JOB: Final = 10
_CHANNELS: Final = 4
_BEAT_S: Final = 1.0
_LEASE_S: Final = 30.0  # of a machine that bears all of them
_GOODBYE_S: Final = 10.0
_POLL_S: Final = 0.1
_WITHIN_S: Final = 60.0

_BALLAST: Final = """
insert into switcher.routes
    (job, epoch, route, proposal, revision, update_time, view_due_epoch, view_epoch, view_version)
select 'ballast-' || n, r.epoch, r.route, 'ballast-' || n, r.revision, r.update_time, r.epoch, r.epoch, r.view_version
from switcher.routes r, generate_series(1, $2::integer) n where r.job = $1
"""
_BALLAST_JOBS: Final = """
insert into registry.jobs select 'ballast-' || n, 'ballast', $2, j.create_time
from registry.jobs j, generate_series(1, $3::integer) n where j.job = $1
"""
_BALLAST_VERSIONS: Final = """
insert into registry.versions (job, number, state, definition_json, artifact_digest, artifact_bytes, create_time)
select 'ballast-' || n, k, v.state, v.definition_json, v.artifact_digest, v.artifact_bytes, v.create_time
from registry.versions v, generate_series(1, $3::integer) n, generate_series(1, $2::integer) k
where v.job = $1 and v.number = 1
"""


@dataclass
class SimulatedFront:
    """A front that has no tables and is ready for everything."""

    name: str
    stub: Any
    outbox: "asyncio.Queue[front_pb2.WatchRoutesRequest | None]" = field(default_factory=asyncio.Queue)
    has_snapshot: asyncio.Event = field(default_factory=asyncio.Event)
    snapshot_bytes: int = 0
    change_bytes: list[int] = field(default_factory=list)

    async def watch(self) -> None:
        """Until `outbox` is given None, which says goodbye."""
        hello = front_pb2.Hello(front=self.name, address="simulated")
        hello.may_serve_for.FromTimedelta(timedelta(seconds=1))
        self.outbox.put_nowait(front_pb2.WatchRoutesRequest(hello=hello))
        beating = asyncio.create_task(self._beat())
        call = self.stub.WatchRoutes(self._requests())
        try:
            async for message in call:
                self._received(message)
        finally:
            beating.cancel()
            call.cancel()

    async def _requests(self) -> AsyncIterator[front_pb2.WatchRoutesRequest]:
        while (request := await self.outbox.get()) is not None:
            yield request

    async def _beat(self) -> None:
        sequence = 0
        while True:
            await asyncio.sleep(_BEAT_S)
            sequence += 1
            self.outbox.put_nowait(front_pb2.WatchRoutesRequest(heartbeat=front_pb2.Heartbeat(sequence=sequence)))

    def _received(self, message: front_pb2.WatchRoutesResponse) -> None:
        match message.WhichOneof("message"):
            case "snapshot":
                self.snapshot_bytes = message.ByteSize()
                self.has_snapshot.set()
            case "proposal":
                self._report(message.proposal.proposal, front_pb2.Report.PREPARED)
            case "route_committed":
                self.change_bytes.append(message.ByteSize())
                self._report(message.route_committed.proposal, front_pb2.Report.SERVING)
                self._report(message.route_committed.proposal, front_pb2.Report.DRAINED)

    def _report(self, proposal: str, state: front_pb2.Report.State.ValueType) -> None:
        self.outbox.put_nowait(front_pb2.WatchRoutesRequest(report=front_pb2.Report(proposal=proposal, state=state)))


@asynccontextmanager
async def _fronts(target: str, count: int) -> AsyncIterator[list[SimulatedFront]]:
    """So many simulated fronts, each with its snapshot."""
    async with contextlib.AsyncExitStack() as stack:
        channels = [grpc.aio.insecure_channel(target, options=[("bench.channel", n)]) for n in range(_CHANNELS)]
        for channel in channels:
            stack.push_async_callback(channel.close)
        stubs = [cast(Any, switcher_pb2_grpc.SwitcherStub(channel)) for channel in channels]
        fronts = [SimulatedFront(f"simulated-{n}", stubs[n % _CHANNELS]) for n in range(count)]
        watching = [asyncio.create_task(front.watch()) for front in fronts]
        try:
            await _ready(fronts, watching)
            yield fronts
        finally:
            for front in fronts:
                front.outbox.put_nowait(None)  # goodbye
            await asyncio.wait(watching, timeout=_GOODBYE_S)
            for task in watching:
                task.cancel()
            await asyncio.gather(*watching, return_exceptions=True)


async def _ready(fronts: Sequence[SimulatedFront], watching: Sequence[asyncio.Task[None]]) -> None:
    """Wait for every snapshot; raises what a watch failed with."""
    async with asyncio.timeout(_WITHIN_S):
        for front, task in zip(fronts, watching, strict=True):
            waiting = asyncio.create_task(front.has_snapshot.wait())
            await asyncio.wait([waiting, task], return_when=asyncio.FIRST_COMPLETED)
            if task.done():
                waiting.cancel()
                task.result()
                raise RuntimeError(f"the switcher ended the watch of {front.name}")


@dataclass
class Phase:
    """What was measured with so many jobs."""

    snapshot_ms: float
    snapshot_bytes: int
    change_ms: list[float] = field(default_factory=list)
    change_bytes: int = 0

    @property
    def p50_ms(self) -> float:
        return statistics.median(self.change_ms)


async def _phase(stack: Stack, job: str, fronts_count: int, changes: int) -> Phase:
    """Cut the job over to and fro, that often."""
    began_s = time.monotonic()
    async with _fronts(stack.target, fronts_count) as fronts:
        phase = Phase((time.monotonic() - began_s) * 1000, fronts[0].snapshot_bytes)
        for number in range(changes + 2):
            began_s = time.monotonic()
            await stack.client.cut_over(job, 2 - number % 2, override_gates=["catch-up"])  # it may lag for a moment
            if number >= 2:  # the first ones warm up
                phase.change_ms.append((time.monotonic() - began_s) * 1000)
        phase.change_bytes = max(fronts[0].change_bytes)
    return phase


async def _two_versions(stack: Stack) -> str:
    """A job whose versions 1 and 2 have both caught up; version 1 is active."""
    topic = f"growth-{time.time_ns()}"
    create_topic(stack.kafka, topic)
    await asyncio.to_thread(produce, stack.kafka, topic, 1_000)
    job, source = job_file("append", topic, stack.directory)
    code = source.read_text(encoding="utf-8")
    for number in (1, 2):
        source.write_text(f"{code}\n# {number}\n", encoding="utf-8")
        version = (await stack.client.apply(source)).version.number
        await stack.client.start_run(job, version)
        while not (await stack.client.check_gates(job, version)).passed:
            await asyncio.sleep(_POLL_S)
        if number == 1:
            await stack.client.cut_over(job, version)
    return job


async def _ballast(stack: Stack, job: str, jobs: int) -> None:
    """So many other jobs, with routes and versions like the job's."""
    await stack.look.execute(_BALLAST, job, jobs)
    await stack.look.execute(_BALLAST_JOBS, job, VERSIONS_A_JOB, jobs)
    await stack.look.execute(_BALLAST_VERSIONS, job, VERSIONS_A_JOB, jobs)
    await stack.look.execute("analyze")


# --- in a front -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Adopted:
    """What one change costs a front, by the median: to put it in place, and to have it on disk."""

    adopt_us: float
    store_ms: float


def adopted(jobs: int, changes: int = 200) -> Adopted:
    """With so many jobs of 64 intervals each."""
    full = table()
    known = list(full.committed.values())[:jobs]
    routes = RoutingTable().with_snapshot(full.revision, known)
    adopt_us, store_ms = [], []
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as directory:
        file = RoutesFile(Path(directory) / "routes.json")
        file.store(StoredRoutes(routes, datetime.now(UTC)))
        for number in range(changes):
            before = known[number % jobs].route
            route = Route(before.job, number + 2, 1, before.arms, before.salt, before.intervals)
            began_s = time.process_time()
            routes = routes.with_commit(Committed(full.revision + number + 1, "p", route))
            adopt_us.append((time.process_time() - began_s) * 1e6)
            began_s = time.perf_counter()
            file.store(StoredRoutes(routes, datetime.now(UTC)))
            store_ms.append((time.perf_counter() - began_s) * 1000)
    return Adopted(statistics.median(adopt_us), statistics.median(store_ms))


async def _measure(given: argparse.Namespace) -> dict[str, Any]:
    in_one, in_many = await asyncio.to_thread(adopted, 1), await asyncio.to_thread(adopted, 1_000)
    async with running(given.data_dir, ["--reader-lease-s", str(_LEASE_S)]) as stack:
        job = await _two_versions(stack)
        say(f"one job, {given.fronts} fronts")
        one = await _phase(stack, job, given.fronts, given.changes)
        await _ballast(stack, job, given.jobs - 1)
        say(f"{given.jobs:,} jobs, {given.jobs * VERSIONS_A_JOB:,} versions, {given.fronts} fronts")
        many = await _phase(stack, job, given.fronts, given.changes)
    return {
        "change_many_jobs_vs_one": round(many.p50_ms / one.p50_ms, 2),
        "stored_many_jobs_vs_one": round(in_many.store_ms / in_one.store_ms, 2),
        "change_ms_p50": round(many.p50_ms, 1),
        "change_ms_p50_one_job": round(one.p50_ms, 1),
        "change_bytes_a_front": many.change_bytes,
        "adopt_us": round(in_many.adopt_us, 1),
        "adopt_us_one_job": round(in_one.adopt_us, 1),
        "store_ms": round(in_many.store_ms, 2),
        "snapshot_bytes": many.snapshot_bytes,
        "snapshot_bytes_one_job": one.snapshot_bytes,
        "snapshots_ms": round(many.snapshot_ms),
        "snapshots_ms_one_job": round(one.snapshot_ms),
    }


def main(argv: Sequence[str]) -> int:
    """Exit status 0 when a change costs no more among many jobs."""
    parser = argparse.ArgumentParser(prog="python -m bench growth", description=__doc__)
    parser.add_argument("--jobs", type=at_least_one, default=1_000, metavar="N", help="default: %(default)s")
    parser.add_argument("--fronts", type=at_least_one, default=100, metavar="N", help="default: %(default)s")
    parser.add_argument("--changes", type=at_least_one, default=20, metavar="N", help="default: %(default)s")
    parser.add_argument("--data-dir", type=Path, help="keep everything here (default: a temporary directory)")
    answer = uvloop.run(_measure(parser.parse_args(argv)))
    code = status(answer, GOALS)
    print(json.dumps(answer), flush=True)
    return code
