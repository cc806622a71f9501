"""A refusal by gates tells a person what to do."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.switcher.gates import Said, answers_to, refuse_failed
from services.switcher.questions import ALWAYS_ASKED, COMPARISON, GATES, GateQuestion
from services.switcher.records import GateAnswer
from turnout.errors import FailedPrecondition, Violation

LATE = GateAnswer("catch-up", 2, False, False, ("Partition 3 of flights is 40,112 offsets behind.", "So is 4."))
NARROW = GateAnswer("schema", 2, False, False, ("Column x is missing.",))


def test_passed_and_overridden_gates_refuse_nothing() -> None:
    refuse_failed("flights", [GateAnswer("schema", 2, True, False, ()), GateAnswer("catch-up", 2, False, True, ())])


def test_a_late_version_can_be_watched() -> None:
    with pytest.raises(FailedPrecondition) as caught:
        refuse_failed("flights", [LATE])
    assert caught.value.reason == "GATES_FAILED"
    assert caught.value.message == (
        "v2 of flights is not caught up: Partition 3 of flights is 40,112 offsets behind (and 1 more). Watch it with "
        "`turnout run watch flights v2`, or pass over it by name (`--override-gates catch-up`)."
    )
    assert caught.value.violations == tuple(
        Violation("catch-up", "jobs/flights/versions/2", sentence) for sentence in LATE.evidence
    )


def test_other_gates_can_only_be_passed_over() -> None:
    with pytest.raises(FailedPrecondition, match="To do it all the same, pass over it"):
        refuse_failed("flights", [NARROW])


def test_several_gates_are_all_told() -> None:
    with pytest.raises(FailedPrecondition, match="pass over them by name") as caught:
        refuse_failed("flights", [LATE, NARROW])
    assert [violation.type for violation in caught.value.violations] == ["catch-up", "catch-up", "schema"]


def test_a_gate_without_evidence_is_refused_too() -> None:
    with pytest.raises(FailedPrecondition, match="No evidence was given") as caught:
        refuse_failed("flights", [GateAnswer("holdout", 2, False, False, ())])
    assert [violation.type for violation in caught.value.violations] == ["holdout"]


QUESTION = GateQuestion(candidate=2, baseline=1)


@given(st.sets(st.sampled_from((*ALWAYS_ASKED, COMPARISON))), st.booleans())
def test_every_gate_without_an_answer_has_failed(answered: set[str], comparison: bool) -> None:
    question = GateQuestion(candidate=2, baseline=1, comparison=comparison)
    asked = {*ALWAYS_ASKED, COMPARISON} if comparison else set(ALWAYS_ASKED)
    answers = answers_to(question, [Said(gate, True, ("Holds.",)) for gate in sorted(answered)], frozenset())
    assert sorted(answer.gate for answer in answers) == sorted(asked)
    assert {answer.gate for answer in answers if answer.passed} == answered & asked
    if not asked <= answered:
        with pytest.raises(FailedPrecondition, match="gave no answer for this gate") as caught:
            refuse_failed("flights", answers)
        assert {violation.type for violation in caught.value.violations} == asked - answered


def test_a_comparison_that_nobody_demanded_refuses_nothing() -> None:
    unlike = Said(COMPARISON, False, ("0.2 % of the rows differ in `on_time`, and none was expected to.",))
    passed = [Said(gate, True, ()) for gate in ALWAYS_ASKED]
    refuse_failed("flights", answers_to(QUESTION, [*passed, unlike], frozenset()))
    demanded = answers_to(GateQuestion(2, 1, comparison=True), [*passed, unlike], frozenset())
    with pytest.raises(FailedPrecondition, match="only as it is meant to: 0") as caught:
        refuse_failed("flights", demanded)
    assert [violation.type for violation in caught.value.violations] == [COMPARISON]


def test_a_gate_without_an_answer_can_be_passed_over_by_name() -> None:
    refuse_failed("flights", answers_to(QUESTION, [], frozenset(GATES)))


def test_whoever_says_no_counts() -> None:
    passed = [Said(gate, True, ()) for gate in ALWAYS_ASKED]
    for no in (Said("schema", False, ("Not so.",)), Said("holdout", False, ("Not so.",))):
        with pytest.raises(FailedPrecondition, match="Not so"):
            refuse_failed("flights", answers_to(QUESTION, [*passed, no], frozenset()))
    assert not any(answer.overridden for answer in answers_to(QUESTION, passed, frozenset(GATES)))
