"""What people make of rollouts: start them, and say something to them."""

import secrets
from dataclasses import dataclass
from datetime import timedelta
from typing import Final

import msgspec

from services.switcher.names import ROLLOUTS
from services.switcher.records import Intent
from services.switcher.rollouts.neighbours import Neighbours
from services.switcher.rollouts.on_route import refuse_shared
from services.switcher.rollouts.plan import Plan, StepKind, checked_for, refuse
from services.switcher.rollouts.preview import Expected, Foreseen, foreseen
from services.switcher.rollouts.record import Said, decides, follows, recorded
from services.switcher.rollouts.rollout import Rollout, begun
from services.switcher.rollouts.store import TRIES, RolloutStore, Stored, another_runs
from services.switcher.store import RouteStore
from services.switcher.switch import refuse_owned, refuse_released
from turnout.errors import Aborted, NotFound
from turnout.routing import WHOLE

_DONE: Final = {"PAUSE": "Paused", "RESUME": "Resumed", "PROMOTE": "Promoted", "ABORT": "Aborted"}


@dataclass(frozen=True, slots=True)
class Asked:
    """What is to be rolled out, and what the caller expects (None = as before)."""

    job: str
    rollout_id: str
    version: int
    plan: Plan
    units_per_day: float | None
    risk: float | None


@dataclass(frozen=True, slots=True)
class Created:
    """A rollout with what its steps would take; stored: None = it was only checked."""

    rollout: Rollout
    foreseen: Foreseen
    stored: Stored | None


class Rollouts:
    """Starts rollouts and passes on what people say."""

    def __init__(self, store: RolloutStore, routes: RouteStore, neighbours: Neighbours, protection: timedelta) -> None:
        """protection: how long a cutover's way back is kept from retirement."""
        self._store = store
        self._routes = routes
        self._neighbours = neighbours
        self._protection = protection

    async def create(self, asked: Asked, intent: Intent, *, validate_only: bool) -> Created:
        """Check and begin a rollout; the same one where the same request came before."""
        before = await self._store.of_request(intent)
        if before is not None:
            return Created(before.rollout, await self._foreseen(asked, before.rollout.control), before)
        control = await self._control(asked)
        plan = checked_for(asked.plan, asked.version, control)
        await self._neighbours.refuse_absent(asked.job, asked.version)
        refuse(await self._neighbours.tables_misfit(plan, asked.job, asked.version, control))
        would = await self._foreseen(asked, control)
        now = await self._store.now()
        rollout = begun(secrets.token_hex(8), asked.job, asked.version, control, plan, now)
        if validate_only:
            return Created(rollout, would, None)
        return Created(rollout, would, await self._store.create(asked.rollout_id, rollout, intent))

    async def _control(self, asked: Asked) -> int:
        """The active version, of a route that is free; NotFound (ROUTE_NOT_FOUND), AlreadyExists (ROLLOUT_RUNS),
        FailedPrecondition as in the API."""
        state = (await self._routes.read(asked.job)).state
        if state.route is None:
            raise NotFound("ROUTE_NOT_FOUND", f"{asked.job} has no route yet: its first cutover creates it.")
        if ROLLOUTS.holds(state.route.owner):
            raise another_runs(asked.job)
        refuse_owned(state.route, allowed=False, overridable=False)
        refuse_shared(state.route)
        refuse_released(state, {asked.version: WHOLE})
        return state.route.active_version

    async def _foreseen(self, asked: Asked, control: int) -> Foreseen:
        known = await self._store.expected(asked.job, asked.plan.units)
        copy = Expected(replay_s=0.0)
        if any(step.kind is StepKind.REPLAY for step in asked.plan.steps):
            copy = await self._neighbours.copy_expected(asked.job, asked.version)
        elif await self._neighbours.lacks_run(asked.job, asked.version):
            missing = (
                f"v{asked.version} has no run, and the plan starts none: it would wait for a person. Begin the plan "
                "with `- replay`, or start the run (`turnout apply FILE`)."
            )
            copy = Expected(replay_s=0.0, remarks=(missing,))
        schema = await self._neighbours.schema_refuses(asked.job, asked.version, control)
        by_hand = Expected(units_per_day=asked.units_per_day, risk=asked.risk)
        expected = msgspec.structs.replace(
            copy,
            remarks=(*copy.remarks, *schema),
            units_per_day=known.units_per_day if asked.units_per_day is None else asked.units_per_day,
            risk=known.risk if asked.risk is None else asked.risk,
            source=known.source,
            too_little=known.too_little,
            protected_s=self._protection.total_seconds(),
        )
        return foreseen(asked.plan, expected, by_hand)

    async def say(self, job: str, rollout_id: str, verb: str, place: int, who: tuple[str, str]) -> Stored:
        """Say a verb (PAUSE, RESUME, PROMOTE past the step at this place, ABORT) to a rollout; who: says it, and why.

        Errors as of `commands`.
        """
        actor, reason = who
        happened = Said(verb, _sentence(verb, actor, reason), place)
        for _ in range(TRIES):
            stored = await self._store.read(job, rollout_id)
            after = follows(stored.rollout, happened, stored.now)
            if after == stored.rollout:
                return stored
            record = recorded(stored.name, actor, reason, stored.now, stored.rollout, happened)
            if await self._store.keep(stored, after, record if decides(stored.rollout, after) else None):
                return await self._store.read(job, rollout_id)
        raise Aborted("ROLLOUT_CHANGES", f"{rollout_id} of {job} changes too fast at the moment; try again.")


def _sentence(verb: str, actor: str, reason: str) -> str:
    by = f" by {actor}" if actor else ""
    stop = "" if reason.endswith((".", "!", "?")) else "."
    return f"{_DONE[verb]}{by}: {reason}{stop}" if reason else f"{_DONE[verb]}{by}."
