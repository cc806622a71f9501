"""Runs, positions and leases in PostgreSQL. Statements are in queries.sql; decisions are not made here.

Every method raises Unavailable (POSTGRES_UNAVAILABLE) while PostgreSQL is away.
"""

import functools
import json
from collections.abc import AsyncIterator, Collection, Iterable, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, TypeAlias

from core.postgres import Pool, load_queries, migrate, open_pool, postgres_errors
from services.replayer.engine.identity import RecordIdentity
from services.replayer.engine.session import IS_OWNERS, session_name
from services.replayer.protocol import TopicPartition
from services.replayer.ranges import Extent
from services.replayer.replicas import Holder
from services.replayer.run import Position, Positions, Run
from services.replayer.states import Command, Event, IllegalCommandError, State, after
from turnout import log_range
from turnout.errors import FailedPrecondition, NotFound, Unavailable
from turnout.names import VersionId, parse_version
from turnout.schema import JobDefinition, decode, encode
from turnout.sql import serving

HERE = Path(__file__).parent
MIGRATIONS = HERE / "migrations"
QUERIES = load_queries(HERE / "queries.sql")

POOL_SIZE_MAX = 8
END_BACKEND_MS = 5000  # how long a backend that was told to end is waited for
_END_BACKENDS = f"""
select pg_terminate_backend(a.pid, $3::bigint)
from serving.positions p join pg_stat_activity a on {IS_OWNERS}
where p.version = $1 and p.owner = $2"""  # noqa: S608 - a constant

Row: TypeAlias = Any


@dataclass(frozen=True, slots=True)
class Failure:
    """Why a run failed: stable reason, and words for a person."""

    reason: str
    message: str


@dataclass(frozen=True, slots=True)
class Blocker:
    """A session that holds a lock which somebody waits for."""

    pid: int
    application: str
    age_s: float
    state: str

    def __str__(self) -> str:
        return f"session {self.pid} ({self.application}, {self.state}, for {self.age_s:.0f} s)"


