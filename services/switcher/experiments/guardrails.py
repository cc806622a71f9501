"""What watches experiments: adds up windows, draws conclusions, keeps decisions, and carries them out.

One replica at a time does, each experiment by itself (`Loop`); whoever takes over finds everything in the database. A
decision is kept together with the proposal of its change of the route, and marked as carried out by the commit of that
change, so that a replica that dies in between leaves no change without its decision: the next one concludes anew. One
that wakes up late changes nothing by a decision in whose place there is another by then.
"""

import asyncio
import logging
import time
from collections.abc import Collection
from dataclasses import replace
from datetime import timedelta
from typing import Final

from services.switcher.change import Changes
from services.switcher.experiments.conclude import OBJECTING, Action, Conclusion
from services.switcher.experiments.conducting import kept_owner
from services.switcher.experiments.ledger import CLOSE_MAX, Ledger
from services.switcher.experiments.record import Record, recorded
from services.switcher.experiments.situations import STALE_AFTER, asked_situation, situation_of
from services.switcher.experiments.store import Counted, ExperimentStore, fence, opening
from services.switcher.loop import Loop
from services.switcher.questions import GateQuestion
from services.switcher.records import CommandKind, GateAnswer, Intent
from services.switcher.replayer_client import ReplayerClient
from services.switcher.switch import Conduct, etag_of
from turnout.errors import TurnoutError
from turnout.routing import Experiment

log = logging.getLogger(__name__)

_LEASE: Final = timedelta(seconds=5)
_GATES_EVERY_S: Final = 5.0
_CHANGE_WITHIN_S: Final = 30.0
_RETRY_S: Final = 5.0  # after a step that the route refused; an abort is tried again at once
_TIDY_EVERY_S: Final = 60.0
_UNITS_KEPT: Final = timedelta(days=7)
_MOVES: Final = (Action.ABORT, Action.END, Action.STEP)


