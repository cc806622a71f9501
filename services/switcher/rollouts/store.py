"""Rollouts and the decisions on them in PostgreSQL. Each method is one transaction.

A rollout is one row. Whoever changes it says on which revision the change rests, and changes nothing where another was
faster. A commit of a route on a rollout's behalf reads the row under a shared lock (`fence`): what is stored after that
waits for the commit, and what was stored before stops it.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime
from pathlib import Path
from typing import Any, Final

import msgspec

from core.postgres import Pool, load_queries
from services.switcher.names import EXPERIMENTS, ROLLOUTS
from services.switcher.records import Intent
from services.switcher.refusals import refuse_reused
from services.switcher.rollouts.acts import Act, due
from services.switcher.rollouts.preview import Expected, seen
from services.switcher.rollouts.record import Record, action, decode_rollout, encode, sentence
from services.switcher.rollouts.rollout import Rollout
from services.switcher.rollouts.verdicts import Finding
from services.switcher.rows import Fence, statement, transaction
from turnout.errors import Aborted, AlreadyExists, NotFound
from turnout.routing import Units

SQL: Final = load_queries(Path(__file__).with_name("queries.sql"))
TRIES: Final = 20
"""How often a change of a rollout is decided anew because somebody else was faster."""
_findings: msgspec.json.Decoder[tuple[Finding, ...]] = msgspec.json.Decoder(tuple[Finding, ...])


@dataclass(frozen=True, slots=True)
class Stored:
    """A rollout as it is kept, and when it was read."""

    number: int
    name: str
    rollout: Rollout
    experiment: str  # name of the one that counts, or last counted, its units; "" = there was none
    revision: int
    findings: tuple[Finding, ...]
    claimed_actor: str
    reason: str
    request_id: str
    fingerprint: bytes
    create_time: datetime
    end_time: datetime | None
    now: datetime  # the database's clock


@dataclass(frozen=True, slots=True)
class DecisionRow:
    """A decision as it is kept. step: its place in the plan afterwards, from 0."""

    name: str  # of the rollout
    decision: int
    action: str
    state: str
    step: int
    sentence: str
    actor: str
    reason: str
    record: bytes
    create_time: datetime


def another_runs(job: str) -> AlreadyExists:
    """That the job has a rollout that is not over."""
    return AlreadyExists(
        "ROLLOUT_RUNS",
        f"Another rollout of {job} is not over: abort it (`turnout rollout abort {job}`), or wait for its end "
        f"(`turnout rollout watch {job}`).",
    )


class RolloutStore:
    """Rollouts and decisions."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def now(self) -> datetime:
        """The database's clock."""
        async with statement(self._pool) as connection:
            now: datetime = await connection.fetchval(SQL.now)
            return now

    async def create(self, rollout_id: str, rollout: Rollout, intent: Intent) -> Stored:
        """Keep a new rollout; the same one where the same request came before.

        AlreadyExists (ROLLOUT_EXISTS, ROLLOUT_RUNS).
        """
        name = ROLLOUTS.name(rollout.job, rollout_id)
        async with transaction(self._pool) as connection:
            number = await connection.fetchval(
                SQL.create,
                *(name, rollout.job, encode(rollout).decode(), intent.claimed_actor, intent.reason),
                *(intent.request_id, intent.fingerprint),
            )
            row = await connection.fetchrow(SQL.by_name, name)
        if number is not None or (row is not None and _repeats(row, intent)):
            return _stored(row)
        if row is None:
            raise another_runs(rollout.job)
        raise AlreadyExists(
            "ROLLOUT_EXISTS",
            f"{rollout.job} has had a rollout {rollout_id!r}; give this one another name, so that their decisions stay "
            "apart.",
        )

    async def of_request(self, intent: Intent) -> Stored | None:
        """The rollout that the same request has created; None = it has not. InvalidInput (REQUEST_ID_REUSED)."""
        if not intent.request_id:
            return None
        async with statement(self._pool) as connection:
            row = await connection.fetchrow(SQL.by_request, intent.request_id)
        return _stored(row) if row is not None and _repeats(row, intent) else None

    async def read(self, job: str, rollout_id: str) -> Stored:
        """The rollout. NotFound (ROLLOUT_NOT_FOUND)."""
        async with statement(self._pool) as connection:
            row = await connection.fetchrow(SQL.by_name, ROLLOUTS.name(job, rollout_id))
        if row is None:
            raise NotFound(
                "ROLLOUT_NOT_FOUND",
                f"{job} has no rollout {rollout_id!r}. `turnout rollout list {job}` lists them.",
            )
        return _stored(row)

    async def load(self, number: int) -> Stored:
        """The rollout with this number, which is there."""
        async with statement(self._pool) as connection:
            return _stored(await connection.fetchrow(SQL.by_number, number))

    async def going_on(self) -> list[int]:
        """Numbers of the rollouts that are not over."""
        async with statement(self._pool) as connection:
            return [row["number"] for row in await connection.fetch(SQL.going_on)]

    async def list_rollouts(self, job: str, before: int | None, limit: int) -> list[Stored]:
        """Rollouts of a job ("-" = of all), newest first; those before a number, where one is given."""
        async with statement(self._pool) as connection:
            return [_stored(row) for row in await connection.fetch(SQL.list, job, before, limit)]

    async def keep(
        self, stored: Stored, after: Rollout, record: Record | None, findings: Sequence[Finding] | None = None
    ) -> bool:
        """Put the rollout in the place of the one that was read, with the record of why; False = another was faster."""
        told = None if findings is None else msgspec.json.encode(findings).decode()
        at = stored.now
        kept = (stored.number, stored.revision, encode(after).decode(), after.state.over, told, at)
        async with transaction(self._pool) as connection:
            if await connection.fetchval(SQL.keep, *kept) is None:
                return False
            if record is not None:
                await connection.execute(
                    SQL.decide,
                    *(stored.number, action(record.happened), after.state.value, after.step),
                    sentence(stored.rollout, after),
                    *(record.actor, record.reason, encode(record), at),
                )
        return True

    async def keep_findings(self, stored: Stored, findings: Sequence[Finding]) -> None:
        """What was seen at a look that changed nothing else."""
        async with statement(self._pool) as connection:
            told = msgspec.json.encode(findings).decode()
            await connection.execute(SQL.keep_findings, stored.number, stored.revision, told)

    async def list_decisions(self, job: str, rollout_id: str, before: int | None, limit: int) -> list[DecisionRow]:
        """Decisions on a rollout, newest first; those before one, where it is given."""
        async with statement(self._pool) as connection:
            rows = await connection.fetch(SQL.decisions, ROLLOUTS.name(job, rollout_id), before, limit)
        return [_decision(row) for row in rows]

    async def decision(self, job: str, rollout_id: str, decision: int) -> DecisionRow:
        """One decision. NotFound (DECISION_NOT_FOUND)."""
        async with statement(self._pool) as connection:
            row = await connection.fetchrow(SQL.decision, ROLLOUTS.name(job, rollout_id), decision)
        if row is None:
            raise NotFound("DECISION_NOT_FOUND", f"The rollout {rollout_id} of {job} has no decision {decision}.")
        return _decision(row)

    async def expected(self, job: str, units: Units) -> Expected:
        """Units a day, and the part of them that errs, as in the job's last experiment that has counted such units."""
        async with statement(self._pool) as connection:
            row = await connection.fetchrow(SQL.expected, job, units.value)
        if row is None:
            return Expected()
        counts = (int(row[name]) for name in ("units", "closed", "errors"))
        return seen(row["experiment"], float(row["over_s"]), *counts)