class Store:
    """The replayer's tables through one pool, which `open` makes. Before it every method raises Unavailable."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._pool: Pool | None = None
        self._standing: Mapping[str, Run] = {}  # as read last, by version

    async def open(self) -> None:
        """Bring the schema up to date and open the pool."""
        with postgres_errors():
            pool = await open_pool(self._dsn, application_name="turnout replayer", max_size=POOL_SIZE_MAX)
        try:
            await migrate(pool, "replayer", MIGRATIONS)
        except BaseException:
            await pool.close()
            raise
        self._pool = pool

    async def close(self) -> None:
        """Close the pool."""
        if self._pool is not None:
            await self._pool.close()

    @property
    def pool(self) -> Pool:
        if self._pool is None:
            raise Unavailable("STARTING", "The replayer is starting; try again.")
        return self._pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[Any]:
        """A connection inside a transaction."""
        with postgres_errors():
            async with self.pool.acquire() as connection, connection.transaction():
                yield connection

    # --- runs ---

    async def find(self, version: VersionId) -> Run | None:
        """The run, or None."""
        with postgres_errors():
            row = await self.pool.fetchrow(QUERIES.run, version.name)
        return None if row is None else run_of(row)

    async def get(self, version: VersionId) -> Run:
        """The run; NotFound (RUN_NOT_FOUND)."""
        run = await self.find(version)
        if run is None:
            raise _not_found(version)
        return run

    async def find_by_request(self, request_id: str) -> Run | None:
        """The run that a StartRun with this request id began, or None."""
        with postgres_errors():
            row = await self.pool.fetchrow(QUERIES.run_by_request, request_id)
        return None if row is None else run_of(row)

    async def standing(self, connection: Any = None) -> list[Run]:
        """Every run whose table is there; inside the caller's transaction if there is one.

        Read all the time, so what has not changed since is neither sent nor decoded again.
        """
        with postgres_errors():
            asked = self.pool if connection is None else connection
            revisions = {row["version"]: row["revision"] for row in await asked.fetch(QUERIES.runs_standing)}
            known = self._standing
            changed = [
                one for one, revision in revisions.items() if one not in known or known[one].revision != revision
            ]
            rows = await asked.fetch(QUERIES.runs_of_versions, changed) if changed else []
        read = {row["version"]: run_of(row) for row in rows}
        found = {one: read.get(one) or known.get(one) for one in revisions}
        self._standing = {one: run for one, run in found.items() if run is not None and run.drop_time is None}
        return list(self._standing.values())

    async def dropped_measured(self, job: str, limit: int) -> list[Run]:
        """At most `limit` dropped runs that tell the speed of a copy, those of the job first, of them the newest."""
        with postgres_errors():
            return [run_of(row) for row in await self.pool.fetch(QUERIES.runs_dropped_measured, job, limit)]

    async def page(self, job: str | None, after_run: tuple[str, int], limit: int) -> list[Run]:
        """At most `limit` runs by (job, number) after the given one; of one job, or of all with None."""
        with postgres_errors():
            return [run_of(row) for row in await self.pool.fetch(QUERIES.runs_page, job, *after_run, limit)]

    async def of_job(self, job: str) -> list[Run]:
        """The runs of a job by number."""
        with postgres_errors():
            return [run_of(row) for row in await self.pool.fetch(QUERIES.runs_of_job, job)]

    async def insert(self, connection: Any, run: Run) -> Run | None:
        """Store a new run inside the caller's transaction; None when there is one of that version already."""
        row = await connection.fetchrow(
            QUERIES.insert_run,
            run.version.name,
            run.version.job,
            run.version.number,
            run.state.value,
            run.artifact_digest,
            encode(run.definition).decode(),
            run.workers,
            run.rate_limit,
            run.table,
            json.dumps(dict(run.topic_ids)),
            _times_text(run.start_times),
            run.indexes_built,
            run.request_id,
            run.priority,
            None if run.log_range is None else log_range.encode(run.log_range),
        )
        return None if row is None else run_of(row)

    async def change(
        self, version: VersionId, happening: Command | Event, failure: Failure | None = None
    ) -> tuple[Run, Run]:
        """Apply a command or an event: the run before and after it, in one transaction.

        NotFound (RUN_NOT_FOUND); FailedPrecondition (RUN_STATE) for a command that the state does not allow.
        """
        async with self.transaction() as connection:
            return await self.change_within(connection, version, happening, failure)

    async def change_within(
        self, connection: Any, version: VersionId, happening: Command | Event, failure: Failure | None = None
    ) -> tuple[Run, Run]:
        """See `change`; inside the caller's transaction."""
        run = _found_row(await connection.fetchrow(QUERIES.run_for_update, version.name), version)
        try:
            state = after(run.state, happening, run.facts)
        except IllegalCommandError as error:
            raise FailedPrecondition("RUN_STATE", f"{version}: {error}", metadata={"run": run.name}) from None
        if state is run.state:
            return run, run
        reason, message = (failure.reason, failure.message) if failure is not None else ("", "")
        row = await connection.fetchrow(QUERIES.set_state, version.name, state.value, reason, message)
        return run, run_of(row)

    async def set_rate(self, version: VersionId, rate_limit: int) -> Run:
        """Set the limit in records a second; 0 = none. NotFound (RUN_NOT_FOUND)."""
        with postgres_errors():
            return _found_row(await self.pool.fetchrow(QUERIES.set_rate, version.name, rate_limit), version)

    async def set_priority(self, version: VersionId, priority: int) -> Run | None:
        """Set the place in the queue of copies; None when the run is past its copy. NotFound (RUN_NOT_FOUND)."""
        with postgres_errors():
            row = await self.pool.fetchrow(QUERIES.set_priority, version.name, priority)
        if row is None:
            await self.get(version)
            return None
        return run_of(row)

    async def count_restart(self, version: VersionId, *, stuck: bool) -> Run:
        """One more worker was started in the place of a dead one, or of one that stood still."""
        with postgres_errors():
            return _found_row(await self.pool.fetchrow(QUERIES.count_restart, version.name, stuck), version)

    async def set_indexes_built(self, version: VersionId) -> Run:
        """The secondary indexes of the table exist."""
        with postgres_errors():
            return _found_row(await self.pool.fetchrow(QUERIES.set_indexes_built, version.name), version)

    # --- positions and leases ---

    async def insert_positions(
        self, connection: Any, version: VersionId, extents: Mapping[TopicPartition, Extent]
    ) -> None:
        """Positions at the starts of the given extents; those that exist stay as they are."""
        tps = sorted(extents)
        await connection.execute(
            QUERIES.insert_positions,
            version.name,
            [tp.topic for tp in tps],
            [tp.partition for tp in tps],
            [extents[tp].start for tp in tps],
            [extents[tp].end for tp in tps],
        )

    async def move_start(
        self, version: VersionId, starts: Mapping[TopicPartition, int], times: Mapping[TopicPartition, datetime]
    ) -> bool:
        """Let a queued run that has read nothing begin later; False when it is not queued any more.

        `starts`: of the partitions that move. `times`: of the first records of all.
        """
        tps = sorted(starts)
        async with self.transaction() as connection:
            run = _found_row(await connection.fetchrow(QUERIES.run_for_update, version.name), version)
            if run.state is not State.QUEUED:
                return False
            await connection.execute(
                QUERIES.move_starts,
                version.name,
                [tp.topic for tp in tps],
                [tp.partition for tp in tps],
                [starts[tp] for tp in tps],
            )
            await connection.execute(QUERIES.set_start_times, version.name, _times_text(times))
        return True

    async def add_partitions(self, version: VersionId, partitions: Iterable[TopicPartition]) -> None:
        """Positions at offset 0 for partitions that a topic was widened by."""
        async with self.transaction() as connection:
            await self.insert_positions(connection, version, dict.fromkeys(partitions, Extent(0)))

    async def positions(self, versions: Collection[VersionId] | None = None) -> dict[VersionId, Positions]:
        """The committed positions of the given runs, or of all, from one snapshot."""
        with postgres_errors():
            if versions is None:
                rows = await self.pool.fetch(QUERIES.positions)
            else:
                rows = await self.pool.fetch(QUERIES.positions_of, [version.name for version in versions])
        return positions_of(rows)

    async def release(self, version: VersionId, owner: str) -> None:
        """End what is left of a dead worker in the database and free its leases, so that another takes over at once."""
        with postgres_errors():
            await self.pool.execute(_END_BACKENDS, version.name, owner, END_BACKEND_MS)
            await self.pool.execute(QUERIES.free_leases, version.name, owner)

    async def holders(self, version: VersionId) -> list[Holder]:
        """The workers that may still write the run's rows."""
        with postgres_errors():
            rows = await self.pool.fetch(QUERIES.holders, version.name)
        return [Holder(row["owner"], row["lasts"], row["attended"]) for row in rows]

    async def worker_writes(self, owner: str) -> bool:
        """Whether PostgreSQL is doing something for a worker at this moment, such as a commit."""
        with postgres_errors():
            return bool(await self.pool.fetchval(QUERIES.worker_writes, session_name(owner)))

    async def session_works(self, pid: int) -> bool:
        """Whether PostgreSQL is doing something for a session at this moment."""
        with postgres_errors():
            return bool(await self.pool.fetchval(QUERIES.session_works, pid))

    # --- replicas ---

    async def remove_replica(self, instance: str) -> None:
        """This replica is gone, and what it has said of runs."""
        with postgres_errors():
            await self.pool.execute(QUERIES.remove_replica, instance)

    async def replicas(self) -> dict[str, dict[VersionId, tuple[str, ...]]]:
        """The live replicas, and what each says of runs."""
        with postgres_errors():
            rows = await self.pool.fetch(QUERIES.replicas)
        found: dict[str, dict[VersionId, tuple[str, ...]]] = {}
        for row in rows:
            said = found.setdefault(row["instance"], {})
            if row["version"] is not None:
                said[parse_version(row["version"])] = tuple(row["parts"])
        return found

    async def say(self, instance: str, version: VersionId, parts: tuple[str, ...]) -> None:
        """What a replica says of a run from now on."""
        with postgres_errors():
            if parts:
                await self.pool.execute(QUERIES.set_status, instance, version.name, list(parts))
            else:
                await self.pool.execute(QUERIES.delete_status, instance, version.name)

    # --- tables ---

    async def table_bytes(self, table: str) -> int | None:
        """Bytes of an output table with its indexes; None when there is none."""
        with postgres_errors():
            found = await self.pool.fetchval(QUERIES.table_bytes, serving(table))
        return None if found is None else int(found)

    async def column_types(self, table: str) -> dict[str, str]:
        """PostgreSQL type of each column of an output table; empty when there is none."""
        with postgres_errors():
            rows = await self.pool.fetch(QUERIES.column_types, serving(table))
        return {row["name"]: row["type"] for row in rows}

    async def blocker(self, relation: str) -> Blocker | None:
        """The session with the oldest lock on a table or view of the schema "serving", if there is one."""
        with postgres_errors():
            row = await self.pool.fetchrow(QUERIES.blockers, serving(relation))
        return None if row is None else Blocker(row["pid"], row["application"], row["age_s"], row["state"])


