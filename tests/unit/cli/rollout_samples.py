"""Rollouts as the services would send them."""

from __future__ import annotations

from dataclasses import replace
from datetime import timedelta

from tests.unit.cli.samples import JOB, NOON
from turnout.contract import Contract
from turnout.experiments import Plan, Units
from turnout.rollouts import (
    GateVerdict,
    Rollout,
    RolloutDecision,
    RolloutFinding,
    RolloutHold,
    RolloutPhase,
    RolloutPlan,
    RolloutPreview,
    RolloutState,
    RolloutStep,
    StepKind,
)

HOUR = timedelta(hours=1)
PLAN = RolloutPlan(
    steps=(
        RolloutStep(StepKind.REPLAY),
        RolloutStep(StepKind.COMPARE, contract=Contract()),
        RolloutStep(StepKind.SHADOW, 1_000, at_least=HOUR),
        RolloutStep(StepKind.TRAFFIC, 500, at_least=HOUR),
        RolloutStep(StepKind.TRAFFIC, 2_500, at_least=HOUR, within=2 * 24 * HOUR, no_worse=True),
        RolloutStep(StepKind.APPROVE),
        RolloutStep(StepKind.TRAFFIC, 10_000),
        RolloutStep(StepKind.SOAK, at_least=24 * HOUR),
        RolloutStep(StepKind.RETIRE),
    ),
    guardrails=Plan(margin=0.1, window=24 * HOUR),
    units=Units.CALLER,
)
SENTENCE = "Neither harm of v2 nor its absence is shown, it goes on: 11 of 961 units erred on it."
ROLLOUT = Rollout(
    job=JOB,
    rollout="v2",
    candidate=2,
    control=1,
    plan=PLAN,
    state=RolloutState.RUNNING,
    step=5,
    phase=RolloutPhase.WATCHING,
    hold=None,
    sentence="v2 has 25 % of the units.",
    waiting_for=SENTENCE,
    frozen=False,
    weight=2_500,
    watched=timedelta(minutes=72),
    findings=(
        RolloutFinding("run", GateVerdict.PASS, "The run of v2 follows the log."),
        RolloutFinding("harm", GateVerdict.PASS, SENTENCE),
        RolloutFinding("spread", GateVerdict.PASS, SENTENCE),
        RolloutFinding("no-worse", GateVerdict.WAIT, SENTENCE),
    ),
    experiment="rounding",
    create_time=NOON,
    update_time=NOON + 3 * HOUR,
    end_time=None,
    claimed_actor="ada@lab",
    reason="rounding is mended",
)
JUDGED = replace(
    ROLLOUT,
    state=RolloutState.PAUSED,
    hold=RolloutHold.INCONCLUSIVE,
    step=2,
    weight=0,
    experiment="",
    watched=timedelta(seconds=40),
    sentence="The tables were compared without a contract that says what may differ: a person has to judge them.",
    waiting_for="a person, who resumes, promotes or aborts it",
    findings=(
        RolloutFinding("run", GateVerdict.PASS, "The run of v2 follows the log."),
        RolloutFinding("comparison", GateVerdict.INCONCLUSIVE, "The tables were compared without a contract."),
    ),
)
FROZEN = replace(ROLLOUT, frozen=True, waiting_for="front-1 has not told for 12 s what it saw.")
TAKEN_BACK = replace(
    ROLLOUT,
    state=RolloutState.ROLLED_BACK,
    phase=None,
    step=4,
    weight=0,
    end_time=NOON + timedelta(minutes=12),
    sentence="v2 does harm: 31 of 40 first errors are its own, at 5 % of the units (evidence 412, 80 decides).",
    waiting_for="",
)
BEFORE = replace(
    ROLLOUT,
    state=RolloutState.PENDING,
    step=0,
    phase=RolloutPhase.TAKING,
    weight=0,
    findings=(),
    experiment="",
    sentence="",
    waiting_for="",
)
THROUGH = replace(
    ROLLOUT,
    state=RolloutState.SUCCEEDED,
    step=10,
    phase=None,
    weight=10_000,
    end_time=NOON + 50 * HOUR,
    sentence="All steps are done.",
    waiting_for="",
)
PREVIEWS = (
    RolloutPreview(PLAN.steps[0], "starts the run", ("run", "catch-up"), timedelta(seconds=42), 0.0, None, None, ()),
    RolloutPreview(PLAN.steps[1], "compares", ("run", "comparison"), None, 0.0, None, None, ()),
    RolloutPreview(PLAN.steps[3], "gives", ("run", "harm"), HOUR, 0.0, 700.0, 1_250.0, ()),
    RolloutPreview(
        PLAN.steps[4],
        "gives",
        ("run", "harm", "spread", "no-worse"),
        49 * HOUR,
        61_250.4,
        1_250.0,
        32_500.0,
        (
            "traffic 25 %: it would wait for a person: at a margin of 10 % no-worse takes about 61,250 units at this "
            "share, which is 2.0 days; it has 1.5 days (`within`). Enough would be `within: 49h`, or `margin: 12 %`.",
        ),
    ),
)
PREVIEWED = replace(
    BEFORE,
    create_time=None,
    previews=PREVIEWS,
    least=timedelta(hours=75),
    expectation="30,000 units a day (`--units-per-day`), 2 % of them erring (as in the experiment rounding, where 988 "
    "came in 12.0 minutes; `--risk` says otherwise)",
)
DECISIONS = (
    RolloutDecision(
        JOB, "v2", 2, NOON + HOUR, "LOOK", RolloutState.RUNNING, 4, "traffic 5 % is done.", "rollout", "", True, ""
    ),
    RolloutDecision(JOB, "v2", 1, NOON, "PAUSE", RolloutState.PAUSED, 3, "ada asks.", "ada@lab", "a look", True, "{}"),
)
