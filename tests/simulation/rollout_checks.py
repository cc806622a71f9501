"""What must hold of rollouts and experiments, looked at from outside after every commit."""

from __future__ import annotations

import json
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any

from services.switcher.experiments import record as experiment_record
from services.switcher.experiments.conclude import Action
from services.switcher.experiments.rows import State as ExperimentState
from services.switcher.rollouts import record as rollout_record
from services.switcher.rollouts.acts import ActKind, due
from services.switcher.rollouts.plan import Gate, StepKind
from services.switcher.rollouts.rollout import Rollout, RouteSeen, State, overruled
from services.switcher.rollouts.verdicts import GateVerdict
from tests.simulation.replayer import Flaw
from turnout.names import VersionId
from turnout.routing import Route

if TYPE_CHECKING:
    from tests.simulation.checks import Checks

_COUNTING = (ExperimentState.RUNNING, ExperimentState.PAUSED)
_DECISIONS_OF_MOVES = """
with moves as (
    select e.job, d.epoch from switcher.experiment_decisions d join switcher.experiments e using (number)
    where d.carried_out and d.action in ('ABORT', 'END', 'STEP')
)
select c.job, c.epoch, c.command, (select count(*) from moves m where m.job = c.job and m.epoch = c.epoch) as decisions
from switcher.route_changes c where c.command in ('ABORT', 'STEP')
"""
_PASSABLE = (Gate.SPREAD,)  # over whose verdict a person may go on


@dataclass(frozen=True)
class Known:
    """A rollout as it was committed last. decisions: how many there are."""

    name: str
    revision: int
    rollout: Rollout
    decisions: int = 0