def fence(number: int, act: Act) -> Fence:
    """Raises Aborted (ACT_OVERTAKEN) in a commit where the rollout does not want the act any more."""

    async def wanted(connection: Any) -> None:
        stored = decode_rollout(await connection.fetchval(SQL.wanted, number))
        if due(stored) != act:
            raise Aborted(
                "ACT_OVERTAKEN", f"The rollout of {stored.job} has moved on ({stored.why}), so nothing was changed."
            )

    return wanted


def _repeats(row: Any, intent: Intent) -> bool:
    if not intent.request_id or row["request_id"] != intent.request_id:
        return False
    refuse_reused(intent.request_id, intent.fingerprint, row["fingerprint"])
    return True


def _stored(row: Any) -> Stored:
    fields = ("number", "name", "revision", "claimed_actor", "reason", "request_id", "create_time", "end_time", "now")
    return Stored(
        **{field: row[field] for field in fields},
        rollout=decode_rollout(row["rollout"]),
        experiment=EXPERIMENTS.name(row["job"], row["experiment"]) if row["experiment"] else "",
        findings=_findings.decode(row["findings"]),
        fingerprint=bytes(row["fingerprint"]),
    )


def _decision(row: Any) -> DecisionRow:
    fields = ("name", "decision", "action", "state", "step", "sentence", "actor", "reason", "create_time")
    return DecisionRow(**{field: row[field] for field in fields}, record=bytes(row["record"]))
