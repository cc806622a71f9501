"""Shadow: do a candidate's rows differ from what was answered more often than the active version's own, read again?

McNemar's question, asked all the time: of the reads where one of the two differed and the other did not, are more the
candidate's than half? While the candidate differs no more often, such a read is the candidate's with probability at
most a half, whatever the rate of either and however it drifts. That is the label of `harm` at equal shares.

A stratum is what one front has compared in one epoch, where every key counts once. The same keys come again at another
front and in the next epoch, so strata depend on one another, and their e-processes may not be multiplied. They are
weighted with 1/2, 1/6, 1/12, ..., in the order in which they came; what is left of 1 stays at 1. So whatever the
strata have in common, and however many follow, it is an e-process.

Source: McNemar, "Note on the sampling error of the difference between correlated proportions" (1947).
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np

from services.switcher.statistics.harm import Firsts, log_e_harm
from services.switcher.statistics.mixture import log_mean_exp

_EQUAL_SHARES = 0.5


@dataclass(frozen=True, slots=True)
class Discordant:
    """Reads of one stratum in which one of the two differed alone."""

    active: int
    candidate: int


def log_e_differs(strata: Sequence[Discordant]) -> float:
    """log of the e-value against "the candidate differs no more often than the active version from itself".

    strata: in the order in which they were begun. ValueError for negative counts.
    """
    logs = [-math.log(len(strata) + 1.0)]
    for place, one in enumerate(strata, 1):
        log_e = log_e_harm([Firsts(_EQUAL_SHARES, one.active, one.candidate)])
        logs.append(log_e - math.log(place * (place + 1.0)))
    return log_mean_exp(np.array(logs)) + math.log(len(logs))
