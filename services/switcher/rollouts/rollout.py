"""A rollout, and how it goes from step to step. Pure.

    PENDING ──▶ RUNNING ──▶ SUCCEEDED      ROLLING_BACK ──▶ ROLLED_BACK   a gate failed
                 │   ▲                      ▲        ├────▶ ABORTED       a person aborted it
                 ▼   │                      │        └────▶ FAILED        it was not given the route
                PAUSED ─────────────────────┘  (also from PENDING and RUNNING)

A person who rolls its cutover back ends it as ROLLED_BACK, too. Where the candidate cannot be taken back, because
others made it the active version and no way back leads to the control, it ends as ABORTED, and says who serves.

Each step is first *taken*, by an act outside of this table (`acts`), then *watched* until its gates pass. The rollout
is stored before an act is carried out and after it is known to be done: whatever dies between the two repeats the act,
which its request id makes one. So a stored rollout alone says all that is left to do.

What a failed gate needs is never held up: not by a pause, nor by stale data elsewhere. Everything else waits while it
cannot be known how the candidate does.
"""

import enum
import math
from collections.abc import Mapping, Sequence
from datetime import datetime, timedelta
from typing import Any, Final

import msgspec

from services.switcher.rollouts.plan import Gate, Plan, Step, StepKind, guards
from services.switcher.rollouts.verdicts import Finding, GateVerdict, Overall, overall
from turnout.routing import WHOLE

CLAIM: Final = -1
"""The place before the first step: the rollout is to own the route."""
NOTED_EVERY_S: Final = 600.0
"""At least so long lies between two freezes of a step that leave a record: what fails and answers each second must not
fill the table of decisions."""
GAP_MAX_S: Final = 30.0
"""The most that one look at the gates counts as time of watching: nobody watched while the switcher was down."""
_WITHOUT_ACT: Final = frozenset({StepKind.APPROVE, StepKind.SOAK})


class State(enum.Enum):
    """Where a rollout stands."""

    PENDING = "PENDING"  # it does not own the route yet
    RUNNING = "RUNNING"
    PAUSED = "PAUSED"  # nothing moves forward until a person says so; a gate that fails still takes the candidate back
    ROLLING_BACK = "ROLLING_BACK"  # the candidate's weight goes to 0
    SUCCEEDED = "SUCCEEDED"
    ROLLED_BACK = "ROLLED_BACK"  # a gate failed, or a person rolled its cutover back; the candidate's weight is 0
    ABORTED = "ABORTED"  # a person aborted it, and the candidate's weight is 0; or others left no way back
    FAILED = "FAILED"  # it was not given the route

    @property
    def over(self) -> bool:
        """Whether nothing more will happen."""
        return self in _OVER


_OVER: Final = frozenset({State.SUCCEEDED, State.ROLLED_BACK, State.ABORTED, State.FAILED})


class Phase(enum.Enum):
    """What is being done about the present step."""

    TAKING = "TAKING"  # its act is to be carried out, and may have been
    WATCHING = "WATCHING"  # its act is done; its gates are asked


class Hold(enum.Enum):
    """Why a rollout is paused."""

    PERSON = "PERSON"
    INCONCLUSIVE = "INCONCLUSIVE"  # a gate, or the time limit of a step
    REFUSED = "REFUSED"  # the step's act was refused
    OVERRULED = "OVERRULED"  # somebody changed the route over its head


class Overruling(enum.Enum):
    """What somebody made of the route over a rollout's head."""

    CUT_OVER = "CUT_OVER"  # the candidate is the active version; a rollback leads to the control
    ROLLED_BACK = "ROLLED_BACK"  # the rollout's own cutover was rolled back: the control has all units
    CHANGED = "CHANGED"  # anything else


