"""What follows from what was counted: the rules of an experiment. Pure; the whole of it is in `conclude`.

The order is that of what is most pressing:

    a candidate does harm, or a gate objects   its weight goes to the control, at once and without a gate; without any
                                               candidate left the experiment is over, rolled back
    the samples do not fit, or the planned     it pauses: weights stay, a person looks; harm is still watched for
    units are used up without an answer
    what was counted is stale                  nothing moves until it is not
    a bandit, and its time has come            one bounded step, in a new epoch
    none of these                              it goes on

Whoever computes it again from the same situation gets the same conclusion, bit for bit.
"""

import enum
from collections.abc import Mapping, Sequence
from typing import Final

import msgspec

from services.switcher.experiments.spec import Bandit, Metric, Objective, Rule, Spec
from services.switcher.intervals import redraw
from services.switcher.statistics.bandit import (
    Mean,
    Rate,
    best_by_mean,
    best_by_rate,
    discounted,
    epsilon_greedy,
    stepped,
    with_floor,
)
from services.switcher.statistics.decision import (
    PRESSING,
    Candidate,
    Decision,
    Harm,
    Inputs,
    Judgement,
    Verdict,
    decide,
)
from services.switcher.statistics.harm import Firsts
from services.switcher.statistics.promotion import Windows
from services.switcher.statistics.srm import FirstExposures
from turnout.routing import WHOLE, Interval

OBJECTING: Final = "comparison"
"""The gate that aborts: what it finds is a fault of the candidate, while the others may pass again by themselves."""
EPOCHS_MAX: Final = 1000
"""With so many epochs a bandit moves no further: every decision rests on all of them, and keeps them."""
_DIGITS: Final = 6  # of a share that the bandit aims at: beyond them machines may differ


class ArmTally(msgspec.Struct, frozen=True, forbid_unknown_fields=True, array_like=True):
    """One arm in one epoch. Units are of that epoch's first exposures; harms are by the exposure that went wrong."""

    units: int = 0
    closed: int = 0  # of them: whose window is over, with what became of it
    errors: int = 0
    conversions: int = 0
    total: float = 0.0  # of their rewards
    squares: float = 0.0
    harms: tuple[int, ...] = ()  # first ones, in the order of Spec.harms


