"""What the units that are expected can show of a candidate, share by share. Pure.

The e-values of several shares multiply, so what the units of each contribute adds up: a step needs what the steps
before it have left.
"""

import math
from bisect import bisect_left
from typing import Final

import msgspec

from services.switcher.experiments.spec import HARMS, Metric
from services.switcher.rollouts.plan import Plan, Step
from services.switcher.statistics.harm import units_to_find
from services.switcher.statistics.promotion import units_needed
from turnout.routing import WHOLE

FOUND: Final = 10.0
"""How much more often a candidate errs that a share is expected to find: below it a share would be for show."""
DAY_S: Final = 86400.0
_MARGIN_PERCENT_MAX: Final = 100


class Gathered(msgspec.Struct, frozen=True):
    """What the steps so far are expected to bring: units, and the parts of what a verdict needs."""

    units: float = 0.0
    no_worse: float = 0.0
    found: float = 0.0


class Reach(msgspec.Struct, frozen=True):
    """What one share of the units brings. needed, to_find: units at this share alone, until no-worse passes for a
    candidate that is just as good, and until one that errs FOUND times as often is taken back. time_s: how long the
    share stays when all goes well, in seconds; stays_s: but no longer than it may. before, after: it."""

    needed: float
    to_find: float
    time_s: float
    stays_s: float
    before: Gathered
    after: Gathered

    @property
    def left(self) -> float:
        """Units that no-worse needs beyond those of the steps before."""
        return max(0.0, 1.0 - self.before.no_worse) * self.needed

    @property
    def left_to_find(self) -> float:
        """The same of harm."""
        return max(0.0, 1.0 - self.before.found) * self.to_find


def reached(plan: Plan, step: Step, units_per_day: float, risk: float, before: Gathered) -> Reach:
    """What a step brings that gives the candidate a share beside the active version."""
    share, judging = step.share / WHOLE, plan.judging
    needed = units_needed(risk, share, judging.margin, judging.promote_beta)
    to_find = units_to_find(risk, share, FOUND, judging.abort_alpha / _harms(plan))
    time_s = _time_s(plan, step, units_per_day, max(0.0, 1.0 - before.no_worse) * needed)
    stays_s = min(time_s, step.within_s or math.inf)
    # However long it stays, more units than planned are not counted.
    units = min(units_per_day * stays_s / DAY_S, judging.units_max) if stays_s < math.inf else 0.0
    complete = min(units, units_per_day * max(0.0, stays_s - plan.window_s) / DAY_S)
    after = Gathered(
        before.units + units, before.no_worse + _part(complete, needed), before.found + _part(units, to_find)
    )
    return Reach(needed, to_find, time_s, stays_s, before, after)


def too_many(plan: Plan, reach: Reach) -> bool:
    """Whether no-worse needs more units than are counted."""
    return reach.needed > plan.judging.units_max


def too_late(step: Step, reach: Reach) -> bool:
    """Whether no-worse takes longer than the step may."""
    return reach.time_s == math.inf or 0.0 < step.within_s < reach.time_s


def least_margin(plan: Plan, units_per_day: float, risk: float) -> float | None:
    """The least margin, in whole per cent as a part of 1, at which every step that waits for no-worse is through with
    it in time; None = none up to 100 %."""

    def in_time(percent: int) -> bool:
        wider = msgspec.structs.replace(plan, judging=msgspec.structs.replace(plan.judging, margin=percent / 100))
        before = Gathered()
        for step in plan.steps:
            if step.beside:
                reach = reached(wider, step, units_per_day, risk, before)
                if step.no_worse and (too_many(wider, reach) or too_late(step, reach)):
                    return False
                before = reach.after
        return True

    percents = range(max(1, math.ceil(plan.judging.margin * 100)), _MARGIN_PERCENT_MAX + 1)
    place = bisect_left(percents, True, key=in_time)
    return percents[place] / 100 if place < len(percents) else None


def _harms(plan: Plan) -> int:
    """Among how many kinds of harm the level of the abort is shared out."""
    return len(HARMS) if plan.slow_s else len(HARMS) - (Metric.SLOW in HARMS)


def _time_s(plan: Plan, step: Step, units_per_day: float, left: float) -> float:
    """How long a share stays when all goes well; left: complete windows until no-worse passes."""
    if not step.no_worse:
        return step.for_s
    reading_s = left / units_per_day * DAY_S if units_per_day else math.inf
    return max(step.for_s, reading_s + plan.window_s)


def _part(units: float, of: float) -> float:
    return units / of if 0.0 < of < math.inf else 0.0
