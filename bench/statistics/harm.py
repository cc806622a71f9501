"""Harm: how often a candidate that does none is aborted, and how soon one that does, by errors and by conversions."""

import math
from collections.abc import Mapping, Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.statistics.course import CLOSE, Course, Ints, Series, beside, experiment, first, in_order, log_means
from bench.statistics.figure import PEEKS, Figure, Random, share_of
from services.switcher.experiments.conclude import Action, Conclusion, inputs_of
from services.switcher.experiments.spec import Metric
from services.switcher.statistics.decision import Plan, harm_alpha
from services.switcher.statistics.harm import Firsts, exchanged, label_share, log_ratios
from turnout.routing import WHOLE

Flags = NDArray[np.bool_]

UNITS: Final = 20_000
READS: Final = 20_000
WINDOW: Final = 5_000  # in reads
RATES: Final[Mapping[Metric, float]] = {
    Metric.ERROR: 0.01,
    Metric.FAILURE: 0.002,
    Metric.NOT_FOUND: 0.01,
    Metric.SLOW: 0.01,
    Metric.CONVERSION: 0.1,
}
"""Of a read on the active version, on average."""
EQUAL: Final[Mapping[Metric, float]] = {}
RAMP: Final = (0.05, 0.1, 0.25, 0.5)
LEAST: Final = 1.0 / (1.0 + Plan().margin)
"""The least that a candidate's rate of conversions may be of the active version's."""
CONVERTING: Final = (0.1, 1.0, 3.0)
"""Conversions that a unit would come to on average, if it could convert again."""
ALPHA: Final = Plan().abort_alpha
_Z_ONE_SIDED: Final = 1.645  # above it with the probability of ALPHA, once
_NAIVE_LABELS_MIN: Final = 20


def simulated(
    random: Random,
    shares: Sequence[float],
    ratios: Mapping[Metric, float] = EQUAL,
    rates: Mapping[Metric, float] = RATES,
    population: int = UNITS,
) -> Course:
    """An experiment, read by read, in which each thing is `ratios` times as frequent on the candidate; 1 unless named.

    Units differ in how much of everything they meet, the base rate of each thing drifts by a factor of 3 in its own
    time, and weights go through `shares`, one epoch after the other, with units staying on the candidate once they are.
    """
    reads = np.arange(READS)
    units = random.integers(0, population, READS)
    place = random.random(population)  # the unit's hash: on the candidate where it lies below the share
    frailty = random.gamma(2.0, 0.5, population)
    epochs = reads * len(shares) // READS
    on_candidate = place[units] < np.array(shares)[epochs]
    strata = 2 * epochs + on_candidate
    happened = {}
    for metric, base in rates.items():
        drift = 1.0 + 0.5 * np.sin(2.0 * math.pi * (reads / READS * 3.0 + random.random()))
        rate = base * drift * frailty[units] * np.where(on_candidate, ratios.get(metric, 1.0), 1.0)
        happened[metric] = np.flatnonzero(random.random(READS) < rate)
    exposed = _firsts(units, reads)
    erred = np.union1d(*(happened.get(metric, reads[:0]) for metric in (Metric.ERROR, Metric.FAILURE)))
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
    """Moments at which the e-value of a harm is near its threshold, and the last one."""
    inputs = inputs_of(course.situation(READS))
    level = harm_alpha(inputs, inputs.candidates[0])
    moments = set()
    for metric, labels in course.harms.items():
        ones = [Firsts(weights[1] / WHOLE, 1 - arm, arm) for weights in course.weights for arm in (0, 1)]
        if metric is Metric.CONVERSION:
            steps = np.array([log_ratios([exchanged(one)], 1.0 + Plan().margin) for one in ones])
        else:
            steps = np.array([log_ratios([one]) for one in ones])
        if len(labels.times):
            log_e = log_means(np.cumsum(steps[labels.strata], axis=0))
            moments |= set(labels.times[log_e >= -math.log(level) - CLOSE].tolist())
    return [*sorted(moments), READS]