class Guardrails:
    """The watch of one replica."""

    def __init__(
        self, store: ExperimentStore, ledger: Ledger, changes: Changes, replayer: ReplayerClient, holder: str
    ) -> None:
        self._loop = Loop("experiments", "experiment", self, store, holder, _LEASE)
        self._store = store
        self._ledger = ledger
        self._changes = changes
        self._replayer = replayer
        self._gates: dict[int, tuple[float, tuple[GateAnswer, ...]]] = {}
        self._not_before: dict[int, float] = {}
        self._tidied_at = 0.0

    async def run(self) -> None:
        """Watch until cancelled."""
        await self._loop.run()

    async def going_on(self) -> Collection[int]:
        """Numbers of the experiments that count, and of those whose windows are still added up."""
        counting = await self._store.counting()
        self._gates = {number: one for number, one in self._gates.items() if number in counting}
        self._not_before = {number: one for number, one in self._not_before.items() if number in counting}
        return counting

    async def turned(self) -> None:
        """Forget, now and then, what is needed no more."""
        if time.monotonic() - self._tidied_at > _TIDY_EVERY_S:
            for name in await self._store.tidy():
                log.warning("%s never started and was forgotten", name)
            # Of a large experiment some at each turn, none of which holds the lease up.
            if not await self._store.forget_units(_UNITS_KEPT):
                self._tidied_at = time.monotonic()

    async def given_up(self) -> None:
        """Nothing is kept for the next time."""

    async def one(self, number: int) -> bool:
        """One look, and what follows from it; the next one is for the next turn."""
        await self._look(number)
        return False

    async def _look(self, number: int) -> None:
        fault = await self._add_up(number)
        # Once: it reads under the lock that every report of a front waits for.
        counted = await self._store.counted(number, STALE_AFTER)
        if fault != counted.experiment.fault:
            await self._store.note_fault(number, fault)
            counted = replace(counted, experiment=replace(counted.experiment, fault=fault))
        route = counted.route.state.route
        if counted.experiment.state.over or route is None or route.experiment is None:
            return  # it has ended since it was listed
        if counted.decided_epoch < route.epoch:
            await self._note_changes(counted)
        record = recorded(
            counted.experiment.name, "guardrails", "", situation_of(counted, await self._gates_of(counted))
        )
        conclusion = record.conclusion
        if conclusion.action in _MOVES:
            await self._move(counted, record)
        elif conclusion.action is Action.PAUSE or conclusion.decision.verdict.value != counted.experiment.verdict:
            await self._store.decide(number, record)
            log.info("%s: %s", counted.experiment.name, conclusion.sentence)

    async def _add_up(self, number: int) -> str:
        """Add up windows that are over. Why it failed, "" = it did not: harm does not rest on them and is watched for
        all the same."""
        try:
            while await self._ledger.close_windows(number) == CLOSE_MAX:
                pass
        except TurnoutError as error:
            log.warning("windows of experiment %d were not added up: %s", number, error.message)
            return error.message
        except Exception as error:
            log.exception("windows of experiment %d were not added up, which is tried again", number)
            return str(error) or type(error).__name__
        return ""

    async def _note_changes(self, counted: Counted) -> None:
        """Keep a decision for every epoch that somebody else made of the route."""
        job = counted.experiment.job
        for one in counted.epochs:
            changed = await self._store.change_of(job, one.epoch)
            before = await self._store.change_of(job, one.epoch - 1)
            if one.epoch <= counted.decided_epoch or changed is None or before is None:
                continue
            weights = {arm.version: arm.weight for arm in changed.route.arms}
            situation = asked_situation(counted, before.route, weights)
            record = recorded(counted.experiment.name, changed.claimed_actor, changed.reason, situation)
            await self._store.decide(counted.experiment.number, record)

    async def _gates_of(self, counted: Counted) -> tuple[GateAnswer, ...]:
        """What the gates say of the candidates on the route; asked now and then."""
        number, route = counted.experiment.number, counted.route.state.route
        assert route is not None, "an experiment stands on a route"
        asked_at, gates = self._gates.get(number, (0.0, ()))
        if asked_at and time.monotonic() - asked_at < _GATES_EVERY_S:
            return gates
        present = sorted(route.versions - {route.active_version})
        questions = [GateQuestion(version, route.active_version) for version in present]
        since = counted.experiment.create_time
        try:
            gates = await self._replayer.gates(route.job, questions, frozenset())
        except TurnoutError as error:
            log.warning("%s: the gates were not asked: %s", counted.experiment.name, error.message)
        compared = await asyncio.gather(
            *(self._replayer.comparison_since(route.job, version, route.active_version, since) for version in present)
        )
        gates = (*(gate for gate in gates if gate.gate != OBJECTING), *(one for one in compared if one is not None))
        self._gates[number] = time.monotonic(), gates
        return gates

    async def _move(self, counted: Counted, record: Record) -> None:
        number, conclusion = counted.experiment.number, record.conclusion
        step = conclusion.action is Action.STEP
        if step and time.monotonic() < self._not_before.get(number, 0.0):
            return
        if step:
            record = recorded(record.experiment, "bandit", "", record.situation)
        log.info("%s: %s: %s", record.experiment, conclusion.action.value, conclusion.sentence)
        kind = CommandKind.STEP if step else CommandKind.ABORT
        intent = Intent(kind, record.actor, conclusion.sentence, "", b"")
        try:
            await self._changes.change(
                [(counted.experiment.job, _command(counted, conclusion))],
                intent,
                validate_only=False,
                time_left_s=_CHANGE_WITHIN_S,
                opening=opening(number, record),
                fence=fence(number, record),
            )
        except TurnoutError as error:
            self._not_before[number] = time.monotonic() + _RETRY_S
            log.warning("%s: %s was not carried out: %s", record.experiment, conclusion.action.value, error.message)


def _command(counted: Counted, conclusion: Conclusion) -> Conduct:
    """The change of the route, resting on the very route that the conclusion was drawn from."""
    experiment, route = counted.experiment, counted.route.state.route
    assert route is not None, "an experiment stands on a route"
    over = conclusion.action is Action.END
    weights = {arm.version: weight for arm, weight in zip(experiment.spec.arms, conclusion.after.weights, strict=True)}
    return Conduct(
        actor=route.owner,
        weights=tuple(weights.items()),
        owner=kept_owner(experiment) if over else route.owner,
        experiment=None if over else _without(counted, conclusion.aborted),
        etag=etag_of(route.epoch),
    )


def _without(counted: Counted, aborted: tuple[int, ...]) -> Experiment | None:
    """The experiment on the route without the testers of candidates that go: nobody reads those any more."""
    route = counted.route.state.route
    assert route is not None
    experiment = route.experiment
    assert experiment is not None, "a conclusion is drawn for the experiment on the route"
    return replace(experiment, overrides=tuple(one for one in experiment.overrides if one[1] not in aborted))
