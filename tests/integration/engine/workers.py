"""A version with its table and positions, and worker processes on it, driven over the protocol."""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import textwrap
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any, TypeVar

import asyncpg

from services.replayer import ddl
from services.replayer.protocol import (
    Fault,
    PartitionState,
    Progress,
    Start,
    Stopped,
    TopicPartition,
    ToSupervisor,
    ToWorker,
    Waiting,
    decode_to_supervisor,
    encode,
)
from tests.support.eventually import eventually
from turnout import schema, testing
from turnout.job import Job, load
from turnout.sql import quoted, serving

REPOSITORY = Path(__file__).parents[3]
MIGRATIONS = REPOSITORY / "services" / "replayer" / "migrations"
END_WITHIN_S = 30.0

# As much of a run as lets workers take its partitions.
_RUN = """
insert into replayer.runs
    (version, job, number, state, artifact_digest, definition, workers, rate_limit, output_table, topic_ids,
     start_times, request_id)
values ($1, $2, 1, 'REPLAYING', '', '', 1, 0, $3, '{}', '[]', '')"""

M = TypeVar("M", bound=ToSupervisor)


class Version:
    """One version of one job: its file, its table, its positions."""

    def __init__(self, dsn: str, bootstrap: str, directory: Path, source: str, lease_s: float = 3.0) -> None:
        self.dsn = dsn
        self.bootstrap = bootstrap
        self.name = "jobs/tested/versions/1"
        self.directory = directory / "job"
        self.directory.mkdir(parents=True)
        (self.directory / "job.py").write_text(textwrap.dedent(source))
        self.job: Job[..., Any] = load(self.directory)
        self.definition = self.job.definition
        self.table = schema.table_name(self.definition.job, 1)
        self.lease_s = lease_s
        self.partitions: tuple[TopicPartition, ...] = ()
        self.log = directory / "workers.log"
        self._count = 0
        self._workers: list[WorkerProcess] = []

    async def create(
        self, starts: Mapping[TopicPartition, int], range_ends: Mapping[TopicPartition, int] | None = None
    ) -> None:
        """Make the table, and a position for each partition, where told with the end of a range; what another version
        of the test had made goes."""
        self.partitions, ends = tuple(sorted(starts)), range_ends or {}
        async with self.connection() as connection:
            await connection.execute("drop schema if exists replayer, serving cascade")
            await connection.execute("create schema serving; create schema replayer")
            for migration in sorted(MIGRATIONS.glob("*.sql")):
                await connection.execute(migration.read_text())
            await connection.execute(_RUN, self.name, self.definition.job, self.table)
            query = ddl.derived_types(self.definition)
            types = dict(await connection.fetchrow(query)) if query else {}
            await connection.execute(ddl.create_table(self.definition, self.table, types))
            for statement in ddl.create_upkeep_indexes(self.definition, self.table):
                await connection.execute(statement)
            await connection.executemany(
                "insert into serving.positions (version, topic, partition, start_offset, next_offset, range_end) "
                "values ($1, $2, $3, $4, $4, $5)",
                [(self.name, tp.topic, tp.partition, start, ends.get(tp)) for tp, start in starts.items()],
            )

    async def set_state(self, state: str) -> None:
        """The run's, which says whether it wants workers."""
        async with self.connection() as connection:
            await connection.execute("update replayer.runs set state = $2 where version = $1", self.name, state)

    @contextlib.asynccontextmanager
    async def connection(self) -> Any:
        connection = await asyncpg.connect(self.dsn)
        try:
            yield connection
        finally:
            await connection.close()

    async def worker(self, partitions: Iterable[TopicPartition] | None = None, **changes: Any) -> WorkerProcess:
        """Start a worker on the partitions, by default all."""
        self._count += 1
        start = Start(
            **{
                "version": self.name,
                "job": self.definition.job,
                "owner": f"worker-{self._count}",
                "artifact_dir": str(self.directory),
                "definition_json": schema.encode(self.definition).decode(),
                "kafka": {"bootstrap.servers": self.bootstrap},
                "postgres": self.dsn,
                "table": self.table,
                "lease_s": self.lease_s,
                "partitions": tuple(self.partitions if partitions is None else partitions),
                "transform_limit_s": 20.0,
                **changes,
            }
        )
        worker = WorkerProcess(start, self.log)
        await worker.begin()
        self._workers.append(worker)
        return worker

    async def end(self) -> None:
        """Kill every worker that is left."""
        for worker in self._workers:
            await worker.kill()

    async def rows(self) -> list[Any]:
        """The rows that readers see, as the job's row objects, sorted by key."""
        names = ", ".join(quoted(column.name) for column in self.definition.columns)
        keys = ", ".join(quoted(name) for name in self.definition.key)
        visible = " where not _deleted" if ddl.has_tombstones(self.definition) else ""
        async with self.connection() as connection:
            found = await connection.fetch(f"select {names} from {serving(self.table)}{visible} order by {keys}")
        to_row = self.job.compile().to_row
        return [to_row(tuple(row)) for row in found]

    def reference(self, messages: Iterable[testing.Input]) -> list[Any]:
        """The rows that the records give, computed in memory."""
        return list(testing.run(self.job, messages))

    async def positions(self) -> dict[TopicPartition, Any]:
        """The position rows."""
        async with self.connection() as connection:
            rows = await connection.fetch("select * from serving.positions where version = $1", self.name)
        return {TopicPartition(row["topic"], row["partition"]): row for row in rows}

    async def dead_letters(self) -> list[Any]:
        async with self.connection() as connection:
            return list(
                await connection.fetch(
                    'select * from serving.dead_letters where version = $1 order by partition, "offset"', self.name
                )
            )

    async def unowned(self) -> bool:
        """Whether every lease is released."""
        return all(row["owner"] is None for row in (await self.positions()).values())


