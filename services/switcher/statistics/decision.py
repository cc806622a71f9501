"""A verdict on a candidate, from counts alone, with its sentence, as a record that can be recomputed.

Guardrails come first: harm aborts; a mismatch of samples makes every comparison void, so it freezes the experiment for
a person; only then may a candidate be promoted; and whatever has used up its units without either is inconclusive,
which waits for a person too. `recomputed` is the audit: it decides again from the record's own inputs.
"""

import enum
import math
from typing import Final

import msgspec

from services.switcher.statistics.harm import FirstErrors, log_e_harm
from services.switcher.statistics.promotion import Windows, log_e_no_worse, units_needed
from services.switcher.statistics.srm import FirstExposures, log_e_mismatch

RULES: Final = 1
"""Number of these rules. It grows with every change that may decide the same inputs otherwise."""
_DIGITS: Final = 9  # that a record keeps of a computed number: beyond them machines may differ


class Verdict(enum.Enum):
    """What is to be done with the candidate."""

    ABORT = "ABORT"  # its weight goes to 0 at once
    FREEZE = "FREEZE"  # nothing moves until a person has looked: the samples do not fit the weights
    PROMOTE = "PROMOTE"  # the next step may be taken
    CONTINUE = "CONTINUE"  # not decided yet
    INCONCLUSIVE = "INCONCLUSIVE"  # not decided, and the units that were planned for it are used up: a person decides


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What was fixed before the experiment started. ValueError from `decide` when a field is out of its range."""

    abort_alpha: float = 0.05  # probability of aborting a candidate that errs no more often
    mismatch_alpha: float = 0.001  # of freezing although the units are spread as designed
    promote_beta: float = 0.05  # of promoting a candidate that is worse than the margin
    margin: float = 0.1  # the candidate's risk may be 1 + margin times the active version's
    units_min: int = 100  # complete windows in each of the two before a promotion
    units_max: int = 1_000_000  # complete windows of both together after which it is inconclusive


class Inputs(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """Everything that a verdict rests on, by epoch."""

    plan: Plan
    exposures: tuple[FirstExposures, ...]
    errors: tuple[FirstErrors, ...]
    windows: tuple[Windows, ...]


class Decision(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The record: inputs, what was computed from them (e-values as logarithms), the verdict and its sentence."""

    rules: int
    inputs: Inputs
    log_e_mismatch: float | None  # None = infinite, which JSON cannot say
    log_e_harm: float
    log_e_no_worse: float
    verdict: Verdict
    sentence: str


class RulesChangedError(Exception):
    """The record was made by other rules than these; recomputing it would prove nothing."""


def decide(inputs: Inputs) -> Decision:
    """The verdict on the inputs. ValueError when they cannot be."""
    plan = inputs.plan
    _check(plan)
    mismatch = log_e_mismatch(inputs.exposures)
    harm = log_e_harm(inputs.errors)
    no_worse = log_e_no_worse(inputs.windows, plan.margin)
    active = sum(one.active_units for one in inputs.windows)
    candidate = sum(one.candidate_units for one in inputs.windows)
    if harm >= -math.log(plan.abort_alpha):
        verdict, sentence = Verdict.ABORT, _harm_sentence(inputs, harm)
    elif mismatch >= -math.log(plan.mismatch_alpha):
        verdict, sentence = Verdict.FREEZE, _mismatch_sentence(inputs, mismatch)
    elif no_worse >= -math.log(plan.promote_beta) and min(active, candidate) >= plan.units_min:
        verdict, sentence = Verdict.PROMOTE, _promotion_sentence(inputs, no_worse)
    elif active + candidate >= plan.units_max:
        verdict, sentence = Verdict.INCONCLUSIVE, _undecided_sentence(inputs, no_worse, "a person has to decide")
    else:
        verdict, sentence = Verdict.CONTINUE, _undecided_sentence(inputs, no_worse, "it goes on")
    return Decision(
        RULES,
        inputs,
        None if math.isinf(mismatch) else _rounded(mismatch),
        _rounded(harm),
        _rounded(no_worse),
        verdict,
        sentence,
    )


_decoder: msgspec.json.Decoder[Decision] = msgspec.json.Decoder(Decision)


def encode(decision: Decision) -> bytes:
    """The record as JSON."""
    return msgspec.json.encode(decision)


