"""What a plan may be, and how it is written."""

import json
from typing import Any

import pytest
from hypothesis import given

from services.switcher.rollouts.document import parse, written
from services.switcher.rollouts.plan import Gate, Plan, Step, StepKind, checked, checked_for, experiment, guards
from services.switcher.rollouts.templates import TEMPLATES
from services.switcher.statistics.decision import Plan as Judging
from tests.unit.switcher.rollouts.made import (
    ALL,
    APPROVE,
    COMPARE,
    EVERYTHING,
    MORE,
    REPLAY,
    RETIRE,
    SHADOW,
    SOAK,
    SOME,
    plans,
)
from turnout.errors import InvalidInput
from turnout.routing import WHOLE, Units

STEPS: list[Any] = [
    "replay",
    "compare",
    {"shadow": "10 %", "for": "1m"},
    {"traffic": 5, "for": "60s"},
    {"traffic": "25%", "until": "no-worse", "within": "10m"},
    "approve",
    {"traffic": "100 %"},
    {"soak": "1m"},
    {"retire": None},
]


def refused(document: object) -> str:
    with pytest.raises(InvalidInput) as caught:
        parse(document)
    assert caught.value.reason == "INVALID_PLAN"
    return caught.value.message


def test_a_document_says_a_plan() -> None:
    assert parse({"steps": STEPS}) == EVERYTHING


def test_a_template_and_what_replaces_it() -> None:
    plan = parse({"template": "careful", "guardrails": {"margin": "7.5 %", "window": "1h30m", "units-max": 50_000}})
    assert plan.steps == TEMPLATES["careful"].steps
    assert (plan.judging.margin, plan.window_s, plan.judging.units_max) == (0.075, 5400.0, 50_000)
    assert parse({"template": "careful", "steps": STEPS}).steps == EVERYTHING.steps


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_template_is_a_plan(name: str) -> None:
    assert checked(TEMPLATES[name]) == parse({"template": name})


@given(plans())
def test_what_is_written_is_read_again(plan: Plan) -> None:
    assert checked(plan) is plan
    assert parse(json.loads(json.dumps(written(plan)))) == plan


@pytest.mark.parametrize(
    ("document", "told"),
    [
        (None, "a plan is a mapping"),
        ([], "a plan is a mapping"),
        ({"guardrails": {}}, "neither `steps` nor `template`"),
        ({"step": STEPS, "template": "fast"}, "no part of a plan 'step'; did you mean steps?"),
        ({"template": "carefull"}, "no template 'carefull'; did you mean careful?"),
        ({"template": "bold"}, "there are careful, normal and fast"),
        ({"template": 3}, "no template 3"),
        ({"template": "fast", "guardrails": []}, "`guardrails` is a mapping"),
        ({"template": "fast", "guardrails": {"margins": 3}}, "no guardrail 'margins'; did you mean margin?"),
        ({"template": "fast", "guardrails": {"window": 60}}, r"60 is no time (60s?)"),
        ({"template": "fast", "guardrails": {"units-max": 1.5}}, "1.5 is no whole number"),
        ({"template": "fast", "guardrails": {"units-max": True}}, "True is no whole number"),
        ({"template": "fast", "guardrails": {"abort-alpha": "x"}}, "'x' is no number"),
        ({"template": "fast", "guardrails": {"abort-alpha": 1}}, "between 0 and 1"),
        ({"template": "fast", "guardrails": {"units-min": 10, "units-max": 5}}, "units_min 10 must lie"),
        ({"template": "fast", "guardrails": {"window": "0s"}}, "window is above 0"),
        ({"template": "fast", "guardrails": {"slow": "2h"}}, "slow limit is 0"),
        ({"template": "fast", "guardrails": {"units": "callers"}}, "did you mean caller?"),
        ({"steps": "replay"}, "`steps` is a list"),
        ({"steps": ["replya"]}, "Step 1: There is no step 'replya'; did you mean replay?"),
        ({"steps": [7]}, "7 is no step"),
        ({"steps": [{"traffic": 5, "fro": "1h"}]}, "no option of traffic 'fro'; did you mean for?"),
        ({"steps": [{"for": "1h"}]}, "names 0 steps instead of one"),
        ({"steps": [{"replay": None, "compare": None}]}, "names 2 steps instead of one"),
        ({"steps": [{"replay": "now"}]}, "replay takes no value"),
        ({"steps": ["traffic"]}, "traffic needs its share"),
        ({"steps": [{"traffic": "half"}]}, "'half' is no share"),
        ({"steps": [{"traffic": True}]}, "True is no share"),
        ({"steps": [{"traffic": "101 %"}]}, "it must be 0 to 100 %"),
        ({"steps": [{"traffic": "0.005 %"}]}, "too fine"),
        ({"steps": [{"traffic": 5, "for": "1 hour"}]}, "for: '1 hour' is no time"),
        ({"steps": [{"traffic": 5, "until": "no worse"}]}, "did you mean no-worse?"),
        ({"steps": ["soak"]}, "a soak needs its time"),
        ({"steps": [{"soak": "1h", "for": "1h"}]}, "says its time once"),
    ],
)
def test_a_fault_of_writing_is_named_with_what_to_do(document: object, told: str) -> None:
    assert told in refused(document)


