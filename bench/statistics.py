"""`python -m bench statistics`: how often the tests of an experiment are wrong, and how soon they are right.

Simulated experiments with a known truth, seeded. Beside each test stands the one that many would write first. The last
line is one JSON object.
"""

import argparse
import json
import math
import sys
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Final

import numpy as np
from numpy.typing import NDArray

from bench.arguments import at_least_one
from bench.goals import Goal, status
from services.switcher.experiments.conclude import ArmTally, Drawn, EpochTally, Situation, in_basis_points
from services.switcher.experiments.record import encode, recomputed, recorded
from services.switcher.experiments.spec import Arm, Bandit, Spec
from services.switcher.intervals import redraw, whole
from services.switcher.statistics.bandit import Rate, best_by_rate, discounted, epsilon_greedy, stepped, with_floor
from services.switcher.statistics.harm import FirstErrors, log_e_harm
from services.switcher.statistics.promotion import Windows, log_e_no_worse
from services.switcher.statistics.srm import FirstExposures, log_e_mismatch
from turnout.routing import WHOLE, Units

Random = np.random.Generator

ALPHA: Final = 0.05
_Z_ONE_SIDED: Final = 1.645  # above it with that probability, once
MISMATCH_ALPHA: Final = 0.01
MARGIN: Final = 0.1
UNITS: Final = 20_000
READS: Final = 20_000
ERROR_RATE: Final = 0.01  # of a read on the active version, on average
PEEKS: Final = 100


@dataclass(frozen=True)
class Figure:
    """One line of the table: the share of experiments, or another figure, beside the naive test's and the goal."""

    name: str
    what: str
    value: float
    goal: float
    naive: float | None = None
    experiments: int = 0  # that `value` is the share of; 0 = it is no share


# --- harm -----------------------------------------------------------------------------------------------------------


def _first_errors(random: Random, shares: Sequence[float], ratio: float) -> Iterator[tuple[int, int, bool]]:
    """An experiment read by read: (read, epoch, whether the candidate's) of each unit's first error.

    Units differ in how often they err, the base rate drifts by a factor of 3, and weights go through `shares`, one
    epoch after the other, with units staying on the candidate once they are.
    """
    units = random.integers(0, UNITS, READS)
    place = random.random(UNITS)  # the unit's hash: on the candidate where it lies below the share
    frailty = random.gamma(2.0, 0.5, UNITS)
    epochs = np.arange(READS) * len(shares) // READS
    on_candidate = place[units] < np.array(shares)[epochs]
    drift = 1.0 + 0.5 * np.sin(2.0 * math.pi * (np.arange(READS) / READS * 3.0 + random.random()))
    rate = ERROR_RATE * drift * frailty[units] * np.where(on_candidate, ratio, 1.0)
    erring = np.flatnonzero(random.random(READS) < rate)
    _, firsts = np.unique(units[erring], return_index=True)
    for read in erring[np.sort(firsts)]:
        yield int(read), int(epochs[read]), bool(on_candidate[read])


def _abort(random: Random, shares: Sequence[float], ratio: float = 1.0) -> int | None:
    """The read at which an experiment is aborted, looked at after every error; None = never."""
    counts = [[0, 0] for _ in shares]
    for read, epoch, candidate in _first_errors(random, shares, ratio):
        counts[epoch][candidate] += 1
        strata = [FirstErrors(share, *count) for share, count in zip(shares, counts, strict=True)]
        if log_e_harm(strata) >= -math.log(ALPHA):
            return read
    return None


def _aborted(random: Random, shares: Sequence[float]) -> bool:
    return _abort(random, shares) is not None


