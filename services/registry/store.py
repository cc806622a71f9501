"""Jobs, versions and retirements in PostgreSQL. Statements are in queries.sql; decisions are made in the pure files.

Every method raises Unavailable (POSTGRES_UNAVAILABLE) while PostgreSQL is away.
"""

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import replace
from datetime import datetime
from pathlib import Path
from typing import Any
from uuid import UUID, uuid4

from core.postgres import Pool, load_queries, postgres_errors
from services.registry.lifecycle import State
from services.registry.numbering import Known, Numbered, number
from services.registry.records import Code, Job, RequestKey, Version
from services.registry.retirement import Change, Retirement, Step
from turnout.errors import AlreadyExists, InvalidInput, NotFound, Unavailable
from turnout.log_range import LogRange, decode, encode
from turnout.names import VersionId, job_name

HERE = Path(__file__).parent
MIGRATIONS = HERE / "migrations"
QUERIES = load_queries(HERE / "queries.sql")

_Transaction = Any  # an asyncpg connection inside a transaction


class Store:
    """The registry's tables through one pool."""

    def __init__(self) -> None:
        self._pool: Any = None

    def open(self, pool: Pool) -> None:
        """Use this pool from now on. Before, every method raises Unavailable (STARTING)."""
        self._pool = pool

    @asynccontextmanager
    async def transaction(self) -> AsyncIterator[_Transaction]:
        """A transaction of its own; commits at the end of the block."""
        if self._pool is None:
            raise Unavailable("STARTING", "The registry is starting; try again.")
        with postgres_errors():
            async with self._pool.acquire() as connection, connection.transaction():
                yield connection

    async def once(
        self,
        key: RequestKey,
        now: datetime,
        work: Callable[[_Transaction], Awaitable[bytes]],
    ) -> bytes:
        """The answer of `work`, done in one transaction; of a repeated request the first answer.

        InvalidInput (REQUEST_ID_REUSED) when the id came with another request before.
        """
        async with self.transaction() as tx:
            if not key.request_id:
                return await work(tx)
            if await tx.fetchval(QUERIES.begin_request, key.method, key.request_id, key.fingerprint, now) is None:
                answer = await _answered(tx, key)
                assert answer is not None
                return answer
            result = await work(tx)
            await tx.execute(QUERIES.end_request, key.method, key.request_id, result)
            return result

    async def answered(self, key: RequestKey) -> bytes | None:
        """The answer that was remembered; None = none."""
        async with self.transaction() as tx:
            return await _answered(tx, key) if key.request_id else None

    async def remember(self, key: RequestKey, answer: bytes, now: datetime) -> None:
        """Keep the answer of a request that took more than one transaction."""

        async def remembered(_: _Transaction) -> bytes:
            return answer

        await self.once(key, now, remembered)

    async def forget_requests(self, before: datetime) -> None:
        """Delete the answers of requests older than that."""
        async with self.transaction() as tx:
            await tx.execute(QUERIES.forget_requests, before)

    # --- jobs and versions ---

    async def insert_job(self, tx: _Transaction, job: str, description: str, now: datetime) -> Job:
        """A new job; AlreadyExists (JOB_EXISTS)."""
        row = await tx.fetchrow(QUERIES.insert_job, job, description, now)
        if row is None:
            raise AlreadyExists(
                "JOB_EXISTS", f"There is a job {job} already; use it or choose another id.", metadata={"job": job}
            )
        await tx.execute(QUERIES.audit, now, job, None, "CREATE_JOB", "", None, "")
        return _job(row)

    async def job(self, job: str) -> Job:
        """One job; NotFound (JOB_NOT_FOUND)."""
        async with self.transaction() as tx:
            row = await tx.fetchrow(QUERIES.job, job)
        if row is None:
            raise _no_job(job)
        return _job(row)

    async def jobs(self, after: str | None, limit: int) -> list[Job]:
        """Jobs ordered by id, those behind `after`."""
        async with self.transaction() as tx:
            return [_job(row) for row in await tx.fetch(QUERIES.jobs_after, after, limit)]

    async def number_version(
        self, tx: _Transaction, job: str, code: Code, expected: int, now: datetime, *, keep: bool
    ) -> tuple[Version, bool]:
        """The version that this code is, and whether it is new; stored if `keep`.

        NotFound (JOB_NOT_FOUND); FailedPrecondition (VERSION_MISMATCH) as `numbering.number` says. The job's row is
        locked, so that two uploads get two numbers.
        """
        last_number = await tx.fetchval(QUERIES.lock_job, job)
        if last_number is None:
            raise _no_job(job)
        live = [_known(row) for row in await tx.fetch(QUERIES.registered_versions, job)]
        numbered = number(live, last_number, code.artifact_digest, code.definition_json, expected, code.log_range)
        if not numbered.created:
            return await self._version(tx, VersionId(job, numbered.number)), False
        version = _new_version(job, numbered, code, now)
        if keep:
            await self._insert_version(tx, version, code, now)
        return version, True

    async def version(self, version: VersionId) -> Version:
        """One version with its retirement; NotFound (VERSION_NOT_FOUND)."""
        async with self.transaction() as tx:
            return await self._version(tx, version)

    async def versions(self, job: str, before: int | None, limit: int) -> list[Version]:
        """Versions of a job, newest first, those below `before`; NotFound (JOB_NOT_FOUND)."""
        async with self.transaction() as tx:
            rows = await tx.fetch(QUERIES.versions_before, job, before, limit)
            if not rows and await tx.fetchrow(QUERIES.job, job) is None:
                raise _no_job(job)
        return [_version(row) for row in rows]

    async def artifact_piece(self, digest: str, start: int, size: int) -> bytes:
        """At most `size` bytes of an artefact from byte `start`, counted from 0."""
        async with self.transaction() as tx:
            return bytes(await tx.fetchval(QUERIES.artifact_piece, digest, start + 1, size))

    async def _insert_version(self, tx: _Transaction, version: Version, code: Code, now: datetime) -> None:
        id_ = version.id
        await tx.execute(QUERIES.insert_artifact, code.artifact_digest, code.artifact, now)
        await tx.execute(
            QUERIES.insert_version,
            id_.job,
            id_.number,
            version.state.value,
            version.definition_json,
            version.artifact_digest,
            version.artifact_bytes,
            now,
            None if version.log_range is None else encode(version.log_range),
        )
        await tx.execute(QUERIES.set_last_number, id_.job, id_.number)
        await tx.execute(QUERIES.audit, now, id_.job, id_.number, "CREATE_VERSION", "", None, "")

    async def _version(self, tx: _Transaction, version: VersionId) -> Version:
        row = await tx.fetchrow(QUERIES.version, version.job, version.number)
        if row is None:
            raise _no_version(version)
        return _version(row)

    # --- retirements ---

    async def begin(
        self,
        version: VersionId,
        decide: Callable[[State, Retirement | None], Change | None],
        action: str,
        now: datetime,
        *,
        claim_until: datetime | None = None,
    ) -> tuple[UUID, Retirement] | None:
        """Store what a person asks for, as `decide` says of the version's state and its retirement, under a row lock.

        With `claim_until` the caller also gets the claim to make the step's call itself, and the retirement it is for,
        unless somebody makes one at this moment. NotFound (VERSION_NOT_FOUND); what `decide` raises passes through.
        """
        async with self.transaction() as tx:
            state, row = await self._locked(tx, version)
            before = _retirement(row) if row is not None else None
            change = decide(state, before)
            if change is None:
                return None
            assert change.retirement is not None
            in_flight = row is not None and row["claim"] is not None and row["next_time"] > now
            claim = uuid4() if claim_until is not None and not in_flight else None
            if claim is not None:
                await self._put(tx, change.retirement, claim_until, claim)
            elif row is not None and in_flight:
                # The call that is under way ends before the next one begins: the two must not overtake one another.
                await self._put(tx, change.retirement, row["next_time"], row["claim"])
            else:
                await self._put(tx, change.retirement, change.next_time, None)
            await tx.execute(QUERIES.set_version_state, version.job, version.number, change.state.value)
            if change.retirement != before:
                asked = change.retirement
                actor, forgo = asked.claimed_actor, asked.forgo_rollback if action == "RETIRE" else None
                await tx.execute(QUERIES.audit, now, version.job, version.number, action, actor, forgo, "")
            return None if claim is None else (claim, change.retirement)

    async def claim_due(
        self, now: datetime, until: datetime, limit: int
    ) -> tuple[UUID, list[tuple[State, Retirement]]]:
        """Claim the retirements whose step is due; nobody else makes their calls before `until`."""
        claim = uuid4()
        async with self.transaction() as tx:
            rows = await tx.fetch(QUERIES.claim_due, now, claim, until, limit)
        return claim, [(State(row["state"]), _retirement(row)) for row in rows]

    async def finish(
        self, before: Retirement, claim: UUID, decide: Callable[[State, Retirement], Change], now: datetime
    ) -> bool:
        """Store what follows from a claimed call, as `decide` says; False when the call no longer counts.

        It counts while the claim holds and the stored step still asks for the call that was made.
        """
        version = before.version
        async with self.transaction() as tx:
            state, row = await self._locked(tx, version)
            if row is None or row["claim"] != claim:
                return False
            if (row["step"], row["forgo_rollback"]) != (before.step.value, before.forgo_rollback):
                await tx.execute(QUERIES.free_claim, version.job, version.number, claim, now)
                return False
            change = decide(state, _retirement(row))
            if change.retirement is None:
                await tx.execute(QUERIES.delete_retirement, version.job, version.number)
            else:
                over = change.retirement.step is Step.DONE
                await self._put(tx, change.retirement, None if over else change.next_time, None)
            if change.state is not state:
                await tx.execute(QUERIES.set_version_state, version.job, version.number, change.state.value)
                await tx.execute(
                    QUERIES.audit, now, version.job, version.number, change.state.value, "", None, change.why
                )
            return True

    async def wait(self, version: VersionId, claim: UUID, until: datetime | None) -> None:
        """Give a claim back without a call; the step is looked at again at that time, None = never."""
        async with self.transaction() as tx:
            await tx.execute(QUERIES.free_claim, version.job, version.number, claim, until)

    async def _locked(self, tx: _Transaction, version: VersionId) -> tuple[State, Any]:
        state = await tx.fetchval(QUERIES.lock_version, version.job, version.number)
        if state is None:
            raise _no_version(version)
        return State(state), await tx.fetchrow(QUERIES.retirement, version.job, version.number)

    async def _put(self, tx: _Transaction, r: Retirement, next_time: datetime | None, claim: UUID | None) -> None:
        await tx.execute(
            QUERIES.put_retirement,
            r.version.job,
            r.version.number,
            r.step.value,
            r.retain_for,
            r.forgo_rollback,
            r.claimed_actor,
            r.start_time,
            r.drop_time,
            r.waiting_for,
            r.failures,
            r.resume_run,
            next_time,
            claim,
        )


