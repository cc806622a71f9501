"""Verdicts: which test speaks first, what it says, and that a record decides again as it did."""

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.switcher.statistics.decision import (
    RULES,
    Inputs,
    Plan,
    RulesChangedError,
    Verdict,
    decide,
    decode,
    encode,
    recomputed,
)
from services.switcher.statistics.harm import FirstErrors
from services.switcher.statistics.promotion import Windows
from services.switcher.statistics.srm import FirstExposures

FAIR = FirstExposures((0.5, 0.5), (5000, 5000))
SKEWED = FirstExposures((0.5, 0.5), (5000, 3000))
HARMLESS = FirstErrors(0.5, 50, 50)
HARMFUL = FirstErrors(0.5, 20, 80)
UNDECIDED = Windows(0.5, 200, 10, 200, 10)
GOOD = Windows(0.5, 5000, 2500, 5000, 2400)
EXHAUSTED = Windows(0.5, 600_000, 600, 600_000, 620)


@pytest.mark.parametrize(
    ("exposures", "errors", "windows", "verdict", "sentence"),
    [
        (FAIR, HARMLESS, UNDECIDED, Verdict.CONTINUE, "Neither harm nor its absence is shown, it goes on"),
        (FAIR, HARMLESS, GOOD, Verdict.PROMOTE, "2,400 of 5,000 units erred on it"),
        (FAIR, HARMLESS, EXHAUSTED, Verdict.INCONCLUSIVE, "a person has to decide"),
        (FAIR, HARMFUL, GOOD, Verdict.ABORT, "80 of 100 first errors are its own where 50.0 would be its share"),
        (SKEWED, HARMLESS, GOOD, Verdict.FREEZE, "5,000 where 4,000 were expected, 3,000 where 4,000"),
        # Reads that are lost cannot hide harm that is plain from those that are not.
        (SKEWED, HARMFUL, GOOD, Verdict.ABORT, "errs more often"),
    ],
)
def test_the_most_pressing_test_decides(
    exposures: FirstExposures, errors: FirstErrors, windows: Windows, verdict: Verdict, sentence: str
) -> None:
    decision = decide(Inputs(Plan(), (exposures,), (errors,), (windows,)))
    assert decision.verdict is verdict
    assert sentence in decision.sentence
    assert decision.sentence.endswith(".")


def test_too_few_units_are_not_promoted_however_good_they_look() -> None:
    plan = Plan(units_min=10_000)
    assert decide(Inputs(plan, (FAIR,), (HARMLESS,), (GOOD,))).verdict is Verdict.CONTINUE


def test_an_experiment_without_any_units_goes_on() -> None:
    decision = decide(Inputs(Plan(), (), (), ()))
    assert decision.verdict is Verdict.CONTINUE
    assert "none erred yet" in decision.sentence


strata = st.tuples(st.floats(0.01, 0.99), *[st.integers(0, 2000)] * 4)


@given(st.lists(strata, max_size=5), st.floats(0.01, 0.5))
def test_a_record_decides_again_as_it_did(epochs: list[tuple[float, int, int, int, int]], margin: float) -> None:
    inputs = Inputs(
        Plan(margin=margin, units_max=5000),
        tuple(FirstExposures((1 - share, share), (a + b, c + d)) for share, a, b, c, d in epochs),
        tuple(FirstErrors(share, a, c) for share, a, _, c, _ in epochs),
        tuple(Windows(share, a + b, a, c + d, c) for share, a, b, c, d in epochs),
    )
    record = encode(decide(inputs))
    assert decode(record).inputs == inputs
    assert recomputed(record) == record


def test_an_infinite_mismatch_can_be_recorded() -> None:
    record = encode(decide(Inputs(Plan(), (FirstExposures((1.0, 0.0), (10, 1)),), (), ())))
    assert decode(record).log_e_mismatch is None
    assert decode(record).verdict is Verdict.FREEZE
    assert recomputed(record) == record


def test_a_record_that_was_changed_shows() -> None:
    record = encode(decide(Inputs(Plan(), (FAIR,), (HARMLESS,), (GOOD,))))
    forged = record.replace(b'"PROMOTE"', b'"ABORT"')
    assert recomputed(forged) != forged


def test_other_rules_are_not_mistaken_for_these() -> None:
    decision = decide(Inputs(Plan(), (), (), ()))
    with pytest.raises(RulesChangedError, match=f"by rules {RULES + 1}"):
        recomputed(encode(msgspec.structs.replace(decision, rules=RULES + 1)))


@pytest.mark.parametrize(
    ("plan", "message"),
    [
        (Plan(abort_alpha=0.0), "abort_alpha is 0.0"),
        (Plan(promote_beta=1.0), "promote_beta is 1.0"),
        (Plan(mismatch_alpha=-1.0), "mismatch_alpha is -1.0"),
        (Plan(units_min=10, units_max=5), "units_min 10"),
        (Plan(margin=-0.5), "margin is -0.5"),
    ],
)
def test_refuses_a_plan_that_cannot_be(plan: Plan, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        decide(Inputs(plan, (), (), ()))
