"""The retirement of a version: a saga, decided here, driven by `saga.py`, stored after every decision.

Theory of operation. `next_action` says which call the stored step asks for; the shell makes it and gives the outcome to
`after`, which says what to store. A crash anywhere repeats the call of the stored step; every call is idempotent.

    step        call                        when it is done           when refused or away
    RELEASE     switcher.ReleaseVersion     STOP_RUN                  refused: the end, REGISTERED; away: again
    STOP_RUN    replayer.StopRun            RETAIN, state RETIRED     again
    RETAIN      none until drop_time, then
                switcher.ReleaseVersion     DRAIN, or DROP if clear   again
    DRAIN       switcher.ReleaseVersion     DROP once it is clear     again
    DROP        replayer.DropTable          DONE, state DROPPED       run goes on: STOP_RUN; refused: DRAIN; away: again
    DONE        none
    REINSTATE   switcher.ReinstateVersion   RESUME_RUN, or the end    again
    RESUME_RUN  replayer.ResumeRun          the end: REGISTERED       refused: the end; away: again

"Clear": still released, every front has drained, the SQL view has moved on. Entering DROP is the decision against which
an un-retirement is judged: both lock the version's row, so one comes first. From DROP on it is refused, because the
table may be gone although the answer was lost; a call that was refused has dropped nothing, so DRAIN follows. A run
that somebody has resumed in the meantime is stopped again, and the drop time stays as it was.

A release that is refused ends the retirement, also when nobody waits for the answer any more: what is refused today
must not take a way back in a month, when nobody thinks of it. The audit keeps why.

A version without a run retires all the same: RUN_NOT_FOUND counts as done. A run that cannot be resumed does not hold
up the version: the run's own state says why.
"""

from dataclasses import dataclass, replace
from datetime import datetime, timedelta
from enum import Enum
from typing import TypeAlias

from services.registry import lifecycle
from services.registry.lifecycle import Event, State
from turnout.errors import Aborted, FailedPrecondition, InvalidInput, TurnoutError, Unavailable
from turnout.names import VersionId

RETAIN_FOR_DEFAULT = timedelta(hours=24)
RETAIN_FOR_MAX = timedelta(days=3650)
POLL_S_MIN = 0.2
POLL_S_MAX = 1.0

_WITHOUT_RUN = ("RUN_NOT_FOUND", "TABLE_NOT_FOUND")
_RUN_GOES_ON = "RUN_NOT_STOPPED"


class Step(Enum):
    """What is done next."""

    RELEASE = "RELEASE"
    STOP_RUN = "STOP_RUN"
    RETAIN = "RETAIN"
    DRAIN = "DRAIN"
    DROP = "DROP"
    DONE = "DONE"
    REINSTATE = "REINSTATE"
    RESUME_RUN = "RESUME_RUN"


@dataclass(frozen=True, slots=True)
class Retirement:
    """A retirement as it is stored.

    claimed_actor: who asked for it, or, once it is taken back, who asked for that. drop_time: None until the run has
    stopped. waiting_for: words for a person. failures: attempts of this step that came to nothing, in a row.
    resume_run: an un-retirement resumes the run, because the retirement may have stopped it.
    """

    version: VersionId
    step: Step
    retain_for: timedelta
    forgo_rollback: bool
    claimed_actor: str
    start_time: datetime
    drop_time: datetime | None = None
    waiting_for: str = ""
    failures: int = 0
    resume_run: bool = False


# --- actions --------------------------------------------------------------------------------------------------------


class Call(Enum):
    """A call to another service."""

    RELEASE = "ReleaseVersion"
    STOP_RUN = "StopRun"
    DROP_TABLE = "DropTable"
    REINSTATE = "ReinstateVersion"
    RESUME_RUN = "ResumeRun"


@dataclass(frozen=True, slots=True)
class WaitUntil:
    """Nothing to do before that time."""

    time: datetime


@dataclass(frozen=True, slots=True)
class Nothing:
    """Nothing to do ever again."""


Action: TypeAlias = Call | WaitUntil | Nothing

