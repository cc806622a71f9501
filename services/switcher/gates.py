"""What the answers of gates, and those that are missing, mean for a change. Pure."""

from collections.abc import Sequence
from dataclasses import dataclass

from services.switcher.questions import COMPARISON, ROLLBACK, SCHEMA, SHADOW, GateQuestion
from services.switcher.records import GateAnswer
from turnout.errors import FailedPrecondition, Violation
from turnout.names import VersionId

_NO_EVIDENCE = "No evidence was given."
_NO_ANSWER = "The replayer gave no answer for this gate."


@dataclass(frozen=True, slots=True)
class Said:
    """What the replayer said of one gate."""

    gate: str
    passed: bool
    evidence: tuple[str, ...]


def answers_to(question: GateQuestion, said: Sequence[Said], overridden: frozenset[str]) -> tuple[GateAnswer, ...]:
    """The answer of every gate to a question: one that is missing has failed. `overridden` are to be passed over.

    What is said beyond the known gates, or twice, counts as well: a change passes nothing that anybody says no to. A
    comparison counts only where it is demanded, and of a version that is to answer nobody only the schema.
    """
    heard = [one for one in said if one.gate != COMPARISON or question.comparison]
    if question.schema_only:
        heard = [one for one in heard if one.gate == SCHEMA]
    answered = {one.gate for one in heard}
    missing = [Said(gate, False, (_NO_ANSWER,)) for gate in question.gates if gate not in answered]
    return tuple(answer(question.candidate, one, overridden) for one in [*heard, *missing])


def answer(version: int, said: Said, overridden: frozenset[str]) -> GateAnswer:
    """What was said, as the answer of a gate to a version."""
    return GateAnswer(
        gate=said.gate,
        version=version,
        passed=said.passed,
        overridden=not said.passed and said.gate in overridden,
        evidence=said.evidence,
    )


def refuse_failed(job: str, gates: Sequence[GateAnswer]) -> None:
    """FailedPrecondition where a gate fails and is not passed over; one violation for each sentence of evidence."""
    failed = [gate for gate in gates if not gate.passed and not gate.overridden]
    if not failed:
        return
    violations = tuple(
        Violation(gate.gate, VersionId(job, gate.version).name, sentence)
        for gate in failed
        for sentence in gate.evidence or (_NO_EVIDENCE,)
    )
    raise FailedPrecondition("GATES_FAILED", _message(job, failed), violations=violations)


def _message(job: str, failed: Sequence[GateAnswer]) -> str:
    sentences = [_sentence(job, gate) for gate in failed]
    late = sorted({gate.version for gate in failed if gate.gate == "catch-up"})
    watch = "".join(f" Watch it with `turnout run watch {job} v{version}`," for version in late)
    names = ",".join(dict.fromkeys(gate.gate for gate in failed))
    over = f"pass over {'it' if len(failed) == 1 else 'them'} by name (`--override-gates {names}`)"
    return " ".join(sentences) + (f"{watch} or {over}." if watch else f" To do it all the same, {over}.")


def _sentence(job: str, gate: GateAnswer) -> str:
    first = (gate.evidence or (_NO_EVIDENCE,))[0].rstrip(".")
    more = f" (and {len(gate.evidence) - 1} more)" if len(gate.evidence) > 1 else ""
    failure = {
        "catch-up": "is not caught up",
        "coverage": "does not cover what readers have now",
        SCHEMA: "does not fit the present schema",
        COMPARISON: "is not shown to differ from what readers have now only as it is meant to",
        SHADOW: "is not shown to answer live reads as readers are answered now",
        ROLLBACK: "could not be rolled back",
    }.get(gate.gate, f"does not pass the gate {gate.gate}")
    return f"v{gate.version} of {job} {failure}: {first}{more}."
