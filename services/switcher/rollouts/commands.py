"""What people say to a rollout. Pure; each verb said twice does what it does once.

=========  ================================================================================================
pause      nothing moves forward; gates go on being watched, and one that fails still takes the candidate back
resume     goes on. What it was paused for is tried again, or passed over where trying would tell nothing new
promote    passes over what is left to wait for of the step it names; never over an act, nor over harm
abort      takes the candidate back to weight 0; nothing where there is nothing to abort
=========  ================================================================================================

A reason is one sentence for people: who said it, and why.
"""

from datetime import datetime
from typing import Final

import msgspec

from services.switcher.rollouts.plan import StepKind
from services.switcher.rollouts.rollout import (
    CLAIM,
    Hold,
    Overruling,
    Phase,
    Rollout,
    State,
    entered,
    passed,
    paused,
    rolling_back,
)
from services.switcher.rollouts.verdicts import may_be_passed_over
from turnout.errors import FailedPrecondition, InvalidInput

_FOR_ITS_VERDICT: Final = frozenset({StepKind.COMPARE, StepKind.SHADOW})
"""Steps whose act serves nothing but the step's own gates: passing over these is passing over the act."""


def pause(rollout: Rollout, why: str, now: datetime) -> Rollout:
    """FailedPrecondition (ROLLOUT_OVER, ROLLOUT_ROLLING_BACK)."""
    if rollout.state is State.PAUSED:
        return rollout
    _refuse_over(rollout)
    _refuse_on_its_way_back(rollout)
    return paused(rollout, Hold.PERSON, why, now)


def resume(rollout: Rollout, why: str, now: datetime) -> Rollout:
    """FailedPrecondition (ROLLOUT_OVER, ROLLOUT_ROLLING_BACK)."""
    if rollout.state in (State.PENDING, State.RUNNING):
        return rollout
    _refuse_over(rollout)
    _refuse_on_its_way_back(rollout)
    if rollout.step == CLAIM:
        return msgspec.structs.replace(_running(rollout, why, now), state=State.PENDING)
    match rollout.hold:
        case Hold.OVERRULED:
            return _taken_over_again(rollout, why, now)
        case Hold.REFUSED:
            return msgspec.structs.replace(_running(rollout, why, now), attempt=rollout.attempt + 1)
        case Hold.INCONCLUSIVE:
            return _tried_again(rollout, why, now)
        case _:
            return _compared_anew(rollout, why, now)


def promote(rollout: Rollout, place: int, why: str, now: datetime) -> Rollout:
    """Pass over the step at this place of the plan (from 0); nothing where the rollout is past it.

    InvalidInput (INVALID_STEP) for a place outside of the plan. FailedPrecondition (ROLLOUT_OVER, ROLLOUT_ROLLING_BACK,
    ROLLOUT_NOT_THERE, STEP_NOT_TAKEN).
    """
    if not 0 <= place < len(rollout.plan.steps):
        raise InvalidInput(
            "INVALID_STEP", f"The plan has {len(rollout.plan.steps)} steps; {place + 1} is none of them."
        )
    _refuse_on_its_way_back(rollout)
    if rollout.state is State.SUCCEEDED:
        return rollout
    _refuse_over(rollout)
    if place < rollout.step:
        return rollout
    if place > rollout.step:
        raise FailedPrecondition(
            "ROLLOUT_NOT_THERE",
            f"The rollout is at {_where(rollout)}, not yet at step {place + 1}, {rollout.plan.steps[place].label}. "
            "Promote it past the step where it is.",
        )
    return _past(rollout, why, now)


def abort(rollout: Rollout, why: str, now: datetime) -> Rollout:
    """Take the candidate back; what is over, or on its way back already, stays as it is."""
    if rollout.state.over or rollout.state is State.ROLLING_BACK:
        return rollout
    return rolling_back(rollout, State.ABORTED, why, now)


# --- resume ---------------------------------------------------------------------------------------------------------


def _running(rollout: Rollout, why: str, now: datetime) -> Rollout:
    return msgspec.structs.replace(
        rollout, state=State.RUNNING, hold=None, undecided=(), since=now, watched_at=None, waits_for="", why=why
    )


