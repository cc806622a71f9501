"""Promotion: how often a candidate that is too bad is promoted, and how often one that is as good."""

import math
from collections.abc import Callable
from typing import Final

import numpy as np

from bench.statistics.course import CLOSE, Course, Ints, Series, beside, experiment, first, log_means
from bench.statistics.figure import Figure, Random, share_of
from services.switcher.experiments.conclude import Conclusion
from services.switcher.statistics.decision import Plan, Verdict
from services.switcher.statistics.mixture import Floats
from services.switcher.statistics.promotion import Windows, label_ratios, risk_ratios

UNITS: Final = 20_000
HAZARDS: Final = (0.05, 0.1, 0.2, 0.5, 1.0, 2.0)
MARGIN: Final = Plan().margin
BETA: Final = Plan().promote_beta
SHARE: Final = 0.5
_LOOKS: Final = np.unique(np.geomspace(50, UNITS, 400).astype(np.int64)) - 1


def _risk(hazard: float, *, frail: bool) -> float:
    """The probability of an error within the window: a constant hazard, or one that differs by a factor of mean 1."""
    return 1.0 - 1.0 / (1.0 + hazard) if frail else 1.0 - math.exp(-hazard)


def simulated(random: Random, risk: float, ratio: float) -> Course:
    """Units whose windows close one after the other; those of the candidate err with `ratio` times the risk."""
    on = (random.random(UNITS) < SHARE).astype(np.int64)
    erred = random.random(UNITS) < np.where(on, min(1.0, ratio * risk), risk)
    everyone = Series(np.arange(UNITS), on)
    return Course(
        spec=experiment(*beside(SHARE)),
        weights=(beside(SHARE),),
        starts=np.array([0]),
        units=everyone,
        closed=everyone,
        errors=Series(np.flatnonzero(erred), on[erred]),
    )


def close_to_a_promotion(course: Course, looks: Ints = _LOOKS) -> list[int]:
    """Those of the looks at which one of the two e-values that are averaged is near the threshold, and the last one."""
    on = course.units.strata
    erred = np.zeros(UNITS, bool)
    erred[course.errors.times] = True
    counted = np.array([on == 0, (on == 0) & erred, on == 1, (on == 1) & erred]).cumsum(axis=1)[:, looks].T
    log_e = np.maximum(log_means(counted @ _steps(label_ratios)), log_means(counted @ _steps(risk_ratios)))
    return [*looks[log_e >= -math.log(BETA) - CLOSE].tolist(), int(looks[-1])]


def _steps(ratios: Callable[[list[Windows], float], Floats]) -> Floats:
    """What one more of each count of `Windows` adds to the likelihood ratios, which are linear in them."""
    return np.array([ratios([Windows(SHARE, *one)], 1.0 + MARGIN) for one in np.eye(4, dtype=int).tolist()])


def promotes(conclusion: Conclusion) -> bool:
    """Whether the candidate may be promoted."""
    return conclusion.decision.verdict is Verdict.PROMOTE


def _promoted(random: Random, risk: float, ratio: float) -> bool:
    course = simulated(random, risk, ratio)
    return first(course, close_to_a_promotion(course), promotes) is not None


def _promoted_by_first_errors(random: Random, hazard: float, *, frail: bool) -> bool:
    """The naive form: labels of first errors as they come, without a window, for a hazard at the margin."""
    on = random.random(UNITS) < SHARE
    frailty = random.gamma(1.0, 1.0, UNITS) if frail else np.ones(UNITS)
    times = random.exponential(1.0, UNITS) / (frailty * np.where(on, 1.0 + MARGIN, 1.0))
    erred = np.flatnonzero(times < hazard)
    candidates = np.cumsum(on[erred[np.argsort(times[erred])]])
    looks = np.unique(np.geomspace(20, max(21, len(erred)), 60).astype(int))
    looks = looks[looks <= len(erred)]
    candidate = candidates[looks - 1]
    active = looks - candidate
    # No units that did not err: the part of the e-process that looks at labels alone.
    at_margin, better = _label(1.0 + MARGIN), _label(np.array([0.85, 0.95, 1.0]))
    logs = np.outer(candidate, np.log(better / at_margin)) + np.outer(active, np.log((1 - better) / (1 - at_margin)))
    return bool((log_means(logs) >= -math.log(BETA)).any())


def _label(ratio: Floats | float) -> Floats:
    return np.asarray(ratio / (1.0 + ratio))


def promotion_figures(random: Random, rounds: int) -> list[Figure]:
    """Promotions of a candidate that stands exactly at the margin (the worst cell), and of one that is as good."""
    wrong, naive = [], []
    for hazard in HAZARDS:
        for frail in (False, True):
            risk = _risk(hazard, frail=frail)
            wrong.append(share_of(rounds, lambda risk=risk: _promoted(random, risk, 1.0 + MARGIN)))  # type: ignore[misc]
            by_labels = (_promoted_by_first_errors(random, hazard, frail=frail) for _ in range(rounds))
            naive.append(sum(by_labels) / rounds)
    power = share_of(max(50, rounds // 4), lambda: _promoted(random, _risk(1.0, frail=False), 1.0))
    what = f"promoted at the margin, worst of {len(wrong)} cells"
    as_good = "promoted when just as good, 20,000 units, hazard 1"
    return [
        Figure("promote_false_at_margin", what, max(wrong), 0.05, BETA, max(naive), rounds),
        Figure("promote_power_hazard_1", as_good, power, 0.8, at_least=True),
    ]
