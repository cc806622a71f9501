"""The verdict on an experiment, from counts alone, with its sentences.

Guardrails come first: harm, or a gate that says no, aborts a candidate; a mismatch of samples makes every comparison
void, so it freezes the experiment for a person; only then may a candidate be promoted; and what has used up its units
without either is inconclusive, which waits for a person too.

Several candidates, and several harms of each, are as many chances of a false alarm: the level of the abort is shared
out among them, that of the promotion among the candidates.
"""

import enum
import math
from typing import Final

import msgspec

from services.switcher.statistics.harm import Firsts, label_share, log_e_harm, log_e_loss
from services.switcher.statistics.promotion import Windows, log_e_no_worse, units_needed
from services.switcher.statistics.srm import FirstExposures, log_e_mismatch

_DIGITS: Final = 9  # that a record keeps of a computed number: beyond them machines may differ


class Verdict(enum.Enum):
    """What is to be done with a candidate, or, as the most pressing of them, with an experiment."""

    ABORT = "ABORT"  # its weight goes to 0 at once
    FREEZE = "FREEZE"  # nothing moves until a person has looked: the samples do not fit the weights
    PROMOTE = "PROMOTE"  # the next step may be taken
    CONTINUE = "CONTINUE"  # not decided yet
    INCONCLUSIVE = "INCONCLUSIVE"  # not decided, and the units that were planned for it are used up: a person decides


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was fixed before the experiment started."""

    abort_alpha: float = 0.05  # probability of aborting any candidate although none does harm
    mismatch_alpha: float = 0.001  # of freezing although the units are spread as designed
    promote_beta: float = 0.05  # of promoting any candidate that is worse than the margin
    margin: float = 0.1  # a candidate's risk may be 1 + margin times the active version's, conversions the same less
    units_min: int = 100  # complete windows in each of the two before a promotion
    units_max: int = 1_000_000  # complete windows of a candidate and the active version after which it is inconclusive

    def faults(self) -> list[tuple[str, str]]:
        """Each field that is out of its range, and what is wrong with it."""
        told = [
            (name, f"{name} is {level}; it is a probability of error and must lie between 0 and 1")
            for name in ("abort_alpha", "mismatch_alpha", "promote_beta")
            if not 0.0 < (level := getattr(self, name)) < 1.0
        ]
        if not 0.0 <= self.margin < math.inf:
            told.append(("margin", f"margin is {self.margin}; it must be a number, and not negative"))
        if not 0 <= self.units_min <= self.units_max:
            told.append(("units_min", f"units_min {self.units_min} must lie between 0 and units_max {self.units_max}"))
        return told

    def check(self) -> None:
        """ValueError when a field is out of its range."""
        for _, told in self.faults():
            raise ValueError(told)


class Harm(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One kind of harm that is watched, and the first ones of that kind, by epoch. wanted: the harm is that there are
    too few, as of conversions, not that there are too many."""

    metric: str
    firsts: tuple[Firsts, ...]
    wanted: bool = False


