"""Carrying out what a rollout does outside of its own table."""

import hashlib
import logging
from collections.abc import Sequence
from typing import Final

from services.switcher.change import Changes
from services.switcher.convert import decode_changes
from services.switcher.experiments.rows import ExperimentRecord
from services.switcher.experiments.rows import State as ExperimentState
from services.switcher.experiments.store import ExperimentStore
from services.switcher.names import ROLLOUTS
from services.switcher.records import CommandKind, Intent
from services.switcher.requests import RequestStore
from services.switcher.rollouts.acts import ON_ROUTE, Act, ActKind, Done, Later, Result
from services.switcher.rollouts.neighbours import Neighbours
from services.switcher.rollouts.on_route import command, exposed_by, given_back, outcome, refused
from services.switcher.rollouts.plan import experiment
from services.switcher.rollouts.rollout import Rollout
from services.switcher.rollouts.store import Stored, fence
from services.switcher.store import RouteStore
from turnout.errors import TurnoutError
from turnout.routing import Experiment
from turnout.switcher.v1 import change_pb2

log = logging.getLogger(__name__)

ACTOR: Final = "rollout"
_CHANGE_WITHIN_S: Final = 30.0
_ON_THE_WAY: Final = frozenset({ActKind.EXPOSE, ActKind.SHADOW, ActKind.CUT_OVER})
"""Acts that a candidate which was taken off the route must not have."""

_DOES: Final = {
    ActKind.CLAIM: "takes the route over",
    ActKind.SHADOW: "lets the candidate be compared with what readers get",
    ActKind.EXPOSE: "gives the candidate its share",
    ActKind.CUT_OVER: "makes the candidate the active version",
    ActKind.RELEASE: "gives the route back",
    ActKind.WITHDRAW: "takes the candidate back",
}
"""Acts on the route, for people."""


class Acts:
    """Carries acts out; says what became of them, and never raises but for what nobody foresaw."""

    def __init__(
        self,
        routes: RouteStore,
        requests: RequestStore,
        experiments: ExperimentStore,
        changes: Changes,
        neighbours: Neighbours,
    ) -> None:
        self._routes = routes
        self._requests = requests
        self._experiments = experiments
        self._changes = changes
        self._neighbours = neighbours

    async def carry_out(self, stored: Stored, act: Act) -> Result:
        """Do it, or find that it was done before."""
        try:
            if act.kind in ON_ROUTE:
                return await self._on_route(stored, act)
            waits_for = await self._elsewhere(stored.rollout, act)
        except TurnoutError as error:
            return refused(stored.rollout, act, error)
        return Later(waits_for) if waits_for else Done()

    async def _elsewhere(self, rollout: Rollout, act: Act) -> str:
        """What it waits for; "" = it is done."""
        match act.kind:
            case ActKind.START_RUN:
                await self._neighbours.start_run(rollout.job, rollout.candidate, act.request_id)
            case ActKind.COMPARE:
                pass  # whoever asks what it says begins it
            case ActKind.RETIRE:
                return await self._neighbours.retire(rollout.job, rollout.control, ACTOR, act.request_id)
            case ActKind.TAKE_BACK:
                await self._neighbours.unretire(rollout.job, rollout.control, ACTOR, act.request_id)
        return ""

    async def _on_route(self, stored: Stored, act: Act) -> Result:
        result = await self._change_of_route(stored, act)
        if act.kind is ActKind.WITHDRAW and not isinstance(result, Later):
            await self._forget_unstarted(stored)
        return result

    async def _forget_unstarted(self, stored: Stored) -> None:
        """An experiment that was to count the candidate's units never will; until it is forgotten, no other one can
        begin. Whoever committed the withdrawal may not have come to that."""
        last = await self._experiments.last_of(stored.rollout.job, stored.name)
        if last is not None and last.state is ExperimentState.STARTING:
            await self._experiments.never_started(last.number)

    async def _change_of_route(self, stored: Stored, act: Act) -> Result:
        back = act.kind is ActKind.WITHDRAW
        kind = CommandKind.WITHDRAW if back else CommandKind.ROLL_OUT
        intent = Intent(kind, ACTOR, _reason(stored, act), act.request_id, _fingerprint(act))
        # What was committed, and whose answer was lost, may fit the route no more: its own effect is on it.
        found = await self._requests.find(intent)
        if found is None:
            try:
                return await self._changed(stored, act, intent)
            except TurnoutError:
                found = await self._requests.find(intent)
                if found is None:
                    raise
        return _outcome(stored, act, decode_changes(found.answer))

    async def _changed(self, stored: Stored, act: Act, intent: Intent) -> Result:
        rollout = stored.rollout
        # Read before the experiment: a guardrail that acts in between makes the command stale.
        state = (await self._routes.read(rollout.job)).state
        if given_back(rollout, act, stored.name, state):
            return Done()
        last = await self._experiments.last_of(rollout.job, stored.name)
        if act.kind in _ON_THE_WAY and last is not None and last.state is ExperimentState.ROLLED_BACK:
            return Later(last.end_reason)
        counted = exposed_by(rollout, act)
        counting = await self._counting(stored, act, last, counted) if counted else None
        order = command(rollout, act, stored.name, state, counting)
        changes = await self._changes.change(
            [(rollout.job, order)],
            intent,
            validate_only=False,
            time_left_s=_CHANGE_WITHIN_S,
            fence=fence(stored.number, act),
        )
        return _outcome(stored, act, changes)

    async def _counting(self, stored: Stored, act: Act, last: ExperimentRecord | None, share: int) -> Experiment:
        """The experiment that counts the candidate's units: the one that does already, or a new one."""
        rollout = stored.rollout
        if last is None or last.state.over:
            spec = experiment(rollout.plan, rollout.control, rollout.candidate, share)
            intent = Intent(CommandKind.START_EXPERIMENT, ACTOR, _named(stored), act.request_id, _fingerprint(act))
            name = f"rollout-{stored.number}-{rollout.attempt}"
            # A rollout that is over, or on its way back, gets none: nobody would end it.
            still_due = fence(stored.number, act)
            last = await self._experiments.create(rollout.job, name, spec, stored.name, intent, still_due)
            log.info("%s: %s counts its units", stored.name, last.name)
        return last.spec.on_route(last.name, last.number)


def _outcome(stored: Stored, act: Act, changes: Sequence[change_pb2.RouteChange]) -> Result:
    """What became of an act on the route that has come true, now or before."""
    [change] = changes
    return outcome(stored.rollout, act, change.route.active_version, change.route.rollback_version)


def _reason(stored: Stored, act: Act) -> str:
    step = stored.rollout.present
    at = f", step {stored.rollout.step + 1} ({step.label})," if step is not None else ""
    return f"{_named(stored)}{at} {_DOES[act.kind]}. {stored.rollout.why}".strip()


def _named(stored: Stored) -> str:
    return f"rollout {ROLLOUTS.parse(stored.name)[1]}"


def _fingerprint(act: Act) -> bytes:
    return hashlib.sha256(act.request_id.encode()).digest()
