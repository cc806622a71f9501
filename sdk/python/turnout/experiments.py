"""What the client takes and returns of experiments: frozen values, in the conventions of `turnout.results`."""

from __future__ import annotations

import enum
from collections.abc import Mapping
from dataclasses import dataclass
from datetime import datetime, timedelta
from typing import Final

MARGIN_MAX: Final = 1.0
"""The largest margin: a candidate that errs twice as often, or converts half as often, is no worse by none."""


class ExperimentState(enum.StrEnum):
    """Where an experiment stands."""

    STARTING = "STARTING"  # its route is being proposed to the fronts
    RUNNING = "RUNNING"  # it counts, and guardrails watch it
    PAUSED = "PAUSED"  # the same, but no weight moves by itself until a person resumes it
    ROLLED_BACK = "ROLLED_BACK"  # a guardrail took the last candidate off the route
    STOPPED = "STOPPED"  # somebody stopped it, or changed its route over its head


class Units(enum.StrEnum):
    """What an experiment counts by."""

    KEY = "KEY"  # the row's key
    CALLER = "CALLER"  # the caller's unit; a read without one gets the active version


class Metric(enum.StrEnum):
    """What may become of an exposure."""

    ERROR = "ERROR"  # reported: the answer was wrong or of no use; once a unit
    FAILURE = "FAILURE"  # the front could not answer; once a unit
    NOT_FOUND = "NOT_FOUND"  # the front found no row; once a unit
    SLOW = "SLOW"  # the answer took longer than the plan's `slow`; once a unit
    CONVERSION = "CONVERSION"  # reported: the unit did what it was hoped to do; once a unit; as a harm: too few did
    REWARD = "REWARD"  # reported: a number; those of a unit add up


class Verdict(enum.StrEnum):
    """What is to be done with a candidate, or with the whole experiment."""

    ABORT = "ABORT"  # off the route at once
    FREEZE = "FREEZE"  # nothing moves until a person has looked: the samples do not fit the weights
    PROMOTE = "PROMOTE"  # it may be promoted
    CONTINUE = "CONTINUE"  # not decided yet
    INCONCLUSIVE = "INCONCLUSIVE"  # not decided, and the units planned for it are used up


class BanditRule(enum.StrEnum):
    """How a bandit weighs the arms."""

    THOMPSON = "THOMPSON"  # by the probability that the arm is the best
    EPSILON_GREEDY = "EPSILON_GREEDY"  # the best so far gets all but epsilon


class BanditObjective(enum.StrEnum):
    """What a bandit looks for."""

    CONVERSIONS = "CONVERSIONS"  # the largest share of units that convert
    REWARDS = "REWARDS"  # the largest mean reward of a unit
    ERRORS = "ERRORS"  # the smallest share of units that err


@dataclass(frozen=True, slots=True)
class Plan:
    """What verdicts go by; fixed for the life of the experiment. None = the default of the switcher.

    abort_alpha, mismatch_alpha, promote_beta: probabilities of aborting, pausing and promoting wrongly. margin: a
    candidate's risk may be 1 + margin times the control's, and its conversions the same less; at most MARGIN_MAX.
    units_min, units_max: complete windows before a promotion, and after which it is inconclusive. window: of a unit,
    from its first exposure. delay: how much later an outcome may be reported. slow: an answer that takes longer is
    SLOW. harms: the guardrails, all but REWARD. errors: harms that count in a window, neither CONVERSION nor REWARD.
    """

    abort_alpha: float | None = None
    mismatch_alpha: float | None = None
    promote_beta: float | None = None
    margin: float | None = None
    units_min: int | None = None
    units_max: int | None = None
    window: timedelta | None = None
    delay: timedelta | None = None
    slow: timedelta | None = None
    harms: tuple[Metric, ...] = ()
    errors: tuple[Metric, ...] = ()


@dataclass(frozen=True, slots=True)
class Bandit:
    """Weights that learn. Shares are parts of 1. None = the default of the switcher.

    epsilon: dealt out among all arms by EPSILON_GREEDY. floor: no arm falls below it. step_max: the most that a share
    changes at a time. gamma: what an epoch's outcomes weigh beside those of the next one. every: least time between two
    steps. units_min: complete windows in each arm before the first step.
    """

    rule: BanditRule = BanditRule.THOMPSON
    objective: BanditObjective = BanditObjective.CONVERSIONS
    epsilon: float | None = None
    floor: float | None = None
    step_max: float | None = None
    gamma: float | None = None
    every: timedelta | None = None
    units_min: int | None = None


