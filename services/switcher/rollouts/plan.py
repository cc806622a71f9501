"""What a rollout is to do: steps, and the gates that each must pass. Pure.

========  ==================================================  =====================================================
step      what it does                                        what must hold before the next one
========  ==================================================  =====================================================
replay    starts the candidate's run                          run, catch-up, coverage, schema
compare   compares the candidate's table with the active one  run, comparison
shadow    answers a share of reads from both tables           run, shadow; for as long as it says
traffic   gives the candidate a share of the units            run; beside the active version also harm and spread, and
                                                              no-worse where asked for; for as long as it says
approve   nothing                                             a person promotes past it
soak      nothing                                             run, catch-up; for as long as it says
retire    retires the version that was active before          nothing
========  ==================================================  =====================================================

A plan ends with the candidate at 100 %: one that stops half-way is an experiment.
"""

import enum
from collections.abc import Iterator, Sequence
from itertools import pairwise
from typing import Final

import msgspec

from services.switcher.experiments import spec
from services.switcher.statistics.decision import Plan as Judging
from turnout.errors import InvalidInput, Violation
from turnout.routing import WHOLE, Units

STEPS_MAX: Final = 32
TIME_MAX_S: Final = 90 * 86400.0


class Gate(enum.Enum):
    """A question whose answer decides on a step; the value is its name for people."""

    RUN = "run"  # the candidate's run reads the log
    CATCH_UP = "catch-up"
    COVERAGE = "coverage"
    SCHEMA = "schema"
    COMPARISON = "comparison"  # the two tables differ in nothing but what the contract permits
    SHADOW = "shadow"  # so do answers of live reads
    HARM = "harm"  # units of the candidate err no more often
    SPREAD = "spread"  # units are spread over the versions as designed
    NO_WORSE = "no-worse"  # the candidate's risk is shown to be within the margin


class StepKind(enum.Enum):
    """What a step does; the value is its name for people."""

    REPLAY = "replay"
    COMPARE = "compare"
    SHADOW = "shadow"
    TRAFFIC = "traffic"
    APPROVE = "approve"
    SOAK = "soak"
    RETIRE = "retire"


_BESIDE: Final = (Gate.RUN, Gate.HARM, Gate.SPREAD)  # of a share of the units below 100 %
_GATES: Final = {
    StepKind.REPLAY: (Gate.RUN, Gate.CATCH_UP, Gate.COVERAGE, Gate.SCHEMA),
    StepKind.COMPARE: (Gate.RUN, Gate.COMPARISON),
    StepKind.SHADOW: (Gate.RUN, Gate.SHADOW),
    StepKind.TRAFFIC: (Gate.RUN,),
    StepKind.APPROVE: (),
    StepKind.SOAK: (Gate.RUN, Gate.CATCH_UP),
    StepKind.RETIRE: (),
}
SHARED: Final = frozenset({StepKind.SHADOW, StepKind.TRAFFIC})
"""Steps that have a share."""
TIMED: Final = frozenset({StepKind.SHADOW, StepKind.TRAFFIC, StepKind.SOAK})
"""Steps that may be watched for a time."""
LIMITED: Final = TIMED | {StepKind.REPLAY, StepKind.COMPARE}
"""Steps that may have a time limit."""