class EpochTally(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """An epoch: its designed weights and what was counted, both in the order of Spec.arms."""

    epoch: int
    weights: tuple[int, ...]
    arms: tuple[ArmTally, ...]


class GateSaid(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What a gate says of a candidate."""

    gate: str
    version: int
    passed: bool
    evidence: tuple[str, ...]


class Drawn(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The route: weights in the order of Spec.arms, and the map as [low, high, version, acquired_epoch]."""

    epoch: int
    weights: tuple[int, ...]
    intervals: tuple[tuple[int, int, int, int], ...]


class Situation(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that a conclusion rests on."""

    spec: Spec
    epochs: tuple[EpochTally, ...]
    route: Drawn
    epoch_age_s: float = 0.0
    gates: tuple[GateSaid, ...] = ()
    stale: str = ""  # why what was counted is not all there is; "" = it is
    paused: bool = False
    passed_over: tuple[Verdict, ...] = ()  # for which a person has resumed it
    gone: tuple[int, ...] = ()  # candidates that were aborted before
    asked: tuple[int, ...] | None = None  # weights that somebody asked for, instead of a conclusion


class Action(enum.Enum):
    """What is to be done now."""

    KEEP = "KEEP"  # nothing
    ABORT = "ABORT"  # take candidates off the route, without a gate
    END = "END"  # take the last candidate off the route: the experiment is over
    PAUSE = "PAUSE"  # wait for a person
    STEP = "STEP"  # move the bandit's weights
    ASKED = "ASKED"  # what somebody asked for


class Conclusion(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What follows. after: the route then, whose epoch is the present one where nothing is to be done."""

    decision: Decision
    action: Action
    aborted: tuple[int, ...]  # candidates that go off the route
    sentence: str  # why, with its numbers
    waiting_for: str  # what has to come before anything moves; "" where something does
    wanted: tuple[float, ...]  # shares that the bandit aims at; none without one
    after: Drawn


def conclude(situation: Situation) -> Conclusion:
    """What follows from a situation. ValueError when it cannot be."""
    decision = decide(inputs_of(situation))
    if situation.asked is not None:
        return _moved(situation, decision, Action.ASKED, situation.asked, "Somebody asked for these weights.")
    present = _present(situation, decision)
    aborted = tuple(one.version for one in present if one.verdict is Verdict.ABORT)
    if aborted:
        return _abort(situation, decision, present, aborted)
    pressing = min(present, key=lambda one: PRESSING.index(one.verdict), default=None)
    if pressing is None:
        return _kept(situation, decision, "No candidate is left on the route.", "somebody to stop the experiment")
    pausing = pressing.verdict in (Verdict.FREEZE, Verdict.INCONCLUSIVE)
    if situation.paused or (pausing and pressing.verdict not in situation.passed_over):
        action = Action.KEEP if situation.paused else Action.PAUSE
        told = _kept(situation, decision, pressing.sentence, "a person: resume or stop the experiment")
        return msgspec.structs.replace(told, action=action)
    if situation.stale:
        return _kept(situation, decision, pressing.sentence, situation.stale)
    if situation.spec.bandit is None:
        return _kept(situation, decision, pressing.sentence, _next_of(pressing))
    for gate in situation.gates:
        if not gate.passed and gate.version not in situation.gone:
            waiting = f"the gate {gate.gate} of v{gate.version}: {' '.join(gate.evidence)}"
            return _kept(situation, decision, pressing.sentence, waiting)
    return _bandit(situation, situation.spec.bandit, decision, pressing)


def _present(situation: Situation, decision: Decision) -> list[Judgement]:
    return [one for one in decision.judgements if one.version not in situation.gone]


def _next_of(pressing: Judgement) -> str:
    if pressing.verdict is Verdict.PROMOTE:
        return f"a person: v{pressing.version} may be promoted"
    return "more units"


# --- what verdicts rest on ------------------------------------------------------------------------------------------


def inputs_of(situation: Situation) -> Inputs:
    """The situation's counts as the tests take them. All candidates, also those gone: the levels stay as planned."""
    spec = situation.spec
    return Inputs(
        plan=spec.plan,
        exposures=tuple(
            FirstExposures(tuple(weight / WHOLE for weight in one.weights), tuple(arm.units for arm in one.arms))
            for one in situation.epochs
        ),
        candidates=tuple(
            Candidate(
                version=version,
                harms=_harms(situation, place),
                windows=tuple(_windows(one, place) for one in situation.epochs),
                objections=_objections(situation, version),
            )
            for place, version in enumerate(spec.candidates, start=1)
        ),
    )


def _share(epoch: EpochTally, place: int) -> float:
    """The candidate's designed share of itself and the control; 0 where neither has any."""
    both = epoch.weights[0] + epoch.weights[place]
    return epoch.weights[place] / both if both else 0.0


def _harms(situation: Situation, place: int) -> tuple[Harm, ...]:
    return tuple(
        Harm(
            metric.value,
            tuple(
                Firsts(_share(one, place), one.arms[0].harms[kind], one.arms[place].harms[kind])
                for one in situation.epochs
            ),
            wanted=metric is Metric.CONVERSION,
        )
        for kind, metric in enumerate(situation.spec.harms)
        if metric in situation.spec.watched
    )


def _windows(one: EpochTally, place: int) -> Windows:
    active, candidate = one.arms[0], one.arms[place]
    return Windows(_share(one, place), active.closed, active.errors, candidate.closed, candidate.errors)


def _objections(situation: Situation, version: int) -> tuple[str, ...]:
    return tuple(
        sentence
        for gate in situation.gates
        if gate.gate == OBJECTING and gate.version == version and not gate.passed
        for sentence in (gate.evidence or (f"the gate {gate.gate} gives no evidence",))
    )


# --- what is done ---------------------------------------------------------------------------------------------------


def _abort(
    situation: Situation, decision: Decision, present: Sequence[Judgement], aborted: tuple[int, ...]
) -> Conclusion:
    spec = situation.spec
    weights = list(situation.route.weights)
    for place, version in enumerate(spec.candidates, start=1):
        if version in aborted:
            weights[0] += weights[place]
            weights[place] = 0
    sentence = " ".join(one.sentence for one in present if one.version in aborted)
    if len(aborted) == len(present):
        weights = [WHOLE, *[0] * len(spec.candidates)]
        return _moved(situation, decision, Action.END, tuple(weights), sentence, aborted)
    return _moved(situation, decision, Action.ABORT, tuple(weights), sentence, aborted)


def _bandit(situation: Situation, bandit: Bandit, decision: Decision, pressing: Judgement) -> Conclusion:
    spec = situation.spec
    places = [0, *[place for place, one in enumerate(spec.candidates, start=1) if one not in situation.gone]]
    fewest = min(sum(one.arms[place].closed for one in situation.epochs) for place in places)
    if fewest < bandit.units_min:
        waiting = f"{bandit.units_min} complete windows in each arm; the fewest are {fewest}"
        return _kept(situation, decision, pressing.sentence, waiting)
    best = _best(situation, bandit, places)
    wanted = [0.0] * len(spec.arms)
    for place, share in zip(places, with_floor(best, bandit.floor), strict=True):
        wanted[place] = round(share, _DIGITS)
    kept = msgspec.structs.replace(
        _kept(situation, decision, _wanted_sentence(spec, bandit, wanted), ""), wanted=tuple(wanted)
    )
    if len(situation.epochs) >= EPOCHS_MAX:
        waiting = f"a person: after {EPOCHS_MAX:,} epochs the weights stay; promote an arm, or start another experiment"
        return msgspec.structs.replace(kept, waiting_for=waiting)
    if situation.epoch_age_s < bandit.every_s:
        left_s = bandit.every_s - situation.epoch_age_s
        return msgspec.structs.replace(kept, waiting_for=f"the bandit's next step, in {left_s:,.0f} s")
    now = [weight / WHOLE for weight in situation.route.weights]
    weights = in_basis_points(stepped(now, wanted, bandit.step_max))
    if weights == situation.route.weights:
        return msgspec.structs.replace(kept, waiting_for="a reason to move: the weights are where they should be")
    moved = _moved(situation, decision, Action.STEP, weights, kept.sentence)
    return msgspec.structs.replace(moved, wanted=tuple(wanted))


def _best(situation: Situation, bandit: Bandit, places: Sequence[int]) -> tuple[float, ...]:
    """The weights that the bandit's rule gives the arms at these places."""
    maximise = bandit.objective is not Objective.ERRORS
    if bandit.objective is Objective.REWARDS:
        means = [discounted([_mean(one.arms[place]) for one in situation.epochs], bandit.gamma) for place in places]
        if bandit.rule is Rule.THOMPSON:
            return best_by_mean(means)
        return epsilon_greedy([one.total / max(one.units, 1e-9) for one in means], bandit.epsilon)
    rates = [
        discounted([_rate(one.arms[place], bandit.objective) for one in situation.epochs], bandit.gamma)
        for place in places
    ]
    if bandit.rule is Rule.THOMPSON:
        return best_by_rate(rates, maximise=maximise)
    return epsilon_greedy([one.successes / max(one.units, 1e-9) for one in rates], bandit.epsilon, maximise=maximise)


def _rate(arm: ArmTally, objective: Objective) -> Rate:
    return Rate(arm.closed, arm.errors if objective is Objective.ERRORS else arm.conversions)


def _mean(arm: ArmTally) -> Mean:
    return Mean(arm.closed, arm.total, arm.squares)


def _wanted_sentence(spec: Spec, bandit: Bandit, wanted: Sequence[float]) -> str:
    shares = ", ".join(f"v{arm.version} {share:.1%}" for arm, share in zip(spec.arms, wanted, strict=True))
    return (
        f"By {bandit.objective.value.lower()} the bandit aims at {shares}, by at most {bandit.step_max:.1%} of the "
        f"units at a time."
    )


def in_basis_points(shares: Sequence[float]) -> tuple[int, ...]:
    """Shares as whole basis points that sum to 10000 (largest remainder, the first of equals)."""
    exact = [share * WHOLE for share in shares]
    # What differs by a rounding of the machine must not decide which arm gets the last point.
    points = [int(one + 1e-6) for one in exact]
    by_remainder = sorted(range(len(exact)), key=lambda place: (-round(exact[place] - points[place], 6), place))
    for place in by_remainder[: WHOLE - sum(points)]:
        points[place] += 1
    return tuple(points)


def _kept(situation: Situation, decision: Decision, sentence: str, waiting_for: str) -> Conclusion:
    return Conclusion(decision, Action.KEEP, (), sentence, waiting_for, (), situation.route)


def _moved(
    situation: Situation,
    decision: Decision,
    action: Action,
    weights: tuple[int, ...],
    sentence: str,
    aborted: tuple[int, ...] = (),
) -> Conclusion:
    return Conclusion(decision, action, aborted, sentence, "", (), redrawn(situation, weights))


def redrawn(situation: Situation, weights: tuple[int, ...]) -> Drawn:
    """The route with other weights, in the next epoch."""
    spec, route = situation.spec, situation.route
    epoch = route.epoch + 1
    intervals = redraw((Interval(*one) for one in route.intervals), _by_version(spec, weights), epoch).intervals
    return Drawn(epoch, weights, tuple((i.low, i.high, i.version, i.acquired_epoch) for i in intervals))


def _by_version(spec: Spec, weights: Sequence[int]) -> Mapping[int, int]:
    return {arm.version: weight for arm, weight in zip(spec.arms, weights, strict=True)}
