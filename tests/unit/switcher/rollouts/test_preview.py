"""What a plan would take, and the warnings where its units cannot decide anything."""

import re
from itertools import product

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.switcher.rollouts.plan import Plan, Step, StepKind
from services.switcher.rollouts.preview import Expected, basis, least_s, preview, seen
from services.switcher.rollouts.templates import TEMPLATES
from services.switcher.statistics.harm import units_to_find
from services.switcher.statistics.promotion import units_needed
from tests.unit.switcher.rollouts.made import ALL, APPROVE, COMPARE, EVERYTHING, REPLAY, RETIRE, SOAK, plans
from turnout.routing import Units

DAY_S = 86400.0
SHOWN = Step(StepKind.TRAFFIC, 2500, for_s=3600, within_s=7 * DAY_S, no_worse=True)
BUSY = Expected(replay_s=600, units_per_day=1_000_000, risk=0.05)


def warnings(plan: Plan, expected: Expected) -> list[str]:
    """All that is warned of, but that nothing compares the tables: most plans here do not."""
    told = [warning for one in preview(plan, expected) for warning in one.warnings]
    return [warning for warning in told if "no `- compare`" not in warning]


def test_steps_take_what_they_say_and_a_replay_what_is_estimated() -> None:
    plan = Plan((REPLAY, APPROVE, ALL, SOAK, RETIRE))
    told = preview(plan, Expected(replay_s=600, remarks=("The log grows.",)))
    assert [one.least_s for one in told] == [600, None, 0, 60, 0]
    assert told[0].warnings == ("The log grows.",)
    assert [one.does for one in told][2] == "makes the candidate the active version"
    assert least_s(told) == 660, "a person's time is not counted"
    assert least_s(preview(plan, Expected())) is None
    assert least_s(preview(Plan((COMPARE, ALL)), BUSY)) is None


def test_a_replay_beyond_its_limit_is_said() -> None:
    plan = Plan((Step(StepKind.REPLAY, within_s=300), ALL))
    assert "takes 10.0 minutes, and it has 5.0 minutes: give it `within: 10m`" in preview(plan, BUSY)[0].warnings[0]
    assert not preview(plan, Expected(replay_s=200))[0].warnings


def test_units_that_come_in_time_reach_a_verdict() -> None:
    (told, _) = preview(Plan((SHOWN, ALL), window_s=3600), BUSY)
    assert not warnings(Plan((SHOWN, ALL), window_s=3600), BUSY)
    assert told.units_needed is not None
    assert told.units_needed == pytest.approx(units_needed(0.05, 0.25, 0.1, 0.05))
    assert told.units_expected == pytest.approx(told.units_needed + BUSY_WINDOW, rel=0.01)
    assert told.least_s == pytest.approx(told.units_needed / 1_000_000 * DAY_S + 3600, rel=0.01)


BUSY_WINDOW = 1_000_000 / 24  # units whose window is not complete yet at the end


@pytest.mark.parametrize(
    ("step", "units_per_day", "told"),
    [
        (SHOWN, 1000.0, "it would wait for a person: at a margin of 10 % no-worse takes about"),
        (SHOWN, 0.0, "no unit is expected to read"),
        (Step(StepKind.TRAFFIC, 1, for_s=3600), 1000.0, "it ends before harm would be found"),
    ],
)
def test_too_few_units_are_said_with_the_number_needed(step: Step, units_per_day: float, told: str) -> None:
    found = warnings(Plan((step, ALL)), Expected(units_per_day=units_per_day, risk=0.05))
    assert any(told in warning for warning in found)


def test_a_margin_that_no_number_of_units_can_show() -> None:
    plan = Plan((Step(StepKind.TRAFFIC, 2500, no_worse=True), ALL))
    rare = Expected(units_per_day=1e6, risk=1e-6)
    assert "No margin up to 100 % would do" in warnings(plan, rare)[0]
    [told] = warnings(plan, Expected(units_per_day=1e6, risk=0.0))
    assert "(`--risk`)" in told


