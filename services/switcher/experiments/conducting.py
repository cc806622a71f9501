"""How an experiment is started, stopped and resumed by a person, or by a rollout on whose behalf it runs.

Intent first, then the change of the route, whose commit starts or ends the experiment (`follow`). An experiment whose
route was not committed is forgotten.
"""

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass, replace

from services.switcher.change import Changes
from services.switcher.experiments.record import recorded
from services.switcher.experiments.rows import ExperimentRecord, State
from services.switcher.experiments.situations import STALE_AFTER, asked_situation
from services.switcher.experiments.spec import Spec
from services.switcher.experiments.store import ExperimentStore, fence, opening
from services.switcher.names import EXPERIMENTS
from services.switcher.records import Intent
from services.switcher.rows import Fence
from services.switcher.store import RouteStore
from services.switcher.switch import Conduct, CutOver, etag_of, refuse_owned
from turnout.errors import AlreadyExists, FailedPrecondition, InvalidInput, NotFound
from turnout.routing import WHOLE, Route


@dataclass(frozen=True, slots=True)
class Ending:
    """How an experiment is to end: with a candidate promoted (0 = none), or with its weights kept, or with neither."""

    promote: int = 0
    keep_weights: bool = False
    override_gates: tuple[str, ...] = ()
    override_owner: bool = False


class Experiments:
    """Starts, stops and resumes experiments."""

    def __init__(self, store: ExperimentStore, routes: RouteStore, changes: Changes) -> None:
        self._store = store
        self._routes = routes
        self._changes = changes

    async def route(self, job: str) -> Route:
        """The job's route. NotFound (ROUTE_NOT_FOUND)."""
        route = (await self._routes.read(job)).state.route
        if route is None:
            raise NotFound("ROUTE_NOT_FOUND", f"{job} has no route yet: its first cutover creates it.")
        return route

    async def start(
        self,
        job: str,
        experiment: str,
        spec: Spec,
        intent: Intent,
        *,
        owner: str,
        gates: tuple[tuple[str, ...], tuple[str, ...]],
        validate_only: bool,
        time_left_s: float,
    ) -> ExperimentRecord | None:
        """Start an experiment; None where it was only checked. gates: to pass over, and to demand."""
        route = await self.route(job)
        if spec.control != route.active_version:
            raise InvalidInput(
                "INVALID_EXPERIMENT",
                f"The first arm is v{spec.control}, but v{route.active_version} is the active version of {job}: "
                "candidates are compared with that one.",
            )
        if validate_only:
            command = _command(spec, EXPERIMENTS.name(job, experiment), 1, owner, gates)
            await self._changes.change([(job, command)], intent, validate_only=True, time_left_s=time_left_s)
            return None
        record = await self._created(job, experiment, spec, owner, intent, route)
        if record.state is State.STARTING:
            command = _command(spec, record.name, record.number, owner, gates)
            try:
                await self._change(job, command, intent, time_left_s)
            except BaseException:
                await asyncio.shield(self._store.never_started(record.number))
                raise
        return await self._store.read(job, experiment)

    async def _created(
        self, job: str, experiment: str, spec: Spec, owner: str, intent: Intent, route: Route
    ) -> ExperimentRecord:
        try:
            return await self._store.create(job, experiment, spec, owner, intent)
        except AlreadyExists as error:
            if error.reason == "EXPERIMENT_RUNS":
                # Whoever stopped the experiment of a rollout would not be rid of the rollout.
                refuse_owned(route, "/rollouts/" not in route.owner, overridable=False)
            raise

    async def stop(
        self, job: str, experiment: str, ending: Ending, intent: Intent, time_left_s: float
    ) -> ExperimentRecord:
        """End an experiment; one that is over stays as it is. FailedPrecondition (ROUTE_OWNED) of a rollout's;
        (EXPERIMENT_OVER) where what is asked for did not come of it."""
        record = await self._store.read(job, experiment)
        route = await self.route(job)
        if record.state.over:
            return _over_as_asked(record, route, ending)
        if route.experiment is None or route.experiment.number != record.number:
            record = await self._store.read(job, experiment)
            if record.state.over:  # since it was read
                return _over_as_asked(record, await self.route(job), ending)
            raise FailedPrecondition("EXPERIMENT_STARTING", f"{experiment} of {job} is starting; try again.")
        refuse_owned(route, ending.override_owner or route.owner == record.name, overridable=True)
        weights = _weights_at_end(record.spec, route, ending)
        command: CutOver | Conduct
        if ending.promote:
            command = CutOver(ending.promote, ending.override_gates, etag_of(route.epoch), override_owner=True)
        else:
            command = Conduct(
                actor=record.owner,
                weights=tuple(weights.items()),
                owner=kept_owner(record),
                experiment=None,
                override_gates=ending.override_gates,
                etag=etag_of(route.epoch),
            )
        counted = await self._store.counted(record.number, STALE_AFTER)
        situation = asked_situation(counted, route, weights)
        decision = recorded(record.name, intent.claimed_actor, intent.reason, situation)
        await self._change(
            *(job, command, intent, time_left_s),
            opening=opening(record.number, decision),
            fence=fence(record.number, decision),
        )
        return await self._store.read(job, experiment)

    async def resume(self, job: str, experiment: str) -> ExperimentRecord:
        """Let a paused experiment go on; changes nothing where it is not paused."""
        record = await self._store.read(job, experiment)
        if record.state.over:
            raise FailedPrecondition("EXPERIMENT_OVER", f"{experiment} of {job} is over: {record.end_reason}")
        await self._store.resume(record.number)
        return await self._store.read(job, experiment)

    async def _change(
        self,
        job: str,
        command: Conduct | CutOver,
        intent: Intent,
        time_left_s: float,
        *,
        opening: Fence | None = None,
        fence: Fence | None = None,
    ) -> None:
        # The experiment is the answer to the request, not the change of the route.
        inner = replace(intent, request_id="")
        await self._changes.change(
            [(job, command)], inner, validate_only=False, time_left_s=time_left_s, opening=opening, fence=fence
        )


