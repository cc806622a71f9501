"""Sample ratio mismatch: how often a fair split freezes an experiment, and how soon a loss of units does."""

import math
from collections.abc import Sequence
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.statistics.course import CLOSE, Course, Ints, Series, beside, experiment, first
from bench.statistics.figure import PEEKS, Figure, Random
from services.switcher.experiments.conclude import Action, Conclusion
from services.switcher.statistics.decision import Plan, Verdict
from services.switcher.statistics.srm import FirstExposures, log_e_mismatch
from turnout.routing import WHOLE

UNITS: Final = 20_000
EPOCHS: Final = 50
SHARES: Final = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)
NEW, RETURNING = 200, 800  # units in each epoch
ALPHA: Final = Plan().mismatch_alpha
_FOUND_EVERY: Final = 100
_FOUND_MAX: Final = 200_000


def chi_square_p(units: NDArray[np.int64], shares: NDArray[np.float64]) -> float:
    """The p-value of two counts beside their expected shares, by Pearson's test."""
    expected = units.sum() * shares
    return math.erfc(math.sqrt(float(((units - expected) ** 2 / expected).sum()) / 2.0))


def course_of(shares: Sequence[float], starts: Ints, epochs: Ints, on_candidate: Ints) -> Course:
    """Units that come one after the other, each for the first time."""
    return Course(
        spec=experiment(*beside(shares[0])),
        weights=tuple(beside(share) for share in shares),
        starts=starts,
        units=Series(np.arange(len(epochs)), 2 * epochs + on_candidate),
    )


def close_to_a_freeze(course: Course, looks: Sequence[int]) -> list[int]:
    """Those of the looks at which the e-value is near its threshold, and the last one."""
    near = []
    for look in looks:
        counts = course.units.until(look, 2 * len(course.weights))
        strata = [
            FirstExposures((weights[0] / WHOLE, weights[1] / WHOLE), (counts[2 * place], counts[2 * place + 1]))
            for place, weights in enumerate(course.weights)
        ]
        if log_e_mismatch(strata) >= -math.log(ALPHA) - CLOSE:
            near.append(look)
    return [*near, looks[-1]]


def freezes(conclusion: Conclusion) -> bool:
    """Whether the experiment pauses because its units are not spread as designed."""
    return conclusion.action is Action.PAUSE and conclusion.decision.verdict is Verdict.FREEZE


def _frozen(course: Course, looks: Sequence[int]) -> bool:
    return first(course, close_to_a_freeze(course, looks), freezes) is not None


def _peeked(random: Random, share: float) -> tuple[bool, bool]:
    """Whether a fair split is frozen, and whether the naive test would have spoken, at one of 100 looks."""
    epochs = np.zeros(UNITS, np.int64)
    course = course_of((share,), np.array([0]), epochs, (random.random(UNITS) < share).astype(np.int64))
    looks = [UNITS * peek // PEEKS - 1 for peek in range(1, PEEKS + 1)]
    shares = np.array([1.0 - share, share])
    naive = any(chi_square_p(np.array(course.units.until(look, 2)), shares) < ALPHA for look in looks)
    return _frozen(course, looks), naive


def _returning(random: Random) -> tuple[bool, bool]:
    """The same over 50 epochs of changing shares, 80 % of each epoch's units having been seen before. The naive test
    counts them in every epoch anew, and multiplies nothing."""
    shares = [SHARES[epoch % len(SHARES)] for epoch in range(EPOCHS)]
    place = random.random(NEW * EPOCHS)  # of each unit, in the order in which they come
    epochs = np.repeat(np.arange(EPOCHS), NEW)
    course = course_of(shares, NEW * np.arange(EPOCHS), epochs, (place < np.array(shares)[epochs]).astype(np.int64))
    naive = False
    for epoch, share in enumerate(shares):
        seen = np.arange(NEW * epoch)
        returning = random.choice(seen, RETURNING, replace=False) if len(seen) > RETURNING else seen[:0]
        everyone = np.concatenate([place[NEW * epoch : NEW * (epoch + 1)], place[returning]])
        on = int((everyone < share).sum())
        naive |= chi_square_p(np.array([len(everyone) - on, on]), np.array([1.0 - share, share])) < ALPHA
    looks = [NEW * (epoch + 1) - 1 for epoch in range(EPOCHS)]
    return _frozen(course, looks), naive


def _found(random: Random, lost: float) -> int:
    """Units until it is found that a part of the candidate's units is lost, at 50/50."""
    on = random.random(_FOUND_MAX) < 0.5
    kept = on[~on | (random.random(_FOUND_MAX) >= lost)].astype(np.int64)
    course = course_of((0.5,), np.array([0]), np.zeros(len(kept), np.int64), kept)
    looks = range(_FOUND_EVERY - 1, len(kept), _FOUND_EVERY)
    return first(course, (look for look in looks if close_to_a_freeze(course, [look])[1:]), freezes) or _FOUND_MAX


def mismatch_figures(random: Random, rounds: int) -> list[Figure]:
    """False alarms on units that are spread as designed, and how soon a loss is found."""
    peeked = [_peeked(random, 0.05 if i % 2 else 0.5) for i in range(rounds)]
    returning = [_returning(random) for _ in range(max(50, rounds // 4))]
    found = [_found(random, 0.1) for _ in range(max(20, rounds // 20))]
    what = "units until a loss of 10 % of an arm is found"
    return [
        _alarms("srm_false_alarm_100_peeks", "frozen on a fair split, 100 looks", peeked),
        _alarms("srm_false_alarm_returning_units", "the same, 50 epochs, 80 % returning", returning),
        Figure("srm_median_units_10pct_lost", what, float(np.median(found)), 20_000),
    ]


def _alarms(name: str, what: str, pairs: Sequence[tuple[bool, bool]]) -> Figure:
    alarms, naive = (sum(column) / len(pairs) for column in zip(*pairs, strict=True))
    return Figure(name, what, alarms, 0.01, ALPHA, naive, len(pairs))
