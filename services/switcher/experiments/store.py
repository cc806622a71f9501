"""Experiments, their counts and the decisions on them in PostgreSQL. Each method is one transaction."""

import secrets
from collections.abc import Sequence
from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from typing import Any, Final

from core.postgres import Pool
from services.switcher.experiments.conclude import Action, EpochTally
from services.switcher.experiments.follow import carried_out_with
from services.switcher.experiments.ledger import TOLD_AFTER_END
from services.switcher.experiments.record import Record, encode
from services.switcher.experiments.rows import (
    SQL,
    DecisionRow,
    ExperimentRecord,
    decision_of,
    record_of,
    tallies_of,
)
from services.switcher.experiments.spec import Spec, spec_to_json
from services.switcher.names import EXPERIMENTS
from services.switcher.records import Intent, RouteRecord, route_from_json
from services.switcher.refusals import refuse_reused
from services.switcher.rows import Fence, read_route, statement, transaction
from turnout.errors import Aborted, AlreadyExists, NotFound
from turnout.exposure import KEY_BYTES
from turnout.routing import Route

FORGET_MAX: Final = 20_000
"""Units, and outcomes, that one transaction forgets: a small part of a second."""


@dataclass(frozen=True, slots=True)
class StaleFront:
    """A front that may serve and has not told lately what it saw. age_s: seconds since it told all; None = it never
    has. serves_until: when it may serve no more, if nothing is heard of it until then."""

    front: str
    age_s: float | None
    serves_until: datetime


@dataclass(frozen=True, slots=True)
class Counted:
    """An experiment with its route and what was counted, all of one moment."""

    experiment: ExperimentRecord
    route: RouteRecord
    epochs: tuple[EpochTally, ...]
    epoch_start: datetime | None  # of the newest one
    now: datetime
    stale_fronts: tuple[StaleFront, ...]
    lost: int
    left_out: int  # reads that it did not count because of their unit
    decided_epoch: int  # the newest one that a decision led to or stayed in

    @property
    def epoch_age_s(self) -> float:
        """Seconds since the newest epoch began, to the millisecond."""
        return round(max(0.0, (self.now - self.epoch_start).total_seconds()), 3) if self.epoch_start else 0.0


@dataclass(frozen=True, slots=True)
class RouteChanged:
    """A change of a route: who made it, as they claim, why, and the route after it."""

    claimed_actor: str
    reason: str
    route: Route