def kept_owner(record: ExperimentRecord) -> str:
    """Who owns the route once the experiment is over: the rollout on whose behalf it ran, or nobody."""
    return record.owner if record.owner != record.name else ""


def _command(spec: Spec, name: str, number: int, owner: str, gates: tuple[tuple[str, ...], tuple[str, ...]]) -> Conduct:
    return Conduct(
        actor=owner or name,
        weights=tuple(spec.weights.items()),
        owner=owner or name,
        experiment=spec.on_route(name, number),
        salt=spec.salt,
        override_gates=gates[0],
        require_gates=gates[1],
    )


def _over_as_asked(record: ExperimentRecord, route: Route, ending: Ending) -> ExperimentRecord:
    """The experiment, of a request that is a repeat or asks for what is so. FailedPrecondition (EXPERIMENT_OVER)."""
    if ending.promote and route.active_version != ending.promote:
        raise FailedPrecondition(
            "EXPERIMENT_OVER",
            f"{record.experiment} of {record.job} is over, and v{ending.promote} was not promoted: {record.end_reason} "
            f"v{route.active_version} is the active version; `turnout cutover {record.job} v{ending.promote}` makes "
            f"v{ending.promote} that, through its gates.",
        )
    if ending.keep_weights and record.state is State.ROLLED_BACK:
        raise FailedPrecondition(
            "EXPERIMENT_OVER",
            f"{record.experiment} of {record.job} is over, and its weights were not kept: {record.end_reason} "
            f"`turnout traffic set {record.job} vN=PERCENT...` sets others.",
        )
    return record


def _weights_at_end(spec: Spec, route: Route, ending: Ending) -> Mapping[int, int]:
    if ending.promote and ending.keep_weights:
        raise InvalidInput("INVALID_ENDING", "Either promote a candidate or keep the weights.")
    if ending.promote:
        if ending.promote not in spec.candidates:
            named = ", ".join(f"v{version}" for version in spec.candidates)
            raise InvalidInput("INVALID_ENDING", f"v{ending.promote} is no candidate; the candidates are {named}.")
        return {ending.promote: WHOLE}
    if ending.keep_weights:
        return {arm.version: arm.weight for arm in route.arms}
    return {route.active_version: WHOLE}