@dataclass(frozen=True, slots=True)
class ArmEstimate:
    """An estimate with a 95 % interval for the eye; verdicts go by e-values."""

    value: float
    low: float
    high: float


@dataclass(frozen=True, slots=True)
class ArmStanding:
    """What was counted of one arm. weight, wanted: basis points now, and what a bandit aims at (None without one).

    units: whose first exposure was to it. windows: of them, those that are complete. None = there is nothing to tell.
    """

    version: int
    weight: int
    wanted: int | None
    units: int
    windows: int
    error_rate: ArmEstimate | None
    conversion_rate: ArmEstimate | None
    mean_reward: ArmEstimate | None


@dataclass(frozen=True, slots=True)
class Guardrail:
    """A test that may be looked at all the time. It speaks when e_value reaches threshold.

    counts: what was counted for it of the control and of the candidate; empty where it does not go by counts of harm.
    """

    name: str
    e_value: float
    threshold: float
    counts: tuple[int, ...]


@dataclass(frozen=True, slots=True)
class CandidateStanding:
    """What is said of one candidate. present: whether it is still on the route."""

    version: int
    verdict: Verdict
    sentence: str
    harms: tuple[Guardrail, ...]
    no_worse: Guardrail
    present: bool


@dataclass(frozen=True, slots=True)
class Standing:
    """What was counted, what is said of it, and what has to come before anything moves.

    observations_lost: what fronts had to drop because the switcher was away for too long. reads_left_out: reads, at
    least so many, that were not counted because they brought no unit, or one of another kind than it counts by.
    """

    epoch: int
    arms: tuple[ArmStanding, ...]
    candidates: tuple[CandidateStanding, ...]
    mismatch: Guardrail
    verdict: Verdict
    sentence: str
    waiting_for: str
    observations_lost: int
    reads_left_out: int = 0


@dataclass(frozen=True, slots=True)
class Experiment:
    """An experiment. weights: version -> basis points as it began, the control first. holdout: basis points.

    overrides: unit -> version. end_time, end_reason: None and "" while it runs. standing: None in lists.
    """

    job: str
    experiment: str
    state: ExperimentState
    weights: Mapping[int, int]
    units: Units
    salt: str
    holdout: int
    holdout_salt: str
    overrides: Mapping[str, int]
    plan: Plan
    bandit: Bandit | None
    create_time: datetime | None
    end_time: datetime | None
    end_reason: str
    claimed_actor: str
    reason: str
    standing: Standing | None

    @property
    def control(self) -> int:
        """The version that candidates are compared with."""
        return next(iter(self.weights))


@dataclass(frozen=True, slots=True)
class Decision:
    """A decision on an experiment. epoch: of the route that it led to, or stayed in. action: KEEP, ABORT, END, PAUSE,
    STEP or ASKED. carried_out: whether its change of the route was committed. record: the whole of it as JSON; "" in
    lists.
    """

    job: str
    experiment: str
    decision: int
    create_time: datetime
    epoch: int
    action: str
    verdict: Verdict
    sentence: str
    actor: str
    reason: str
    carried_out: bool
    record: str


@dataclass(frozen=True, slots=True)
class Replay:
    """A decision that was computed again. recomputed: the record then, as JSON; "" where it is equal."""

    equal: bool
    recomputed: str


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of an answer: ERROR, CONVERSION, or REWARD with its number. exposure_id: as the answer gave it.

    reward: of a REWARD, from -1e9 to 1e9. outcome_id: of a REWARD, the reporter's own, so that a repeat is none; "" =
    the exposure has one reward.
    """

    exposure_id: str
    metric: Metric
    reward: float = 0.0
    outcome_id: str = ""


@dataclass(frozen=True, slots=True)
class Reported:
    """What became of reported outcomes, all of them stored by now. not_counted: the experiment is over, or does not
    count the unit. rejected: place in the report -> why it can never be stored.
    """

    stored: int
    duplicates: int
    not_counted: int
    rejected: Mapping[int, str]
