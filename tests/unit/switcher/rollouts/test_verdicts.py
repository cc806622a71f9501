"""What gates say together, and what each answer means to a rollout."""

from collections.abc import Sequence

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.switcher.rollouts.plan import Gate
from services.switcher.rollouts.verdicts import (
    PRESSING,
    Finding,
    GateVerdict,
    RunSeen,
    may_be_passed_over,
    of_comparison,
    of_experiment,
    of_gate,
    of_run,
    of_shadow,
    overall,
)
from services.switcher.statistics import decision

FINDINGS = st.lists(
    st.builds(Finding, st.sampled_from(Gate), st.sampled_from(GateVerdict), st.sampled_from(["Yes.", "No."])),
    max_size=6,
)


@given(st.lists(st.sampled_from(Gate), unique=True), FINDINGS)
def test_the_most_pressing_verdict_counts(asked: Sequence[Gate], findings: Sequence[Finding]) -> None:
    told = overall(asked, findings)
    verdicts = {one.verdict for one in findings if one.gate in asked}
    if {one.gate for one in findings} < set(asked):
        verdicts.add(GateVerdict.STALE)
    for verdict in PRESSING:
        if verdict in verdicts or (verdict is GateVerdict.STALE and not set(asked) <= {one.gate for one in findings}):
            assert told.verdict is verdict
            return
    assert (told.verdict, told.sentence, told.gates) == (GateVerdict.PASS, "", ())


def test_the_gates_that_say_it_are_named_with_what_they_say() -> None:
    told = overall(
        (Gate.RUN, Gate.HARM, Gate.SPREAD, Gate.NO_WORSE),
        (
            Finding(Gate.RUN, GateVerdict.PASS, "It reads."),
            Finding(Gate.HARM, GateVerdict.FAIL, "It errs."),
            Finding(Gate.SPREAD, GateVerdict.FAIL, "It errs."),
            Finding(Gate.NO_WORSE, GateVerdict.INCONCLUSIVE, "Too few."),
        ),
    )
    assert (told.verdict, told.sentence, told.gates) == (GateVerdict.FAIL, "It errs.", (Gate.HARM, Gate.SPREAD))


def test_what_several_gates_say_is_set_apart() -> None:
    said = {Gate.RUN: "It reads.", Gate.CATCH_UP: "v2 is level with v1", Gate.SCHEMA: "refunds: added"}
    told = overall(tuple(said), [Finding(gate, GateVerdict.PASS, sentence) for gate, sentence in said.items()])
    assert told.sentence == "It reads. v2 is level with v1; refunds: added"


def test_a_gate_without_an_answer_is_stale() -> None:
    told = overall((Gate.RUN, Gate.HARM), (Finding(Gate.RUN, GateVerdict.PASS, "It reads."),))
    assert (told.verdict, told.sentence) == (GateVerdict.STALE, "The gate harm gave no answer.")


def test_a_person_passes_over_what_another_look_would_not_change_but_never_over_harm() -> None:
    assert may_be_passed_over(tuple(Gate)) == (Gate.SPREAD, Gate.NO_WORSE)
    spread = (Finding(Gate.SPREAD, GateVerdict.INCONCLUSIVE, "Uneven."),)
    assert overall((Gate.SPREAD,), spread, (Gate.SPREAD,)).verdict is GateVerdict.PASS
    unshown = (Finding(Gate.NO_WORSE, GateVerdict.INCONCLUSIVE, "Units are used up."),)
    assert overall((Gate.NO_WORSE,), unshown, (Gate.NO_WORSE,)).verdict is GateVerdict.WAIT
    harm = (Finding(Gate.SPREAD, GateVerdict.FAIL, "No."),)
    assert overall((Gate.SPREAD,), harm, (Gate.SPREAD,)).verdict is GateVerdict.FAIL


@pytest.mark.parametrize("verdict", decision.Verdict)
def test_without_a_read_harm_is_not_known_to_be_absent(verdict: decision.Verdict) -> None:
    harm = of_experiment(verdict, "So.", "Nobody reads it.")[0]
    if verdict is decision.Verdict.ABORT:
        assert (harm.verdict, harm.sentence) == (GateVerdict.FAIL, "So.")
    else:
        assert (harm.verdict, harm.sentence) == (GateVerdict.WAIT, "Nobody reads it.")


