"""Decision records: whether every one is drawn again the same."""

from typing import Final

from bench.statistics.course import FIRST_EPOCH, drawn, experiment
from bench.statistics.figure import Figure, Random
from services.switcher.experiments.conclude import ArmTally, EpochTally, Situation, in_basis_points
from services.switcher.experiments.record import encode, recomputed, recorded
from services.switcher.experiments.spec import Bandit
from turnout.routing import WHOLE

WEIGHTS: Final = (8000, 1000, 1000)
_UNITS: Final = 3000  # of an epoch


def _situation(random: Random) -> Situation:
    """Some epochs of an experiment with two candidates, every other one with a bandit."""
    bandit = Bandit(units_min=2, every_s=60.0) if random.random() < 0.5 else None
    spec, epochs = experiment(*WEIGHTS, bandit=bandit), []
    for epoch in range(FIRST_EPOCH, FIRST_EPOCH + int(random.integers(1, 6))):
        weights = in_basis_points(tuple(map(float, random.dirichlet((4.0, 1.0, 1.0)))))
        arms = tuple(_tally(random, weight / WHOLE, len(spec.harms)) for weight in weights)
        epochs.append(EpochTally(epoch, weights, arms))
    return Situation(spec, tuple(epochs), drawn(WEIGHTS, epochs[-1].epoch), epoch_age_s=100.0)


def _tally(random: Random, share: float, harms: int) -> ArmTally:
    units = int(random.binomial(_UNITS, share))
    errors, conversions = (int(random.binomial(units, random.uniform(0.1, 0.2))) for _ in range(2))
    return ArmTally(units, units, errors, conversions, harms=(errors, *[0] * (harms - 1)))


def record_figures(random: Random, rounds: int) -> list[Figure]:
    """Decisions on random experiments, with what they do to the route, recomputed from their records."""
    rounds = max(20, rounds // 10)
    equal = 0
    for _ in range(rounds):
        record = encode(recorded("jobs/j/experiments/e", "bench", "", _situation(random)))
        equal += recomputed(record) == record
    what = "decisions that are drawn again the same"
    return [Figure("replayed_decisions_equal", what, equal / rounds, 1.0, at_least=True)]