def test_all_faults_are_told_at_once() -> None:
    message = refused({"steps": ["replya", {"traffic": "half"}], "guardrail": {}})
    assert "Step 1" in message
    assert "Step 2" in message
    assert "did you mean guardrails?" in message


@pytest.mark.parametrize(
    ("steps", "told"),
    [
        ((), "0 steps"),
        ((REPLAY,), "must end with everybody on the candidate"),
        ((SOME,), "must end with everybody on the candidate"),
        ((SOME, SOME, ALL), "must grow"),
        ((MORE, SOME, ALL), "must grow"),
        ((SOME, REPLAY, ALL), "replay can only be the first"),
        ((ALL, COMPARE), "compare must come before traffic 100 %"),
        ((ALL, SHADOW), "shadow must come before traffic 100 %"),
        ((SOAK, ALL), "soak must come after"),
        ((RETIRE, ALL), "retire can only be the last"),
        ((ALL, RETIRE, SOAK), "retire can only be the last"),
        ((ALL, APPROVE), "Nothing comes after the last approve"),
        ((Step(StepKind.TRAFFIC, 500), ALL), "over at once"),
        ((Step(StepKind.SHADOW, 500), ALL), "over at once"),
        ((ALL, Step(StepKind.SOAK)), "over at once"),
        ((Step(StepKind.TRAFFIC, 0, for_s=1), ALL), "above 0"),
        ((Step(StepKind.REPLAY, share=5), ALL), "no share"),
        ((Step(StepKind.COMPARE, for_s=5), ALL), "no `for`"),
        ((Step(StepKind.APPROVE, within_s=5), ALL), "no `within`"),
        ((Step(StepKind.TRAFFIC, 500, for_s=60, within_s=60), ALL), "longer than `for`"),
        ((Step(StepKind.TRAFFIC, 500, for_s=91 * 86400.0), ALL), "0 to 90 days"),
        ((Step(StepKind.TRAFFIC, WHOLE, no_worse=True),), "only traffic below 100 %"),
        ((APPROVE,) * 32 + (ALL,), "33 steps"),
    ],
)
def test_a_plan_that_cannot_be_is_refused(steps: tuple[Step, ...], told: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked(Plan(steps))
    assert told in caught.value.message


def test_a_plan_needs_a_version_to_go_back_to_and_another_one_to_go_to() -> None:
    assert checked_for(EVERYTHING, 2, 1) == EVERYTHING
    with pytest.raises(InvalidInput, match="active already"):
        checked_for(EVERYTHING, 1, 1)
    with pytest.raises(InvalidInput, match="no active version to go back to"):
        checked_for(EVERYTHING, 1, 0)


def test_harm_is_watched_for_as_long_as_there_is_something_beside() -> None:
    assert guards(0) == ()
    assert guards(1) == guards(WHOLE - 1) == (Gate.RUN, Gate.HARM, Gate.SPREAD)
    assert guards(WHOLE) == (Gate.RUN,)
    assert MORE.gates == (*SOME.gates, Gate.NO_WORSE)


def test_levels_are_probabilities() -> None:
    with pytest.raises(InvalidInput, match="promote_beta"):
        checked(Plan((ALL,), Judging(promote_beta=0.0)))


def test_a_share_is_watched_by_an_experiment_as_the_plan_says() -> None:
    plan = parse({"template": "normal", "guardrails": {"units": "caller", "slow": "50ms", "margin": "5 %"}})
    spec = experiment(plan, control=1, candidate=2, share=500)
    assert spec.weights == {1: 9500, 2: 500}
    assert (spec.control, spec.units, spec.slow_s, spec.plan.margin) == (1, Units.CALLER, 0.05, 0.05)