_CALLS = {
    Step.RELEASE: Call.RELEASE,
    Step.STOP_RUN: Call.STOP_RUN,
    Step.RETAIN: Call.RELEASE,
    Step.DRAIN: Call.RELEASE,
    Step.DROP: Call.DROP_TABLE,
    Step.REINSTATE: Call.REINSTATE,
    Step.RESUME_RUN: Call.RESUME_RUN,
}


def next_action(retirement: Retirement, state: State, now: datetime) -> Action:
    """What the stored step asks for at this time."""
    if state is State.DROPPED or retirement.step is Step.DONE:
        return Nothing()
    if retirement.step is Step.RETAIN:
        assert retirement.drop_time is not None
        if now < retirement.drop_time:
            return WaitUntil(retirement.drop_time)
    return _CALLS[retirement.step]


# --- outcomes -------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Released:
    """Answer of ReleaseVersion: it is released, and how far the fronts and the view are."""

    undrained_fronts: tuple[str, ...] = ()
    drained: bool = True
    view_pending: bool = False

    @property
    def waits_for(self) -> str:
        """What still stands between the version and its drop; empty = clear."""
        if not self.drained:
            return f"fronts to end their reads of it: {', '.join(self.undrained_fronts) or 'not named'}"
        if self.view_pending:
            return "the SQL view to move to the active version; see the route's view for what blocks it"
        return ""


@dataclass(frozen=True, slots=True)
class Done:
    """The call was answered with success."""


@dataclass(frozen=True, slots=True)
class Failed:
    """The call was answered with an error, or not at all (then the error is Unavailable)."""

    error: TurnoutError

    @property
    def is_refusal(self) -> bool:
        """Whether the other service said no, so that the call has changed nothing."""
        return not isinstance(self.error, Unavailable)


Outcome: TypeAlias = Released | Done | Failed


@dataclass(frozen=True, slots=True)
class Change:
    """What is stored: the version's state and its retirement, None = the retirement is over and forgotten.

    why: what another service gave as the reason for the new state; empty where it is the step's ordinary end.
    """

    state: State
    retirement: Retirement | None
    next_time: datetime
    why: str = ""


def after(retirement: Retirement, state: State, outcome: Outcome, now: datetime) -> Change:
    """What follows from the outcome of the call that `next_action` named."""
    step = retirement.step
    if isinstance(outcome, Failed):
        without_run = outcome.error.reason in _WITHOUT_RUN and step in (Step.STOP_RUN, Step.DROP, Step.RESUME_RUN)
        unresumable = step is Step.RESUME_RUN and outcome.is_refusal
        if not without_run and not unresumable:
            return _after_failure(retirement, state, outcome, now)
    if step in (Step.RETAIN, Step.DRAIN):
        assert isinstance(outcome, Released)
        if outcome.waits_for:
            return _again(replace(retirement, step=Step.DRAIN), state, outcome.waits_for, now)
        return _on(retirement, state, Step.DROP, now)
    match step:
        case Step.RELEASE:
            return _on(retirement, state, Step.STOP_RUN, now)
        case Step.STOP_RUN:
            drop_time = retirement.drop_time or now + retirement.retain_for
            retained = replace(
                retirement,
                step=Step.RETAIN,
                drop_time=drop_time,
                waiting_for=f"the end of the retention, {drop_time:%Y-%m-%d %H:%M:%S} UTC",
                failures=0,
            )
            return Change(lifecycle.after(state, Event.RUN_STOPPED), retained, drop_time)
        case Step.DROP:
            return _on(retirement, lifecycle.after(state, Event.TABLE_DROPPED), Step.DONE, now)
        case Step.REINSTATE if retirement.resume_run:
            return _on(retirement, state, Step.RESUME_RUN, now)
        case Step.REINSTATE | Step.RESUME_RUN:
            return Change(lifecycle.after(state, Event.REINSTATED), None, now)
    raise AssertionError(f"{step} asks for no call")


