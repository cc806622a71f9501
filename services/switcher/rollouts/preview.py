"""What a plan would take, and what it could not reach: of its steps, its units and its times. Pure."""

import math
from collections.abc import Iterator, Sequence
from typing import Final

import msgspec

from services.switcher.rollouts.plan import TIME_MAX_S, Gate, Plan, Step, StepKind
from services.switcher.rollouts.reach import DAY_S, FOUND, Gathered, Reach, least_margin, reached, too_late, too_many
from turnout.routing import Units

_UNITS_MAX: Final = 10_000_000
"""More than so many units nobody is advised to have counted."""
_SEEN_MIN: Final = 100
"""From fewer units, or fewer windows that are over, nothing is foreseen."""
_SEEN_MIN_S: Final = 600.0
"""Nor from a shorter time: readers that come at once come once."""


class Expected(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What is known before the start; None = it is not.

    replay_s: the copy of the log, in seconds; 0 where the candidate is at its end. remarks: what stands in the way from
    the first step on. units_per_day: units that read for the first time. risk: the part of them that errs within its
    window, 0 to 1. source: where these were seen, in words; "" = units of this kind were never counted. protected_s:
    for how long a cutover's way back is kept, in seconds. too_little: units of this kind were seen, but too few, or in
    too short a time, to foresee how many come.
    """

    replay_s: float | None = None
    remarks: tuple[str, ...] = ()
    units_per_day: float | None = None
    risk: float | None = None
    source: str = ""
    protected_s: float = 0.0
    too_little: bool = False


class Preview(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step. None = it is not known, or there is no such number.

    least_s: the time it takes when all goes well, in seconds. units_needed: units, of both versions and of all steps so
    far, until no-worse passes for a candidate that is just as good; 0 where the step does not ask for it.
    units_to_find: the same until one that errs ten times as often is taken back. units_expected: by the step's end.
    """

    step: Step
    does: str
    gates: tuple[Gate, ...]
    least_s: float | None
    units_needed: float | None
    units_to_find: float | None
    units_expected: float | None
    warnings: tuple[str, ...]


class Foreseen(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What the steps of a plan would take; basis: what that takes for granted of units, and where it comes from."""

    previews: tuple[Preview, ...]
    basis: str


def seen(experiment: str, over_s: float, units: int, windows: int, errors: int) -> Expected:
    """What an experiment that ran for `over_s` seconds tells of the units to come; windows: of the control, that are
    over, and how many of them with an error."""
    enough = units >= _SEEN_MIN and over_s >= _SEEN_MIN_S
    return Expected(
        units_per_day=units / over_s * DAY_S if enough else None,
        risk=errors / windows if enough and windows >= _SEEN_MIN else None,
        source=f"the experiment {experiment}, where {units:,} came in {lasts(over_s)}",
        too_little=not enough,
    )


def foreseen(plan: Plan, expected: Expected, by_hand: Expected) -> Foreseen:
    """What is foreseen of the plan. by_hand: what the caller has said to expect."""
    return Foreseen(preview(plan, expected), basis(expected, by_hand))


def preview(plan: Plan, expected: Expected) -> tuple[Preview, ...]:
    """Each step of the plan, in its order."""
    told: list[Preview] = []
    before = Gathered()
    for place, step in enumerate(plan.steps):
        if step.beside:
            one, before = _beside(plan, step, expected, before)
        else:
            one = _apart(plan, place, expected)
        first = expected.remarks if place == 0 else ()
        told.append(msgspec.structs.replace(one, warnings=(*first, *_overlooked(plan, place, expected), *one.warnings)))
    return tuple(told)


def least_s(steps: Sequence[Preview]) -> float | None:
    """The time that all steps take when all goes well, in seconds; None where that of one is not known."""
    times = [one.least_s for one in steps if one.step.kind is not StepKind.APPROVE]
    known = [time for time in times if time is not None]
    return math.fsum(known) if len(known) == len(times) else None


def basis(expected: Expected, by_hand: Expected) -> str:
    """What the previews take for granted of units, and where that comes from; by_hand: what the caller has said."""
    units, risk = expected.units_per_day, expected.risk
    too_little = f"{expected.source}, which is too little to tell from; " if expected.too_little else ""
    parts = [
        _granted(
            "" if units is None else f"{units:,.0f} units a day",
            "an unknown number of units a day",
            by_hand.units_per_day is None,
            f"as in {expected.source}",
            "--units-per-day",
            too_little,
        ),
        _granted(
            "" if risk is None else f"{100 * risk:.3g} % of them erring",
            "an unknown part of them erring",
            by_hand.risk is None,
            "as there" if by_hand.units_per_day is None and units is not None else f"as in {expected.source}",
            "--risk",
        ),
    ]
    return ", ".join(parts)


def _granted(known: str, unknown: str, by_count: bool, source: str, option: str, why: str = "") -> str:
    if not known:
        return f"{unknown} ({why}`{option}` says it)"
    return f"{known} ({source}; `{option}` says otherwise)" if by_count else f"{known} (`{option}`)"


# --- the steps ------------------------------------------------------------------------------------------------------


def _apart(plan: Plan, place: int, expected: Expected) -> Preview:
    """A step by which no units are compared."""
    step = plan.steps[place]
    time_s: float | None = step.for_s
    warnings: Iterator[str] = iter(())
    if step.kind in (StepKind.COMPARE, StepKind.APPROVE):
        time_s = None  # as long as the tables are large, or a person away
    elif step.kind is StepKind.RETIRE:
        time_s = max(0.0, expected.protected_s - _since_cutover_s(plan, place))
        warnings = _kept(step, time_s, expected.protected_s)
    elif step.kind is StepKind.REPLAY:
        time_s = expected.replay_s
        warnings = _limit(step, time_s)
    return Preview(step, _does(step), step.gates, time_s, 0.0, None, None, tuple(warnings))


def _beside(plan: Plan, step: Step, expected: Expected, before: Gathered) -> tuple[Preview, Gathered]:
    """A share of the units beside the active version."""
    if expected.units_per_day is None or expected.risk is None:
        time_s, needed = (None, None) if step.no_worse else (step.for_s, 0.0)
        warnings = (_unknown(step, expected),)
        return Preview(step, _does(step), step.gates, time_s, needed, None, None, warnings), before
    reach = reached(plan, step, expected.units_per_day, expected.risk, before)
    told = Preview(
        step,
        _does(step),
        step.gates,
        reach.time_s if reach.time_s < math.inf else None,
        before.units + reach.left if step.no_worse else 0.0,
        before.units + reach.left_to_find,
        reach.after.units,
        tuple(_out_of_reach(plan, step, reach, expected.units_per_day, expected.risk)),
    )
    return told, reach.after


def _since_cutover_s(plan: Plan, place: int) -> float:
    """How long the steps take, at least, that stand between the last move of traffic and this one."""
    last = plan.last_traffic(place)
    return math.fsum(step.for_s for step in plan.steps[0 if last is None else last + 1 : place])


# --- warnings -------------------------------------------------------------------------------------------------------


def _overlooked(plan: Plan, place: int, expected: Expected) -> Iterator[str]:
    """What the first share of the units would show too late, or not at all."""
    step = plan.steps[place]
    if step.kind is not StepKind.TRAFFIC or any(one.kind is StepKind.TRAFFIC for one in plan.steps[:place]):
        return
    if all(one.kind is not StepKind.COMPARE for one in plan.steps):
        yield (
            f"{step.label}: readers meet the new code before anybody has seen what it changes in the table: the plan "
            "has no `- compare`."
        )
    if step.beside and plan.units is Units.CALLER and not expected.source:
        yield (
            f"{step.label}: it counts by the caller's unit, and no experiment of the job has counted one yet. Where no "
            "read brings a unit (`unit=` in the client) it waits for one: let it count by the row's key then "
            "(`units: key`, or `--units key`)."
        )


def _unknown(step: Step, expected: Expected) -> str:
    missing = [
        told
        for told, known in (
            ("how many units read in a day (`--units-per-day`)", expected.units_per_day),
            ("how many of the units err (`--risk`)", expected.risk),
        )
        if known is None
    ]
    return (
        f"{step.label}: whether its units can reach a verdict cannot be told without knowing {' and '.join(missing)}."
    )


def _out_of_reach(plan: Plan, step: Step, reach: Reach, units_per_day: float, risk: float) -> Iterator[str]:
    """What the expected units cannot show."""
    if reach.needed == math.inf:
        yield (
            f"{step.label}: nothing can be shown where no unit is expected to err (0 % of them): say how many do "
            "(`--risk`)."
        )
        return
    if not units_per_day:
        yield f"{step.label}: nothing can be shown where no unit is expected to read (`--units-per-day`)."
        return
    if step.no_worse and (too_many(plan, reach) or too_late(step, reach)):
        yield _undecided(plan, step, reach, least_margin(plan, units_per_day, risk))
    if reach.after.found < 1.0:
        longer_s = reach.stays_s + (1.0 - reach.after.found) * reach.to_find / units_per_day * DAY_S
        longer = f"`for: {_written(longer_s)}`, or with " if longer_s <= TIME_MAX_S else ""
        yield (
            f"{step.label}: it ends before harm would be found: of a candidate that errs {FOUND:g} times as often that "
            f"takes about {reach.before.units + reach.left_to_find:,.0f} units, and {reach.after.units:,.0f} will have "
            f"read by then. It would be found with {longer}a larger share."
        )


def _undecided(plan: Plan, step: Step, reach: Reach, margin: float | None) -> str:
    """That no-worse does not pass, with the numbers, and what would change that."""
    judging = plan.judging
    feasible = reach.time_s <= TIME_MAX_S and reach.needed <= _UNITS_MAX
    missing, longer = [], []
    if too_many(plan, reach):
        missing.append(f"only {judging.units_max:,} are counted (`units-max`)")
        longer += [f"`units-max: {_rounded_up(reach.needed):.0f}`"] if feasible else []
    if too_late(step, reach):
        missing.append(f"it has {lasts(step.within_s)} (`within`)")
        longer += [f"`within: {_written(reach.time_s)}`"] if feasible else []
    ways = [" and ".join(longer)] if longer else []
    ways += [f"`margin: {100 * margin:.0f} %`"] if margin is not None else []
    enough = f"Enough would be {', or '.join(ways)}" if ways else "No margin up to 100 % would do: leave `until` out"
    return (
        f"{step.label}: it would wait for a person: at a margin of {100 * judging.margin:.3g} % no-worse takes about "
        f"{reach.needed:,.0f} units at this share, which is {lasts(reach.time_s)}; {' and '.join(missing)}. "
        f"{enough}."
    )


def _limit(step: Step, time_s: float | None) -> Iterator[str]:
    if time_s is not None and 0.0 < step.within_s < time_s:
        yield (
            f"{step.label}: it would wait for a person: it takes {lasts(time_s)}, and it has {lasts(step.within_s)}: "
            f"give it `within: {_written(time_s)}`."
        )


def _kept(step: Step, time_s: float, protected_s: float) -> Iterator[str]:
    if time_s:
        yield (
            f"{step.label}: it waits for {lasts(time_s)} first, and owns the route until then, because the way back "
            f"is kept for {lasts(protected_s)} after everybody has moved. To see it watched for so long, let it soak: "
            f"`soak: {_written(protected_s)}`."
        )


# --- words ----------------------------------------------------------------------------------------------------------


def lasts(seconds: float) -> str:
    """For people, such as 2.5 hours."""
    if seconds == math.inf:
        return "longer than anybody waits"
    for name, of_s in (("days", DAY_S), ("hours", 3600.0), ("minutes", 60.0)):
        if seconds >= 2 * of_s:
            return f"{seconds / of_s:,.1f} {name}"
    return f"{seconds:,.0f} seconds"


def _written(seconds: float) -> str:
    """At least so long, as a plan says it."""
    for unit, of_s in (("d", DAY_S), ("h", 3600.0), ("m", 60.0)):
        if seconds > 2 * of_s:
            return f"{math.ceil(seconds / of_s)}{unit}"
    return f"{math.ceil(seconds)}s"


def _rounded_up(units: float) -> float:
    """With two figures."""
    unit = 10.0 ** max(0, math.floor(math.log10(units)) - 1)
    return math.ceil(units / unit) * unit


def _does(step: Step) -> str:
    if step.kind is StepKind.TRAFFIC and not step.beside:
        return "makes the candidate the active version"
    return _DOES[step.kind]


_DOES: Final = {
    StepKind.REPLAY: "starts the candidate's run, unless it has one, and waits until its table may serve",
    StepKind.COMPARE: "compares the candidate's table with the active version's at one cut of the log",
    StepKind.SHADOW: "answers a share of the reads from both tables and compares the answers",
    StepKind.TRAFFIC: "gives the candidate this share of the units",
    StepKind.APPROVE: "waits for a person",
    StepKind.SOAK: "watches the candidate while the way back is kept",
    StepKind.RETIRE: "begins to retire the version that was active before",
}
