"""Rollouts to test with."""

from datetime import UTC, datetime, timedelta

from hypothesis import strategies as st

from services.switcher.rollouts.plan import Gate, Plan, Step, StepKind
from services.switcher.rollouts.rollout import Rollout, asks, begun
from services.switcher.rollouts.verdicts import Finding, GateVerdict
from services.switcher.statistics.decision import Plan as Judging
from turnout.routing import WHOLE, Units

START = datetime(2026, 1, 1, tzinfo=UTC)
JOB, CONTROL, CANDIDATE = "flights", 1, 2

REPLAY = Step(StepKind.REPLAY)
COMPARE = Step(StepKind.COMPARE)
SHADOW = Step(StepKind.SHADOW, 1000, for_s=60)
SOME = Step(StepKind.TRAFFIC, 500, for_s=60)
MORE = Step(StepKind.TRAFFIC, 2500, within_s=600, no_worse=True)
APPROVE = Step(StepKind.APPROVE)
ALL = Step(StepKind.TRAFFIC, WHOLE)
SOAK = Step(StepKind.SOAK, for_s=60)
RETIRE = Step(StepKind.RETIRE)
EVERYTHING = Plan((REPLAY, COMPARE, SHADOW, SOME, MORE, APPROVE, ALL, SOAK, RETIRE))
"""One step of each kind, and two shares."""


def at(seconds: float) -> datetime:
    """A moment after the start."""
    return START + timedelta(seconds=seconds)


def new(plan: Plan = EVERYTHING) -> Rollout:
    """A rollout that has not begun."""
    return begun("7c1e", JOB, CANDIDATE, CONTROL, plan, START)


def say(verdict: GateVerdict, *gates: Gate) -> tuple[Finding, ...]:
    """The gates say this."""
    return tuple(Finding(gate, verdict, f"{gate.value} says {verdict.value}.") for gate in gates)


def passing(rollout: Rollout) -> tuple[Finding, ...]:
    """All gates that the rollout asks pass."""
    return say(GateVerdict.PASS, *asks(rollout))


def _seconds(low: int, high: int = 90 * 86400) -> st.SearchStrategy[float]:
    return st.one_of(st.integers(low, high).map(float), st.integers(low * 1000, 100_000).map(lambda ms: ms / 1000))


@st.composite
def plans(draw: st.DrawFn) -> Plan:
    """Any plan that may be."""
    shares = sorted(draw(st.sets(st.integers(1, WHOLE - 1), max_size=3)))
    looks = st.sampled_from([COMPARE, SHADOW, APPROVE])
    steps = draw(st.sampled_from([[], [REPLAY]])) + draw(st.lists(looks, max_size=2))
    for share in shares:
        for_s = draw(st.sampled_from([0.0, 30.0, 3600.0]))
        within_s = draw(st.sampled_from([0.0, for_s + 600.0]))
        no_worse = draw(st.booleans()) or not for_s
        steps += [Step(StepKind.TRAFFIC, share, for_s, within_s, no_worse), *draw(st.lists(looks, max_size=1))]
    steps.append(ALL)
    steps += draw(st.sampled_from([[], [SOAK], [APPROVE, SOAK], [RETIRE], [SOAK, RETIRE], [SOAK, APPROVE, RETIRE]]))
    judging = Judging(
        margin=draw(st.sampled_from([0.01, 0.05, 0.1, 0.125, 1.0])), units_min=draw(st.integers(0, 1_000_000))
    )
    return Plan(tuple(steps), judging, draw(st.sampled_from(Units)), draw(_seconds(1)), draw(_seconds(0)))
