"""Verdicts: which test speaks first, and what it says."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.switcher.statistics.decision import (
    PRESSING,
    Candidate,
    Harm,
    Inputs,
    Plan,
    Verdict,
    decide,
    harm_alpha,
    promote_beta,
)
from services.switcher.statistics.harm import Firsts
from services.switcher.statistics.promotion import Windows
from services.switcher.statistics.srm import FirstExposures

FAIR = FirstExposures((0.5, 0.5), (5000, 5000))
SKEWED = FirstExposures((0.5, 0.5), (5000, 3000))
HARMLESS = Firsts(0.5, 50, 50)
HARMFUL = Firsts(0.5, 20, 80)
UNDECIDED = Windows(0.5, 200, 10, 200, 10)
GOOD = Windows(0.5, 5000, 2500, 5000, 2400)
EXHAUSTED = Windows(0.5, 600_000, 600, 600_000, 620)


def one(
    exposures: FirstExposures = FAIR,
    errors: Firsts = HARMLESS,
    windows: Windows = UNDECIDED,
    plan: Plan = Plan(),  # noqa: B008 - it cannot change
    *objections: str,
) -> Inputs:
    """One candidate, v2, in one epoch."""
    return Inputs(plan, (exposures,), (Candidate(2, (Harm("ERROR", (errors,)),), (windows,), objections),))


@pytest.mark.parametrize(
    ("exposures", "errors", "windows", "verdict", "sentence"),
    [
        (FAIR, HARMLESS, UNDECIDED, Verdict.CONTINUE, "Neither harm of v2 nor its absence is shown, it goes on"),
        (FAIR, HARMLESS, GOOD, Verdict.PROMOTE, "2,400 of 5,000 units erred on it"),
        (FAIR, HARMLESS, EXHAUSTED, Verdict.INCONCLUSIVE, "a person has to decide"),
        (FAIR, HARMFUL, GOOD, Verdict.ABORT, "80 of 100 first errors are its own where 50.0 would be its share"),
        (SKEWED, HARMLESS, GOOD, Verdict.FREEZE, "5,000 where 4,000 were expected, 3,000 where 4,000"),
        # Reads that are lost cannot hide harm that is plain from those that are not.
        (SKEWED, HARMFUL, GOOD, Verdict.ABORT, "v2 does harm (ERROR)"),
    ],
)
def test_the_most_pressing_test_decides(
    exposures: FirstExposures, errors: Firsts, windows: Windows, verdict: Verdict, sentence: str
) -> None:
    decision = decide(one(exposures, errors, windows))
    assert decision.verdict is verdict
    assert sentence in decision.sentence
    assert decision.sentence.endswith(".")


LOST = Firsts(0.25, 380, 60)


def conversions(*firsts: Firsts, margin: float = 0.1) -> Inputs:
    """One candidate whose conversions are watched beside its errors."""
    harms = Harm("ERROR", (HARMLESS,)), Harm("CONVERSION", firsts, wanted=True)
    return Inputs(Plan(margin=margin), (FAIR,), (Candidate(2, harms, (GOOD,)),))


def test_fewer_conversions_abort_and_are_told_with_their_numbers() -> None:
    decision = decide(conversions(LOST, Firsts(0.5, 70, 30)))
    assert decision.verdict is Verdict.ABORT
    assert decision.sentence.startswith(
        "v2 does harm (CONVERSION): 90 of 540 first conversions are its own where 160.0 would be its share and 149.9 "
        "the least that the margin allows (e-value "
    )
    assert decision.sentence.endswith("abort at 40).")


def test_fewer_conversions_within_the_margin_are_no_harm() -> None:
    assert decide(conversions(LOST, margin=1.0)).verdict is Verdict.PROMOTE


def test_more_conversions_are_no_harm() -> None:
    [judged] = decide(conversions(Firsts(0.25, 200, 200))).judgements
    assert judged.verdict is Verdict.PROMOTE
    assert judged.log_e_harms[1] < -10


def test_too_few_units_are_not_promoted_however_good_they_look() -> None:
    plan = Plan(units_min=10_000)
    assert decide(one(windows=GOOD, plan=plan)).verdict is Verdict.CONTINUE


def test_an_experiment_without_any_units_goes_on() -> None:
    decision = decide(Inputs(Plan(), (), (Candidate(2, (Harm("ERROR", ()),), ()),)))
    assert decision.verdict is Verdict.CONTINUE
    assert "no window is over yet, of 0 units" in decision.sentence


def test_before_a_window_is_over_it_speaks_of_the_units() -> None:
    decision = decide(one(windows=Windows(0.5, 0, 0, 0, 0)))
    assert "no window is over yet, of 10,000 units (at most " in decision.sentence
    assert "erred" not in decision.sentence


def test_a_gate_that_objects_aborts_whatever_was_counted() -> None:
    decision = decide(one(FAIR, HARMLESS, GOOD, Plan(), "12 rows differ that must not."))
    assert decision.verdict is Verdict.ABORT
    assert decision.sentence == "v2 is refused by a gate: 12 rows differ that must not."


def test_the_most_pressing_candidate_speaks_for_all() -> None:
    good = Candidate(2, (Harm("ERROR", (HARMLESS,)),), (GOOD,))
    bad = Candidate(3, (Harm("ERROR", (HARMLESS,)), Harm("SLOW", (HARMFUL,))), (UNDECIDED,))
    decision = decide(Inputs(Plan(), (FirstExposures((0.5, 0.25, 0.25), (500, 250, 250)),), (good, bad)))
    assert [judged.verdict for judged in decision.judgements] == [Verdict.PROMOTE, Verdict.ABORT]
    assert decision.verdict is Verdict.ABORT
    assert decision.sentence.startswith("v3 does harm (SLOW)")


@given(st.integers(1, 7), st.integers(1, 4))
def test_chances_of_a_false_alarm_do_not_add_up(candidates: int, harms: int) -> None:
    each = Candidate(2, tuple(Harm(str(place), ()) for place in range(harms)), ())
    inputs = Inputs(Plan(abort_alpha=0.05, promote_beta=0.02), (), (each,) * candidates)
    assert math.isclose(candidates * harms * harm_alpha(inputs, each), 0.05)
    assert math.isclose(candidates * promote_beta(inputs), 0.02)


def test_an_infinite_mismatch_freezes() -> None:
    decision = decide(one(FirstExposures((1.0, 0.0), (10, 1))))
    assert decision.log_e_mismatch is None
    assert decision.verdict is Verdict.FREEZE


def test_every_verdict_has_its_place() -> None:
    assert sorted(PRESSING, key=lambda verdict: verdict.value) == sorted(Verdict, key=lambda verdict: verdict.value)


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(abort_alpha=0.0), "abort_alpha is 0.0"),
        (Plan(promote_beta=1.0), "promote_beta is 1.0"),
        (Plan(mismatch_alpha=-1.0), "mismatch_alpha is -1.0"),
        (Plan(units_min=10, units_max=5), "units_min 10"),
        (Plan(margin=-0.5), "margin is -0.5"),
        (Plan(margin=math.nan), "margin is nan"),
    ],
)
def test_refuses_a_plan_that_cannot_be(plan: Plan, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decide(Inputs(plan, (), ()))
