"""Harm: how often a candidate that does none is aborted, and how soon one that does."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.statistics.course import CLOSE, Course, Ints, Series, beside, experiment, first, in_order, log_means
from bench.statistics.figure import PEEKS, Figure, Random, share_of
from services.switcher.experiments.conclude import Action, Conclusion
from services.switcher.experiments.spec import Metric
from services.switcher.statistics.decision import Plan
from services.switcher.statistics.harm import FirstErrors, log_ratios
from turnout.routing import WHOLE

Flags = NDArray[np.bool_]

UNITS: Final = 20_000
READS: Final = 20_000
WINDOW: Final = 5_000  # in reads
RATES: Final = {Metric.ERROR: 0.01, Metric.FAILURE: 0.002, Metric.NOT_FOUND: 0.01, Metric.SLOW: 0.01}
"""Of a read on the active version, on average."""
RAMP: Final = (0.05, 0.1, 0.25, 0.5)
ALPHA: Final = Plan().abort_alpha
_Z_ONE_SIDED: Final = 1.645  # above it with the probability of ALPHA, once
_NAIVE_LABELS_MIN: Final = 20


def simulated(random: Random, shares: Sequence[float], ratio: float = 1.0) -> Course:
    """An experiment, read by read, whose candidate errs `ratio` times as often as the active version.

    Units differ in how much of all harms they meet, the base rate of each harm drifts by a factor of 3 in its own time,
    and weights go through `shares`, one epoch after the other, with units staying on the candidate once they are.
    """
    reads = np.arange(READS)
    units = random.integers(0, UNITS, READS)
    place = random.random(UNITS)  # the unit's hash: on the candidate where it lies below the share
    frailty = random.gamma(2.0, 0.5, UNITS)
    epochs = reads * len(shares) // READS
    on_candidate = place[units] < np.array(shares)[epochs]
    strata = 2 * epochs + on_candidate
    happened = {}
    for metric, base in RATES.items():
        drift = 1.0 + 0.5 * np.sin(2.0 * math.pi * (reads / READS * 3.0 + random.random()))
        rate = base * drift * frailty[units]
        if metric is Metric.ERROR:
            rate = rate * np.where(on_candidate, ratio, 1.0)
        happened[metric] = np.flatnonzero(random.random(READS) < rate)
    exposed = _firsts(units, reads)
    erred = np.union1d(happened[Metric.ERROR], happened[Metric.FAILURE])
    closed, errors = _windows(units, exposed, on_candidate, erred)
    return Course(
        spec=experiment(*beside(shares[0])),
        weights=tuple(beside(share) for share in shares),
        starts=np.searchsorted(epochs, np.arange(len(shares))),
        units=Series(exposed, strata[exposed]),
        closed=Series(closed + WINDOW, strata[closed]),
        errors=Series(errors + WINDOW, strata[errors]),
        harms={metric: _at(_firsts(units, reads), strata) for metric, reads in happened.items()},
    )


def _at(reads: Ints, strata: Ints) -> Series:
    return in_order(reads, strata[reads])


def _firsts(units: Ints, reads: Ints) -> Ints:
    """Of these reads the first one of each unit, in order."""
    _, places = np.unique(units[reads], return_index=True)
    return reads[np.sort(places)]


def _windows(units: Ints, exposed: Ints, on_candidate: Flags, erred: Ints) -> tuple[Ints, Ints]:
    """First reads of the units whose windows count, and of those of them that erred in theirs."""
    began, arm = np.zeros(UNITS, np.int64), np.zeros(UNITS, bool)
    began[units[exposed]], arm[units[exposed]] = exposed, on_candidate[exposed]
    reads = np.arange(READS)
    within = reads <= began[units] + WINDOW
    mixed, bad = np.zeros(UNITS, bool), np.zeros(UNITS, bool)
    mixed[units[within & (on_candidate != arm[units])]] = True
    bad[units[erred[within[erred]]]] = True
    closed = exposed[~mixed[units[exposed]]]
    return closed, closed[bad[units[closed]]]


def close_to_an_abort(course: Course) -> list[int]:
    """Moments at which the e-value of a harm is near the threshold that it would have if it were the only one."""
    moments = set()
    for labels in course.harms.values():
        steps = np.array(
            [
                log_ratios([FirstErrors(weights[1] / WHOLE, 1 - arm, arm)])
                for weights in course.weights
                for arm in (0, 1)
            ]
        )
        if len(labels.times):
            log_e = log_means(np.cumsum(steps[labels.strata], axis=0))
            moments |= set(labels.times[log_e >= -math.log(ALPHA) - CLOSE].tolist())
    return [*sorted(moments), READS]


def aborts(conclusion: Conclusion) -> bool:
    """Whether a candidate goes off the route."""
    return conclusion.action in (Action.ABORT, Action.END)


def _abort(random: Random, shares: Sequence[float], ratio: float = 1.0) -> int | None:
    """The read at which an experiment is aborted, looked at after each; None = never."""
    course = simulated(random, shares, ratio)
    return first(course, close_to_an_abort(course), aborts)


def _naive_abort(random: Random, shares: Sequence[float]) -> bool:
    """A z-test of all errors against the pooled share, looked at 100 times."""
    errors = simulated(random, shares).harms[Metric.ERROR]
    for peek in range(1, PEEKS + 1):
        begun = max(1, math.ceil(len(shares) * peek / PEEKS))
        expected = sum(shares[:begun]) / begun
        active, candidate = np.array(errors.until(READS * peek // PEEKS, 2 * len(shares))).reshape(-1, 2).sum(axis=0)
        labels = int(active + candidate)
        if labels >= _NAIVE_LABELS_MIN and z_of_share(int(candidate), labels, expected) > _Z_ONE_SIDED:
            return True
    return False


def z_of_share(count: int, of: int, expected: float) -> float:
    """By how many standard deviations a count is above its expected share."""
    return (count - of * expected) / math.sqrt(of * expected * (1 - expected))


def harm_figures(random: Random, rounds: int) -> list[Figure]:
    """False alarms without any harm, and how soon harm is found."""
    found = []
    for name, what, shares, goal in (
        ("abort_false_alarm_50_50", "aborted without harm, 50/50", (0.5,), ALPHA),
        ("abort_false_alarm_95_5", "aborted without harm, 95/5", (0.05,), 0.03),
        ("abort_false_alarm_ramp", "aborted without harm, 5-10-25-50 %", RAMP, 0.03),
    ):
        alarms = share_of(rounds, lambda shares=shares: _abort(random, shares) is not None)  # type: ignore[misc]
        naive = share_of(max(50, rounds // 4), lambda shares=shares: _naive_abort(random, shares))  # type: ignore[misc]
        found.append(Figure(name, what, alarms, goal, ALPHA, naive, rounds))
    reads = [_abort(random, (0.05,), 10.0) or READS for _ in range(max(50, rounds // 4))]
    what = "reads until 10 times worse is aborted at 5 %"
    return [*found, Figure("abort_median_reads_10x_at_5pct", what, float(np.median(reads)), 1000)]