class ExperimentStore:
    """Experiments and decisions."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def keys(self) -> dict[int, bytes]:
        """The keys of exposures by number, made where there are none yet; the last one signs."""
        async with transaction(self._pool) as connection:
            await connection.execute(SQL.first_key, secrets.token_bytes(KEY_BYTES))
            return {row["number"]: bytes(row["key"]) for row in await connection.fetch(SQL.keys)}

    async def create(
        self, job: str, experiment: str, spec: Spec, owner: str, intent: Intent, fence: Fence | None = None
    ) -> ExperimentRecord:
        """Keep what is fixed, in state STARTING; the same one where the same request came before.

        owner: "" = the experiment itself. fence: asked in the same transaction; what it raises keeps everything as it
        is. AlreadyExists (EXPERIMENT_EXISTS, EXPERIMENT_RUNS).
        """
        owner = owner or EXPERIMENTS.name(job, experiment)
        async with transaction(self._pool) as connection:
            if fence is not None:
                await fence(connection)
            number = await connection.fetchval(
                SQL.create,
                *(job, experiment, spec_to_json(spec), owner, intent.claimed_actor, intent.reason),
                *(intent.request_id, intent.fingerprint),
            )
            row = await connection.fetchrow(SQL.by_id, job, experiment)
        if number is None:
            return _repeated(job, experiment, row, intent)
        return record_of(row)

    async def never_started(self, number: int) -> None:
        """Forget an experiment whose route was not committed; its name is free again."""
        async with statement(self._pool) as connection:
            await connection.execute(SQL.never_started, number)

    async def read(self, job: str, experiment: str) -> ExperimentRecord:
        """The experiment. NotFound (EXPERIMENT_NOT_FOUND)."""
        async with statement(self._pool) as connection:
            row = await connection.fetchrow(SQL.by_id, job, experiment)
        if row is None:
            raise NotFound(
                "EXPERIMENT_NOT_FOUND",
                f"{job} has no experiment {experiment!r}. `turnout experiment list {job}` lists them.",
            )
        return record_of(row)

    async def last_of(self, job: str, owner: str) -> ExperimentRecord | None:
        """The newest experiment of the job on behalf of this owner; None = there was none."""
        async with statement(self._pool) as connection:
            row = await connection.fetchrow(SQL.last_of_owner, job, owner)
        return None if row is None else record_of(row)

    async def list_experiments(self, job: str, before: int | None, limit: int) -> list[ExperimentRecord]:
        """Experiments of a job ("-" = of all), newest first; those before a number, where one is given."""
        async with statement(self._pool) as connection:
            return [record_of(row) for row in await connection.fetch(SQL.list, job, before, limit)]

    async def counting(self) -> list[int]:
        """Numbers of the experiments that count, or are over for so short a time that windows may still be added up."""
        async with statement(self._pool) as connection:
            return [row["number"] for row in await connection.fetch(SQL.counting, TOLD_AFTER_END)]

    async def counted(self, number: int, stale_after: timedelta) -> Counted:
        """The experiment with all that a conclusion rests on but the gates, in one moment."""
        async with transaction(self._pool) as connection:
            row = await connection.fetchrow(SQL.lock, number)
            record = record_of(row)
            epochs = await connection.fetch(SQL.epochs, number)
            tallies = await connection.fetch(SQL.tallies, number)
            harms = await connection.fetch(SQL.harms, number)
            stale = await connection.fetch(SQL.stale_fronts, stale_after)
            untold = await connection.fetchrow(SQL.untold, str(number))
            return Counted(
                experiment=record,
                route=await read_route(connection, record.job),
                epochs=tallies_of(record.spec, epochs, tallies, harms),
                epoch_start=epochs[-1]["start_time"] if epochs else None,
                now=row["now"],
                stale_fronts=tuple(
                    StaleFront(one["front"], _number(one["age_s"]), one["serves_until"]) for one in stale
                ),
                lost=int(untold["lost"]),
                left_out=int(untold["left_out"]),
                decided_epoch=await connection.fetchval(SQL.last_decided_epoch, number),
            )

    async def decide(self, number: int, record: Record) -> None:
        """Keep a decision that asks for no change of the route, or tells of one that was made."""
        async with transaction(self._pool) as connection:
            await _keep(connection, number, record, carried_out=True)

    async def note_fault(self, number: int, fault: str) -> None:
        """Say why windows that are over cannot be added up; "" = they can."""
        async with statement(self._pool) as connection:
            await connection.execute(SQL.note_fault, number, fault)

    async def resume(self, number: int) -> None:
        """Let a paused experiment go on."""
        async with statement(self._pool) as connection:
            await connection.execute(SQL.resume, number)

    async def change_of(self, job: str, epoch: int) -> RouteChanged | None:
        """What the audit says of the change that led to an epoch."""
        async with statement(self._pool) as connection:
            row = await connection.fetchrow(SQL.change_of_epoch, job, epoch)
        if row is None:
            return None
        return RouteChanged(row["claimed_actor"], row["reason"], route_from_json(job, row["route"]))

    async def at_its_end(self, counted: Counted) -> Counted:
        """An experiment that is over with the last route that it stood on, instead of the present one."""
        last = await self.change_of(counted.experiment.job, counted.epochs[-1].epoch) if counted.epochs else None
        if last is None:
            return counted
        state = replace(counted.route.state, route=last.route)
        return replace(counted, route=replace(counted.route, state=state))

    async def list_decisions(self, job: str, experiment: str, before: int | None, limit: int) -> list[DecisionRow]:
        """Decisions on an experiment, newest first; those before one, where it is given."""
        async with statement(self._pool) as connection:
            rows = await connection.fetch(SQL.decisions, job, experiment, before, limit)
        return [decision_of(row) for row in rows]

    async def decision(self, job: str, experiment: str, decision: int) -> DecisionRow:
        """One decision. NotFound (DECISION_NOT_FOUND)."""
        async with statement(self._pool) as connection:
            row = await connection.fetchrow(SQL.decision, job, experiment, decision)
        if row is None:
            raise NotFound(
                "DECISION_NOT_FOUND",
                f"{experiment} of {job} has no decision {decision}. `turnout decisions list {job} {experiment}` lists "
                "them.",
            )
        return decision_of(row)

    async def lease_loop(self, loop: str, holder: str, lease: timedelta) -> bool:
        """Take or renew the right to run a loop; whether this replica has it."""
        async with statement(self._pool) as connection:
            return bool(await connection.fetchval(SQL.take_loop, loop, holder, lease))

    async def give_loop(self, loop: str, holder: str) -> None:
        """Give the right back, so that another replica need not wait for its end."""
        async with statement(self._pool) as connection:
            await connection.execute(SQL.give_loop, loop, holder)

    async def tidy(self) -> Sequence[str]:
        """Forget what never started, and fronts long gone; the names of the former."""
        async with transaction(self._pool) as connection:
            failed = await connection.fetch(SQL.forget_never_started)
            await connection.execute(SQL.forget_flushes)
        return [EXPERIMENTS.name(row["job"], row["experiment"]) for row in failed]

    async def forget_units(self, kept: timedelta, most: int = FORGET_MAX) -> int:
        """Forget units, and outcomes, at most so many of each, of one experiment that ended longer ago than `kept`; how
        many these were, 0 = there are none left of any."""
        async with statement(self._pool) as connection:
            return int(await connection.fetchval(SQL.forget_units, kept, most))


def opening(number: int, record: Record) -> Fence:
    """Keeps a decision, not carried out yet, in the transaction that opens the proposal of its change: no other one of
    its kind, in whose place it comes, has an open proposal then."""

    async def kept(connection: Any) -> None:
        await _keep(connection, number, record, carried_out=False)

    return kept


def fence(number: int, record: Record) -> Fence:
    """Raises Aborted (DECISION_OVERTAKEN) in a commit where another decision took the place of this one."""
    epoch = record.conclusion.after.epoch

    async def stands(connection: Any) -> None:
        await connection.fetchrow(SQL.lock, number)
        if not await connection.fetchval(SQL.stands, number, epoch, encode(record)):
            raise Aborted(
                "DECISION_OVERTAKEN", f"{record.experiment} was decided on anew meanwhile, so nothing was changed."
            )

    return stands


async def _keep(connection: Any, number: int, record: Record, *, carried_out: bool) -> None:
    conclusion = record.conclusion
    verdict = conclusion.decision.verdict.value
    await connection.fetchrow(SQL.lock, number)
    await connection.execute(SQL.note_verdict, number, verdict)
    if conclusion.action is Action.PAUSE:
        await connection.execute(SQL.pause, number)
    rivals = [action.value for action in carried_out_with(conclusion.action)]
    await connection.execute(SQL.undo_decision, number, conclusion.after.epoch, rivals)
    await connection.execute(
        SQL.decide,
        *(number, conclusion.after.epoch, conclusion.action.value, verdict, conclusion.sentence),
        *(record.actor, record.reason, carried_out, encode(record)),
    )


def _number(value: Any) -> float | None:
    return None if value is None else float(value)


def _repeated(job: str, experiment: str, row: Any, intent: Intent) -> ExperimentRecord:
    if row is None:
        raise AlreadyExists(
            "EXPERIMENT_RUNS",
            f"Another experiment runs on the route of {job}; stop it first. `turnout experiment list {job}` shows it.",
        )
    found = record_of(row)
    if intent.request_id and found.request_id == intent.request_id:
        refuse_reused(intent.request_id, intent.fingerprint, found.fingerprint)
        return found
    raise AlreadyExists(
        "EXPERIMENT_EXISTS",
        f"{job} has had an experiment {experiment!r}; give this one another name, so that their decisions stay apart.",
    )
