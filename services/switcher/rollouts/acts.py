"""What a rollout does outside of its own table, one act at a time, and what becomes of it. Pure.

An act is due from the moment that the rollout says so until its result is stored. It may be carried out several times
in between, by a switcher that died or by one that woke up late; its request id makes them one. An act on the route is
committed only while it is still due, in the route's own transaction: an act that was overtaken by an abort comes to
nothing, however late.
"""

import enum
from datetime import datetime
from typing import Final

import msgspec

from services.switcher.rollouts.plan import StepKind
from services.switcher.rollouts.rollout import (
    CLAIM,
    Hold,
    Phase,
    Rollout,
    State,
    ended,
    entered,
    passed,
    paused,
    rolling_back,
)
from services.switcher.rollouts.verdicts import together
from turnout.routing import WHOLE


class ActKind(enum.Enum):
    """What is done."""

    CLAIM = "CLAIM"  # own the route; the control is active and the candidate's weight 0
    START_RUN = "START_RUN"
    COMPARE = "COMPARE"  # begin the comparison of the tables, or go on with it
    SHADOW = "SHADOW"  # answer a share of the reads from both
    EXPOSE = "EXPOSE"  # give the candidate a share of the units
    CUT_OVER = "CUT_OVER"  # make it the active version
    RETIRE = "RETIRE"  # begin to retire the control
    RELEASE = "RELEASE"  # own the route no longer, at the weights that it has
    TAKE_BACK = "TAKE_BACK"  # take the control's retirement back
    WITHDRAW = "WITHDRAW"  # the control is active, the candidate's weight is 0, and the route owned no longer


ON_ROUTE: Final = frozenset(
    {ActKind.CLAIM, ActKind.SHADOW, ActKind.EXPOSE, ActKind.CUT_OVER, ActKind.RELEASE, ActKind.WITHDRAW}
)
"""Acts on the route, each of which sets the whole of it: shadowing ends with the next one."""

_OF_STEP: Final = {
    StepKind.REPLAY: ActKind.START_RUN,
    StepKind.COMPARE: ActKind.COMPARE,
    StepKind.SHADOW: ActKind.SHADOW,
    StepKind.RETIRE: ActKind.RETIRE,
}