def aborts(conclusion: Conclusion) -> bool:
    """Whether a candidate goes off the route."""
    return conclusion.action in (Action.ABORT, Action.END)


def _abort(random: Random, shares: Sequence[float], ratios: Mapping[Metric, float] = EQUAL) -> int | None:
    """The read at which an experiment is aborted, looked at after each; None = never."""
    course = simulated(random, shares, ratios)
    return first(course, close_to_an_abort(course), aborts)


def _reads(random: Random, rounds: int, share: float, ratios: Mapping[Metric, float]) -> float:
    """The median number of reads at which such a candidate is aborted."""
    return float(np.median([_abort(random, (share,), ratios) or READS for _ in range(max(50, rounds))]))


def _naive_abort(random: Random, shares: Sequence[float]) -> bool:
    """A z-test of all errors against the pooled share, looked at 100 times."""
    errors = simulated(random, shares).harms[Metric.ERROR]
    for peek in range(1, PEEKS + 1):
        begun = max(1, math.ceil(len(shares) * peek / PEEKS))
        expected = sum(shares[:begun]) / begun
        if _above(errors, peek, len(shares), expected):
            return True
    return False


def _above(labels: Series, peek: int, epochs: int, expected: float) -> bool:
    """Whether the candidate's part of the labels is above the expected one, by one test as if it were the only one."""
    active, candidate = np.array(labels.until(READS * peek // PEEKS, 2 * epochs)).reshape(-1, 2).sum(axis=0).tolist()
    of = active + candidate
    return of >= _NAIVE_LABELS_MIN and z_of_share(candidate, of, expected) > _Z_ONE_SIDED


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
    reads = _reads(random, rounds, 0.05, {Metric.ERROR: 10.0})
    what = "reads until 10 times worse is aborted at 5 %"
    return [*found, Figure("abort_median_reads_10x_at_5pct", what, reads, 1000)]


def _lost(random: Random, shares: Sequence[float], converting: float) -> tuple[bool, bool]:
    """Whether a candidate that converts as few as it may is aborted, and whether the naive test would have spoken: a
    z-test of the first conversions against their least share, looked at 100 times."""
    population = READS // 5
    rates = {Metric.CONVERSION: converting * population / READS}
    course = simulated(random, shares, {Metric.CONVERSION: LEAST}, rates, population)
    alarm = first(course, close_to_an_abort(course), aborts) is not None
    if len(shares) > 1:
        return alarm, False
    active = 1.0 - float(label_share(shares[0], LEAST))
    labels = course.harms[Metric.CONVERSION]
    of_active = Series(labels.times, 1 - labels.strata)
    return alarm, any(_above(of_active, peek, 1, active) for peek in range(1, PEEKS + 1))


def conversion_figures(random: Random, rounds: int) -> list[Figure]:
    """False alarms of candidates that convert as few units as they may, however many convert, and how soon one that
    converts half as many is found."""
    cells = [
        [_lost(random, shares, converting) for _ in range(max(20, rounds // 4))]
        for shares in ((0.5,), (0.05,), RAMP)
        for converting in CONVERTING
    ]
    alarms, naive = (max(sum(one[part] for one in cell) / len(cell) for cell in cells) for part in (0, 1))
    what = f"aborted at the least conversions, worst of {len(cells)} cells"
    half = {Metric.CONVERSION: 0.5}
    return [
        Figure("conversion_false_alarm", what, alarms, 0.03, ALPHA, naive, len(cells[0])),
        *(
            Figure(
                f"conversion_median_reads_half_at_{share * 100:.0f}pct",
                f"reads until half the conversions are aborted at {share * 100:.0f} %",
                _reads(random, rounds // 4, share, half),
                goal,
            )
            for share, goal in ((0.05, 15_000), (0.25, 4000), (0.5, 3000))
        ),
    ]
