"""The Beta distribution: its distribution function and quantiles, for arrays.

Lentz's continued fraction: a few dozen lines instead of a dependency of some 100 MB in every switcher. scipy is the
oracle in the tests.
"""

import math
from typing import Final

import numpy as np

from services.switcher.statistics.mixture import Floats

_FRACTION_STEPS: Final = 5000  # it needs about the root of the larger parameter
_KNOTS: Final = 2049  # of the table that quantiles are read from
_DEVIATIONS: Final = 12.0  # the table reaches so many standard deviations to both sides of the mean
_TINY: Final = 1e-300


def beta_cdf(a: float, b: float, x: Floats) -> Floats:
    """P(X <= x) of Beta(a, b) for each x in [0, 1]."""
    inside = np.clip(x, _TINY, 1.0 - 1e-16)
    log_front = math.lgamma(a + b) - math.lgamma(a) - math.lgamma(b) + a * np.log(inside) + b * np.log1p(-inside)
    # The fraction converges fast on the near side of the mean only; the other side is the complement.
    near = inside < (a + 1.0) / (a + b + 2.0)
    left = np.exp(log_front) * _fraction(a, b, np.where(near, inside, 0.5)) / a
    right = 1.0 - np.exp(log_front) * _fraction(b, a, np.where(near, 0.5, 1.0 - inside)) / b
    found = np.where(near, left, right)
    return np.asarray(np.where(x <= 0.0, 0.0, np.where(x >= 1.0, 1.0, np.clip(found, 0.0, 1.0))))


def beta_quantiles(a: float, b: float, p: Floats) -> Floats:
    """x with P(X <= x) = p of Beta(a, b), for each p in (0, 1); P(X <= x) is off by less than 1e-5."""
    mean = a / (a + b)
    reach = _DEVIATIONS * math.sqrt(mean * (1.0 - mean) / (a + b + 1.0))
    knots = np.linspace(max(0.0, mean - reach), min(1.0, mean + reach), _KNOTS)
    return np.asarray(np.interp(p, beta_cdf(a, b, knots), knots))


def _fraction(a: float, b: float, x: Floats) -> Floats:
    """The continued fraction of the incomplete beta function (DLMF 8.17.22), by the modified Lentz method."""
    c = np.ones_like(x)
    d = 1.0 / _away_from_0(1.0 - (a + b) * x / (a + 1.0))
    h = d.copy()
    for m in range(1, _FRACTION_STEPS + 1):
        even = m * (b - m) * x / ((a + 2 * m - 1.0) * (a + 2 * m))
        d = 1.0 / _away_from_0(1.0 + even * d)
        c = _away_from_0(1.0 + even / c)
        h = h * d * c
        odd = -(a + m) * (a + b + m) * x / ((a + 2 * m) * (a + 2 * m + 1.0))
        d = 1.0 / _away_from_0(1.0 + odd * d)
        c = _away_from_0(1.0 + odd / c)
        step = d * c
        h = h * step
        if float(np.max(np.abs(step - 1.0))) < 1e-13:
            break
    return h


def _away_from_0(value: Floats) -> Floats:
    return np.where(np.abs(value) < _TINY, _TINY, value)
