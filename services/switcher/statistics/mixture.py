"""The mean of e-processes, kept as logarithms, which neither overflow nor lose small ones."""

import math

import numpy as np
from numpy.typing import NDArray

Floats = NDArray[np.float64]


def log_mean_exp(logs: Floats) -> float:
    """log of the mean of exp(logs); minus infinity when all are."""
    largest = float(np.max(logs))
    if largest == -math.inf:
        return -math.inf
    return largest + math.log(float(np.mean(np.exp(logs - largest))))
