"""Bandit: rewards that are missed by its weights, beside those missed by equal ones."""

from collections.abc import Callable, Sequence
from typing import Final

import numpy as np

from bench.statistics.course import FIRST_EPOCH, drawn, experiment
from bench.statistics.figure import Figure, Random
from services.switcher.experiments.conclude import Action, ArmTally, EpochTally, Situation, conclude, in_basis_points
from services.switcher.experiments.spec import Bandit, Rule, default_harms
from turnout.routing import WHOLE

STEPS: Final = 60  # times at which the bandit may move
PER_STEP: Final = 1000  # units between two of them
DELAY: Final = 2  # steps after which a unit's window is complete
RATES: Final = (0.10, 0.12, 0.15)

Rates = Callable[[int], Sequence[float]]


def _steady(step: int) -> Sequence[float]:
    return RATES


def _drifting(step: int) -> Sequence[float]:
    return RATES if step < STEPS // 2 else RATES[::-1]


class _Counted:
    """What was counted of each arm: units, complete windows, conversions; by epoch."""

    def __init__(self) -> None:
        self._epochs: dict[int, tuple[tuple[int, ...], np.ndarray[tuple[int, int], np.dtype[np.int64]]]] = {}
        self._open: list[tuple[int, Sequence[int], Sequence[int]]] = []

    def add(self, epoch: int, weights: tuple[int, ...], units: Sequence[int], converted: Sequence[int]) -> None:
        """Units that come in an epoch, and how many of them will have converted by the end of their windows."""
        _, sums = self._epochs.setdefault(epoch, (weights, np.zeros((3, len(weights)), np.int64)))
        sums[0] += units
        self._open.append((epoch, units, converted))
        if len(self._open) > DELAY:
            at, complete, with_conversion = self._open.pop(0)
            self._epochs[at][1][1] += complete
            self._epochs[at][1][2] += with_conversion

    def tallies(self) -> tuple[EpochTally, ...]:
        """As the product has them."""
        return tuple(
            EpochTally(epoch, weights, tuple(_tally(*map(int, column)) for column in sums.T))
            for epoch, (weights, sums) in self._epochs.items()
        )


def _tally(units: int, closed: int, conversions: int) -> ArmTally:
    return ArmTally(units, closed, conversions=conversions, harms=(0,) * len(default_harms(Bandit())))


def _regret(random: Random, rates: Rates, bandit: Bandit) -> float:
    """Conversions that were missed by not always serving the best arm."""
    weights = in_basis_points((1.0 / len(RATES),) * len(RATES))
    spec, route = experiment(*weights, bandit=bandit), drawn(weights, FIRST_EPOCH)
    counted, regret, began = _Counted(), 0.0, 0
    for step in range(STEPS):
        truth = np.array(rates(step))
        units = random.multinomial(PER_STEP, np.array(route.weights) / WHOLE)
        counted.add(route.epoch, route.weights, units.tolist(), random.binomial(units, truth).tolist())
        regret += float((units * (truth.max() - truth)).sum())
        age_s = (step + 1 - began) * bandit.every_s
        conclusion = conclude(Situation(spec, counted.tallies(), route, epoch_age_s=age_s))
        if conclusion.action is Action.STEP:
            route, began = conclusion.after, step + 1
    return regret


def _of_equal_weights(rates: Rates) -> float:
    return sum(PER_STEP * (max(rates(step)) - sum(rates(step)) / len(RATES)) for step in range(STEPS))


def bandit_figures(random: Random, rounds: int) -> list[Figure]:
    """Regret beside serving all arms equally, with rewards that come late, steady and drifting; the worse of both."""
    rounds = max(1, rounds // 200)
    worst = [
        max(
            sum(_regret(random, rates, Bandit(rule=rule)) for _ in range(rounds)) / rounds / _of_equal_weights(rates)
            for rates in (_steady, _drifting)
        )
        for rule in (Rule.THOMPSON, Rule.EPSILON_GREEDY)
    ]
    what = "regret beside equal weights; naive: epsilon-greedy"
    return [Figure("bandit_regret_vs_uniform", what, worst[0], 0.5, naive=worst[1])]
