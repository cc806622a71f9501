"""What a plan would take, and whether the units that are expected can reach a verdict. Pure.

The e-values of several shares multiply, so what the units of each contribute adds up: a step needs what the steps
before it have left.
"""

import math
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from services.switcher.rollouts.plan import Gate, Plan, Step, StepKind
from services.switcher.statistics.harm import units_to_find
from services.switcher.statistics.promotion import units_needed
from turnout.routing import WHOLE

FOUND: Final = 10.0
"""How much more often a candidate errs that a share is expected to find: below it a share would be for show."""
_DAY_S: Final = 86400.0


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known before the start; None = it is not.

    replay_s: the copy of the log, in seconds; 0 where the candidate is at its end. units_per_day: units that read for
    the first time. risk: the part of them that errs within its window, 0 to 1.
    """

    replay_s: float | None = None
    replay_remarks: tuple[str, ...] = ()
    units_per_day: float | None = None
    risk: float | None = None


class Preview(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step. None = it is not known, or there is no such number.

    least_s: the time it takes when all goes well, in seconds. units_needed: units, of both versions and of all steps so
    far, until no-worse passes for a candidate that is just as good; 0 where the step does not ask for it.
    units_to_find: the same until one that errs ten times as often is taken back. units_expected: by the step's end.
    """

    step: Step
    does: str
    gates: tuple[Gate, ...]
    least_s: float | None
    units_needed: float | None
    units_to_find: float | None
    units_expected: float | None
    warnings: tuple[str, ...]


def preview(plan: Plan, expected: Expected) -> tuple[Preview, ...]:
    """Each step of the plan, in its order."""
    told, before = [], _Gathered()
    for step in plan.steps:
        one, before = _previewed(plan, step, expected, before)
        told.append(one)
    return tuple(told)


def least_s(steps: Sequence[Preview]) -> float | None:
    """The time that all steps take when all goes well, in seconds; None where that of one is not known."""
    times = [one.least_s for one in steps if one.step.kind is not StepKind.APPROVE]
    known = [time for time in times if time is not None]
    return math.fsum(known) if len(known) == len(times) else None


class _Gathered(msgspec.Struct, frozen=True):
    """What the steps so far are expected to bring: units, and the parts of what a verdict needs."""

    units: float = 0.0
    no_worse: float = 0.0
    found: float = 0.0


def _previewed(plan: Plan, step: Step, expected: Expected, before: _Gathered) -> tuple[Preview, _Gathered]:
    if step.beside:
        return _beside(plan, step, expected, before)
    time_s = expected.replay_s if step.kind is StepKind.REPLAY else step.for_s
    unknown = step.kind in (StepKind.COMPARE, StepKind.APPROVE)  # as long as the tables are large, or a person away
    remarks = expected.replay_remarks if step.kind is StepKind.REPLAY else ()
    warnings = (*remarks, *_limit(step, time_s)) if not unknown else ()
    return (
        Preview(step, _does(step), step.gates, None if unknown else time_s, 0.0, None, None, warnings),
        before,
    )


def _beside(plan: Plan, step: Step, expected: Expected, before: _Gathered) -> tuple[Preview, _Gathered]:
    share = step.share / WHOLE
    if expected.units_per_day is None or expected.risk is None:
        missing = [
            told
            for told, known in (
                ("how many units read in a day (`--units-per-day`)", expected.units_per_day),
                ("how many of the units err (`--risk`)", expected.risk),
            )
            if known is None
        ]
        warning = (
            f"{step.label}: whether its units can reach a verdict cannot be told without knowing "
            f"{' and '.join(missing)}."
        )
        time_s = None if step.no_worse else step.for_s
        needed = None if step.no_worse else 0.0
        return Preview(step, _does(step), step.gates, time_s, needed, None, None, (warning,)), before
    judging = plan.judging
    needed = units_needed(expected.risk, share, judging.margin, judging.promote_beta)
    find = units_to_find(expected.risk, share, FOUND, judging.abort_alpha)
    time_s = _time_s(plan, step, expected.units_per_day, max(0.0, 1.0 - before.no_worse) * needed)
    stays_s = min(time_s, step.within_s or math.inf)
    # However long it stays, more units than planned are not counted.
    units = min(expected.units_per_day * stays_s / _DAY_S, judging.units_max) if stays_s < math.inf else 0.0
    complete = min(units, expected.units_per_day * max(0.0, stays_s - plan.window_s) / _DAY_S)
    after = _Gathered(
        before.units + units, before.no_worse + _part(complete, needed), before.found + _part(units, find)
    )
    told = Preview(
        step,
        _does(step),
        step.gates,
        time_s if time_s < math.inf else None,
        before.units + max(0.0, 1.0 - before.no_worse) * needed if step.no_worse else 0.0,
        before.units + max(0.0, 1.0 - before.found) * find,
        after.units,
        tuple(_reach(plan, step, after, needed, time_s)),
    )
    return told, after