@pytest.mark.parametrize("verdict", decision.Verdict)
def test_an_experiment_answers_all_of_its_gates(verdict: decision.Verdict) -> None:
    found = {one.gate: one.verdict for one in of_experiment(verdict, "So.")}
    assert set(found) == {Gate.HARM, Gate.SPREAD, Gate.NO_WORSE}
    assert (found[Gate.HARM] is GateVerdict.FAIL) is (verdict is decision.Verdict.ABORT)
    assert (found[Gate.SPREAD] is GateVerdict.INCONCLUSIVE) is (verdict is decision.Verdict.FREEZE)
    assert (found[Gate.NO_WORSE] is GateVerdict.PASS) is (verdict is decision.Verdict.PROMOTE)
    assert (found[Gate.NO_WORSE] is GateVerdict.INCONCLUSIVE) is (verdict is decision.Verdict.INCONCLUSIVE)


@pytest.mark.parametrize(
    ("gate", "passed", "verdict"),
    [
        (Gate.CATCH_UP, True, GateVerdict.PASS),
        (Gate.CATCH_UP, False, GateVerdict.WAIT),
        (Gate.COVERAGE, False, GateVerdict.FAIL),
        (Gate.SCHEMA, False, GateVerdict.FAIL),
    ],
)
def test_a_candidate_that_is_behind_may_catch_up_and_one_that_lacks_something_may_not(
    gate: Gate, passed: bool, verdict: GateVerdict
) -> None:
    begin = "The gate schema fails. " if gate is Gate.SCHEMA else ""
    assert of_gate(gate, passed, ("One", "Two.")) == Finding(gate, verdict, f"{begin}One; Two.")
    assert of_gate(gate, passed, ()).sentence


@pytest.mark.parametrize(
    ("finished", "aligned", "passed", "verdict"),
    [
        (False, False, None, GateVerdict.WAIT),
        (True, True, None, GateVerdict.INCONCLUSIVE),
        (True, False, True, GateVerdict.INCONCLUSIVE),
        (True, False, False, GateVerdict.INCONCLUSIVE),
        (True, True, True, GateVerdict.PASS),
        (True, True, False, GateVerdict.FAIL),
    ],
)
def test_a_comparison_decides_only_at_one_cut_and_by_a_contract(
    finished: bool, aligned: bool, passed: bool | None, verdict: GateVerdict
) -> None:
    found = of_comparison(finished=finished, aligned=aligned, passed=passed, sentences=())
    assert (found.gate, found.verdict) == (Gate.COMPARISON, verdict)
    assert found.sentence


def test_a_run_that_failed_under_readers_is_a_fault_and_else_a_person_may_mend_it() -> None:
    assert of_run(RunSeen.READING, "It reads.", exposed=True).verdict is GateVerdict.PASS
    assert of_run(RunSeen.FAILED, "It failed.", exposed=True).verdict is GateVerdict.FAIL
    assert of_run(RunSeen.FAILED, "It failed.", exposed=False).verdict is GateVerdict.INCONCLUSIVE
    assert of_run(RunSeen.HELD, "It is paused.", exposed=True).verdict is GateVerdict.INCONCLUSIVE


@pytest.mark.parametrize(
    ("sampled", "compared", "differs", "verdict"),
    [
        (True, 10, True, GateVerdict.FAIL),
        (False, 10, True, GateVerdict.FAIL),
        (True, 10, False, GateVerdict.PASS),
        (True, 0, False, GateVerdict.WAIT),
        (False, 10, False, GateVerdict.WAIT),
    ],
)
def test_what_nobody_compares_is_not_shown_to_be_the_same(
    sampled: bool, compared: int, differs: bool, verdict: GateVerdict
) -> None:
    found = of_shadow(sampled=sampled, compared=compared, differs=differs, sentence="So it is.")
    assert found == Finding(Gate.SHADOW, verdict, "So it is.")