def test_harms_share_the_probability_of_a_false_alarm() -> None:
    for slow_s, harms in ((0.0, 4), (0.1, 5)):
        told = preview(Plan((SHOWN, ALL), slow_s=slow_s), BUSY)[0]
        assert told.units_to_find == units_to_find(0.05, 0.25, 10.0, 0.05 / harms)


def test_without_figures_it_says_which_are_missing() -> None:
    for expected, missing in (
        (Expected(), "(`--units-per-day`) and how many of the units err (`--risk`)"),
        (Expected(units_per_day=5), "without knowing how many of the units err"),
    ):
        told = preview(EVERYTHING, expected)
        assert [missing in one.warnings[-1] for one in told if one.step.beside] == [True, True]


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
    told = preview(plan, Expected(60.0, (), units_per_day, risk, "x", DAY_S))
    assert [one.step for one in told] == list(plan.steps)
    counts = [one.units_expected for one in told if one.units_expected is not None]
    assert counts == sorted(counts)


@given(st.floats(1e-4, 0.05), st.floats(0.01, 0.5), st.floats(1.5, 20))
def test_harm_is_found_sooner_where_there_is_more_of_it(risk: float, share: float, ratio: float) -> None:
    found = units_to_find(risk, share, ratio, 0.05)
    assert units_to_find(risk, share, ratio * 1.5, 0.05) < found
    assert units_to_find(risk, share, 1.0, 0.05) == units_to_find(0.0, share, ratio, 0.05) == float("inf")


# --- what would do --------------------------------------------------------------------------------------------------

RISKS = (0.001, 0.002, 0.005, 0.01, 0.02, 0.05, 0.1, 0.2)
UNITS_PER_DAY = (3e3, 1e4, 3e4, 1e5, 3e5, 1e6)


def expecting(units_per_day: float, risk: float) -> Expected:
    return Expected(replay_s=60, units_per_day=units_per_day, risk=risk, source="the experiment e", protected_s=DAY_S)


def undecided(plan: Plan, expected: Expected) -> list[str]:
    return [warning for warning in warnings(plan, expected) if "no-worse takes" in warning]


@pytest.mark.parametrize(("name", "erring_per_day"), [("careful", 500), ("normal", 600)])
def test_a_template_reaches_its_verdict_with_so_many_erring_units_a_day_as_it_says(
    name: str, erring_per_day: int
) -> None:
    reachable = [
        (units, risk)
        for units, risk in product(UNITS_PER_DAY, RISKS)
        if units * risk >= erring_per_day and risk >= 0.005
    ]
    assert len(reachable) > 15
    for units, risk in reachable:
        assert not undecided(TEMPLATES[name], expecting(units, risk)), (units, risk)


@pytest.mark.parametrize("name", ["careful", "normal"])
def test_what_is_said_to_be_enough_is_enough_and_hardly_more(name: str) -> None:
    plan, tried = TEMPLATES[name], 0
    for units, risk in product(UNITS_PER_DAY, RISKS):
        expected = expecting(units, risk)
        for warning in undecided(plan, expected):
            if found := re.search(r"`margin: (\d+) %`", warning):
                percent = int(found[1])
                assert not undecided(with_judging(plan, margin=percent / 100), expected), warning
                assert undecided(with_judging(plan, margin=(percent - 1) / 100), expected), warning
                tried += 1
            longer = re.search(r"`within: (\d+)d`", warning)
            more = re.search(r"`units-max: (\d+)`", warning)
            changed = with_judging(plan, units_max=int(more[1])) if more else plan
            if longer:
                steps = tuple(
                    msgspec.structs.replace(step, within_s=int(longer[1]) * DAY_S) if step.no_worse else step
                    for step in plan.steps
                )
                changed = msgspec.structs.replace(changed, steps=steps)
            assert (longer or more) is None or not undecided(changed, expected), warning
    assert tried > 10


def with_judging(plan: Plan, **changes: float) -> Plan:
    return msgspec.structs.replace(plan, judging=msgspec.structs.replace(plan.judging, **changes))


