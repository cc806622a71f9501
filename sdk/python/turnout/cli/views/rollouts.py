"""Rollouts: the steps and where one stands, what gates say, what was counted, and what is waited for."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from turnout.cli.output import facts, heading, table
from turnout.cli.quantities import ABSENT, moment, percent, plural, span
from turnout.cli.views.experiments import arms_line, arms_view, guardrails_view, uncounted_text
from turnout.cli.views.phrases import left_out, lines, state
from turnout.experiments import Experiment
from turnout.rollouts import (
    GateVerdict,
    Rollout,
    RolloutDecision,
    RolloutFinding,
    RolloutHold,
    RolloutPhase,
    RolloutPreview,
    RolloutState,
    RolloutStep,
    StepKind,
)

_VERDICTS = {
    GateVerdict.FAIL: ("fails", "bold red"),
    GateVerdict.INCONCLUSIVE: ("cannot decide", "bold yellow"),
    GateVerdict.STALE: ("cannot tell now", "yellow"),
    GateVerdict.WAIT: ("not yet", ""),
    GateVerdict.PASS: ("passes", "green"),
}
_HOLDS = {
    RolloutHold.PERSON: "by a person",
    RolloutHold.INCONCLUSIVE: "because a person has to judge",
    RolloutHold.REFUSED: "because its step was refused",
    RolloutHold.OVERRULED: "because somebody changed the route over its head",
}
_ENDS = {
    RolloutState.SUCCEEDED: "is through{after}: everybody reads {candidate}",
    RolloutState.ROLLED_BACK: "took {candidate} back{after}",
    RolloutState.ABORTED: "was aborted{after} and has taken {candidate} back",
    RolloutState.FAILED: "did not begin, and nothing has changed",
}


def rollout_view(found: Rollout, counted: Experiment | None = None, *, detail: int = 2) -> RenderableType:
    """A rollout. counted: its experiment. detail: 2 = all, 1 = without guardrails, 0 = without steps and gates too."""
    parts: list[RenderableType] = [facts(_head(found, whole=detail > 0))]
    hidden = [] if detail > 0 else ["the steps", "what gates say"]
    if detail > 0:
        parts += [Text(), _steps(found)]
        if found.findings and not found.state.over:
            parts += [Text(), _gates(found.findings)]
    if counted is not None and counted.standing is not None:
        parts += [Text(), arms_view(counted, counted.standing)]
        if uncounted := uncounted_text(counted, counted.standing):
            parts.append(Text(uncounted, style="yellow"))
        if detail > 1:
            parts += [Text(), guardrails_view(counted.standing)]
        else:
            hidden.append("the guardrails")
    if hidden:
        parts.append(left_out(hidden, f"turnout rollout show {found.job} {found.rollout}"))
    return Group(*parts)


def _head(found: Rollout, *, whole: bool) -> list[tuple[str, str | Text]]:
    held = f" {_HOLDS[found.hold]}" if found.hold is not None else ""
    pairs: list[tuple[str, str | Text]] = [
        ("rollout", Text.assemble(f"{found.rollout} of {found.job}, ", state(found.state), held)),
        ("versions", f"from v{found.control} to v{found.candidate}, {_given(found)}"),
    ]
    if whole:
        pairs.append(("since", f"{moment(found.create_time)} by {found.claimed_actor or ABSENT}"))
    if whole and found.reason:
        pairs.append(("reason", found.reason))
    if found.end_time is not None:
        pairs.append(("ended", moment(found.end_time)))
    pairs.append(("stands", _stands(found)))
    if found.sentence:
        pairs.append(("because", found.sentence))
    if found.state.over:
        return pairs
    if found.waiting_for:
        pairs.append(("frozen" if found.frozen else "waits for", found.waiting_for))
    following = found.following
    if found.state is not RolloutState.ROLLING_BACK:
        pairs.append(("next", _with_time(following) if following is not None else "the route is given back"))
    if found.state is RolloutState.PAUSED:
        pairs.append(("to do", way_on(found)))
    return pairs


def _given(found: Rollout) -> str:
    if found.hold is RolloutHold.OVERRULED:
        return f"to which it had given {percent(found.weight)} of the units"
    return f"which has {percent(found.weight)} of the units"


def _stands(found: Rollout) -> str:
    if found.step == 0:
        return "before the first step"
    step = found.present
    if step is None:
        return "all steps are done"
    return f"at step {found.step} of {len(found.plan.steps)}, {step_text(step)}, {_progress(found, step)}"


def _progress(found: Rollout, step: RolloutStep) -> str:
    if found.state.over or found.state is RolloutState.ROLLING_BACK:
        return "where it ended"
    if found.phase is RolloutPhase.TAKING:
        return "which is being done"
    if step.kind is StepKind.APPROVE:
        return "waiting for a person"
    if step.at_least is not None and found.watched < step.at_least:
        return f"watched for {span(found.watched)} of {span(step.at_least)}"
    limit = f", at most {span(step.within)}" if step.within is not None else ""
    return f"watched for {span(found.watched)}{limit}"


def step_text(step: RolloutStep) -> str:
    """Such as `traffic 5 %`."""
    name = step.kind.value.lower()
    return f"{name} {percent(step.share)}" if step.share else name


def _lasts(step: RolloutStep) -> str:
    told = []
    if step.at_least is not None:
        told.append(span(step.at_least))
    if step.no_worse:
        told.append("until no-worse")
    if step.within is not None:
        told.append(f"within {span(step.within)}")
    return ", ".join(told)


def _with_time(step: RolloutStep) -> str:
    lasts = _lasts(step)
    return f"{step_text(step)} ({lasts})" if lasts else step_text(step)


def _steps(found: Rollout) -> RenderableType:
    rows: list[tuple[str | Text, ...]] = []
    for place, step in enumerate(found.plan.steps, start=1):
        style = "dim" if place < found.step else "bold" if place == found.step else ""
        cells = (str(place), step_text(step), _lasts(step), _stood(found, place))
        rows.append(tuple(Text(cell, style=style) for cell in cells))
    return table(("step", "does", "lasts", "stands"), rows, right=(0,))


def _stood(found: Rollout, place: int) -> str:
    if place < found.step:
        return "passed over" if place in found.skipped else "done"
    if place != found.step:
        return ""
    if found.state is RolloutState.PAUSED:
        return "paused"
    return "now" if found.state in (RolloutState.PENDING, RolloutState.RUNNING) else "ended here"


def _gates(findings: Sequence[RolloutFinding]) -> RenderableType:
    rows: list[tuple[str | Text, ...]] = []
    said: set[str] = set()
    for one in findings:
        word, style = _VERDICTS[one.verdict]
        # What counts units says one sentence for several gates.
        rows.append((one.gate, Text(word, style=style), "" if one.sentence in said else one.sentence))
        said.add(one.sentence)
    return table(("gate", "says", "because"), rows)


def way_on(found: Rollout) -> str:
    """What a person can do about a rollout that is paused."""
    job = found.job
    back = f"`turnout rollout abort {job}` takes v{found.candidate} back"
    if found.hold is RolloutHold.OVERRULED:
        return f"`turnout rollout resume {job}` takes the route over again and brings it to where it was; {back}."
    if found.hold is RolloutHold.REFUSED:
        return f"Mend what is named, then `turnout rollout resume {job}` tries it again; {back}."
    past = f"`turnout rollout promote {job}` passes over what the step waits for"
    if found.hold is RolloutHold.INCONCLUSIVE:
        look = "Look at what the gates say. "
        if any(one.gate == "run" and one.verdict is GateVerdict.INCONCLUSIVE for one in found.findings):
            look = (
                f"Mend its run, and `turnout run resume {job} v{found.candidate}`, or `turnout apply FILE` where it "
                "has none. "
            )
            return f"{look}`turnout rollout resume {job}` then goes on; {back}."
        if found.present is not None and found.present.kind is StepKind.COMPARE:
            look = (
                f"`turnout comparisons {job}` shows what differs. To expect something else, abort this rollout and "
                "start another: its plan is fixed. "
            )
        return f"{look}{past}, `turnout rollout resume {job}` tries again; {back}."
    return f"`turnout rollout resume {job}` goes on, {past}; {back}."


def rollout_line(found: Rollout, counted: Experiment | None = None) -> str:
    """How it stands on one line, for a log."""
    step = found.present
    parts = [f"rollout {found.rollout} of {found.job} (v{found.control} to v{found.candidate}) {found.state}"]
    if step is not None:
        parts.append(f"step {found.step} of {len(found.plan.steps)}, {step_text(step)}, {_progress(found, step)}")
    if counted is not None and counted.standing is not None:
        parts.append(arms_line(counted.standing))
    if found.waiting_for and found.state is not RolloutState.PAUSED:
        parts.append(f"waits for: {found.waiting_for}")
    elif found.sentence:
        parts.append(found.sentence)
    return "  ".join(parts)


def over_text(found: Rollout) -> str:
    """How a rollout ended."""
    lasted = found.end_time - found.create_time if found.end_time and found.create_time else None
    after = f" after {span(lasted)}" if lasted is not None else ""
    left = found.state is RolloutState.ABORTED and found.weight > 0
    how = "was aborted{after} and leaves {candidate} active" if left else _ENDS[found.state]
    end = how.format(candidate=f"v{found.candidate}", after=after)
    return f"The rollout {found.rollout} of {found.job} {end}. {found.sentence}"


def nothing_to_change_text(found: Rollout) -> str:
    """What a word to a rollout does that was over before."""
    return f"Nothing to change: {found.rollout} of {found.job} is over ({found.state}): {found.sentence}"


def passed_over_text(before: Rollout, found: Rollout, place: int) -> str:
    """What a promotion of the step at this place (from 1) passed over, and where that has led. before: the rollout
    ahead of it."""
    step = found.plan.steps[place - 1]
    named = f"step {place}, {step_text(step)}"
    if place == found.step:
        return f"S{named[1:]}, is being done, and is not waited for after that."
    if place in found.skipped and place not in before.skipped:
        told = f"Passed over {named}"
    elif step.kind is StepKind.APPROVE and place == before.step:
        told = f"S{named[1:]}, is approved"
    else:
        told = f"Nothing was left to pass over of {named}"
    at = found.present
    if at is None:
        return f"{told}; all steps are done."
    return f"{told}; now at step {found.step}, {step_text(at)}."


def rollouts_view(found: Sequence[Rollout]) -> RenderableType:
    """Rollouts, newest first."""
    if not found:
        return Text("There is no rollout yet. `turnout rollout start` begins one.")
    rows = [
        (
            one.job,
            one.rollout,
            f"v{one.control} → v{one.candidate}",
            state(one.state),
            _place(one),
            moment(one.create_time).removesuffix(" UTC"),
            one.sentence or one.reason or ABSENT,
        )
        for one in found
    ]
    return table(("job", "rollout", "versions", "state", "step", "since (UTC)", "because"), rows)


def _place(found: Rollout) -> str:
    return f"{min(found.step, len(found.plan.steps))} of {len(found.plan.steps)}"


# --- what it would take ---------------------------------------------------------------------------------------------


def preview_view(found: Rollout) -> RenderableType:
    """What each step would take, and what cannot be reached."""
    rows, gathered = [], 0.0
    for place, one in enumerate(found.previews, start=1):
        rows.append(_previewed(place, one, gathered))
        gathered = max(gathered, one.units_expected or 0.0)
    parts: list[RenderableType] = [
        heading(f"A rollout of {found.job} from v{found.control} to v{found.candidate} would take"),
        table(("step", "does", "takes", "units by then", "to find harm", "for no-worse"), rows, right=(0, 3, 4, 5)),
        Text(_PREVIEW_LEGEND, style="dim"),
    ]
    if found.expectation:
        parts.append(Text(f"Expected are {found.expectation}."))
    if found.least:
        parts.append(Text(f"It takes {span(found.least)} at least, besides comparing and waiting for people."))
    warnings = [f"  - {warning}" for one in found.previews for warning in one.warnings]
    return Group(*parts, *lines(warnings))


_PREVIEW_LEGEND = (
    "units: of both versions, in all steps so far; harm: the candidate errs ten times as often; no-worse: it is as good"
)


def _previewed(place: int, one: RolloutPreview, gathered: float) -> tuple[str, ...]:
    """gathered: units that have read before the step."""
    found_before = one.units_to_find is not None and 0.0 < one.units_to_find <= gathered
    return (
        str(place),
        step_text(one.step),
        _takes(one),
        _units(one.units_expected),
        "before" if found_before else _units(one.units_to_find),
        "" if one.units_needed == 0 else _units(one.units_needed),
    )


def _takes(one: RolloutPreview) -> str:
    if one.least is None:
        return "?"
    if one.step.within is not None and one.least > one.step.within:
        return f"over {span(one.step.within)}"
    return span(one.least) if one.least else ""


def _units(number: float | None) -> str:
    return "" if number is None else f"{number:,.0f}" if number < float("inf") else "never"


# --- decisions ------------------------------------------------------------------------------------------------------


def rollout_decisions_view(found: Sequence[RolloutDecision]) -> RenderableType:
    """Decisions on a rollout, newest first."""
    if not found:
        return Text("Nothing has been decided yet.")
    rows = [
        (
            str(one.decision),
            moment(one.create_time).removesuffix(" UTC"),
            str(one.step),
            one.action.lower(),
            state(one.state),
            one.actor or ABSENT,
            one.reason or one.sentence,
        )
        for one in found
    ]
    return table(("no", "time (UTC)", "step", "what", "state", "by", "why"), rows, right=(0, 2))


def rollout_decision_view(found: RolloutDecision) -> RenderableType:
    """One decision with its record."""
    return Group(
        facts(
            [
                ("decision", f"{found.decision} on {found.rollout} of {found.job}"),
                ("made", f"{moment(found.create_time)} by {found.actor or ABSENT}"),
                ("what", f"{found.action.lower()}; then {found.state} at step {found.step}"),
                ("because", found.sentence),
                *([("reason", found.reason)] if found.reason else []),
            ]
        ),
        Text(),
        Text(found.record),
    )


def started_text(found: Rollout) -> str:
    """What a rollout that has begun will do."""
    steps = plural(len(found.plan.steps), "step")
    return (
        f"The rollout {found.rollout} of {found.job} from v{found.control} to v{found.candidate} begins, in {steps}; "
        f"`turnout rollout watch {found.job}` shows how it goes."
    )
