"""A refusal by gates tells a person what to do."""

import pytest

from core.domain.errors import FailedPrecondition, Violation
from services.switcher.gates import refuse_failed
from services.switcher.records import GateAnswer

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
        "`turnout run watch flights v2`, or pass over it with override_gates=catch-up."
    )
    assert caught.value.violations == tuple(
        Violation("catch-up", "jobs/flights/versions/2", sentence) for sentence in LATE.evidence
    )


def test_other_gates_can_only_be_passed_over() -> None:
    with pytest.raises(FailedPrecondition, match="To do it all the same, pass over it"):
        refuse_failed("flights", [NARROW])


def test_several_gates_are_all_told() -> None:
    with pytest.raises(FailedPrecondition, match="pass over them with override_gates=catch-up,schema") as caught:
        refuse_failed("flights", [LATE, NARROW])
    assert [violation.type for violation in caught.value.violations] == ["catch-up", "catch-up", "schema"]


def test_a_gate_without_evidence_is_refused_too() -> None:
    with pytest.raises(FailedPrecondition, match="no evidence was given") as caught:
        refuse_failed("flights", [GateAnswer("holdout", 2, False, False, ())])
    assert [violation.type for violation in caught.value.violations] == ["holdout"]
