"""The course of a simulated experiment as the product counts it, and what the product concludes from that.

Verdicts are those of `conclude`, the rules by which the switcher acts, with the plan that a user gets who names none.
Drawing a conclusion at each of some million moments would take hours. So each part first computes e-values alone, by
the product's own functions, and asks for the conclusion where one of them is close to speaking, and at the end; the
tests compare that with a conclusion at every moment.
"""

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from functools import cache
from typing import Final

import numpy as np
from numpy.typing import NDArray

from services.switcher.experiments.conclude import ArmTally, Conclusion, Drawn, EpochTally, Situation, conclude
from services.switcher.experiments.spec import Arm, Bandit, Metric, Spec, default_harms
from services.switcher.intervals import redraw, whole
from services.switcher.statistics.mixture import Floats
from turnout.routing import WHOLE, Units

Ints = NDArray[np.int64]

FIRST_EPOCH: Final = 2
"""In the one before, the control had all units."""
CLOSE: Final = 0.5
"""How far below its threshold the log of an e-value is looked at by the product's rules all the same."""


@dataclass(frozen=True, slots=True)
class Series:
    """Things that are counted: at which moment each was, in order, and its stratum, epoch * arms + arm, from 0."""

    times: Ints
    strata: Ints

    def until(self, time: int, strata: int) -> list[int]:
        """How many there were by a moment, stratum by stratum."""
        seen = self.strata[: np.searchsorted(self.times, time, side="right")]
        return [int(count) for count in np.bincount(seen, minlength=strata)]


NOTHING: Final = Series(np.array([], np.int64), np.array([], np.int64))


def in_order(times: Ints, strata: Ints) -> Series:
    """What comes in any order."""
    order = np.argsort(times, kind="stable")
    return Series(times[order], strata[order])


@dataclass(frozen=True, slots=True)
class Course:
    """One experiment. weights: basis points in the order of the arms, by epoch; starts: the moment of each epoch."""

    spec: Spec
    weights: tuple[tuple[int, ...], ...]
    starts: Ints
    units: Series
    closed: Series = NOTHING
    errors: Series = NOTHING
    harms: Mapping[Metric, Series] = field(default_factory=dict)

    def situation(self, time: int) -> Situation:
        """What the product knows at a moment."""
        begun, arms = int(np.searchsorted(self.starts, time, side="right")), len(self.spec.arms)
        units, closed, errors = (one.until(time, begun * arms) for one in (self.units, self.closed, self.errors))
        harms = [self.harms.get(metric, NOTHING).until(time, begun * arms) for metric in self.spec.harms]

        def tally(at: int) -> ArmTally:
            return ArmTally(units[at], closed[at], errors[at], harms=tuple(one[at] for one in harms))

        epochs = tuple(
            EpochTally(
                FIRST_EPOCH + epoch, self.weights[epoch], tuple(tally(epoch * arms + arm) for arm in range(arms))
            )
            for epoch in range(begun)
        )
        return Situation(spec=self.spec, epochs=epochs, route=drawn(self.weights[begun - 1], epochs[-1].epoch))


def first(course: Course, times: Iterable[int], wanted: Callable[[Conclusion], bool]) -> int | None:
    """The first of the moments, in order, at which the product concludes what is wanted; None = at none of them."""
    return next((time for time in times if wanted(conclude(course.situation(time)))), None)


def experiment(*weights: int, bandit: Bandit | None = None) -> Spec:
    """v1, the control, and candidates with these weights in basis points; all else as a user gets it who says no more
    than from when on an answer is slow, so that all harms are watched."""
    arms = tuple(Arm(version, weight) for version, weight in enumerate(weights, start=1))
    return Spec(arms, Units.CALLER, harms=default_harms(bandit), slow_s=0.05, bandit=bandit)


def beside(share: float) -> tuple[int, int]:
    """The weights of the control and of one candidate with this share."""
    return WHOLE - round(share * WHOLE), round(share * WHOLE)


@cache
def drawn(weights: tuple[int, ...], epoch: int) -> Drawn:
    """A route with these weights."""
    route = redraw(whole(1, 1), dict(enumerate(weights, start=1)), epoch).intervals
    return Drawn(epoch, weights, tuple((i.low, i.high, i.version, i.acquired_epoch) for i in route))


def log_means(logs: Floats) -> Floats:
    """The log of the mean of exp(logs) of each row."""
    largest = logs.max(axis=1)
    means: Floats = largest + np.log(np.exp(logs - largest[:, None]).mean(axis=1))
    return means
