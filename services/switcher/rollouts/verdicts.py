"""What gates say of a step, and what follows from all of them together. Pure.

Three verdicts decide: PASS, FAIL (the candidate is taken back) and INCONCLUSIVE (a person looks). Two do not yet: WAIT,
and STALE, where the answer would rest on what is no longer fresh, or there is none.
"""

import enum
from collections.abc import Sequence
from typing import Final

import msgspec

from services.switcher.rollouts.plan import Gate
from services.switcher.statistics import decision


class GateVerdict(enum.Enum):
    """What a gate says of a step."""

    FAIL = "FAIL"  # take the candidate back
    INCONCLUSIVE = "INCONCLUSIVE"  # a person decides
    STALE = "STALE"  # nobody can tell at present: nothing moves forward
    WAIT = "WAIT"  # not yet
    PASS = "PASS"  # noqa: S105  # a verdict, not a password


PRESSING: Final = tuple(GateVerdict)
"""The verdicts, the most pressing first."""


class Finding(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What one gate says, and in one sentence why."""

    gate: Gate
    verdict: GateVerdict
    sentence: str


class Overall(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What all gates say together: the most pressing verdict, the sentences of those who say it, and which they are."""

    verdict: GateVerdict
    sentence: str
    gates: tuple[Gate, ...]


_PASSED_OVER: Final = {Gate.SPREAD: GateVerdict.PASS, Gate.NO_WORSE: GateVerdict.WAIT}
"""What INCONCLUSIVE counts as once a person has said to go on. Asking these gates again would give the same answer; the
others may answer otherwise by then, and are asked. Nobody can pass over harm."""


def overall(asked: Sequence[Gate], findings: Sequence[Finding], passed_over: Sequence[Gate] = ()) -> Overall:
    """What the gates that were asked say together. One that gave no answer is STALE; what was not asked is left out."""
    answered = {one.gate for one in findings}
    missing = [
        Finding(gate, GateVerdict.STALE, f"The gate {gate.value} gave no answer.")
        for gate in asked
        if gate not in answered
    ]
    told = [_with_leave(one, passed_over) for one in (*findings, *missing) if one.gate in asked]
    verdict = min((one.verdict for one in told), key=PRESSING.index, default=GateVerdict.PASS)
    saying = [one for one in told if one.verdict is verdict]
    sentence = together(tuple(dict.fromkeys(one.sentence for one in saying)))
    return Overall(verdict, sentence, tuple(dict.fromkeys(one.gate for one in saying)))


def may_be_passed_over(gates: Sequence[Gate]) -> tuple[Gate, ...]:
    """Those of the gates over whose INCONCLUSIVE a person can go on."""
    return tuple(gate for gate in gates if gate in _PASSED_OVER)


def _with_leave(one: Finding, passed_over: Sequence[Gate]) -> Finding:
    if one.verdict is not GateVerdict.INCONCLUSIVE or one.gate not in passed_over:
        return one
    return Finding(one.gate, _PASSED_OVER[one.gate], one.sentence)


def together(parts: Sequence[str]) -> str:
    """Sentences one after another, and whatever is none set apart by semicolons: older records hold clauses, and are
    computed again by these rules."""
    ended = [part if part.endswith((".", "?")) else f"{part};" for part in parts[:-1]]
    return " ".join((*ended, *parts[-1:]))


# --- findings of answers --------------------------------------------------------------------------------------------


def of_experiment(verdict: decision.Verdict, sentence: str, unread: str = "") -> tuple[Finding, ...]:
    """What the verdict on an experiment says of harm, spread and no-worse. unread: why harm could not show; "" = it
    could."""
    harm, spread, no_worse = _OF_EXPERIMENT[verdict]
    if unread and harm is GateVerdict.PASS:
        of_harm = Finding(Gate.HARM, GateVerdict.WAIT, unread)
    else:
        of_harm = Finding(Gate.HARM, harm, sentence)
    return (
        of_harm,
        Finding(Gate.SPREAD, spread, sentence),
        Finding(Gate.NO_WORSE, no_worse, sentence),
    )


_OF_EXPERIMENT: Final = {
    decision.Verdict.ABORT: (GateVerdict.FAIL, GateVerdict.WAIT, GateVerdict.WAIT),
    decision.Verdict.FREEZE: (GateVerdict.PASS, GateVerdict.INCONCLUSIVE, GateVerdict.WAIT),
    decision.Verdict.PROMOTE: (GateVerdict.PASS, GateVerdict.PASS, GateVerdict.PASS),
    decision.Verdict.CONTINUE: (GateVerdict.PASS, GateVerdict.PASS, GateVerdict.WAIT),
    decision.Verdict.INCONCLUSIVE: (GateVerdict.PASS, GateVerdict.PASS, GateVerdict.INCONCLUSIVE),
}


def of_gate(gate: Gate, passed: bool, evidence: Sequence[str]) -> Finding:
    """What the replayer's answer of catch-up, coverage, schema or comparison means.

    A candidate that is behind may catch up; what it lacks, and what it has wrong, it will have wrong tomorrow.
    """
    said = together(evidence)
    if passed:
        return Finding(gate, GateVerdict.PASS, said or f"The gate {gate.value} passes.")
    verdict = GateVerdict.WAIT if gate is Gate.CATCH_UP else GateVerdict.FAIL
    if said and gate is Gate.SCHEMA:
        said = f"The gate schema fails. {said}"
    return Finding(gate, verdict, said or f"The gate {gate.value} fails and gives no evidence.")


def of_comparison(*, finished: bool, aligned: bool, passed: bool | None, sentences: Sequence[str]) -> Finding:
    """What a comparison of the two tables means. passed: by its contract; None = it has none, so nobody judged it."""
    said = together(sentences)
    if not finished:
        return Finding(Gate.COMPARISON, GateVerdict.WAIT, said or "The tables are being compared.")
    if passed is None:
        told = "The tables were compared without a contract that says what may differ: a person has to judge them."
        return Finding(Gate.COMPARISON, GateVerdict.INCONCLUSIVE, told)
    if not aligned:
        told = "The tables were not compared at one cut of the log: what differs may be a matter of time."
        return Finding(Gate.COMPARISON, GateVerdict.INCONCLUSIVE, told)
    if passed:
        return Finding(Gate.COMPARISON, GateVerdict.PASS, said or "The tables differ in nothing but what they may.")
    return Finding(Gate.COMPARISON, GateVerdict.FAIL, said or "The tables differ where they must not.")


def of_shadow(*, sampled: bool, compared: int, differs: bool, sentence: str) -> Finding:
    """What comparing live reads means. sampled: whether fronts are asked to; compared: reads of both tables so far."""
    if differs:
        return Finding(Gate.SHADOW, GateVerdict.FAIL, sentence)
    # What nobody has compared is not shown to be the same.
    return Finding(Gate.SHADOW, GateVerdict.PASS if sampled and compared else GateVerdict.WAIT, sentence)


class RunSeen(enum.Enum):
    """How the candidate's run stands, as far as a rollout cares."""

    READING = "READING"  # queued, copying, at the end of the log, or through with its range
    HELD = "HELD"  # somebody paused or stopped it
    FAILED = "FAILED"


def of_run(seen: RunSeen, sentence: str, *, exposed: bool) -> Finding:
    """What the run's state means. exposed: whether readers may be given the candidate, whose rows then grow old."""
    if seen is RunSeen.READING:
        return Finding(Gate.RUN, GateVerdict.PASS, sentence)
    if seen is RunSeen.FAILED and exposed:
        return Finding(Gate.RUN, GateVerdict.FAIL, sentence)
    # Without readers nothing is urgent: a person may mend what it failed of, and resume the run.
    return Finding(Gate.RUN, GateVerdict.INCONCLUSIVE, sentence)