def _after_failure(retirement: Retirement, state: State, failed: Failed, now: datetime) -> Change:
    step, error = retirement.step, failed.error
    if failed.is_refusal and step is Step.RELEASE:
        return Change(lifecycle.after(state, Event.REFUSED), None, now, error.message)
    if failed.is_refusal and step is Step.DROP:
        # A refused drop has dropped nothing: back to a step from which it can still be taken back.
        if error.reason == _RUN_GOES_ON:
            stopping = replace(retirement, step=Step.STOP_RUN)
            change = _again(stopping, lifecycle.after(state, Event.RUN_NOT_STOPPED), error.message, now)
            return replace(change, why=error.message)
        return _again(replace(retirement, step=Step.DRAIN), state, error.message, now)
    return _again(retirement, state, error.message, now)


def poll_s(failures: int) -> float:
    """How long to wait before the same call is made again, in seconds; doubles, with a bound."""
    return float(min(POLL_S_MIN * 2 ** min(failures, 10), POLL_S_MAX))


def _on(retirement: Retirement, state: State, step: Step, now: datetime) -> Change:
    return Change(state, replace(retirement, step=step, waiting_for="", failures=0), now)


def _again(retirement: Retirement, state: State, waiting_for: str, now: datetime) -> Change:
    held = replace(retirement, waiting_for=waiting_for, failures=retirement.failures + 1)
    return Change(state, held, now + timedelta(seconds=poll_s(retirement.failures)))


# --- commands of people ---------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Asked:
    """What a person asks for with a retirement."""

    retain_for: timedelta
    forgo_rollback: bool
    claimed_actor: str


def check_retain_for(asked: timedelta | None) -> timedelta:
    """How long a table is retained: None = 24 hours. InvalidInput unless it is 0 to 10 years."""
    if asked is None:
        return RETAIN_FOR_DEFAULT
    if not timedelta(0) <= asked <= RETAIN_FOR_MAX:
        raise InvalidInput("INVALID_RETENTION", f"retain_for is {asked}; use 0 to {RETAIN_FOR_MAX.days} days.")
    return asked


def retire(
    version: VersionId,
    state: State,
    retirement: Retirement | None,
    asked: Asked,
    now: datetime,
) -> Change | None:
    """Begin the retirement: what to store before the switcher is asked; None = nothing, because it goes on already.

    While the switcher has not released the version, each request asks it again. Aborted (UNRETIRE_IN_PROGRESS) while a
    retirement is being taken back.
    """
    if state is State.REGISTERED:
        begun = Retirement(
            version=version,
            step=Step.RELEASE,
            retain_for=asked.retain_for,
            forgo_rollback=asked.forgo_rollback,
            claimed_actor=asked.claimed_actor,
            start_time=now,
        )
        return Change(lifecycle.after(state, Event.RETIRE), begun, now)
    if retirement is not None and retirement.step in (Step.REINSTATE, Step.RESUME_RUN):
        raise Aborted(
            "UNRETIRE_IN_PROGRESS",
            f"The retirement of {version} is just being taken back. Wait until it is REGISTERED, then retire it.",
            metadata={"version": version.name},
        )
    if retirement is not None and retirement.step is Step.RELEASE:
        again = replace(
            retirement,
            retain_for=asked.retain_for,
            forgo_rollback=asked.forgo_rollback,
            claimed_actor=asked.claimed_actor,
        )
        return Change(state, again, now)
    return None


def unretire(
    version: VersionId, state: State, retirement: Retirement | None, claimed_actor: str, now: datetime
) -> Change | None:
    """Take the retirement back: what to store, None = nothing, because it is taken back already.

    FailedPrecondition (VERSION_DROPPED) from the moment the drop was decided.
    """
    if state is State.REGISTERED:
        return None
    if state is State.DROPPED or retirement is None or retirement.step in (Step.DROP, Step.DONE):
        raise FailedPrecondition(
            "VERSION_DROPPED",
            f"The table of {version} is dropped, or being dropped at this moment. Apply its code again to make a new "
            f"version, and replay it.",
            metadata={"version": version.name},
        )
    if retirement.step in (Step.REINSTATE, Step.RESUME_RUN):
        return None
    reinstated = replace(
        retirement,
        step=Step.REINSTATE,
        claimed_actor=claimed_actor,
        resume_run=retirement.step is not Step.RELEASE,
        drop_time=None,
        waiting_for="",
        failures=0,
    )
    return Change(lifecycle.after(state, Event.UNRETIRE), reinstated, now)