def decode(record: bytes) -> Decision:
    """A record from JSON. msgspec.ValidationError when it is none."""
    return _decoder.decode(record)


def recomputed(record: bytes) -> bytes:
    """The record that these rules make of the inputs of a record. RulesChangedError when other rules made it."""
    stored = decode(record)
    if stored.rules != RULES:
        raise RulesChangedError(
            f"The record was made by rules {stored.rules}, these are rules {RULES}: recompute it with the release that "
            f"made it."
        )
    return encode(decide(stored.inputs))


def _check(plan: Plan) -> None:
    for name in ("abort_alpha", "mismatch_alpha", "promote_beta"):
        level = getattr(plan, name)
        if not 0.0 < level < 1.0:
            raise ValueError(f"{name} is {level}; it is a probability of error and must lie between 0 and 1")
    if not 0 <= plan.units_min <= plan.units_max:
        raise ValueError(f"units_min {plan.units_min} must lie between 0 and units_max {plan.units_max}")


def _rounded(value: float) -> float:
    return float(f"{value:.{_DIGITS}g}")


# --- sentences ------------------------------------------------------------------------------------------------------


def _harm_sentence(inputs: Inputs, harm: float) -> str:
    candidate = sum(one.candidate for one in inputs.errors)
    total = candidate + sum(one.active for one in inputs.errors)
    expected = sum(one.share * (one.active + one.candidate) for one in inputs.errors)
    return (
        f"The candidate errs more often: {candidate:,} of {total:,} first errors are its own where {expected:,.1f} "
        f"would be its share (e-value {_shown(harm)}, abort at {1 / inputs.plan.abort_alpha:,.0f})."
    )


def _mismatch_sentence(inputs: Inputs, mismatch: float) -> str:
    arms = len(inputs.exposures[0].shares)
    seen = [sum(one.units[arm] for one in inputs.exposures) for arm in range(arms)]
    expected = [sum(one.shares[arm] * sum(one.units) for one in inputs.exposures) for arm in range(arms)]
    counts = ", ".join(f"{have:,} where {want:,.0f} were expected" for have, want in zip(seen, expected, strict=True))
    return (
        f"The units are not spread as designed, so no comparison means anything until the cause is found: {counts} "
        f"(e-value {_shown(mismatch)}, alarm at {1 / inputs.plan.mismatch_alpha:,.0f})."
    )


def _promotion_sentence(inputs: Inputs, no_worse: float) -> str:
    return (
        f"The candidate is no worse than the margin allows: {_risks(inputs)} (e-value {_shown(no_worse)} against a "
        f"risk of {1 + inputs.plan.margin:g} times the active version's, promoted at "
        f"{1 / inputs.plan.promote_beta:,.0f})."
    )


def _undecided_sentence(inputs: Inputs, no_worse: float, what_now: str) -> str:
    plan = inputs.plan
    windows = sum(one.active_units + one.candidate_units for one in inputs.windows)
    errors = sum(one.active_errors + one.candidate_errors for one in inputs.windows)
    share = inputs.windows[-1].share if inputs.windows else 0.0
    needed = units_needed(errors / windows if windows else 0.0, share, plan.margin, plan.promote_beta)
    total = f"about {needed:,.0f} would do if the two are equally good" if math.isfinite(needed) else "none erred yet"
    return (
        f"Neither harm nor its absence is shown, {what_now}: {_risks(inputs)} (e-value {_shown(no_worse)}, promoted at "
        f"{1 / plan.promote_beta:,.0f}; {windows:,} of at most {plan.units_max:,} units, {total})."
    )


def _risks(inputs: Inputs) -> str:
    active = sum(one.active_units for one in inputs.windows)
    candidate = sum(one.candidate_units for one in inputs.windows)
    active_errors = sum(one.active_errors for one in inputs.windows)
    candidate_errors = sum(one.candidate_errors for one in inputs.windows)
    return (
        f"{candidate_errors:,} of {candidate:,} units erred on it, {active_errors:,} of {active:,} on the active "
        f"version"
    )


def _shown(log_e: float) -> str:
    """An e-value for people, who need no more than its order once it is large."""
    if log_e > math.log(1e6):
        return "above a million"
    return f"{math.exp(log_e):.3g}"
