"""Sample ratio mismatch: are the units spread over the arms as the weights say?

If not, something loses or prefers units of an arm, and no comparison of the arms means anything. The e-value is the
Bayes factor of "any other shares", a Dirichlet prior around the designed ones, against the designed shares; one for
each epoch, in which a unit counts only when that is where it was first exposed, multiplied over the epochs.

Source: Lindon and Malek, "Anytime-Valid Inference for Multinomial Count Data" (2022).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Final

CONCENTRATION: Final = 200.0
"""Of the Dirichlet prior, in units: large enough to see a mismatch of a few percent, small enough to see a loss of half
an arm within some hundred units (`python -m bench statistics` prints both)."""


@dataclass(frozen=True, slots=True)
class FirstExposures:
    """Units first exposed in one epoch, arm by arm, with the designed shares of that epoch, which sum to 1."""

    shares: tuple[float, ...]
    units: tuple[int, ...]


def log_e_mismatch(strata: Sequence[FirstExposures], concentration: float = CONCENTRATION) -> float:
    """log of the e-value against "units are spread as designed"; infinite when an arm of share 0 has a unit.

    ValueError when shares do not sum to 1 or do not fit the counts.
    """
    return sum(_log_bayes_factor(one, concentration) for one in strata)


def _log_bayes_factor(one: FirstExposures, concentration: float) -> float:
    if len(one.shares) != len(one.units):
        raise ValueError(f"{len(one.shares)} shares and {len(one.units)} counts do not fit")
    if any(share < 0 for share in one.shares) or abs(sum(one.shares) - 1.0) > 1e-9:
        raise ValueError(f"shares must not be negative and must sum to 1: {one.shares}")
    if any(units < 0 for units in one.units):
        raise ValueError(f"counts of units cannot be negative: {one.units}")
    if any(units and not share for share, units in zip(one.shares, one.units, strict=True)):
        return math.inf
    total = sum(one.units)
    log_factor = math.lgamma(concentration) - math.lgamma(concentration + total)
    for share, units in zip(one.shares, one.units, strict=True):
        if share:
            prior = concentration * share
            log_factor += math.lgamma(prior + units) - math.lgamma(prior) - units * math.log(share)
    return log_factor