def _naive_abort(random: Random, shares: Sequence[float]) -> bool:
    """A z-test of all errors against the pooled share, looked at 100 times."""
    found = list(_first_errors(random, shares, 1.0))
    for peek in range(1, PEEKS + 1):
        seen = [one for one in found if one[0] < READS * peek // PEEKS]
        expected = sum(shares[: max(1, math.ceil(len(shares) * peek / PEEKS))]) / max(
            1, math.ceil(len(shares) * peek / PEEKS)
        )
        if len(seen) < 20:
            continue
        if z_of_share(sum(candidate for _, _, candidate in seen), len(seen), expected) > _Z_ONE_SIDED:
            return True
    return False


def z_of_share(count: int, of: int, expected: float) -> float:
    """By how many standard deviations a count is above its expected share."""
    return (count - of * expected) / math.sqrt(of * expected * (1 - expected))


def harm_figures(random: Random, rounds: int) -> list[Figure]:
    """False alarms without any harm, and how soon harm is found."""
    ramp = (0.05, 0.1, 0.25, 0.5)
    found = []
    for name, what, shares, goal in (
        ("abort_false_alarm_50_50", "aborted without harm, 50/50", (0.5,), ALPHA),
        ("abort_false_alarm_95_5", "aborted without harm, 95/5", (0.05,), 0.03),
        ("abort_false_alarm_ramp", "aborted without harm, 5-10-25-50 %", ramp, 0.03),
    ):
        alarms = _share(rounds, partial(_aborted, random, shares))
        naive = _share(max(50, rounds // 4), partial(_naive_abort, random, shares))
        found.append(Figure(name, what, alarms, goal, naive, rounds))
    reads = [_abort(random, (0.05,), 10.0) or READS for _ in range(max(50, rounds // 4))]
    found.append(
        Figure("abort_median_reads_10x_at_5pct", "reads until 10 times worse is aborted at 5 %", np.median(reads), 1000)
    )
    return found


# --- sample ratio mismatch ------------------------------------------------------------------------------------------


def chi_square_p(units: NDArray[np.int64], shares: NDArray[np.float64]) -> float:
    """The p-value of two counts beside their expected shares, by Pearson's test."""
    expected = units.sum() * shares
    return math.erfc(math.sqrt(float(((units - expected) ** 2 / expected).sum()) / 2.0))


def _mismatch_peeked(random: Random, share: float) -> tuple[bool, bool]:
    shares = (1.0 - share, share)
    alarm = naive = False
    candidate = np.cumsum(random.random(UNITS) < share)
    for peek in range(1, PEEKS + 1):
        seen = UNITS * peek // PEEKS
        units = (int(seen - candidate[seen - 1]), int(candidate[seen - 1]))
        alarm |= log_e_mismatch([FirstExposures(shares, units)]) >= -math.log(MISMATCH_ALPHA)
        naive |= chi_square_p(np.array(units), np.array(shares)) < MISMATCH_ALPHA
    return alarm, naive


def _mismatch_returning(random: Random) -> tuple[bool, bool]:
    """50 epochs of changing shares, 80 % of each epoch's units having been seen before. The naive test counts them in
    every epoch anew, and multiplies nothing."""
    place, seen = random.random(UNITS * 2), np.zeros(UNITS * 2, dtype=bool)
    strata: list[FirstExposures] = []
    alarm = naive = False
    for epoch in range(50):
        share = (0.05, 0.1, 0.2, 0.3, 0.4, 0.5)[epoch % 6]
        returning = random.choice(np.flatnonzero(seen), 800, replace=False) if seen.sum() > 800 else np.array([], int)
        new = random.choice(np.flatnonzero(~seen), 200, replace=False)
        seen[new] = True
        candidate = int((place[new] < share).sum())
        strata.append(FirstExposures((1.0 - share, share), (len(new) - candidate, candidate)))
        alarm |= log_e_mismatch(strata) >= -math.log(MISMATCH_ALPHA)
        everyone = np.concatenate([new, returning])
        on = int((place[everyone] < share).sum())
        naive |= chi_square_p(np.array([len(everyone) - on, on]), np.array([1.0 - share, share])) < MISMATCH_ALPHA
    return alarm, naive


def _mismatch_found(random: Random, lost: float) -> int:
    """Units until it is found that a part of the candidate's units is lost, at 50/50."""
    active = candidate = 0
    while active + candidate < 200_000:
        new = 100
        on = random.binomial(new, 0.5)
        active, candidate = active + new - on, candidate + random.binomial(on, 1.0 - lost)
        if log_e_mismatch([FirstExposures((0.5, 0.5), (active, candidate))]) >= -math.log(MISMATCH_ALPHA):
            break
    return active + candidate


def mismatch_figures(random: Random, rounds: int) -> list[Figure]:
    """False alarms on units that are spread as designed, and how soon a loss is found."""
    peeked = [_mismatch_peeked(random, 0.05 if i % 2 else 0.5) for i in range(rounds)]
    returning = [_mismatch_returning(random) for _ in range(max(50, rounds // 4))]
    found = [_mismatch_found(random, 0.1) for _ in range(max(20, rounds // 20))]
    return [
        Figure("srm_false_alarm_100_peeks", "alarm on a fair split, 100 looks", *_means(peeked, 0.01)),
        Figure("srm_false_alarm_returning_units", "the same, 50 epochs, 80 % returning", *_means(returning, 0.01)),
        Figure(
            "srm_median_units_10pct_lost", "units until a loss of 10 % of an arm is found", np.median(found), 20_000
        ),
    ]


# --- promotion ------------------------------------------------------------------------------------------------------


def _risk(hazard: float, frail: bool) -> float:
    """The probability of an error within the window: a constant hazard, or one that differs by a factor of mean 1."""
    return 1.0 - 1.0 / (1.0 + hazard) if frail else 1.0 - math.exp(-hazard)


def _promoted(random: Random, risk: float, ratio: float, units: int) -> bool:
    on = random.random(units) < 0.5
    erred = random.random(units) < np.where(on, min(1.0, ratio * risk), risk)
    looks = np.unique(np.geomspace(50, units, 60).astype(int))
    for look in looks:
        a, b = ~on[:look], on[:look]
        window = Windows(0.5, int(a.sum()), int((a & erred[:look]).sum()), int(b.sum()), int((b & erred[:look]).sum()))
        if log_e_no_worse([window], MARGIN) >= -math.log(ALPHA):
            return True
    return False


def _promoted_by_first_errors(random: Random, hazard: float, frail: bool, units: int) -> bool:
    """The naive form: labels of first errors as they come, without a window, for a hazard at the margin."""
    on = random.random(units) < 0.5
    frailty = random.gamma(1.0, 1.0, units) if frail else np.ones(units)
    times = random.exponential(1.0, units) / (frailty * np.where(on, 1.0 + MARGIN, 1.0))
    erred = np.flatnonzero(times < hazard)
    labels = on[erred[np.argsort(times[erred])]]
    counts = np.cumsum(labels)
    for look in np.unique(np.geomspace(20, max(21, len(labels)), 60).astype(int)):
        if look > len(labels):
            break
        b = int(counts[look - 1])
        a = look - b
        # No units that did not err: the part of the e-process that looks at labels alone.
        q0 = (1 + MARGIN) / (2 + MARGIN)
        logs = [b * math.log(q / q0) + a * math.log((1 - q) / (1 - q0)) for q in (r / (1 + r) for r in (0.85, 0.95, 1))]
        if math.log(sum(map(math.exp, logs)) / len(logs)) >= -math.log(ALPHA):
            return True
    return False


def promotion_figures(random: Random, rounds: int) -> list[Figure]:
    """Promotions of a candidate that stands exactly at the margin (the worst cell), and of one that is as good."""
    cells = [(hazard, frail) for hazard in (0.05, 0.1, 0.2, 0.5, 1.0, 2.0) for frail in (False, True)]
    rounds = max(50, rounds // 4)
    wrong, naive = [], []
    for hazard, frail in cells:
        risk = _risk(hazard, frail)
        wrong.append(_share(rounds, partial(_promoted, random, risk, 1.0 + MARGIN, UNITS)))
        naive.append(_share(rounds, partial(_promoted_by_first_errors, random, hazard, frail, UNITS)))
    power = _share(rounds, lambda: _promoted(random, _risk(1.0, frail=False), 1.0, UNITS))
    return [
        Figure(
            "promote_false_at_margin", "promoted at the margin, worst of 12 cells", max(wrong), 0.05, max(naive), rounds
        ),
        Figure("promote_power_hazard_1", "promoted when just as good, 20,000 units, hazard 1", power, 0.8),
    ]


# --- bandit ---------------------------------------------------------------------------------------------------------


Weigh = Callable[[list[list[Rate]], Sequence[float]], Sequence[float]]
EPOCHS: Final = 60
PER_EPOCH: Final = 1000
DELAY: Final = 2  # epochs after which rewards are known


def _thompson(history: list[list[Rate]], now: Sequence[float]) -> Sequence[float]:
    arms = [discounted([epoch[arm] for epoch in history], 0.9) for arm in range(len(now))]
    return stepped(now, with_floor(best_by_rate(arms), 0.03), 0.3)


def _greedy(history: list[list[Rate]], now: Sequence[float]) -> Sequence[float]:
    arms = [discounted([epoch[arm] for epoch in history], 0.9) for arm in range(len(now))]
    return epsilon_greedy([arm.successes / arm.units if arm.units else 0.0 for arm in arms], 0.1)


def _uniform(history: list[list[Rate]], now: Sequence[float]) -> Sequence[float]:
    return [1.0 / len(now)] * len(now)


def _regret(random: Random, rates: Callable[[int], Sequence[float]], weigh: Weigh) -> float:
    """Rewards that were missed by not always serving the best arm."""
    weights: Sequence[float] = [1.0 / len(rates(0))] * len(rates(0))
    history: list[list[Rate]] = []
    regret = 0.0
    for epoch in range(EPOCHS):
        if epoch > DELAY:
            weights = weigh(history[: epoch - DELAY], weights)
        truth = rates(epoch)
        units = random.multinomial(PER_EPOCH, np.array(weights) / sum(weights))
        history.append([Rate(int(n), int(random.binomial(n, rate))) for n, rate in zip(units, truth, strict=True)])
        regret += sum(int(n) * (max(truth) - rate) for n, rate in zip(units, truth, strict=True))
    return regret


def bandit_figures(random: Random, rounds: int) -> list[Figure]:
    """Regret beside serving all arms equally, with rewards that come late, steady and drifting; the worse of both."""
    rounds = max(3, rounds // 50)

    def steady(epoch: int) -> Sequence[float]:
        return (0.10, 0.12, 0.15)

    def drifting(epoch: int) -> Sequence[float]:
        return (0.10, 0.12, 0.15) if epoch < EPOCHS // 2 else (0.15, 0.12, 0.10)

    ratios, greedy = [], []
    for rates in (steady, drifting):
        uniform = sum(_regret(random, rates, _uniform) for _ in range(rounds))
        ratios.append(sum(_regret(random, rates, _thompson) for _ in range(rounds)) / uniform)
        greedy.append(sum(_regret(random, rates, _greedy) for _ in range(rounds)) / uniform)
    return [
        Figure(
            "bandit_regret_vs_uniform",
            "regret beside equal weights; naive: epsilon-greedy",
            max(ratios),
            0.5,
            max(greedy),
        )
    ]


# --- records --------------------------------------------------------------------------------------------------------


def _situation(random: Random) -> Situation:
    """Some epochs of an experiment with two candidates and a bandit."""
    spec = Spec((Arm(1, 8000), Arm(2, 1000), Arm(3, 1000)), Units.CALLER, bandit=Bandit(units_min=2, every_s=1.0))
    epochs = []
    for epoch in range(2, 2 + int(random.integers(1, 6))):
        weights = in_basis_points(tuple(map(float, random.dirichlet((4.0, 1.0, 1.0)))))
        epochs.append(EpochTally(epoch, weights, tuple(_tally(random, weight / WHOLE) for weight in weights)))
    intervals = redraw(whole(1, 1), {1: 8000, 2: 1000, 3: 1000}, 2).intervals
    return Situation(
        spec=spec,
        epochs=tuple(epochs),
        route=Drawn(
            epochs[-1].epoch, (8000, 1000, 1000), tuple((i.low, i.high, i.version, i.acquired_epoch) for i in intervals)
        ),
        epoch_age_s=10.0,
    )


def _tally(random: Random, share: float) -> ArmTally:
    units = int(random.binomial(3000, share))
    errors = int(random.binomial(units, 0.1))
    conversions = int(random.binomial(units, float(random.uniform(0.1, 0.2))))
    return ArmTally(units, units, errors, conversions, 0.0, 0.0, (errors, 0, 0, 0))


def record_figures(random: Random, rounds: int) -> list[Figure]:
    """Decisions on random experiments, with what they do to the route, recomputed from their records."""
    equal = 0
    for _ in range(rounds):
        record = encode(recorded("jobs/j/experiments/e", "bench", "", _situation(random)))
        equal += recomputed(record) == record
    return [Figure("replayed_decisions_equal", "decisions recomputed from their records", equal / rounds, 1.0)]


# --- the command ----------------------------------------------------------------------------------------------------


def _share(rounds: int, happens: Callable[[], bool]) -> float:
    return sum(happens() for _ in range(rounds)) / rounds


def _means(pairs: Sequence[tuple[bool, bool]], goal: float) -> tuple[float, float, float, int]:
    return sum(a for a, _ in pairs) / len(pairs), goal, sum(b for _, b in pairs) / len(pairs), len(pairs)


_AT_LEAST: Final = frozenset({"promote_power_hazard_1", "replayed_decisions_equal"})
PARTS: Final = (harm_figures, mismatch_figures, promotion_figures, bandit_figures, record_figures)


def figures(seed: int, rounds: int) -> Iterator[Figure]:
    """All figures; each part has a stream of random numbers of its own, so that a part alone gives the same."""
    for part, stream in zip(PARTS, np.random.SeedSequence(seed).spawn(len(PARTS)), strict=True):
        began_s = time.monotonic()
        yield from part(np.random.default_rng(stream), rounds)
        sys.stderr.write(f"{part.__name__}: {time.monotonic() - began_s:.0f} s\n")


def main(arguments: list[str]) -> int:
    """Print the table and the JSON object. Exit status 0 when all goals are reached."""
    parser = argparse.ArgumentParser(prog="python -m bench statistics", description=__doc__)
    parser.add_argument("--seed", type=int, default=1, help="of the simulated experiments (default: %(default)s)")
    parser.add_argument("--rounds", type=at_least_one, default=2000, help="experiments a figure, fewer for slow ones")
    given = parser.parse_args(arguments)
    found = list(figures(given.seed, given.rounds))
    print(f"{'':<62}{'measured':>10}{'goal':>9}{'naive':>9}")
    for one in found:
        naive = "" if one.naive is None else f"{one.naive:9.3f}"
        print(f"{one.what:<62}{one.value:>10.4g}{one.goal:>9g}{naive:>9}")
    answer = {one.name: round(float(one.value), 4) for one in found}
    code = status(answer, {one.name: Goal(one.goal, at_least=one.name in _AT_LEAST) for one in found})
    print(json.dumps(answer))
    return code