def test_the_time_after_which_harm_would_be_found_is_said() -> None:
    expected = expecting(30_000, 0.01)
    short = Step(StepKind.TRAFFIC, 100, for_s=3600)
    [told] = warnings(Plan((short, ALL)), expected)
    found = re.search(r"`for: (\d+)h`", told)
    assert found is not None, told
    enough = int(found[1]) * 3600.0
    assert not warnings(Plan((msgspec.structs.replace(short, for_s=enough), ALL)), expected)
    assert warnings(Plan((msgspec.structs.replace(short, for_s=enough - 3600), ALL)), expected)


def test_a_retirement_that_the_way_back_holds_up_is_foreseen() -> None:
    waiting = Plan((COMPARE, ALL, Step(StepKind.SOAK, for_s=3600), RETIRE))
    told = preview(waiting, Expected(protected_s=DAY_S))[-1]
    assert told.least_s == DAY_S - 3600
    assert "it waits for 23.0 hours first, and owns the route until then" in told.warnings[0]
    assert "`soak: 24h`" in told.warnings[0]
    soaked = Plan((COMPARE, ALL, Step(StepKind.SOAK, for_s=DAY_S), RETIRE))
    assert (preview(soaked, Expected(protected_s=DAY_S))[-1].least_s, warnings(soaked, Expected())) == (0.0, [])


def test_what_the_first_readers_would_meet_unseen_is_said_once() -> None:
    steps = (Step(StepKind.TRAFFIC, 500, for_s=3600), Step(StepKind.TRAFFIC, 2500, for_s=3600), ALL)
    blind = [warning for one in preview(Plan(steps), BUSY) for warning in one.warnings if "no `- compare`" in warning]
    assert [warning.split(":")[0] for warning in blind] == ["traffic 5 %"]
    by_caller = Plan((COMPARE, *steps), units=Units.CALLER)
    [unknown] = warnings(by_caller, BUSY)
    assert "no experiment of the job has counted one yet" in unknown
    assert not warnings(by_caller, msgspec.structs.replace(BUSY, source="the experiment e"))


@pytest.mark.parametrize(("units", "over_s"), [(3, 9.0), (99, DAY_S), (100_000, 599.0), (5, 0.0)])
def test_nothing_is_foreseen_from_a_handful_of_units_or_of_seconds(units: int, over_s: float) -> None:
    little = seen("e", over_s, units, units, 0)
    assert (little.units_per_day, little.risk, little.source[:16]) == (None, None, "the experiment e")
    told = basis(little, Expected())
    assert f"(the experiment e, where {units:,} came in " in told
    assert "which is too little to tell from; `--units-per-day` says it)" in told
    asked = basis(msgspec.structs.replace(little, units_per_day=4000.0), Expected(units_per_day=4000.0))
    assert asked.startswith("4,000 units a day (`--units-per-day`)")


def test_enough_units_tell_how_many_come_and_enough_windows_how_many_err() -> None:
    assert seen("e", 600.0, 100, 0, 0).units_per_day == 14_400
    assert seen("e", 600.0, 100, 99, 1).risk is None
    assert seen("e", 600.0, 200, 100, 1).risk == 0.01


def test_it_is_said_where_the_units_expected_were_seen() -> None:
    known = Expected(units_per_day=25_220, risk=0.012, source="the experiment e, where 175 came in 10 minutes")
    assert basis(known, Expected()) == (
        "25,220 units a day (as in the experiment e, where 175 came in 10 minutes; `--units-per-day` says otherwise), "
        "1.2 % of them erring (as there; `--risk` says otherwise)"
    )
    told = basis(msgspec.structs.replace(known, units_per_day=10), Expected(units_per_day=10))
    assert told.startswith("10 units a day (`--units-per-day`), 1.2 % of them erring (as in the experiment e")
    assert basis(Expected(), Expected()) == (
        "an unknown number of units a day (`--units-per-day` says it), "
        "an unknown part of them erring (`--risk` says it)"
    )