class WorkerProcess:
    """One worker. `heard` is everything it said."""

    def __init__(self, start: Start, log: Path) -> None:
        self.start = start
        self.heard: list[ToSupervisor] = []
        self._log = log
        self._process: asyncio.subprocess.Process | None = None
        self._reader: asyncio.Task[None] | None = None

    async def begin(self) -> None:
        with self._log.open("ab") as log:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "services.replayer.engine",
                cwd=REPOSITORY,
                stdin=asyncio.subprocess.PIPE,
                stdout=asyncio.subprocess.PIPE,
                stderr=log,
                limit=1 << 22,
            )
        self._reader = asyncio.create_task(self._read())
        await self.say(self.start)

    @property
    def process(self) -> asyncio.subprocess.Process:
        assert self._process is not None
        return self._process

    async def _read(self) -> None:
        assert self.process.stdout is not None
        async for line in self.process.stdout:
            self.heard.append(decode_to_supervisor(line))

    async def say(self, message: ToWorker) -> None:
        assert self.process.stdin is not None
        self.process.stdin.write(encode(message))
        await self.process.stdin.drain()

    def hang_up(self) -> None:
        """End of file on its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.close()

    def signal(self, number: signal.Signals) -> None:
        os.kill(self.process.pid, number)

    async def kill(self) -> None:
        """SIGKILL."""
        if self.process.returncode is None:
            self.process.kill()
        await self.ended()

    async def ended(self) -> int:
        """Wait for its end; its exit status."""
        status = await asyncio.wait_for(self.process.wait(), END_WITHIN_S)
        assert self._reader is not None
        await self._reader
        return status

    def all_of(self, kind: type[M]) -> list[M]:
        return [message for message in self.heard if isinstance(message, kind)]

    @property
    def states(self) -> dict[TopicPartition, PartitionState]:
        """The newest state of each partition."""
        return {
            TopicPartition(state.topic, state.partition): state
            for progress in self.all_of(Progress)
            for state in progress.partitions
        }

    @property
    def waiting(self) -> str | None:
        """Why it waits now, or None."""
        for message in reversed(self.heard):
            if isinstance(message, Waiting):
                return message.reason
            if isinstance(message, Progress):
                return None
        return None

    async def at(self, offsets: dict[TopicPartition, int], deadline_s: float = 60.0) -> None:
        """Wait until it has committed that far and stands at the end of the log."""

        async def there() -> bool:
            self._alive()
            return all(
                tp in self.states and self.states[tp].next_offset >= offset and self.states[tp].at_end
                for tp, offset in offsets.items()
            )

        await eventually(there, deadline_s)

    async def until(self, records: int, deadline_s: float = 60.0) -> None:
        """Wait until it has reported that many records."""

        async def there() -> bool:
            self._alive()
            return sum(state.records for state in self.states.values()) >= records

        await eventually(there, deadline_s)

    async def fault(self) -> Fault:
        """Wait for it to end with a fault."""
        status = await self.ended()
        assert status == 3, self._tail()
        assert isinstance(self.heard[-1], Fault)
        return self.heard[-1]

    async def stopped(self) -> None:
        """Wait for it to end in order."""
        status = await self.ended()
        assert status == 0, self._tail()
        assert self.heard[-1] == Stopped()

    def _alive(self) -> None:
        if self.process.returncode is not None:
            raise RuntimeError(f"the worker ended with status {self.process.returncode}: {self._tail()}")

    def _tail(self) -> str:
        last = self.heard[-1] if self.heard else None
        return f"last said {last}; its log ends:\n{self._log.read_text(errors='replace')[-4000:]}"


def value(**fields: Any) -> bytes:
    """A record's value."""
    return json.dumps(fields).encode()
