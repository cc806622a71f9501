"""What a plan would take, and the warnings where its units cannot decide anything."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.switcher.rollouts.plan import Plan, Step, StepKind
from services.switcher.rollouts.preview import Expected, least_s, preview
from services.switcher.statistics.harm import units_to_find
from services.switcher.statistics.promotion import units_needed
from tests.unit.switcher.rollouts.made import ALL, APPROVE, COMPARE, EVERYTHING, REPLAY, RETIRE, SOAK, plans

DAY_S = 86400.0
SHOWN = Step(StepKind.TRAFFIC, 2500, for_s=3600, within_s=7 * DAY_S, no_worse=True)
BUSY = Expected(replay_s=600, units_per_day=1_000_000, risk=0.05)


def test_steps_take_what_they_say_and_a_replay_what_is_estimated() -> None:
    plan = Plan((REPLAY, APPROVE, ALL, SOAK, RETIRE))
    told = preview(plan, Expected(replay_s=600, replay_remarks=("The log grows.",)))
    assert [one.least_s for one in told] == [600, None, 0, 60, 0]
    assert told[0].warnings == ("The log grows.",)
    assert [one.does for one in told][2] == "makes the candidate the active version"
    assert least_s(told) == 660, "a person's time is not counted"
    assert least_s(preview(plan, Expected())) is None
    assert least_s(preview(Plan((COMPARE, ALL)), BUSY)) is None


def test_a_replay_beyond_its_limit_is_said() -> None:
    plan = Plan((Step(StepKind.REPLAY, within_s=300), ALL))
    assert "takes 10.0 minutes, and 5.0 minutes are given" in preview(plan, BUSY)[0].warnings[0]
    assert not preview(plan, Expected(replay_s=200))[0].warnings


def test_units_that_come_in_time_reach_a_verdict() -> None:
    (told, _) = preview(Plan((SHOWN, ALL), window_s=3600), BUSY)
    assert told.warnings == ()
    assert told.units_needed is not None
    assert told.units_needed == pytest.approx(units_needed(0.05, 0.25, 0.1, 0.05))
    assert told.units_expected == pytest.approx(told.units_needed + BUSY_WINDOW, rel=0.01)
    assert told.least_s == pytest.approx(told.units_needed / 1_000_000 * DAY_S + 3600, rel=0.01)


BUSY_WINDOW = 1_000_000 / 24  # units whose window is not complete yet at the end


@pytest.mark.parametrize(
    ("step", "units_per_day", "told"),
    [
        (SHOWN, 1000.0, "it would wait for a person: no-worse takes about"),
        (SHOWN, 0.0, "for ever"),
        (Step(StepKind.TRAFFIC, 1, for_s=3600), 1000.0, "it ends before harm would be found"),
    ],
)
def test_too_few_units_are_said_with_the_number_needed(step: Step, units_per_day: float, told: str) -> None:
    warnings = preview(Plan((step, ALL)), Expected(units_per_day=units_per_day, risk=0.05))[0].warnings
    assert any(told in warning for warning in warnings)


def test_a_margin_that_no_number_of_units_can_show() -> None:
    plan = Plan((Step(StepKind.TRAFFIC, 2500, no_worse=True), ALL))
    rare = Expected(units_per_day=1e6, risk=1e-6)
    assert "out of reach: it takes about" in preview(plan, rare)[0].warnings[0]
    [told] = preview(plan, Expected(units_per_day=1e6, risk=0.0))[0].warnings
    assert "(`--risk`)" in told


def test_without_figures_it_says_which_are_missing() -> None:
    for expected, missing in (
        (Expected(), "(`--units-per-day`) and how many of the units err (`--risk`)"),
        (Expected(units_per_day=5), "without knowing how many of the units err"),
    ):
        told = preview(EVERYTHING, expected)
        assert [missing in one.warnings[0] for one in told if one.step.beside] == [True, True]


def test_later_steps_need_what_earlier_ones_have_left() -> None:
    longer = Step(StepKind.TRAFFIC, 2000, for_s=30 * DAY_S)
    alone = preview(Plan((SHOWN, ALL)), BUSY)[0]
    before, behind, _ = preview(Plan((longer, SHOWN, ALL)), BUSY)
    assert alone.least_s is not None
    assert alone.units_needed
    assert behind.least_s == SHOWN.for_s + DAY_S - SHOWN.for_s, "only the window is left to be waited for"
    assert behind.units_needed == before.units_expected


@given(plans(), st.floats(0, 1e7), st.floats(0, 1, allow_subnormal=False))
def test_every_plan_has_a_preview(plan: Plan, units_per_day: float, risk: float) -> None:
    told = preview(plan, Expected(60.0, (), units_per_day, risk))
    assert [one.step for one in told] == list(plan.steps)
    counts = [one.units_expected for one in told if one.units_expected is not None]
    assert counts == sorted(counts)


@given(st.floats(1e-4, 0.05), st.floats(0.01, 0.5), st.floats(1.5, 20))
def test_harm_is_found_sooner_where_there_is_more_of_it(risk: float, share: float, ratio: float) -> None:
    found = units_to_find(risk, share, ratio, 0.05)
    assert units_to_find(risk, share, ratio * 1.5, 0.05) < found
    assert units_to_find(risk, share, 1.0, 0.05) == units_to_find(0.0, share, ratio, 0.05) == float("inf")
