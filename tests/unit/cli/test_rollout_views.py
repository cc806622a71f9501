"""What a person sees of a rollout, in `snapshots/` (how they are written: test_views.py), and what is advised."""

from __future__ import annotations

from dataclasses import replace

import pytest
from rich.console import Console, RenderableType
from rich.text import Text

from tests.unit.cli import rollout_samples as samples
from tests.unit.cli.samples import EXPERIMENT, JOB, rendered
from tests.unit.cli.test_views import SNAPSHOTS, assert_as_written
from turnout.cli.screens import FirstOfHeight
from turnout.cli.views.rollouts import (
    nothing_to_change_text,
    over_text,
    passed_over_text,
    preview_view,
    rollout_decision_view,
    rollout_decisions_view,
    rollout_line,
    rollout_view,
    rollouts_view,
    started_text,
    way_on,
)
from turnout.rollouts import GateVerdict, RolloutFinding, RolloutHold, RolloutPhase, RolloutState

VIEWS: dict[str, RenderableType] = {
    "whole": rollout_view(samples.ROLLOUT, EXPERIMENT),
    "small": rollout_view(samples.ROLLOUT, EXPERIMENT, detail=0),
    "pending": rollout_view(samples.BEFORE),
    "frozen": rollout_view(samples.FROZEN, EXPERIMENT, detail=1),
    "paused": rollout_view(samples.JUDGED),
    "rolled-back": rollout_view(samples.TAKEN_BACK),
    "through": rollout_view(samples.THROUGH),
    "line": Text(rollout_line(samples.ROLLOUT, EXPERIMENT)),
    "line-paused": Text(rollout_line(samples.JUDGED)),
    "line-over": Text(rollout_line(samples.TAKEN_BACK)),
    "over": Text(over_text(samples.TAKEN_BACK)),
    "started": Text(started_text(samples.BEFORE)),
    "preview": preview_view(samples.PREVIEWED),
    "list": rollouts_view([samples.ROLLOUT, samples.TAKEN_BACK]),
    "list-none": rollouts_view([]),
    "decisions": rollout_decisions_view(samples.DECISIONS),
    "decisions-none": rollout_decisions_view([]),
    "decision": rollout_decision_view(samples.DECISIONS[1]),
}


@pytest.mark.parametrize("name", VIEWS)
def test_text_at_80_columns(name: str) -> None:
    assert_as_written(f"rollouts/{name}", rendered(VIEWS[name]))


def test_every_snapshot_belongs_to_a_view() -> None:
    assert {path.stem for path in (SNAPSHOTS / "rollouts").iterdir()} == set(VIEWS)


@pytest.mark.parametrize("state", RolloutState)
def test_every_state_is_shown(state: RolloutState) -> None:
    for phase in (None, *RolloutPhase):
        for step in range(len(samples.PLAN.steps) + 2):
            found = replace(samples.ROLLOUT, state=state, step=step, phase=phase)
            assert state.value in rendered(rollout_view(found))
            assert state.value in rollout_line(found)
    if state.over:
        assert over_text(replace(samples.TAKEN_BACK, state=state)).startswith(f"The rollout v2 of {JOB} ")


@pytest.mark.parametrize("hold", RolloutHold)
def test_whoever_meets_a_paused_rollout_is_told_what_to_do(hold: RolloutHold) -> None:
    paused = replace(samples.JUDGED, hold=hold)
    assert f"`turnout rollout abort {JOB}`" in way_on(paused)
    assert f"`turnout rollout resume {JOB}`" in way_on(paused)
    # Neither a refused step nor a route that is another's can be passed over.
    assert ("rollout promote" in way_on(paused)) == (hold in (RolloutHold.PERSON, RolloutHold.INCONCLUSIVE))
    assert way_on(paused) in " ".join(rendered(rollout_view(paused), 400).split())


def test_what_differs_is_shown_where_a_comparison_is_to_be_judged() -> None:
    assert f"`turnout comparisons {JOB}`" in way_on(samples.JUDGED)
    assert "comparisons" not in way_on(replace(samples.JUDGED, step=5))


def test_a_run_that_has_to_be_mended_is_named() -> None:
    held = (RolloutFinding("run", GateVerdict.INCONCLUSIVE, "The run of v2 is PAUSED."),)
    told = way_on(replace(samples.JUDGED, step=5, findings=held))
    assert f"`turnout run resume {JOB} v2`" in told
    assert f"`turnout rollout resume {JOB}`" in told


def test_of_a_route_that_was_overruled_it_says_what_it_had_given() -> None:
    overruled = replace(samples.ROLLOUT, state=RolloutState.PAUSED, hold=RolloutHold.OVERRULED)
    assert "to which it had given 25 % of the units" in rendered(rollout_view(overruled), 400)


def test_a_candidate_that_could_not_be_taken_back_is_not_called_taken_back() -> None:
    left = replace(samples.TAKEN_BACK, state=RolloutState.ABORTED, weight=10_000)
    assert over_text(left).startswith(f"The rollout v2 of {JOB} was aborted after 12 min and leaves v2 active. ")


def test_of_what_was_over_before_it_is_not_said_that_it_ends_now() -> None:
    told = nothing_to_change_text(samples.TAKEN_BACK)
    assert told == f"Nothing to change: v2 of {JOB} is over (ROLLED_BACK): {samples.TAKEN_BACK.sentence}"


def test_a_promotion_names_what_it_passed_over_and_where_the_rollout_is_now() -> None:
    before = replace(samples.ROLLOUT, step=5)
    after = replace(before, step=6, skipped=(5,))
    assert passed_over_text(before, after, 5) == "Passed over step 5, traffic 25 %; now at step 6, approve."
    assert passed_over_text(after, after, 5) == (
        "Nothing was left to pass over of step 5, traffic 25 %; now at step 6, approve."
    )
    approved = replace(after, step=7)
    assert passed_over_text(after, approved, 6) == "Step 6, approve, is approved; now at step 7, traffic 100 %."
    assert passed_over_text(approved, approved, 6).startswith("Nothing was left to pass over of step 6, approve; ")
    taking = replace(before, phase=RolloutPhase.TAKING)
    assert passed_over_text(taking, taking, 5) == (
        "Step 5, traffic 25 %, is being done, and is not waited for after that."
    )
    last = replace(before, step=10, skipped=(9,))
    assert passed_over_text(before, last, 9) == "Passed over step 9, retire; all steps are done."


def test_a_step_that_a_person_did_not_wait_for_is_not_called_done() -> None:
    told = rendered(rollout_view(replace(samples.ROLLOUT, skipped=(2,))), 200).splitlines()
    stood = {line.split()[0]: line for line in told if line.strip()[:1].isdigit()}
    assert stood["1"].endswith("done")
    assert stood["2"].endswith("passed over")


def test_a_low_screen_gets_the_first_picture_that_it_holds() -> None:
    pictures = [rollout_view(samples.ROLLOUT, EXPERIMENT, detail=detail) for detail in (2, 1, 0)]
    heights = [len(rendered(picture).splitlines()) for picture in pictures]
    assert heights == sorted(heights, reverse=True)
    assert len(set(heights)) == len(heights)
    for picture, height in zip(pictures, heights, strict=True):
        assert rendered(FirstOfHeight(pictures, height + 2)) == rendered(picture)
    assert rendered(FirstOfHeight(pictures, 1)) == rendered(pictures[-1])


def test_what_a_person_must_see_fits_a_usual_terminal() -> None:
    console = Console(width=80, height=24)
    least = rollout_view(samples.ROLLOUT, EXPERIMENT, detail=0)
    assert len(console.render_lines(least)) <= console.height
