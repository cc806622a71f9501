"""What the client takes and returns of rollouts: frozen values, in the conventions of `turnout.results`."""

from __future__ import annotations

import enum
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from turnout.contract import Contract
from turnout.experiments import Plan, Units

TEMPLATES = ("careful", "normal", "fast")
"""Names of the plans to begin with; `turnout.rollout_file` reads them."""


class StepKind(enum.StrEnum):
    """What a step does."""

    REPLAY = "REPLAY"  # starts the candidate's run, unless it has one, and waits until its table may serve
    COMPARE = "COMPARE"  # compares the candidate's table with the active version's
    SHADOW = "SHADOW"  # answers a share of the reads from both tables and compares the answers
    TRAFFIC = "TRAFFIC"  # gives the candidate a share of the units; with all of them it is the active version
    APPROVE = "APPROVE"  # waits for a person, who promotes past it
    SOAK = "SOAK"  # watches the candidate while the way back is kept
    RETIRE = "RETIRE"  # retires the version that was active before


class RolloutState(enum.StrEnum):
    """Where a rollout stands."""

    PENDING = "PENDING"  # it does not own the route yet
    RUNNING = "RUNNING"  # it goes from step to step
    PAUSED = "PAUSED"  # nothing moves forward until a person says so; a gate that fails still takes the candidate back
    ROLLING_BACK = "ROLLING_BACK"  # the candidate is being taken back
    SUCCEEDED = "SUCCEEDED"  # all steps are done
    ROLLED_BACK = "ROLLED_BACK"  # a gate failed, or its cutover was rolled back; the candidate has no unit
    ABORTED = "ABORTED"  # a person aborted it, and the candidate has no unit; or it is active, and no way back is left
    FAILED = "FAILED"  # it was not given the route; nothing has changed

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self in _OVER


_OVER = frozenset({RolloutState.SUCCEEDED, RolloutState.ROLLED_BACK, RolloutState.ABORTED, RolloutState.FAILED})


class RolloutPhase(enum.StrEnum):
    """What is being done about the present step."""

    TAKING = "TAKING"  # what it does is to be done, and may have been done
    WATCHING = "WATCHING"  # that is done; its gates are asked


class RolloutHold(enum.StrEnum):
    """Why a rollout is paused."""

    PERSON = "PERSON"  # a person paused it
    INCONCLUSIVE = "INCONCLUSIVE"  # a gate cannot decide, or the step's time limit is over
    REFUSED = "REFUSED"  # what the step does was refused
    OVERRULED = "OVERRULED"  # somebody changed the route over its head


class GateVerdict(enum.StrEnum):
    """What a gate says of a rollout's present step."""

    FAIL = "FAIL"  # the candidate is taken back
    INCONCLUSIVE = "INCONCLUSIVE"  # a person decides
    STALE = "STALE"  # nobody can tell at present, so nothing moves forward
    WAIT = "WAIT"  # not yet
    PASS = "PASS"  # noqa: S105  # a verdict, not a password


@dataclass(frozen=True, slots=True)
class RolloutStep:
    """One step of a plan.

    share: basis points, of the units (TRAFFIC) or of the reads (SHADOW); else 0. at_least: how long it is watched,
    while its gates answer; None = until they pass. within: undecided for so long, it pauses for a person; None = as
    long as it takes. no_worse: of TRAFFIC below 100 %, whether it lasts until the candidate is shown to be no worse
    than the margin allows. contract: of COMPARE; None = a person judges the differences.
    """

    kind: StepKind
    share: int = 0
    at_least: timedelta | None = None
    within: timedelta | None = None
    no_worse: bool = False
    contract: Contract | None = None


@dataclass(frozen=True, slots=True)
class RolloutPlan:
    """The steps, and what is fixed before units are counted.

    guardrails: as of an experiment, whose harms and errors are always the defaults; None = the default of the switcher.
    units: what is counted by; None = the row's key.
    """

    steps: tuple[RolloutStep, ...]
    guardrails: Plan = field(default_factory=Plan)
    units: Units | None = None


@dataclass(frozen=True, slots=True)
class RolloutFinding:
    """What a gate said at the last look, and in one sentence why."""

    gate: str
    verdict: GateVerdict
    sentence: str


@dataclass(frozen=True, slots=True)
class RolloutPreview:
    """What one step would take; None = it is not known.

    gates: those that must pass before the next step. least: the time that it takes when all goes well. units_needed:
    units, of both versions and of all steps so far, until a candidate that is just as good is shown to be no worse; 0
    where the step does not ask for that. units_to_find: the same until one that errs ten times as often is taken back.
    units_expected: by the end of the step. warnings: what cannot be reached, and what to do, a sentence each.
    """

    step: RolloutStep
    does: str
    gates: tuple[str, ...]
    least: timedelta | None
    units_needed: float | None
    units_to_find: float | None
    units_expected: float | None
    warnings: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Rollout:
    """A rollout. control: the version that was active at the start, which readers come back to.

    step: the present one, from 1; 0 = it does not own the route yet, one more than the plan has = all are done. phase,
    hold: None where there is none. sentence: why it came to where it is. waiting_for: what has to come before it goes
    on; "" = nothing. frozen: whether nothing moves forward because a gate gave no answer, or a stale one. weight: basis
    points of the units that the candidate was given. watched: how long the present step was watched with answers of its
    gates. experiment: that counts, or last counted, the candidate's units; "" = none. update_time: when it came to its
    present state, step and phase. end_time: None before it is over. previews, least, expectation: only in the answer to
    its start; the last one is what the others take for granted of units, and where that comes from. skipped: the steps,
    from 1, that a person promoted it past.
    """

    job: str
    rollout: str
    candidate: int
    control: int
    plan: RolloutPlan
    state: RolloutState
    step: int
    phase: RolloutPhase | None
    hold: RolloutHold | None
    sentence: str
    waiting_for: str
    frozen: bool
    weight: int
    watched: timedelta
    findings: tuple[RolloutFinding, ...]
    experiment: str
    create_time: datetime | None
    update_time: datetime | None
    end_time: datetime | None
    claimed_actor: str
    reason: str
    previews: tuple[RolloutPreview, ...] = ()
    least: timedelta | None = None
    skipped: tuple[int, ...] = ()
    expectation: str = ""

    @property
    def present(self) -> RolloutStep | None:
        """The present step; None before the first and after the last."""
        return self.plan.steps[self.step - 1] if 1 <= self.step <= len(self.plan.steps) else None

    @property
    def following(self) -> RolloutStep | None:
        """The step after the present one; None = there is none."""
        return self.plan.steps[self.step] if self.step < len(self.plan.steps) else None


@dataclass(frozen=True, slots=True)
class RolloutDecision:
    """What was decided on a rollout. action: LOOK (what gates and route say), ACT (what became of an act), or PAUSE,
    RESUME, PROMOTE, ABORT (what a person said). state, step: afterwards, as of the rollout. carried_out: whether its
    change of the route was committed; true where there was none. record: the whole of it as JSON; "" in lists.
    """

    job: str
    rollout: str
    decision: int
    create_time: datetime
    action: str
    state: RolloutState
    step: int
    sentence: str
    actor: str
    reason: str
    carried_out: bool
    record: str