async def _answered(tx: _Transaction, key: RequestKey) -> bytes | None:
    row = await tx.fetchrow(QUERIES.answered_request, key.method, key.request_id)
    if row is None:
        return None
    if row["fingerprint"] != key.fingerprint:
        raise InvalidInput(
            "REQUEST_ID_REUSED",
            f"The request id {key.request_id!r} came with another request before; use a new id for a new request.",
        )
    return bytes(row["answer"])


def _no_job(job: str) -> NotFound:
    return NotFound(
        "JOB_NOT_FOUND", f"There is no job {job}. Apply its job file to create it.", metadata={"name": job_name(job)}
    )


def _no_version(version: VersionId) -> NotFound:
    return NotFound(
        "VERSION_NOT_FOUND",
        f"There is no {version}. List the versions of {version.job_name} to see which there are.",
        metadata={"name": version.name},
    )


def _new_version(job: str, numbered: Numbered, code: Code, now: datetime) -> Version:
    return Version(
        id=VersionId(job, numbered.number),
        state=State.REGISTERED,
        definition_json=code.definition_json,
        artifact_digest=code.artifact_digest,
        artifact_bytes=len(code.artifact),
        create_time=now,
        log_range=code.log_range,
    )


def _known(row: Any) -> Known:
    return Known(row["number"], row["artifact_digest"], row["definition_json"], _log_range(row))


def _log_range(row: Any) -> LogRange | None:
    return None if row["log_range"] is None else decode(row["log_range"])


def _job(row: Any) -> Job:
    return Job(row["job"], row["description"], row["create_time"], row["last_number"])


def _version(row: Any) -> Version:
    version = Version(
        id=VersionId(row["job"], row["number"]),
        state=State(row["state"]),
        definition_json=row["definition_json"],
        artifact_digest=row["artifact_digest"],
        artifact_bytes=row["artifact_bytes"],
        create_time=row["create_time"],
        log_range=_log_range(row),
    )
    return version if row["step"] is None else replace(version, retirement=_retirement(row))


def _retirement(row: Any) -> Retirement:
    return Retirement(
        version=VersionId(row["job"], row["number"]),
        step=Step(row["step"]),
        retain_for=row["retain_for"],
        forgo_rollback=row["forgo_rollback"],
        claimed_actor=row["claimed_actor"],
        start_time=row["start_time"],
        drop_time=row["drop_time"],
        waiting_for=row["waiting_for"],
        failures=row["failures"],
        resume_run=row["resume_run"],
    )