@functools.lru_cache(maxsize=512)
def _definition(text: str) -> JobDefinition:
    return decode(text)


def run_of(row: Row) -> Run:
    """A run from its row."""
    return Run(
        version=parse_version(row["version"]),
        state=State(row["state"]),
        failure_reason=row["failure_reason"],
        failure_message=row["failure_message"],
        artifact_digest=row["artifact_digest"],
        definition=_definition(row["definition"]),
        workers=row["workers"],
        rate_limit=row["rate_limit"],
        table=row["output_table"],
        topic_ids=json.loads(row["topic_ids"]),
        start_times={
            TopicPartition(topic, partition): datetime.fromtimestamp(ms / 1000, UTC)
            for topic, partition, ms in json.loads(row["start_times"])
        },
        indexes_built=row["indexes_built"],
        worker_restarts=row["worker_restarts"],
        revision=row["revision"],
        request_id=row["request_id"],
        create_time=row["create_time"],
        priority=row["priority"],
        queue_time=row["queue_time"],
        stuck_restarts=row["stuck_restarts"],
        catch_up_time=row["catch_up_time"],
        admit_time=row["admit_time"],
        admit_offsets=row["admit_offsets"],
        copy_offsets=row["copy_offsets"],
        copy_s=row["copy_s"],
        drop_time=row["drop_time"],
        log_range=None if row["log_range"] is None else log_range.decode(row["log_range"]),
    )