class Candidate(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """A candidate beside the active version. objections: what a gate says against it, one sentence each."""

    version: int
    harms: tuple[Harm, ...]
    windows: tuple[Windows, ...]
    objections: tuple[str, ...] = ()


class Inputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that a verdict rests on. exposures: of all arms, by epoch."""

    plan: Plan
    exposures: tuple[FirstExposures, ...]
    candidates: tuple[Candidate, ...]


class Judgement(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is said of one candidate; e-values as logarithms, those of harm in the order of its harms."""

    version: int
    log_e_harms: tuple[float, ...]
    log_e_no_worse: float
    verdict: Verdict
    sentence: str


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is said of the experiment: of each candidate, and as a whole the most pressing of that."""

    log_e_mismatch: float | None  # None = infinite, which JSON cannot say
    judgements: tuple[Judgement, ...]
    verdict: Verdict
    sentence: str


PRESSING: Final = (Verdict.ABORT, Verdict.FREEZE, Verdict.PROMOTE, Verdict.INCONCLUSIVE, Verdict.CONTINUE)
"""The verdicts, the most pressing first."""


def decide(inputs: Inputs) -> Decision:
    """The verdict on the inputs. ValueError when they cannot be."""
    inputs.plan.check()
    mismatch = log_e_mismatch(inputs.exposures)
    judgements = tuple(_judged(inputs, candidate, mismatch) for candidate in inputs.candidates)
    first = min(judgements, key=lambda one: PRESSING.index(one.verdict), default=None)
    if first is None:
        verdict, sentence = Verdict.CONTINUE, "There is no candidate beside the active version."
    else:
        verdict, sentence = first.verdict, first.sentence
    return Decision(None if math.isinf(mismatch) else _rounded(mismatch), judgements, verdict, sentence)


def harm_alpha(inputs: Inputs, candidate: Candidate) -> float:
    """The level at which one kind of harm aborts a candidate."""
    return inputs.plan.abort_alpha / max(1, len(inputs.candidates) * len(candidate.harms))


def promote_beta(inputs: Inputs) -> float:
    """The level at which one candidate is promoted."""
    return inputs.plan.promote_beta / max(1, len(inputs.candidates))


def _judged(inputs: Inputs, candidate: Candidate, mismatch: float) -> Judgement:
    plan, alpha, beta = inputs.plan, harm_alpha(inputs, candidate), promote_beta(inputs)
    harms = tuple(_log_e(plan, harm) for harm in candidate.harms)
    no_worse = log_e_no_worse(candidate.windows, plan.margin)
    active = sum(one.active_units for one in candidate.windows)
    units = sum(one.candidate_units for one in candidate.windows)
    worst = max(range(len(harms)), key=lambda place: harms[place], default=None)
    if candidate.objections:
        verdict, sentence = Verdict.ABORT, f"v{candidate.version} is refused by a gate: {candidate.objections[0]}"
    elif worst is not None and harms[worst] >= -math.log(alpha):
        verdict, sentence = Verdict.ABORT, _harm_sentence(plan, candidate, candidate.harms[worst], harms[worst], alpha)
    elif mismatch >= -math.log(plan.mismatch_alpha):
        verdict, sentence = Verdict.FREEZE, _mismatch_sentence(inputs, mismatch)
    elif no_worse >= -math.log(beta) and min(active, units) >= plan.units_min:
        verdict, sentence = Verdict.PROMOTE, _promotion_sentence(plan, candidate, no_worse, beta)
    elif active + units >= plan.units_max:
        verdict = Verdict.INCONCLUSIVE
        sentence = _undecided_sentence(inputs, candidate, no_worse, "a person has to decide")
    else:
        verdict = Verdict.CONTINUE
        sentence = _undecided_sentence(inputs, candidate, no_worse, "it goes on")
    return Judgement(candidate.version, tuple(map(_rounded, harms)), _rounded(no_worse), verdict, sentence)


def _log_e(plan: Plan, harm: Harm) -> float:
    return log_e_loss(harm.firsts, plan.margin) if harm.wanted else log_e_harm(harm.firsts)


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


# --- sentences ------------------------------------------------------------------------------------------------------


def _harm_sentence(plan: Plan, candidate: Candidate, harm: Harm, log_e: float, alpha: float) -> str:
    own = sum(one.candidate for one in harm.firsts)
    total = own + sum(one.active for one in harm.firsts)
    expected = sum(one.share * (one.active + one.candidate) for one in harm.firsts)
    what, allowed = "errors", ""
    if harm.wanted:
        least = sum(label_share(one.share, 1 / (1 + plan.margin)) * (one.active + one.candidate) for one in harm.firsts)
        what, allowed = "conversions", f" and {least:,.1f} the least that the margin allows"
    return (
        f"v{candidate.version} does harm ({harm.metric}): {own:,} of {total:,} first {what} are its own where "
        f"{expected:,.1f} would be its share{allowed} (e-value {shown(log_e)}, abort at {1 / alpha:,.0f})."
    )


def _mismatch_sentence(inputs: Inputs, mismatch: float) -> str:
    arms = len(inputs.exposures[0].shares)
    seen = [sum(one.units[arm] for one in inputs.exposures) for arm in range(arms)]
    expected = [sum(one.shares[arm] * sum(one.units) for one in inputs.exposures) for arm in range(arms)]
    counts = ", ".join(f"{have:,} where {want:,.0f} were expected" for have, want in zip(seen, expected, strict=True))
    return (
        f"The units are not spread as designed, so no comparison means anything until the cause is found: {counts} "
        f"(e-value {shown(mismatch)}, alarm at {1 / inputs.plan.mismatch_alpha:,.0f})."
    )


def _promotion_sentence(plan: Plan, candidate: Candidate, no_worse: float, beta: float) -> str:
    return (
        f"v{candidate.version} is no worse than the margin allows: {_risks(candidate)} (e-value {shown(no_worse)} "
        f"against a risk of {1 + plan.margin:g} times the active version's, promoted at {1 / beta:,.0f})."
    )


def _undecided_sentence(inputs: Inputs, candidate: Candidate, no_worse: float, what_now: str) -> str:
    plan, beta = inputs.plan, promote_beta(inputs)
    neither = f"Neither harm of v{candidate.version} nor its absence is shown, {what_now}"
    windows = sum(one.active_units + one.candidate_units for one in candidate.windows)
    errors = sum(one.active_errors + one.candidate_errors for one in candidate.windows)
    if not windows:
        counted = sum(units for one in inputs.exposures for units in one.units)
        return f"{neither}: no window is over yet, of {counted:,} units (at most {plan.units_max:,})."
    share = candidate.windows[-1].share if candidate.windows else 0.0
    needed = units_needed(errors / windows if windows else 0.0, share, plan.margin, beta)
    total = f"about {needed:,.0f} would do if the two are equally good" if math.isfinite(needed) else "none erred yet"
    return (
        f"{neither}: {_risks(candidate)} (e-value {shown(no_worse)}, promoted at {1 / beta:,.0f}; {windows:,} of at "
        f"most {plan.units_max:,} units, {total})."
    )


def _risks(candidate: Candidate) -> str:
    def total(field: str) -> int:
        return sum(getattr(one, field) for one in candidate.windows)

    return (
        f"{total('candidate_errors'):,} of {total('candidate_units'):,} units erred on it, "
        f"{total('active_errors'):,} of {total('active_units'):,} on the active version"
    )


def shown(log_e: float) -> str:
    """An e-value for people, who need no more than its order once it is large."""
    if log_e > math.log(1e6):
        return "above a million"
    return f"{math.exp(log_e):.3g}"
