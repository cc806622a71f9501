"""Promote: is the candidate's risk of an error no more than a margin above the active version's?

One binary outcome a unit: did it meet an error within its window, which is fixed before the experiment starts? Only
units whose window is complete and lay in one arm count. (First errors, as `harm` uses them, would not do here: where
many units err, those of the worse arm are used up first, and what is left of them makes it look better than it is.)

The null hypothesis is "the ratio of the risks is at least 1 + margin". Two e-processes against it are averaged:

- *labels*: of the units that erred, which arm was it? Given that a unit erred, it is the candidate's with the
  probability of `harm.label_share`, whatever the base risk. All there is to know while errors are rare.
- *risks*: both outcomes of both arms. For an alternative (a, b) of risks, the likelihood ratio against the member of
  the null hypothesis that is nearest to it (the reverse information projection), which is an e-variable because the
  null is convex; averaged over a grid of alternatives. It sees what labels cannot when errors are common.

Source: Grünwald, de Heide, Koolen, "Safe Testing"; Turner, Ly, Grünwald, "Generic E-variables for exact sequential
k-sample tests that allow for optional stopping".
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

import numpy as np

from services.switcher.statistics.harm import label_share
from services.switcher.statistics.mixture import Floats, log_mean_exp

BETTER: Final[Floats] = np.array([0.3, 0.5, 0.7, 0.85, 0.95, 1.0])
"""Ratios of the risks that the candidate may really have."""
RISKS: Final[Floats] = np.array([0.02, 0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 0.95])
"""Risks that the active version may really have. Rarer errors are left to the labels."""


@dataclass(frozen=True, slots=True)
class Windows:
    """Complete windows in one epoch of first exposure. share: the candidate's designed share of the two, 0 to 1."""

    share: float
    active_units: int
    active_errors: int
    candidate_units: int
    candidate_errors: int


def log_e_no_worse(strata: Sequence[Windows], margin: float) -> float:
    """log of the e-value against "the candidate's risk is at least 1 + margin times the active version's".

    ValueError for a margin below 0, a share outside [0, 1], or more errors than units.
    """
    if margin < 0:
        raise ValueError(f"margin is {margin}; it must not be negative")
    told = [one for one in strata if _checked(one) and 0.0 < one.share < 1.0]
    labels, risks = label_ratios(told, 1.0 + margin), risk_ratios(told, 1.0 + margin)
    return log_mean_exp(np.array([log_mean_exp(labels), log_mean_exp(risks)]))


def units_needed(risk: float, share: float, margin: float, level: float) -> float:
    """About how many units, of both arms, it takes until a candidate that is just as good passes 1/level.

    From the growth of the labels' e-process, which is the better one where it matters: when errors are rare. Infinite
    when there is nothing to tell the two hypotheses apart by.
    """
    if not 0.0 < share < 1.0 or risk <= 0.0 or margin <= 0.0:
        return math.inf
    at_bound, true = float(label_share(share, 1.0 + margin)), share
    growth = true * math.log(true / at_bound) + (1.0 - true) * math.log((1.0 - true) / (1.0 - at_bound))
    return math.log(2 * len(BETTER) / level) / growth / risk  # in this order: the product of two small ones may be 0


def label_ratios(strata: Sequence[Windows], bound: float) -> Floats:
    """The log of each likelihood ratio of the labels, in the order of BETTER; linear in the counts."""
    logs = np.zeros_like(BETTER)
    for one in strata:
        at_bound, better = label_share(one.share, bound), label_share(one.share, BETTER)
        logs = logs + one.candidate_errors * np.log(better / at_bound)
        logs = logs + one.active_errors * np.log((1.0 - better) / (1.0 - at_bound))
    return logs


def risk_ratios(strata: Sequence[Windows], bound: float) -> Floats:
    """The log of each likelihood ratio of both outcomes, by RISKS and BETTER; linear in the counts."""
    active = np.repeat(RISKS, len(BETTER))
    candidate = active * np.tile(BETTER, len(RISKS))
    logs = np.zeros_like(active)
    for one in strata:
        nearest = _nearest(active, candidate, one.share, bound)
        logs = logs + one.active_errors * np.log(active / nearest)
        logs = logs + (one.active_units - one.active_errors) * np.log((1.0 - active) / (1.0 - nearest))
        logs = logs + one.candidate_errors * np.log(candidate / (bound * nearest))
        logs = logs + (one.candidate_units - one.candidate_errors) * np.log((1.0 - candidate) / (1.0 - bound * nearest))
    return logs


def _nearest(active: Floats, candidate: Floats, share: float, bound: float) -> Floats:
    """The active risk x of the pair (x, bound x) with the least relative entropy from each alternative.

    Where the derivative is 0: errors / x = active_rest / (1 - x) + bound candidate_rest / (1 - bound x), a quadratic
    with one root in (0, 1 / bound).
    """
    errors = (1.0 - share) * active + share * candidate
    active_rest, candidate_rest = (1.0 - share) * (1.0 - active), share * (1.0 - candidate)
    a = bound * (errors + active_rest + candidate_rest)  # = bound: the masses sum to 1
    b = -(errors * (1.0 + bound) + active_rest + bound * candidate_rest)
    # Of the two roots the smaller one, in the form that does not cancel.
    root: Floats = 2.0 * errors / (-b + np.sqrt(b * b - 4.0 * a * errors))
    return root


def _checked(one: Windows) -> bool:
    if not 0.0 <= one.share <= 1.0:
        raise ValueError(f"share is {one.share}; it must lie in [0, 1]")
    if not 0 <= one.active_errors <= one.active_units or not 0 <= one.candidate_errors <= one.candidate_units:
        raise ValueError(f"errors must lie between 0 and the number of units: {one}")
    return True