def _found_row(row: Row | None, version: VersionId) -> Run:
    if row is None:
        raise _not_found(version)
    return run_of(row)


def _not_found(version: VersionId) -> NotFound:
    return NotFound("RUN_NOT_FOUND", f"{version} has no run; start one first.", metadata={"run": version.run_name})


def _times_text(times: Mapping[TopicPartition, datetime]) -> str:
    return json.dumps([[tp.topic, tp.partition, _unix_ms(time)] for tp, time in sorted(times.items())])


def _unix_ms(time: datetime) -> int:
    return round(time.timestamp() * 1000)


def _identity(row: Row) -> RecordIdentity | None:
    if row["last_offset"] is None:
        return None
    return RecordIdentity(row["last_offset"], row["last_timestamp_ms"], row["last_crc"])


def positions_of(rows: Iterable[Row]) -> dict[VersionId, Positions]:
    """Positions by version from rows of serving.positions."""
    found: dict[VersionId, dict[TopicPartition, Position]] = {}
    for row in rows:
        found.setdefault(parse_version(row["version"]), {})[TopicPartition(row["topic"], row["partition"])] = Position(
            start_offset=row["start_offset"],
            next_offset=row["next_offset"],
            event_time=row["event_time"],
            records=row["records"],
            set_aside=row["set_aside"],
            owner=row["owner"] or "",
            last=_identity(row),
            rows_written=row["rows_written"],
            bytes_written=row["bytes_written"],
            range_end=row["range_end"],
        )
    return dict(found)
