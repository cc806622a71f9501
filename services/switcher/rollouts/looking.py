"""A look at what a rollout's gates say, and at its route: everything that the next decision on it rests on."""

import asyncio
from collections.abc import Sequence
from typing import Final

import msgspec

from services.switcher.experiments.conclude import Situation, conclude
from services.switcher.experiments.rows import State as ExperimentState
from services.switcher.experiments.situations import STALE_AFTER, first_window, situation_of
from services.switcher.experiments.store import ExperimentStore
from services.switcher.questions import GateQuestion
from services.switcher.records import ChangeRecord, CommandKind, RouteRecord
from services.switcher.replayer_client import ReplayerClient
from services.switcher.rollouts.comparing import Comparisons
from services.switcher.rollouts.plan import Gate, StepKind
from services.switcher.rollouts.record import Look
from services.switcher.rollouts.rollout import Overruling, Phase, Rollout, RouteSeen, asks, overruled, overruling
from services.switcher.rollouts.store import Stored
from services.switcher.rollouts.verdicts import (
    Finding,
    GateVerdict,
    RunSeen,
    of_experiment,
    of_gate,
    of_run,
    of_shadow,
)
from services.switcher.shadow_store import ShadowStore
from services.switcher.statistics.decision import Verdict
from services.switcher.store import RouteStore
from turnout.errors import NotFound, TurnoutError, Unavailable
from turnout.replayer.v1 import run_pb2
from turnout.routing import WHOLE, Route, Units
from turnout.shadow import ShadowVerdict

_OF_TABLE: Final = frozenset({Gate.CATCH_UP, Gate.COVERAGE, Gate.SCHEMA})
_OF_UNITS: Final = (Gate.HARM, Gate.SPREAD, Gate.NO_WORSE)
_COUNTING: Final = (ExperimentState.RUNNING, ExperimentState.PAUSED)
_HELD: Final = (run_pb2.Run.PAUSED, run_pb2.Run.STOPPED)


class Looks:
    """Looks at rollouts."""

    def __init__(
        self,
        routes: RouteStore,
        experiments: ExperimentStore,
        shadows: ShadowStore,
        replayer: ReplayerClient,
        comparisons: Comparisons,
    ) -> None:
        self._routes = routes
        self._experiments = experiments
        self._shadows = shadows
        self._replayer = replayer
        self._comparisons = comparisons

    async def look(self, stored: Stored) -> Look:
        """What the gates that the rollout asks say now, each fresh, and how its route was changed over its head."""
        rollout, asked = stored.rollout, asks(stored.rollout)
        route = await self._routes.read(rollout.job)
        found = await asyncio.gather(
            self._of_table(rollout, asked),
            self._of_comparison(stored, asked),
            self._of_shadow(rollout, asked, route),
            self._of_units(stored, asked, route),
        )
        findings = tuple(one for part in found for one in part if one.gate in asked)
        return Look(findings, *await self._overruled(stored, route))

    # --- run and table ---

    async def _of_table(self, rollout: Rollout, asked: Sequence[Gate]) -> list[Finding]:
        """What the candidate's run and the gates of its table say."""
        if Gate.RUN not in asked:
            return []
        try:
            run = await self._replayer.run(rollout.job, rollout.candidate)
        except NotFound as error:
            return [of_run(RunSeen.HELD, error.message, exposed=False)]
        except TurnoutError as error:
            return _stale((Gate.RUN,), error)
        exposed = max(rollout.exposed, rollout.target) > 0
        findings = [of_run(_seen(run), _run_sentence(rollout, run), exposed=exposed)]
        tables = [gate for gate in asked if gate in _OF_TABLE]
        if tables and not run.partitions:
            told = f"The run of v{rollout.candidate} has not begun to read yet."
            return [*findings, *(Finding(gate, GateVerdict.WAIT, told) for gate in tables)]
        return [*findings, *(await self._gates(rollout, tables))]

    async def _gates(self, rollout: Rollout, tables: Sequence[Gate]) -> list[Finding]:
        if not tables:
            return []
        # Once it is the active version itself, there is nothing but the log that it could be behind.
        baseline = None if rollout.exposed == WHOLE else rollout.control
        try:
            answers = await self._replayer.gates(rollout.job, [GateQuestion(rollout.candidate, baseline)], frozenset())
        except TurnoutError as error:
            return _stale(tables, error)
        said = {answer.gate: answer for answer in answers}
        return [of_gate(gate, said[gate.value].passed, said[gate.value].evidence) for gate in tables]

    # --- comparisons ---

    async def _of_comparison(self, stored: Stored, asked: Sequence[Gate]) -> list[Finding]:
        if Gate.COMPARISON not in asked:
            await self._comparisons.give_up(stored.number)
            return []
        return [await self._comparisons.finding(stored.number, stored.rollout)]

    async def _of_shadow(self, rollout: Rollout, asked: Sequence[Gate], route: RouteRecord) -> list[Finding]:
        if Gate.SHADOW not in asked:
            return []
        shadow = route.state.route.shadow if route.state.route else None
        try:
            # Not what an earlier rollout of the candidate saw: what differed may be mended, or have come since.
            report = await self._shadows.at_present(rollout.job, rollout.candidate, rollout.control)
        except Unavailable as error:
            return _stale((Gate.SHADOW,), error)
        if report is None:
            told = f"No live read of v{rollout.control} was compared with v{rollout.candidate} yet."
            return [Finding(Gate.SHADOW, GateVerdict.WAIT, told)]
        return [
            of_shadow(
                sampled=shadow is not None and shadow.version == rollout.candidate,
                compared=report.counts.compared,
                differs=report.verdict is ShadowVerdict.DIFFERS,
                sentence=report.sentence,
            )
        ]

    # --- units ---

    async def _of_units(self, stored: Stored, asked: Sequence[Gate], record: RouteRecord) -> list[Finding]:
        """What the experiment on the rollout's behalf says of its units."""
        if Gate.HARM not in asked:
            return []
        last = await self._experiments.last_of(stored.rollout.job, stored.name)
        if last is not None and last.state is ExperimentState.ROLLED_BACK:
            return [Finding(Gate.HARM, GateVerdict.FAIL, last.end_reason)]
        if last is None or last.state not in _COUNTING:
            return _of_nobody(stored.rollout, record)
        counted = await self._experiments.counted(last.number, STALE_AFTER)
        route = counted.route.state.route
        if counted.experiment.state.over or route is None or route.experiment is None:
            return []  # it has ended since it was read
        situation = situation_of(counted)
        conclusion = conclude(situation)
        verdict = conclusion.decision.verdict
        if situation.stale and verdict is not Verdict.ABORT:
            told = f"What was counted is not all there is: it waits for {situation.stale}."
            return [Finding(gate, GateVerdict.STALE, told) for gate in _OF_UNITS]
        sentence = conclusion.sentence + first_window(counted, conclusion)
        return list(of_experiment(verdict, sentence, _unread(stored.rollout, situation)))

    # --- route ---

    async def _overruled(self, stored: Stored, record: RouteRecord) -> tuple[str, Overruling]:
        """How the route was changed over the rollout's head, in a sentence ("" = it was not), and what that means."""
        rollout, route, back = stored.rollout, record.state.route, record.state.way_back
        if not rollout.claimed or route is None:
            return "", Overruling.CHANGED
        weight = route.weight(rollout.candidate)
        owned, leads_to = route.owner == stored.name, back.active_version if back is not None else 0
        seen = RouteSeen(owned, route.active_version, weight, "", leads_to)
        beside = 0 < rollout.exposed < WHOLE and weight == rollout.exposed and route.experiment is None
        step = rollout.present
        shadowing = step is not None and step.kind is StepKind.SHADOW and rollout.phase is Phase.WATCHING
        if overruled(rollout, seen):
            change = await self._led_to(route)
            rolled_back = change.command is CommandKind.ROLL_BACK
            seen = msgspec.structs.replace(seen, change=_told(change), rolled_back=rolled_back)
            return overruled(rollout, seen), overruling(rollout, seen)
        stopped = ""
        if beside:
            stopped = "experiment"
        elif shadowing and (route.shadow is None or route.shadow.version != rollout.candidate):
            stopped = "shadow"
        if not stopped:
            return "", Overruling.CHANGED
        change = await self._led_to(route)
        return f"The {stopped} was stopped over the rollout's head ({_told(change)}).", Overruling.CHANGED

    async def _led_to(self, route: Route) -> ChangeRecord:
        """The change that made the route what was seen. Since then, the gates were asked, and there may be newer ones:
        whose rollback was the last one says nothing of this route."""
        [change] = await self._routes.list_changes(route.job, route.epoch + 1, 1)
        return change


