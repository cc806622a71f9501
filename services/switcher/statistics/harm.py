"""Abort: does the candidate err more often than the active version, or do fewer of its units convert?

A unit's first error is looked at, and nothing but whose it was: the candidate's, or the active version's. Whatever the
rate of errors is and however it drifts, a first error is the candidate's with probability

    q(t) = w t / (1 - w + w t)

where w is the candidate's designed share among the two in that epoch and t the ratio of its rate to the active
version's. The e-process is the mean, over ratios t worse than the one that is allowed, of the likelihood of the labels
under t against that under the allowed ratio. A label a unit: requests of one unit err together, and one label a request
would fire in a fifth of all experiments without any harm.

Conversions are the same with the arms exchanged (`log_e_loss`): the active version must not convert more often than a
margin allows. First ones hold however many units convert. A version that converts more uses its units up sooner, so
that those still to convert are rather the other's; but by any moment no more of its units have converted than did.

Source: algorithms of the design, section 9; label tests of two Poisson streams conditioned on their sum.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.switcher.statistics.mixture import Floats, log_mean_exp

WORSE: Final[Floats] = np.array([1.15, 1.3, 1.5, 2.0, 3.0, 5.0, 10.0, 30.0])
"""Ratios looked for, as multiples of the allowed one: evenly wide in what they cost in reads to find."""


@dataclass(frozen=True, slots=True)
class Firsts:
    """First errors, or first conversions, of units in one epoch. share: the candidate's designed share of the two
    versions, 0 to 1."""

    share: float
    active: int
    candidate: int


def label_share(share: float, ratio: Floats | float) -> Floats | float:
    """The probability that a first error is the candidate's, when its rate is `ratio` times the active version's."""
    return share * ratio / (1.0 - share + share * ratio)


def log_e_harm(strata: Sequence[Firsts], allowed_ratio: float = 1.0) -> float:
    """log of the e-value against "the candidate's rate is at most `allowed_ratio` times the active version's".

    Strata with a share of 0 or 1 say nothing. ValueError for a share outside [0, 1], negative counts or a ratio of 0.
    """
    return log_mean_exp(log_ratios(strata, allowed_ratio))


def log_e_loss(strata: Sequence[Firsts], margin: float) -> float:
    """log of the e-value against "the active version's rate is at most 1 + margin times the candidate's", of what is
    wanted, such as conversions. ValueError as `log_e_harm`, and for a margin of -1 or below."""
    return log_e_harm([exchanged(one) for one in strata], 1.0 + margin)


def exchanged(one: Firsts) -> Firsts:
    """The same with the candidate in the place of the active version."""
    return Firsts(1.0 - one.share, one.candidate, one.active)


def log_ratios(strata: Sequence[Firsts], allowed_ratio: float = 1.0) -> Floats:
    """What the e-value is the mean of: the log of each likelihood ratio, by WORSE; linear in the counts."""
    if allowed_ratio <= 0:
        raise ValueError(f"allowed_ratio is {allowed_ratio}; it must be above 0")
    logs = np.zeros_like(WORSE)
    for one in strata:
        _check(one)
        if not 0.0 < one.share < 1.0:
            continue
        allowed = label_share(one.share, allowed_ratio)
        worse = label_share(one.share, allowed_ratio * WORSE)
        logs = logs + one.candidate * np.log(worse / allowed) + one.active * np.log((1.0 - worse) / (1.0 - allowed))
    return logs


def units_to_find(risk: float, share: float, ratio: float, level: float) -> float:
    """About how many units, of both versions, read before a candidate that errs `ratio` times as often is aborted.

    risk: the part of the active version's units that err. From the growth of the e-process: half of all such candidates
    are found a little sooner. Infinite where there is nothing to find it by.
    """
    if not 0.0 < share < 1.0 or risk <= 0.0 or ratio <= 1.0:
        return math.inf
    found = float(label_share(share, ratio))
    growth = found * math.log(found / share) + (1.0 - found) * math.log((1.0 - found) / (1.0 - share))
    errors_per_unit = (1.0 - share) * min(1.0, risk) + share * min(1.0, ratio * risk)
    return math.log(len(WORSE) / level) / growth / errors_per_unit


def _check(one: Firsts) -> None:
    if not 0.0 <= one.share <= 1.0:
        raise ValueError(f"share is {one.share}; it must lie in [0, 1]")
    if one.active < 0 or one.candidate < 0:
        raise ValueError(f"counts of errors cannot be negative: {one.active}, {one.candidate}")