class Act(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """One act. share: basis points, of SHADOW and EXPOSE. claims: whether it takes a route over that nobody owns."""

    kind: ActKind
    request_id: str
    share: int = 0
    claims: bool = False


class Done(msgspec.Struct, frozen=True):
    """It is done, now or before."""


class Later(msgspec.Struct, frozen=True):
    """It could not be done now, or nobody knows whether it was: it is repeated. why: for people."""

    why: str


class Refused(msgspec.Struct, frozen=True):
    """It was not done, and repeating it would change nothing. why: for people."""

    why: str


class Overruled(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    """What it was for can be had no more, because others have decided otherwise. why: for people."""

    why: str


Result = Done | Later | Refused | Overruled


def due(rollout: Rollout) -> Act | None:
    """The act that is to be carried out now; None = there is nothing to do, or it must not be done at present."""
    if rollout.state is State.PENDING:
        return _act(rollout, ActKind.CLAIM)
    if rollout.state is State.ROLLING_BACK:
        return _act(rollout, ActKind.TAKE_BACK if _to_take_back(rollout) else ActKind.WITHDRAW)
    if rollout.state is not State.RUNNING or rollout.frozen:
        return None
    moves = rollout.present is not None and rollout.present.kind is StepKind.TRAFFIC
    if not rollout.claimed and not (moves and rollout.phase is Phase.TAKING):
        return _act(rollout, ActKind.CLAIM)
    return _of_step(rollout) if rollout.phase is Phase.TAKING else None


def _to_take_back(rollout: Rollout) -> bool:
    return rollout.retiring and not rollout.taken_back


def _of_step(rollout: Rollout) -> Act:
    step = rollout.present
    if step is None:
        return _act(rollout, ActKind.RELEASE)
    if step.kind is StepKind.TRAFFIC:
        return _act(rollout, ActKind.EXPOSE, step.share) if step.beside else _act(rollout, ActKind.CUT_OVER)
    return _act(rollout, _OF_STEP[step.kind], step.share)


def _act(rollout: Rollout, kind: ActKind, share: int = 0) -> Act:
    return Act(kind, request_id(rollout, kind), share, not rollout.claimed)


def request_id(rollout: Rollout, kind: ActKind) -> str:
    """The id of the present step's act, from when it is due until the step is left."""
    return f"{rollout.uid}-{rollout.step}-{rollout.attempt}-{kind.value.lower()}"


def acted(rollout: Rollout, act: Act, result: Result, now: datetime) -> Rollout:
    """The rollout once the result of an act is known; the same one where the act is not due (any longer)."""
    if due(rollout) != act:
        return rollout
    match result:
        case Done():
            return _done(rollout, act.kind, now)
        case Later(why):
            return msgspec.structs.replace(rollout, waits_for=why)
        case Refused(why):
            return _refused(rollout, act.kind, why, now)
        case Overruled(why):
            return _overruled(rollout, act.kind, why, now)


def _done(rollout: Rollout, kind: ActKind, now: datetime) -> Rollout:
    match kind:
        case ActKind.CLAIM:
            claimed = msgspec.structs.replace(rollout, claimed=True, waits_for="")
            return entered(claimed, 0, "The rollout owns the route.", now) if rollout.step == CLAIM else claimed
        case ActKind.RELEASE:
            given_back = msgspec.structs.replace(rollout, claimed=False)
            return ended(given_back, State.SUCCEEDED, "All steps are done.", now)
        case ActKind.TAKE_BACK:
            return msgspec.structs.replace(rollout, taken_back=True, attempt=rollout.attempt + 1, waits_for="")
        case ActKind.WITHDRAW:
            assert rollout.ending is not None, "a rollout on its way back knows where to"
            withdrawn = msgspec.structs.replace(rollout, claimed=False, exposed=0)
            return ended(withdrawn, rollout.ending, "", now)
        case _:
            return _taken(rollout, now)


def _taken(rollout: Rollout, now: datetime) -> Rollout:
    step = rollout.present
    assert step is not None, "only a step has an act of its own"
    taken = msgspec.structs.replace(
        rollout,
        phase=Phase.WATCHING,
        claimed=True,
        exposed=rollout.target,
        since=now,
        watched_s=0.0,
        unread_s=0.0,
        watched_at=None,
        waits_for="",
    )
    if rollout.promoted:
        return passed(taken, f"A person did not wait for {step.label}.", now)
    return taken


def _refused(rollout: Rollout, kind: ActKind, why: str, now: datetime) -> Rollout:
    if rollout.state is State.PENDING:
        # An earlier attempt, whose answer was lost, may have claimed the route all the same.
        return rolling_back(rollout, State.FAILED, why, now)
    if rollout.state is State.ROLLING_BACK:
        # Readers may still have the candidate, so it is tried for ever, and says why it waits. The two acts take turns:
        # what cannot be taken back may not have begun, and what was taken back may have begun late.
        taken_back = kind is ActKind.TAKE_BACK
        return msgspec.structs.replace(rollout, taken_back=taken_back, attempt=rollout.attempt + 1, waits_for=why)
    return paused(rollout, Hold.REFUSED, why, now)


def _overruled(rollout: Rollout, kind: ActKind, why: str, now: datetime) -> Rollout:
    if kind is ActKind.TAKE_BACK:
        # What was dropped is gone, and the next withdrawal has nothing to wait for.
        return msgspec.structs.replace(rollout, retiring=False, attempt=rollout.attempt + 1, waits_for=why)
    left = msgspec.structs.replace(rollout, claimed=False, exposed=WHOLE)
    return ended(left, State.ABORTED, together((rollout.why, why)), now)
