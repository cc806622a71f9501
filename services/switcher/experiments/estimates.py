"""Estimates for the eye: what each arm's units did, stratified by epoch, with a 95 % interval. Pure.

Verdicts go by e-values; an interval that is looked at all the time covers less often than it says. What an arm did in
an epoch is weighted by all units of that epoch: summing up an arm's units over changing weights would mistake a change
of traffic for an effect of the code.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from services.switcher.experiments.conclude import ArmTally, EpochTally

_Z: Final = 1.959964  # the normal distribution's 97.5 % quantile


@dataclass(frozen=True, slots=True)
class Estimate:
    """A value and the ends of its interval."""

    value: float
    low: float
    high: float


def rate(epochs: Sequence[EpochTally], place: int, successes: Callable[[ArmTally], int]) -> Estimate | None:
    """The share of an arm's complete windows with a success; None where it has none."""

    def of(arm: ArmTally) -> tuple[float, float]:
        done = successes(arm)
        # With a success and a failure more than there were: the variance of none in ten is not 0.
        guess = (done + 1.0) / (arm.closed + 2.0)
        return done / arm.closed, guess * (1.0 - guess) / arm.closed

    found = _stratified(epochs, place, of)
    return found and Estimate(found.value, max(0.0, found.low), min(1.0, found.high))


def mean(epochs: Sequence[EpochTally], place: int) -> Estimate | None:
    """The mean reward of an arm's complete windows; None where it has none."""

    def of(arm: ArmTally) -> tuple[float, float]:
        average = arm.total / arm.closed
        variance = max(0.0, arm.squares / arm.closed - average * average)
        return average, variance / max(1, arm.closed - 1)

    return _stratified(epochs, place, of)


def _stratified(
    epochs: Sequence[EpochTally], place: int, of: Callable[[ArmTally], tuple[float, float]]
) -> Estimate | None:
    told = [one for one in epochs if one.arms[place].closed]
    total = sum(arm.closed for one in told for arm in one.arms)
    if not total:
        return None
    value = variance = 0.0
    for one in told:
        weight = sum(arm.closed for arm in one.arms) / total
        its_value, its_variance = of(one.arms[place])
        value += weight * its_value
        variance += weight * weight * its_variance
    reach = _Z * math.sqrt(variance)
    return Estimate(value, value - reach, value + reach)