def _compared_anew(rollout: Rollout, why: str, now: datetime) -> Rollout:
    """As it was; but tables that were compared before the pause may differ by now."""
    step = rollout.present
    if step is None or step.kind is not StepKind.COMPARE or rollout.phase is not Phase.WATCHING:
        return _running(rollout, why, now)
    again = entered(rollout, rollout.step, why, now)
    return msgspec.structs.replace(again, passed_over=rollout.passed_over)


def _tried_again(rollout: Rollout, why: str, now: datetime) -> Rollout:
    """The same step from its beginning: its act, its gates, its times. The act is another one than before."""
    passed_over = (*rollout.passed_over, *may_be_passed_over(rollout.undecided))
    # Another look would find the same: the step goes on as it is.
    if rollout.undecided and set(rollout.undecided) <= set(passed_over) and rollout.phase is Phase.WATCHING:
        again = _running(rollout, why, now)
    elif rollout.phase is Phase.WATCHING:
        again = entered(rollout, rollout.step, why, now)
    else:
        again = _running(rollout, why, now)
    return msgspec.structs.replace(again, passed_over=tuple(dict.fromkeys(passed_over)))


def _taken_over_again(rollout: Rollout, why: str, now: datetime) -> Rollout:
    """The route is claimed anew, and brought to where it was before somebody changed it.

    Where that made the candidate active, it is left so, which passes over the steps before.
    """
    cut_over = rollout.overruling is Overruling.CUT_OVER
    place = rollout.plan.last_traffic(len(rollout.plan.steps) if cut_over else rollout.step)
    again = entered(rollout, rollout.step if place is None else place, why, now)
    over = [one for one in range(rollout.step, again.step) if rollout.plan.steps[one].kind is not StepKind.APPROVE]
    return msgspec.structs.replace(again, claimed=False, skipped=(*again.skipped, *over))


# --- promote --------------------------------------------------------------------------------------------------------


def _past(rollout: Rollout, why: str, now: datetime) -> Rollout:
    step = rollout.present
    assert step is not None, "the place is one of the plan's and the rollout is there"
    if rollout.hold is Hold.OVERRULED:
        raise FailedPrecondition(
            "STEP_NOT_TAKEN",
            f"{rollout.why} Resume the rollout, so that it takes the route over again, or abort it.",
        )
    if step.kind is StepKind.RETIRE and rollout.hold is not Hold.REFUSED:
        waits = f": it waits for {rollout.waits_for.rstrip('.')}." if rollout.waits_for else "."
        resume = ". Resume the rollout to let it go on." if rollout.state is State.PAUSED else ""
        raise FailedPrecondition(
            "STEP_NOT_TAKEN", f"{step.label} has nothing that could be passed over{resume or waits}"
        )
    if rollout.phase is Phase.WATCHING or step.kind in _FOR_ITS_VERDICT:
        return passed(rollout, why, now)
    if rollout.hold is Hold.REFUSED:
        raise FailedPrecondition(
            "STEP_NOT_TAKEN",
            f"{step.label} was refused and has to be done before the next step: {rollout.why} Mend that and resume the "
            "rollout, or abort it.",
        )
    if rollout.promoted and rollout.state is State.RUNNING:
        return rollout
    going_on = rollout if rollout.state is State.RUNNING else _tried_again(rollout, why, now)
    return msgspec.structs.replace(going_on, promoted=True, why=why)


# --- refusals -------------------------------------------------------------------------------------------------------


def _refuse_over(rollout: Rollout) -> None:
    if rollout.state.over:
        raise FailedPrecondition(
            "ROLLOUT_OVER",
            f"The rollout is over ({rollout.state.value}): {rollout.why} Start another one.",
        )


def _refuse_on_its_way_back(rollout: Rollout) -> None:
    if rollout.state is State.ROLLING_BACK:
        raise FailedPrecondition(
            "ROLLOUT_ROLLING_BACK",
            f"The candidate is being taken back, which nothing holds up: {rollout.why} Start another rollout "
            "afterwards.",
        )


def _where(rollout: Rollout) -> str:
    step = rollout.present
    if step is None:
        return "its very beginning" if rollout.step == CLAIM else "its end"
    return f"step {rollout.step + 1}, {step.label}"
