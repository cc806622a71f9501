"""What a plan may be."""

import pytest
from hypothesis import given

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


@pytest.mark.parametrize("name", TEMPLATES)
def test_each_template_is_a_plan(name: str) -> None:
    assert checked(TEMPLATES[name]).steps


def test_a_template_says_what_its_file_says() -> None:
    plan = TEMPLATES["careful"]
    shown = Step(StepKind.TRAFFIC, 2500, for_s=12 * 3600.0, within_s=14 * 86400.0, no_worse=True)
    assert [step for step in plan.steps if step.share == 2500] == [shown]
    judging = Judging(margin=0.1, units_max=2_000_000)
    assert (plan.judging, plan.units, plan.window_s) == (judging, Units.CALLER, 86400.0)
    assert (plan.delay_s, plan.slow_s) == (Plan(()).delay_s, Plan(()).slow_s)


@given(plans())
def test_a_plan_that_may_be_is_let_through(plan: Plan) -> None:
    assert checked(plan) is plan


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


def test_each_complaint_names_its_field() -> None:
    with pytest.raises(InvalidInput) as caught:
        checked(Plan((SOME, SOAK, REPLAY, ALL, RETIRE, SHADOW), Judging(abort_alpha=2.0)))
    told = [(one.subject, one.description) for one in caught.value.violations]
    assert [field for field, _ in told] == [
        *("rollout.plan.steps[1]", "rollout.plan.steps[2]", "rollout.plan.steps[4]", "rollout.plan.steps[5]"),
        "rollout.plan.guardrails.abort_alpha",
    ]
    assert caught.value.message == " ".join(text for _, text in told)


@pytest.mark.parametrize(
    ("plan", "fields"),
    [
        (Plan((ALL,), delay_s=-1.0), ["delay"]),
        (Plan((ALL,), window_s=0.0), ["window"]),
        (Plan((ALL,), slow_s=7200.0), ["slow"]),
        (Plan((ALL,), Judging(units_min=-1)), ["units_min"]),
        (
            Plan((ALL,), Judging(mismatch_alpha=0.0, margin=-0.1), window_s=0.0, delay_s=-1.0, slow_s=-1.0),
            ["mismatch_alpha", "margin", "window", "delay", "slow"],
        ),
    ],
)
def test_each_fault_of_the_guardrails_has_its_field(plan: Plan, fields: list[str]) -> None:
    with pytest.raises(InvalidInput) as caught:
        checked(plan)
    assert [one.subject for one in caught.value.violations] == [f"rollout.plan.guardrails.{name}" for name in fields]


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


@pytest.mark.parametrize(
    ("plan", "told"),
    [
        (Plan((ALL,), Judging(promote_beta=0.0)), "promote_beta"),
        (Plan((ALL,), Judging(abort_alpha=1.0)), "between 0 and 1"),
        (Plan((ALL,), Judging(units_min=10, units_max=5)), "units_min 10 must lie"),
        (Plan((ALL,), window_s=0.0), "window is above 0"),
        (Plan((ALL,), slow_s=7200.0), "slow limit is 0"),
    ],
)
def test_guardrails_that_cannot_be_are_refused(plan: Plan, told: str) -> None:
    with pytest.raises(InvalidInput, match=told):
        checked(plan)


def test_a_share_is_watched_by_an_experiment_as_the_plan_says() -> None:
    plan = Plan((SOME, ALL), Judging(margin=0.05), Units.CALLER, slow_s=0.05)
    spec = experiment(plan, control=1, candidate=2, share=500)
    assert spec.weights == {1: 9500, 2: 500}
    assert (spec.control, spec.units, spec.slow_s, spec.plan.margin) == (1, Units.CALLER, 0.05, 0.05)