class Step(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One step. Times count only while its gates were answered: neither a pause nor an outage is a time of watching."""

    kind: StepKind
    share: int = 0  # basis points of the units (TRAFFIC) or of the reads (SHADOW); else 0
    for_s: float = 0.0  # at least this long, in seconds
    within_s: float = 0.0  # undecided for so many seconds = a person decides; 0 = as long as it takes
    no_worse: bool = False  # TRAFFIC below 100 %: whether the gate no-worse must pass too
    contract: str = ""  # COMPARE: what may differ and what must, as `turnout.contract` encodes it; "" = a person judges

    @property
    def beside(self) -> bool:
        """Whether it gives the candidate a share beside the active version."""
        return self.kind is StepKind.TRAFFIC and self.share < WHOLE

    @property
    def gates(self) -> tuple[Gate, ...]:
        """The gates that must pass before the next step."""
        if not self.beside:
            return _GATES[self.kind]
        return (*_BESIDE, Gate.NO_WORSE) if self.no_worse else _BESIDE

    @property
    def label(self) -> str:
        """For people, such as `traffic 5 %`."""
        return f"{self.kind.value} {self.share / 100:g} %" if self.kind in SHARED else self.kind.value


class Plan(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """The steps, and what is fixed before units are counted, as of an experiment (`experiments.spec.Spec`)."""

    steps: tuple[Step, ...]
    judging: Judging = Judging()
    units: Units = Units.KEY
    window_s: float = 86400.0
    delay_s: float = 3600.0
    slow_s: float = 0.0

    def last_traffic(self, until: int) -> int | None:
        """The last step, not after the one at place `until`, that moves traffic; None = none does."""
        places = [place for place, step in enumerate(self.steps[: until + 1]) if step.kind is StepKind.TRAFFIC]
        return places[-1] if places else None


def experiment(plan: Plan, control: int, candidate: int, share: int) -> spec.Spec:
    """The experiment that watches the candidate while it has this share (basis points) beside the control."""
    return spec.Spec(
        arms=(spec.Arm(control, WHOLE - share), spec.Arm(candidate, share)),
        units=plan.units,
        plan=plan.judging,
        window_s=plan.window_s,
        delay_s=plan.delay_s,
        slow_s=plan.slow_s,
    )


def guards(share: int) -> tuple[Gate, ...]:
    """The gates that are watched as long as the candidate has this share (basis points), whatever the step."""
    if share == 0:
        return ()
    return _BESIDE if share < WHOLE else (Gate.RUN,)


def checked(plan: Plan) -> Plan:
    """The plan. InvalidInput (INVALID_PLAN) naming everything that is wrong with it, and what to do."""
    refuse([*_of_steps(plan.steps), *_of_order(plan.steps), *_of_guardrails(plan)])
    return plan


def checked_for(plan: Plan, candidate: int, control: int) -> Plan:
    """The plan for these versions; control: the active version, 0 = none. InvalidInput (INVALID_PLAN) as `checked`."""
    if candidate == control:
        refuse([complaint("version", f"v{candidate} is active already: there is nothing to roll out.")])
    if not control:
        refuse(
            [
                complaint(
                    "version",
                    "The job has no active version to go back to: cut over to its first one (`turnout cutover`).",
                )
            ]
        )
    return checked(plan)


def complaint(field: str, text: str) -> Violation:
    """What is wrong with a field of the rollout, such as "plan.steps[2]"."""
    return Violation("INVALID_PLAN", f"rollout.{field}", text)


def refuse(complaints: Sequence[Violation]) -> None:
    """InvalidInput (INVALID_PLAN) with all complaints, if there are any."""
    if complaints:
        told = " ".join(one.description for one in complaints)
        raise InvalidInput("INVALID_PLAN", told, violations=tuple(complaints))


def _of_steps(steps: Sequence[Step]) -> Iterator[Violation]:
    if not 1 <= len(steps) <= STEPS_MAX:
        yield complaint("plan.steps", f"The plan has {len(steps)} steps; give 1 to {STEPS_MAX}.")
    for place, step in enumerate(steps):
        for told in _of_step(step):
            yield complaint(f"plan.steps[{place}]", f"Step {place + 1}, {step.label}: {told}")


def _of_step(step: Step) -> Iterator[str]:
    kind = step.kind
    if kind in SHARED and not 0 < step.share <= WHOLE:
        yield "its share must be above 0 and at most 100 %."
    if kind not in SHARED and step.share:
        yield "it has no share; leave it out."
    for name, seconds, allowed in (("for", step.for_s, TIMED), ("within", step.within_s, LIMITED)):
        if seconds and kind not in allowed:
            yield f"it has no `{name}`; leave it out."
        elif not 0 <= seconds <= TIME_MAX_S:
            yield f"`{name}` must be 0 to 90 days."
    if step.within_s and step.within_s <= step.for_s:
        yield "`within` is the limit of all its time, and must be longer than `for`."
    if step.contract and kind is not StepKind.COMPARE:
        yield "it compares nothing; leave the contract out."
    if step.no_worse and not step.beside:
        yield "`no-worse` compares with the active version; only traffic below 100 % can."
    if not step.for_s and (kind in (StepKind.SHADOW, StepKind.SOAK) or (step.beside and not step.no_worse)):
        until = ", or until what is shown (`until: no-worse`)" if step.beside else ""
        yield f"it would be over at once. Say for how long (`for: 1h`){until}."


def _of_order(steps: Sequence[Step]) -> Iterator[Violation]:
    kinds = [step.kind for step in steps]
    moves = [(place, step.share) for place, step in enumerate(steps) if step.kind is StepKind.TRAFFIC]
    for (_, before), (place, share) in pairwise(moves):
        if share <= before:
            told = "The shares of traffic must grow from step to step: whoever was given the candidate keeps it."
            yield _at(place, told)
    if not moves or moves[-1][1] != WHOLE:
        yield complaint(
            "plan.steps",
            "The plan must end with everybody on the candidate: add `- traffic: 100 %`, and behind it a soak.",
        )
        return
    whole, last = moves[-1][0], len(kinds) - 1
    for place, kind in enumerate(kinds):
        if kind is StepKind.REPLAY and place:
            yield _at(place, "replay can only be the first step.")
        if kind in (StepKind.COMPARE, StepKind.SHADOW) and place > whole:
            told = "must come before traffic 100 %: afterwards there is nothing left to be held back."
            yield _at(place, f"{kind.value} {told}")
        if kind is StepKind.SOAK and place < whole:
            yield _at(place, "soak must come after traffic 100 %; to stay with a share, give that step a longer `for`.")
        if kind is StepKind.RETIRE and place < last:
            yield _at(place, "retire can only be the last step.")
    if kinds[last] is StepKind.APPROVE:
        yield _at(last, "Nothing comes after the last approve; leave it out.")


def _at(place: int, text: str) -> Violation:
    return complaint(f"plan.steps[{place}]", text)


def _of_guardrails(plan: Plan) -> Iterator[Violation]:
    for field, told in spec.faults(experiment(plan, control=1, candidate=2, share=1)):
        yield complaint(f"plan.guardrails.{field.removeprefix('plan.')}", told)
