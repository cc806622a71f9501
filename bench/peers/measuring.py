"""Runs a peer as processes of their own until its table is complete, and times it."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import secrets
import signal
import tempfile
import time
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Final

import asyncpg

from bench.peers import environments, flink, quix
from bench.peers.flink_jars import JARS
from bench.peers.values import CASES, TABLE, TABLES, Database, Job, PeerError, PeerResult, Sighting, Source, rates
from deploy.local.child import Child
from deploy.local.errors import LocalStackError

_LOGS: Final = Path(__file__).parents[2] / ".cache" / "bench"
_START_WITHIN_S: Final = 120.0
_PER_S_MIN: Final = 2_000  # a slower peer is stuck
_POLL_S: Final = 0.1
_TAIL_LINES: Final = 25
_CLOSE: Final = 0.8  # from here on every look is exact
_SAMPLED_PERCENT: Final = 5
_RECORDS_IN: Final = {"append": "count(*)", "aggregate": "coalesce(sum(n), 0)::bigint"}


def measure(
    peer: str, mode: str, *, kafka: str, postgres: str, topic: str, records: int, partitions: int
) -> PeerResult:
    """Let the peer bring the topic's `records` records into a table of its own, which is dropped afterwards.

    `kafka` is HOST:PORT, `postgres` a postgresql:// URL. Within a running event loop call it by `asyncio.to_thread`.
    Raises PeerError if the peer's environment is missing, or it ends early or is not done by its deadline; ValueError
    for a case that is not one of CASES and for a URL that the peers cannot use.
    """
    if (peer, mode) not in CASES:
        raise ValueError(f"no such case: {peer} {mode}")
    source, database = Source(kafka, topic, partitions), Database.of(postgres)
    try:
        return asyncio.run(_measure(peer, mode, source, database, postgres, records))
    except LocalStackError as error:
        raise PeerError(str(error)) from error


async def _measure(peer: str, mode: str, source: Source, database: Database, postgres: str, records: int) -> PeerResult:
    python = environments.python(peer)
    with tempfile.TemporaryDirectory(prefix="turnout-bench-") as directory:
        run_dir = Path(directory)
        job, environment = await _prepare(peer, mode, source, database, python, run_dir)
        environment = {**os.environ, **environment, "JOB": json.dumps(job.spec), "TMPDIR": directory}
        command = [python, Path(__file__).with_name(job.script)]
        children = [_child(f"{peer}-{mode}-{number}", run_dir) for number in range(job.processes)]
        async with _table(postgres, mode) as connection:
            try:
                start = time.monotonic()
                for child in children:
                    await child.start(command, environment=environment)
                first, last = await _until_complete(connection, mode, records, start, children)
            except PeerError as error:
                raise PeerError(f"{peer} {mode} {error}\n{_tails(children, database)}") from None
            finally:
                await asyncio.gather(*(child.kill() for child in children))
    per_s, steady_per_s = rates(first, last)
    return PeerResult(
        peer=peer,
        mode=mode,
        version=environments.version(peer),
        settings=job.settings,
        guarantee=job.guarantee,
        records=records,
        seconds_total=last.seconds,
        per_s=per_s,
        steady_per_s=steady_per_s,
    )


async def _prepare(
    peer: str, mode: str, source: Source, database: Database, python: Path, run_dir: Path
) -> tuple[Job, dict[str, str]]:
    """The job, and what its environment has on top of ours. Whatever it leaves behind lies in `run_dir`."""
    if peer == "quix":
        group = f"turnout-bench-{secrets.token_hex(4)}"
        return quix.job(source, database, group=group, state_dir=str(run_dir)), {}
    jars = sorted(str(jar) for jar in (await JARS.ensure()).glob("*.jar"))
    environment = {
        "JAVA_HOME": str(environments.java_home()),
        "JVM_ARGS": f"{flink.JVM} -Djava.io.tmpdir={run_dir}",
        "FLINK_LOG_DIR": str(_LOGS),
    }
    job = flink.job(mode, source, database, jars=jars, python=str(python), state_dir=str(run_dir))
    return job, environment


def _child(name: str, run_dir: Path) -> Child:
    # It is killed, never asked to stop: a Flink that ends in good order takes seconds that nobody measures.
    return Child(name, run_dir=run_dir, log=_LOGS / f"{name}.log", stop_signal=signal.SIGKILL, grace_s=1.0)


@contextlib.asynccontextmanager
async def _table(postgres: str, mode: str) -> AsyncIterator[asyncpg.Connection]:
    """The peer's empty table, and a connection to look at it."""
    connection = await asyncpg.connect(postgres)
    try:
        await connection.execute("SET max_parallel_workers_per_gather = 0")  # the cores are the peer's
        await connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
        await connection.execute(TABLES["aggregate" if mode == "aggregate" else "append"])
        try:
            yield connection
        finally:
            await connection.execute(f"DROP TABLE IF EXISTS {TABLE}")
    finally:
        await connection.close()


async def _until_complete(
    connection: asyncpg.Connection, mode: str, records: int, start: float, children: list[Child]
) -> tuple[Sighting, Sighting]:
    """The first look that found rows, and the first that found all.

    Looks cost the peer time, so from the first rows until the table is nearly full they read a sample only.
    """
    deadline_s = _START_WITHIN_S + records / _PER_S_MIN
    first: Sighting | None = None
    found = 0
    while True:
        ended = any(child.ended_by_itself for child in children)
        seconds = time.monotonic() - start
        exact = first is None or ended or found >= _CLOSE * records
        found = await _records(connection, mode, exact=exact)
        if exact and found:
            first = first or Sighting(seconds, found)
            if found == records:
                return first, Sighting(seconds, found)
            if found > records:
                raise PeerError(f"wrote {found:,} records instead of {records:,}: is that what the topic holds?")
        if ended:
            raise PeerError(f"ended with {found:,} of {records:,} records in its table")
        if seconds > deadline_s:
            raise PeerError(f"had only {found:,} of {records:,} records in its table after {seconds:.0f} s")
        looked_s = time.monotonic() - start - seconds
        await asyncio.sleep(max(_POLL_S, 2 * looked_s))


async def _records(connection: asyncpg.Connection, mode: str, *, exact: bool) -> int:
    sample = "" if exact else f"TABLESAMPLE SYSTEM ({_SAMPLED_PERCENT})"
    expression = _RECORDS_IN["aggregate" if mode == "aggregate" else "append"]
    found: int = await connection.fetchval(f"SELECT {expression} FROM {TABLE} {sample}")
    return found if exact else found * 100 // _SAMPLED_PERCENT


def _tails(children: list[Child], database: Database) -> str:
    """The last lines that each process wrote, without Java's frames and the password."""
    parts = []
    for child in children:
        lines = [line for line in child.log_since_start().splitlines() if not line.startswith("\tat ")]
        parts.append("\n".join([f"--- the end of {child.log}", *lines[-_TAIL_LINES:]]))
    text = "\n".join(parts)
    return text.replace(database.password, "***") if database.password else text