def _told(change: ChangeRecord) -> str:
    by = f" by {change.claimed_actor}" if change.claimed_actor else ""
    return f"{change.command.words}{by}" + (f": {change.reason}" if change.reason else "")


def _unread(rollout: Rollout, situation: Situation) -> str:
    """Why nobody can tell whether the candidate does harm; "" = it has readers who are counted.

    Of all epochs: in a later one, those who read before are not counted anew.
    """
    place = situation.spec.candidates.index(rollout.candidate) + 1
    if any(one.arms[place].units for one in situation.epochs):
        return ""
    by_caller = situation.spec.units is Units.CALLER
    brings = "that brings a unit (`unit=`, `turnout read --unit`)" if by_caller else "by a key that brings no unit"
    return (
        f"No unit of v{rollout.candidate} was counted yet, so nobody can tell whether it does harm: it waits for a "
        f"read {brings}. Otherwise promote the step, or abort the rollout."
    )


def _of_nobody(rollout: Rollout, record: RouteRecord) -> list[Finding]:
    """What is said of a candidate whose units nothing counts: nothing, unless it has none or all of them, so that there
    is nothing to compare, or is to be counted again by the very act that waits for this."""
    route = record.state.route
    weight = route.weight(rollout.candidate) if route is not None else 0
    if rollout.claimed and (route is None or 0 < weight < WHOLE):
        return []
    told = f"All units are v{rollout.candidate}'s." if weight else f"Nothing counts units of v{rollout.candidate} yet."
    return [Finding(gate, GateVerdict.PASS, told) for gate in (Gate.HARM, Gate.SPREAD)]


def _stale(gates: Sequence[Gate], error: TurnoutError) -> list[Finding]:
    return [Finding(gate, GateVerdict.STALE, error.message) for gate in gates]


def _seen(run: run_pb2.Run) -> RunSeen:
    if run.state == run_pb2.Run.FAILED:
        return RunSeen.FAILED
    return RunSeen.HELD if run.state in _HELD else RunSeen.READING


def _run_sentence(rollout: Rollout, run: run_pb2.Run) -> str:
    state = f"The run of v{rollout.candidate} is {run_pb2.Run.State.Name(run.state)}"
    if run.status_message:
        return f"{state}: {run.status_message}"
    behind = f", {run.lag:,} offsets from the end of the log" if run.lag else ""
    return f"{state}{behind}."