@dataclass
class RolloutChecks:
    """Follows every rollout and experiment from commit to commit."""

    checks: Checks
    rollouts: dict[int, Known] = field(default_factory=dict)  # by number
    experiments: dict[int, ExperimentState] = field(default_factory=dict)  # by number

    @property
    def going_on(self) -> list[Known]:
        """The rollouts that are not over."""
        return [known for known in self.rollouts.values() if not known.rollout.state.over]

    def _fetch(self, sql: str, *args: Any) -> list[Any]:
        return self.checks.world.real.fetch(sql, *args)

    # --- rollouts ---

    def rollouts_changed(self) -> None:
        """After a commit that changed one."""
        for row in self._fetch("select number, name, revision, rollout, over from switcher.rollouts order by number"):
            before = self.rollouts.get(row["number"])
            if before is not None and before.revision == row["revision"]:
                continue
            rollout = rollout_record.decode_rollout(row["rollout"])
            told = 0 if before is None else before.decisions
            if before is not None:
                told += self._decided(row["number"], before, rollout)
            self.rollouts[row["number"]] = Known(row["name"], row["revision"], rollout, told)
            if rollout.state.over != row["over"]:
                self.checks.fail(f"{row['name']} is {rollout.state.value}, and its row says over={row['over']}")
            if rollout.state.over:
                self.checks.count(f"rollout {rollout.state.value}")
                self._over(row["name"], rollout)

    def _decided(self, number: int, before: Known, after: Rollout) -> int:
        """How many decisions lead from the one to the other: one where it decides anything, else none."""
        if before.rollout.state.over:
            self.checks.fail(f"{before.name} was {before.rollout.state.value}, and has changed")
        rows = self._fetch(
            "select decision, record from switcher.rollout_decisions where number = $1 and decision > $2",
            *(number, before.decisions),
        )
        if len(rows) != rollout_record.decides(before.rollout, after):
            self.checks.fail(f"{before.name} went on by {len(rows)} decisions: {after.why}")
        for row in rows:
            self._replayed(before, after, bytes(row["record"]))
        return len(rows)

    def _replayed(self, before: Known, after: Rollout, told: bytes) -> None:
        record = rollout_record.decode(told)
        if rollout_record.recomputed(told) != told:
            self.checks.fail(f"a decision on {before.name} is another one when it is computed again: {told!r}")
        if (record.before, record.after) != (before.rollout, after):
            self.checks.fail(f"a decision on {before.name} leads from or to what it was not: {told!r}")
        match record.happened:
            case rollout_record.Look() as look if after.step > before.rollout.step:
                self._gates_passed(before.name, before.rollout, look)
            case rollout_record.ActEnded(act, "DONE") if act.kind is ActKind.RETIRE:
                self._released(before)

    def _released(self, known: Known) -> None:
        """What a rollout says to be retiring was released at least once."""
        rollout = known.rollout
        sql = "select from switcher.release_changes where job = $1 and version = $2 and command = 'RELEASE'"
        if not self._fetch(sql, rollout.job, rollout.control):
            self.checks.fail(f"{known.name} says that v{rollout.control} is retired, which was never released")

    def _gates_passed(self, name: str, before: Rollout, look: rollout_record.Look) -> None:
        step = before.present
        said = {one.gate: one.verdict for one in look.findings}
        for gate in () if step is None else step.gates:
            leave = gate in _PASSABLE and gate in before.passed_over
            if said.get(gate) is not GateVerdict.PASS and not leave:
                self.checks.fail(
                    f"{name} went on from step {before.step + 1} though {gate.value} said {said.get(gate)}"
                )

    def _over(self, name: str, rollout: Rollout) -> None:
        """One that is over owns nothing, and a candidate that was taken back has nothing that the rollout gave it."""
        route = self.checks.newest(rollout.job)
        assert route is not None, "a rollout has a route"
        if route.owner == name:
            self.checks.fail(f"{name} is {rollout.state.value}, and owns the route still")
        # One that others left no way back from says that it stays.
        if rollout.state is not State.SUCCEEDED and not rollout.exposed and self._gave(rollout):
            self.checks.fail(f"{name} is {rollout.state.value}, and v{rollout.candidate} has units by it: {route.arms}")

    def _gave(self, rollout: Rollout) -> bool:
        """Whether units that the candidate has now came to it by the rollout."""
        by_it, weight = False, 0
        for epoch, route in sorted(self.checks.history[rollout.job].items()):
            now = route.weight(rollout.candidate)
            if now > weight == 0:
                by_it = self.checks.requests[rollout.job, epoch].startswith(f"{rollout.uid}-")
            weight = now
        return by_it and weight > 0

    # --- routes that rollouts have changed ---

    def route_changed(self, before: Route | None, route: Route, command: str, request: str) -> None:
        """After the commit of an epoch: what a rollout did was due in that very moment, and may be."""
        if command not in ("ROLL_OUT", "WITHDRAW"):
            return
        known = next((one for one in self.rollouts.values() if request.startswith(f"{one.rollout.uid}-")), None)
        if known is None:
            self.checks.fail(f"epoch {route.epoch} of {route.job} is of no rollout: {request}")
            return
        rollout, act = known.rollout, due(known.rollout)
        if act is None or act.request_id != request:
            self.checks.fail(f"{known.name} did {request} though {act} was due")
            return
        weight, owned = route.weight(rollout.candidate), route.owner == known.name
        if command == "WITHDRAW":
            stays = route.active_version == rollout.candidate and self._retires(rollout)
            if owned or (rollout.candidate in route.named and not stays):
                self.checks.fail(f"{known.name} was taken back, and v{rollout.candidate} has {weight} in {route}")
            return
        seen = RouteSeen(owned, route.active_version, weight, command)
        if what := overruled(rollout, seen):
            self.checks.fail(f"{known.name} did {request}: {what}")
        if before is not None and weight > before.weight(rollout.candidate):
            self._may_have_more(known.name, rollout)

    def _retires(self, rollout: Rollout) -> bool:
        """Whether the control is released: no way back leads to it."""
        sql = "select from switcher.released_versions where job = $1 and version = $2"
        return bool(self._fetch(sql, rollout.job, rollout.control))

    def _may_have_more(self, name: str, rollout: Rollout) -> None:
        """Nothing is given more whose gate failed."""
        flaw = self.checks.world.tables.flaws.get(VersionId(rollout.job, rollout.candidate))
        waited = [step for place, step in enumerate(rollout.plan.steps[: rollout.step]) if place not in rollout.skipped]
        compared = any(step.kind is StepKind.COMPARE for step in waited)
        if flaw is Flaw.LACKS or (flaw is Flaw.DIFFERS and compared):
            self.checks.fail(f"{name} gave more to a version whose gate {flaw.value} fails")
        row = self._fetch("select state from switcher.experiments where owner = $1 order by number desc limit 1", name)
        if row and row[0]["state"] == ExperimentState.ROLLED_BACK.value:
            self.checks.fail(f"{name} gave more to a version that a guardrail took off the route")

    # --- experiments ---

    def experiments_follow(self) -> None:
        """After a commit: an experiment counts as long as it is on its route, and one rolled back left no weight."""
        on_routes = {}
        for job in self.checks.history:
            route = self.checks.newest(job)
            if route is not None and route.experiment is not None:
                on_routes[route.experiment.number] = route
        for row in self._fetch("select number, job, experiment, state, spec from switcher.experiments order by number"):
            number, state = row["number"], ExperimentState(row["state"])
            before, self.experiments[number] = self.experiments.get(number), state
            if (state in _COUNTING) != (number in on_routes):
                stands = "is" if number in on_routes else "is not"
                self.checks.fail(f"{row['experiment']} of {row['job']} is {state.value}, and {stands} on the route")
            if state is ExperimentState.ROLLED_BACK and before is not state:
                self.checks.count("experiment ROLLED_BACK")
                self._left_no_weight(row)

    def _left_no_weight(self, row: Any) -> None:
        route = self.checks.newest(row["job"])
        assert route is not None, "an experiment has a route"
        candidates = {int(version) for version, _ in json.loads(row["spec"])["arms"][1:]}
        if left := candidates & route.versions:
            self.checks.fail(
                f"{row['experiment']} of {row['job']} was rolled back, and {left} have units: {route.arms}"
            )

    # --- at the end ---

    def unsettled(self) -> Iterator[str]:
        """Rollouts that are not over."""
        for known in self.going_on:
            rollout = known.rollout
            told = f"at step {rollout.step + 1}, {rollout.phase.value}: {rollout.why} It waits for: {rollout.waits_for}"
            yield f"{known.name} is {rollout.state.value} still, {told}"

    def ended(self) -> None:
        """Every decision is the same again, and each one that moved a route moved it once, to where it says."""
        for row in self._fetch(
            "select d.*, e.job from switcher.experiment_decisions d join switcher.experiments e using (number) "
            "order by d.number, d.decision"
        ):
            told = bytes(row["record"])
            if experiment_record.recomputed(told) != told:
                self.checks.fail(f"a decision on experiment {row['number']} is another one when it is computed again")
            if row["carried_out"] and Action(row["action"]) in (Action.ABORT, Action.END, Action.STEP):
                self._carried_out(row, experiment_record.decode(told))

        for row in self._fetch(_DECISIONS_OF_MOVES):
            if row["decisions"] != 1:
                moved = f"epoch {row['epoch']} of {row['job']} ({row['command']})"
                self.checks.fail(f"{moved} has {row['decisions']} decisions")

    def _carried_out(self, row: Any, record: experiment_record.Record) -> None:
        route = self.checks.history[row["job"]][row["epoch"]]
        arms = zip(record.situation.spec.arms, record.conclusion.after.weights, strict=True)
        wanted = {arm.version: weight for arm, weight in arms if weight}
        found = {arm.version: arm.weight for arm in route.arms if arm.weight}
        if found != wanted:
            self.checks.fail(f"epoch {row['epoch']} of {row['job']} has {found}; the decision on it says {wanted}")
