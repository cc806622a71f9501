"""Weights that learn: the probability that each arm is the best, computed, not drawn.

Thompson sampling sends a request to an arm with the probability that this arm is the best, given what was seen. Drawing
would give every replica other weights; integrating gives all of them, and a later audit, the same ones.

Around it stand what a rollout needs: outcomes of older epochs count less (`discounted`), no arm falls below a floor, so
that it can still show that it has become better (`with_floor`), and weights move by a bounded step an epoch
(`stepped`).
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final, TypeVar

import numpy as np

from services.switcher.statistics.beta import beta_cdf, beta_quantiles
from services.switcher.statistics.mixture import Floats

_QUANTILES: Final = 256
_NODES: Final = 64  # of the Gauss-Hermite rule

_erf: Callable[[Floats], Floats] = np.vectorize(math.erf, otypes=[np.float64])


@dataclass(frozen=True, slots=True)
class Rate:
    """Rewards that are 0 or 1: how many units, and how many of them gave 1. Fractions come of discounting."""

    units: float
    successes: float


@dataclass(frozen=True, slots=True)
class Mean:
    """Rewards that are numbers: how many units, their sum, and the sum of their squares."""

    units: float
    total: float
    squares: float


Outcomes = TypeVar("Outcomes", Rate, Mean)


def discounted(epochs: Sequence[Outcomes], gamma: float) -> Outcomes:
    """One arm's outcomes over epochs, oldest first, each weighted by gamma ** its age. The newest has age 0."""
    if not epochs:
        raise ValueError("there must be at least one epoch")
    if not 0.0 < gamma <= 1.0:
        raise ValueError(f"gamma is {gamma}; it must lie in (0, 1]")
    kind = type(epochs[0])
    totals = [0.0] * len(_fields(epochs[0]))
    for age, one in enumerate(reversed(epochs)):
        for place, value in enumerate(_fields(one)):
            totals[place] += value * gamma**age
    return kind(*totals)


def _fields(one: Rate | Mean) -> tuple[float, ...]:
    return (one.units, one.successes) if isinstance(one, Rate) else (one.units, one.total, one.squares)


def best_by_rate(arms: Sequence[Rate], *, maximise: bool = True) -> tuple[float, ...]:
    """The probability of each arm that its rate is the best, with a uniform prior: P(arm k best) is the mean, over
    evenly spaced quantiles x of arm k, of the probability that every other arm lies below x."""
    posteriors = [_posterior(arm, maximise=maximise) for arm in arms]
    places = (np.arange(_QUANTILES) + 0.5) / _QUANTILES
    weights = []
    for k, (a, b) in enumerate(posteriors):
        x = beta_quantiles(a, b, places)
        below = np.ones_like(x)
        for i, (other_a, other_b) in enumerate(posteriors):
            if i != k:
                below = below * beta_cdf(other_a, other_b, x)
        weights.append(float(np.mean(below)))
    return _normalised(weights)


def best_by_mean(arms: Sequence[Mean], *, maximise: bool = True) -> tuple[float, ...]:
    """The probability of each arm that its mean is the best, the means taken as Gaussian with their standard errors.

    Arms need two units each for that; while one has fewer, all are equal.
    """
    if any(arm.units < 2 for arm in arms):
        return (1.0 / len(arms),) * len(arms)
    sign = 1.0 if maximise else -1.0
    means = [sign * arm.total / arm.units for arm in arms]
    errors = [_standard_error(arm) for arm in arms]
    nodes, masses = np.polynomial.hermite_e.hermegauss(_NODES)
    masses = masses / math.sqrt(2.0 * math.pi)
    weights = []
    for k, (mean, error) in enumerate(zip(means, errors, strict=True)):
        below = np.ones_like(nodes)
        for i, (other, other_error) in enumerate(zip(means, errors, strict=True)):
            if i != k:
                below = below * _normal_cdf((mean + nodes * error - other) / other_error)
        weights.append(float(np.sum(masses * below)))
    return _normalised(weights)


def epsilon_greedy(rewards: Sequence[float], epsilon: float, *, maximise: bool = True) -> tuple[float, ...]:
    """The simple rule: the arm with the best mean reward gets 1 - epsilon, and epsilon is shared by all."""
    if not 0.0 <= epsilon <= 1.0:
        raise ValueError(f"epsilon is {epsilon}; it must lie in [0, 1]")
    best = rewards.index(max(rewards) if maximise else min(rewards))
    return tuple(epsilon / len(rewards) + (1.0 - epsilon) * (arm == best) for arm in range(len(rewards)))


def with_floor(weights: Sequence[float], floor: float) -> tuple[float, ...]:
    """Every arm gets the floor, and what is left is shared by the weights. ValueError when it is too much for all."""
    left = 1.0 - len(weights) * floor
    if floor < 0 or left < 0:
        raise ValueError(f"a floor of {floor} for {len(weights)} arms is not possible")
    return tuple(floor + left * weight for weight in weights)


def stepped(old: Sequence[float], wanted: Sequence[float], step_max: float) -> tuple[float, ...]:
    """From the old weights towards the wanted ones, such that no arm's weight changes by more than the step."""
    largest = max(abs(new - before) for before, new in zip(old, wanted, strict=True))
    share = 1.0 if largest <= step_max else step_max / largest
    return tuple(before + share * (new - before) for before, new in zip(old, wanted, strict=True))


def _posterior(arm: Rate, *, maximise: bool) -> tuple[float, float]:
    if not 0.0 <= arm.successes <= arm.units:
        raise ValueError(f"successes must lie between 0 and the number of units: {arm}")
    a, b = 1.0 + arm.successes, 1.0 + arm.units - arm.successes
    return (a, b) if maximise else (b, a)  # the smallest rate is the largest of its complement


def _standard_error(arm: Mean) -> float:
    mean = arm.total / arm.units
    variance = max(0.0, arm.squares / arm.units - mean * mean) * arm.units / (arm.units - 1.0)
    # Rewards that are all equal still leave some doubt; none at all would divide by 0.
    return math.sqrt(max(variance, 1e-12 * (1.0 + mean * mean)) / arm.units)


def _normal_cdf(x: Floats) -> Floats:
    return 0.5 * (1.0 + _erf(x / math.sqrt(2.0)))


def _normalised(weights: Sequence[float]) -> tuple[float, ...]:
    """Quadrature leaves the sum a little off 1."""
    total = sum(weights)
    return tuple(weight / total for weight in weights)