def _time_s(plan: Plan, step: Step, units_per_day: float, left: float) -> float:
    """How long a share stays when all goes well; left: complete windows until no-worse passes."""
    if not step.no_worse:
        return step.for_s
    reading_s = left / units_per_day * _DAY_S if units_per_day else math.inf
    return max(step.for_s, reading_s + plan.window_s)


def _part(units: float, of: float) -> float:
    return units / of if 0.0 < of < math.inf else 0.0


def _reach(plan: Plan, step: Step, after: _Gathered, needed: float, time_s: float) -> Iterator[str]:
    """What the expected units cannot show."""
    if needed == math.inf:
        yield (
            f"{step.label}: nothing can be shown where no unit is expected to err (0 % of them): say how many do "
            "(`--risk`)."
        )
        return
    if step.no_worse:
        if needed > plan.judging.units_max:
            yield (
                f"{step.label}: no-worse is out of reach: it takes {_count(needed)} units at a margin of "
                f"{plan.judging.margin:.0%}, and {plan.judging.units_max:,} are counted (units-max). Allow a larger "
                f"margin, give it a larger share, or leave `until` out."
            )
        elif time_s == math.inf or 0.0 < step.within_s < time_s:
            takes = _lasts(time_s) if time_s < math.inf else "for ever"
            yield (
                f"{step.label}: it would wait for a person: no-worse takes {_count(needed)} units at this share, which "
                f"takes {takes}, and {_lasts(step.within_s)} are given (`within`). Give it longer, a larger share, or "
                "a larger margin."
            )
    if after.found < 1.0:
        yield (
            f"{step.label}: it ends before harm would be found: of a candidate that errs {FOUND:g} times as often, "
            f"{after.found:.0%} of the units that it takes have read by then. Give it longer, or a larger share."
        )


def _limit(step: Step, time_s: float | None) -> Iterator[str]:
    if time_s is not None and 0.0 < step.within_s < time_s:
        yield (
            f"{step.label}: it would wait for a person: it takes {_lasts(time_s)}, and {_lasts(step.within_s)} are "
            "given (`within`)."
        )


def _lasts(seconds: float) -> str:
    for name, of_s in (("days", _DAY_S), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * of_s:
            return f"{seconds / of_s:,.1f} {name}"
    return f"{seconds:,.0f} seconds"


def _count(units: float) -> str:
    return f"about {units:,.0f}" if units < math.inf else "infinitely many"


def _does(step: Step) -> str:
    if step.kind is StepKind.TRAFFIC and not step.beside:
        return "makes the candidate the active version"
    return _DOES[step.kind]


_DOES: Final = {
    StepKind.REPLAY: "starts the candidate's run, unless it has one, and waits until its table may serve",
    StepKind.COMPARE: "compares the candidate's table with the active version's at one cut of the log",
    StepKind.SHADOW: "answers a share of the reads from both tables and compares the answers",
    StepKind.TRAFFIC: "gives the candidate this share of the units",
    StepKind.APPROVE: "waits for a person",
    StepKind.SOAK: "watches the candidate while the way back is kept",
    StepKind.RETIRE: "begins to retire the version that was active before",
}