class Rollout(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """All there is to know; stored as it is."""

    uid: str
    job: str
    candidate: int
    control: int  # the version that was active at the start
    plan: Plan
    since: datetime  # when it came to the present state, step and phase
    state: State = State.PENDING
    step: int = CLAIM  # place in the plan; CLAIM before the first, len(steps) after the last: the route is given back
    phase: Phase = Phase.TAKING
    attempt: int = 1  # number of the act, over the whole rollout: no two acts share a request id
    claimed: bool = False  # whether it owns the route, as far as it knows
    exposed: int = 0  # basis points that the candidate was given by acts that are done
    retiring: bool = False  # whether the retirement of the control may have begun
    taken_back: bool = False  # whether that was taken back since, on the way back
    disowned: bool = False  # a person has rolled its cutover back: what the route is now is not the rollout's own
    watched_s: float = 0.0  # how long the present step has been watched
    unread_s: float = 0.0  # of that: while no unit of the candidate was counted, so that harm could not be seen
    watched_at: datetime | None = None  # when its gates last answered; None = since then they have not
    promoted: bool = False  # a person passes over what the present step would wait for
    passed_over: tuple[Gate, ...] = ()  # over whose INCONCLUSIVE a person goes on, in the present step
    skipped: tuple[int, ...] = ()  # places of the steps that a person did not wait for
    hold: Hold | None = None  # why it is PAUSED
    overruling: Overruling | None = None  # what it is PAUSED for as OVERRULED
    undecided: tuple[Gate, ...] = ()  # which gates it is PAUSED for
    frozen: str = ""  # why nothing moves forward for now although it is RUNNING; "" = it does
    freezes: int = 0  # how often that began in the present step
    noted: datetime | None = None  # when the last of them that is on record began
    on_record: bool = False  # whether the present one is
    waits_for: str = ""  # in words; "" = nothing
    ending: State | None = None  # what ROLLING_BACK ends in
    why: str = ""  # why it came to where it is, in one sentence with its numbers

    @property
    def present(self) -> Step | None:
        """The present step; None before the first and after the last."""
        return self.plan.steps[self.step] if 0 <= self.step < len(self.plan.steps) else None

    @property
    def target(self) -> int:
        """Basis points that the candidate has, or will have once the present act is done."""
        step = self.present
        taking = step is not None and step.kind is StepKind.TRAFFIC and self.phase is Phase.TAKING
        return step.share if taking and step is not None else self.exposed


class RouteSeen(msgspec.Struct, frozen=True):
    """The route at one moment."""

    owned: bool  # by the rollout
    active: int
    weight: int  # the candidate's, basis points
    change: str  # the last one and whose, for people
    back: int = 0  # the active version of its way back; 0 = there is none
    rolled_back: bool = False  # whether the last change was a rollback


class Seen(msgspec.Struct, frozen=True):
    """What is seen at one moment. overruled: how the route is not as the rollout left it; "" = it is."""

    findings: tuple[Finding, ...] = ()
    overruled: str = ""
    overruling: Overruling = Overruling.CHANGED


def begun(uid: str, job: str, candidate: int, control: int, plan: Plan, now: datetime) -> Rollout:
    """A rollout before its first act. The plan is checked."""
    return Rollout(uid, job, candidate, control, plan, now)


def overruled(rollout: Rollout, route: RouteSeen) -> str:
    """How somebody changed the route over the rollout's head, in a sentence; "" = nobody did."""
    if not rollout.claimed:
        return ""
    weights = {rollout.exposed, rollout.target}
    active = {rollout.candidate if weight == WHOLE else rollout.control for weight in weights}
    # It may have been given back already, of which only the result was lost.
    owned = route.owned or rollout.step == len(rollout.plan.steps)
    if owned and route.weight in weights and route.active in active:
        return ""
    if overruling(rollout, route) is Overruling.ROLLED_BACK:
        return (
            f"The cutover to v{rollout.candidate} was rolled back ({route.change}): v{route.active} is active, and "
            f"nobody reads v{rollout.candidate}."
        )
    return (
        f"The route was changed over the rollout's head ({route.change}): v{route.active} is active and "
        f"v{rollout.candidate} has {route.weight / 100:g} % instead of {rollout.exposed / 100:g} %."
    )


def overruling(rollout: Rollout, route: RouteSeen) -> Overruling:
    """What this route, which is neither as the rollout left it nor as its act makes it, means to the rollout."""
    given_back = route.active == rollout.control and route.weight == 0
    if route.rolled_back and given_back and WHOLE in (rollout.exposed, rollout.target):
        return Overruling.ROLLED_BACK
    if route.active == rollout.candidate and route.back == rollout.control:
        return Overruling.CUT_OVER
    return Overruling.CHANGED


# --- what is asked --------------------------------------------------------------------------------------------------


def asks(rollout: Rollout) -> tuple[Gate, ...]:
    """The gates whose answers decide what comes next, if only on taking the candidate back."""
    if rollout.state not in (State.RUNNING, State.PAUSED) or rollout.step == CLAIM:
        return ()
    step = rollout.present
    own = step.gates if step is not None and rollout.phase is Phase.WATCHING else ()
    return tuple(dict.fromkeys((*own, *_guards(rollout))))


def _guards(rollout: Rollout) -> tuple[Gate, ...]:
    # An act that is under way may have been carried out already.
    return tuple(dict.fromkeys((*guards(rollout.exposed), *guards(rollout.target))))


def advanced(rollout: Rollout, seen: Seen, now: datetime) -> Rollout:
    """The rollout after a look at its gates and at the route; the same one where nothing follows."""
    if rollout.state not in (State.RUNNING, State.PAUSED) or rollout.step == CLAIM:
        return rollout
    told = overall(asks(rollout), seen.findings, rollout.passed_over)
    overruled = bool(seen.overruled) and rollout.claimed
    if overruled and seen.overruling is Overruling.ROLLED_BACK:
        disowned = msgspec.structs.replace(rollout, disowned=True)
        return rolling_back(disowned, State.ROLLED_BACK, seen.overruled, now)
    if told.verdict is GateVerdict.FAIL:
        return rolling_back(rollout, State.ROLLED_BACK, told.sentence, now)
    if overruled:
        return _overruled(rollout, seen, now)
    if rollout.state is State.PAUSED:
        return rollout
    if told.verdict is GateVerdict.INCONCLUSIVE:
        return paused(rollout, Hold.INCONCLUSIVE, told.sentence, now, told.gates)
    if rollout.phase is Phase.TAKING or not rollout.claimed:
        return _cleared_to_act(rollout, told, now)
    return _watched(rollout, told, now)


def _overruled(rollout: Rollout, seen: Seen, now: datetime) -> Rollout:
    if rollout.hold is Hold.OVERRULED and rollout.overruling is seen.overruling:
        return rollout
    held = paused(rollout, Hold.OVERRULED, seen.overruled, now)
    return msgspec.structs.replace(held, overruling=seen.overruling)


def _cleared_to_act(rollout: Rollout, told: Overall, now: datetime) -> Rollout:
    """Readers that have the candidate must be seen to do well before anything moves on."""
    frozen = told.sentence if told.verdict is GateVerdict.STALE else ""
    if frozen == rollout.frozen:
        return rollout
    after = _frozen(rollout, frozen, now) if frozen else _thawed(rollout)
    return msgspec.structs.replace(after, waits_for=frozen)


def _frozen(rollout: Rollout, why: str, now: datetime) -> Rollout:
    if rollout.frozen:
        return msgspec.structs.replace(rollout, frozen=why)
    on_record = rollout.noted is None or (now - rollout.noted).total_seconds() >= NOTED_EVERY_S
    noted = now if on_record else rollout.noted
    return msgspec.structs.replace(rollout, frozen=why, freezes=rollout.freezes + 1, noted=noted, on_record=on_record)


def _thawed(rollout: Rollout) -> Rollout:
    return msgspec.structs.replace(rollout, frozen="", on_record=False)


def _watched(rollout: Rollout, told: Overall, now: datetime) -> Rollout:
    step = rollout.present
    assert step is not None, "only a step is watched"
    if told.verdict is GateVerdict.STALE:
        frozen = _frozen(rollout, told.sentence, now)
        return msgspec.structs.replace(frozen, waits_for=told.sentence, watched_at=None)
    waiting, passed_s = told.verdict is GateVerdict.WAIT, _since_last_look(rollout, now)
    rollout = msgspec.structs.replace(
        _thawed(rollout),
        watched_at=now,
        watched_s=rollout.watched_s + passed_s,
        unread_s=rollout.unread_s + (passed_s if waiting and Gate.HARM in told.gates else 0.0),
    )
    left_s = step.for_s - (rollout.watched_s - rollout.unread_s)
    waits_for = told.sentence if waiting else ""
    if step.kind is StepKind.APPROVE:
        waits_for = "a person, who promotes or aborts it"
    elif not waits_for and left_s > 0:
        waits_for = f"{_shown(left_s)} more of {step.label}"
    if not waits_for:
        return entered(rollout, rollout.step + 1, told.sentence or f"{step.label} is done.", now)
    if step.within_s and rollout.watched_s >= step.within_s:
        why = f"{step.label} is undecided after {_shown(rollout.watched_s)}, its limit: {waits_for}"
        return paused(rollout, Hold.INCONCLUSIVE, why, now)
    return msgspec.structs.replace(rollout, waits_for=waits_for)


def _shown(seconds: float) -> timedelta:
    return timedelta(seconds=math.ceil(seconds))


def _since_last_look(rollout: Rollout, now: datetime) -> float:
    if rollout.watched_at is None:
        return 0.0
    return min(max(0.0, (now - rollout.watched_at).total_seconds()), GAP_MAX_S)


# --- where it goes --------------------------------------------------------------------------------------------------


AFRESH: Final[Mapping[str, Any]] = {
    "watched_s": 0.0,
    "unread_s": 0.0,
    "watched_at": None,
    "promoted": False,
    "passed_over": (),
    "hold": None,
    "overruling": None,
    "undecided": (),
    "frozen": "",
    "freezes": 0,
    "noted": None,
    "on_record": False,
    "waits_for": "",
}
"""What a new step, or the way back, begins with."""


def entered(rollout: Rollout, place: int, why: str, now: datetime) -> Rollout:
    """RUNNING at a step of the plan, whose act (if it has one) is to be carried out."""
    kind = rollout.plan.steps[place].kind if place < len(rollout.plan.steps) else None
    return msgspec.structs.replace(
        rollout,
        state=State.RUNNING,
        step=place,
        phase=Phase.WATCHING if kind in _WITHOUT_ACT else Phase.TAKING,
        attempt=rollout.attempt + 1,
        retiring=rollout.retiring or kind is StepKind.RETIRE,
        skipped=tuple(one for one in rollout.skipped if one < place),
        since=now,
        why=why,
        **AFRESH,
    )


def passed(rollout: Rollout, why: str, now: datetime) -> Rollout:
    """At the next step, because a person does not wait for the present one, or is who it waited for."""
    after, step = entered(rollout, rollout.step + 1, why, now), rollout.present
    if step is not None and step.kind is StepKind.APPROVE:
        return after
    return msgspec.structs.replace(after, skipped=(*after.skipped, rollout.step))


def rolling_back(rollout: Rollout, ending: State, why: str, now: datetime) -> Rollout:
    """On the way back, at once."""
    return msgspec.structs.replace(
        rollout,
        state=State.ROLLING_BACK,
        phase=Phase.TAKING,
        attempt=rollout.attempt + 1,
        since=now,
        ending=ending,
        why=why,
        **AFRESH,
    )


def ended(rollout: Rollout, state: State, why: str, now: datetime) -> Rollout:
    """Over."""
    return msgspec.structs.replace(rollout, state=state, since=now, why=why or rollout.why, **AFRESH)


def paused(rollout: Rollout, hold: Hold, why: str, now: datetime, undecided: Sequence[Gate] = ()) -> Rollout:
    return msgspec.structs.replace(
        rollout,
        state=State.PAUSED,
        hold=hold,
        overruling=None,
        undecided=tuple(undecided),
        since=now,
        watched_at=None,
        frozen="",
        on_record=False,
        waits_for="a person, who resumes, promotes or aborts it",
        why=why,
    )
