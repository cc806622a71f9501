"""Whether one could come back from a cutover, and how well: the gate "rollback", and readiness as figures. Pure.

A way back is proven when every live front can read what the route named before, and the runs of those versions are
alive, so that their tables stay fresh. A first cutover has nothing to go back to, and passes.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from core.domain.text import sentence
from services.switcher.adoption import Front
from services.switcher.gates import Said, answer, refuse_failed
from services.switcher.questions import ROLLBACK
from services.switcher.records import GateAnswer
from services.switcher.switch import Change, RollBack, State, decide
from turnout.errors import TurnoutError
from turnout.names import VersionId
from turnout.routing import Route

ALIVE = ("REPLAYING", "TAILING", "COMPLETED")
"""States of a run whose table is fresh, or as it is to stay."""
RESTARTED = ("PAUSED", "STOPPED")
"""States of a run that a rollback to its version resumes."""
_FIRST = "It is the first version: there is nothing to go back to."


@dataclass(frozen=True, slots=True)
class Applied:
    """How far a table is in one partition."""

    next_offset: int
    event_time: datetime | None


@dataclass(frozen=True, slots=True)
class RunSeen:
    """What the replayer says of a version's run; `problem`: why it could not be looked at."""

    version: int
    state: str = ""
    problem: str = ""
    lag: int = 0  # offsets to the end of the log
    why: str = ""  # of a failure
    applied: Mapping[tuple[str, int], Applied] = field(default_factory=dict)
    retention: str = ""  # what of the log it will lose, in words
    retention_time: datetime | None = None


def way_back_gate(change: Change, runs: Iterable[RunSeen], fronts: Sequence[Front]) -> tuple[GateAnswer, ...]:
    """The answer of the gate "rollback"; none where the change is no cutover."""
    if not change.moves_on:
        return ()
    job, candidate = change.route.job, change.route.active_version
    back = change.way_back
    if back is None:
        return (answer(candidate, Said(ROLLBACK, True, (_FIRST,)), change.overridden),)
    against = [problem for run in runs if (problem := run_problem(job, run))] + unreadable(change, fronts)
    told = f"A rollback would return to v{back.active_version}, whose run is alive and which every live front can read."
    said = Said(ROLLBACK, not against, tuple(against) or (told,))
    return (answer(candidate, said, change.overridden),)


def run_problem(job: str, run: RunSeen, *, of_rollback: bool = False) -> str:
    """Why a version would not be fresh to come back to; empty where it would. A rollback resumes one that rests."""
    version = VersionId(job, run.version)
    if run.problem:
        return sentence(f"the run of {version} could not be looked at: {run.problem}")
    if run.state in ALIVE:
        return ""
    why = f" ({run.why})" if run.why else ""
    resume = "resume it, or the rollback does" if of_rollback and run.state in RESTARTED else "resume it"
    return f"The run of {version} is {run.state}{why}, so that its table goes stale: {resume}."


def unreadable(change: Change, fronts: Sequence[Front]) -> list[str]:
    """Live fronts that cannot read back what the change leaves, and why; one sentence each."""
    if not change.to_read_back:
        return []
    return _blind(fronts)


def _blind(fronts: Iterable[Front]) -> list[str]:
    return [
        sentence(f"the front {front.front} cannot read what a rollback would return to: {front.way_back_problem}")
        for front in fronts
        if front.live and front.way_back_problem
    ]


def refuse_unreadable(change: Change, fronts: Sequence[Front]) -> None:
    """FailedPrecondition (GATES_FAILED) where a live front cannot read back what the change leaves."""
    if against := unreadable(change, fronts):
        said = answer(change.route.active_version, Said(ROLLBACK, False, tuple(against)), change.overridden)
        refuse_failed(change.route.job, (said,))


# --- readiness ------------------------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Staleness:
    """How far a table is behind another one of its job."""

    offsets: int
    event_time: timedelta


def staleness(target: RunSeen, active: RunSeen) -> Staleness | None:
    """How far the target is behind the active version, over the partitions that both read; None where it is not known.

    offsets: the sum. event_time: of the partition that is furthest behind.
    """
    shared = target.applied.keys() & active.applied.keys()
    if not shared:
        return None
    offsets, late = 0, timedelta()
    for partition in shared:
        ours, theirs = target.applied[partition], active.applied[partition]
        behind = theirs.next_offset - ours.next_offset
        if behind <= 0:
            continue
        offsets += behind
        if ours.event_time is not None and theirs.event_time is not None:
            late = max(late, theirs.event_time - ours.event_time)
    return Staleness(offsets, late)


@dataclass(frozen=True, slots=True)
class RowsDiffering:
    """How many keys of two versions differ, of all keys of both, when they were compared, and the comparison's name."""

    keys: int
    share: float
    compare_time: datetime
    comparison: str


@dataclass(frozen=True, slots=True)
class Readiness:
    """What a rollback would do now. `target`: the route that it would restore; None = it would be refused. `problems`
    speak against it; `warnings` tell what else it would bring about."""

    possible: bool
    problems: tuple[str, ...]
    warnings: tuple[str, ...] = ()
    target: Route | None = None
    staleness: Staleness | None = None
    lag: int = 0
    rows_differing: RowsDiffering | None = None
    protected_until: datetime | None = None
    fresh_until: datetime | None = None


def readiness(
    state: State,
    now: datetime,
    runs: Mapping[int, RunSeen],
    differing: RowsDiffering | None,
    fronts: Iterable[Front] = (),
) -> Readiness:
    """Whether a rollback would be accepted, and what readers would come back to.

    `runs` holds those of the route to restore and of the active version; `differing` is what is known of the rows of
    the two active versions; `fronts` tell what they said when the present route was proposed to them. A front that
    could not read the way back then does not make a rollback impossible: it may be able to now, and is asked by it.
    """
    try:
        change = decide(state, RollBack(), now, timedelta())
    except TurnoutError as error:
        return Readiness(False, (error.message,))
    target = state.open_way_back
    assert target is not None, "a rollback without an open way back is refused"
    assert state.route is not None, "a way back is the one from a route"
    named = [runs[version] for version in sorted(target.versions) if version in runs]
    told = [problem for run in named if (problem := run_problem(state.job, run, of_rollback=True))]
    told += _blind(fronts)
    told += [sentence(run.retention) for run in named if run.retention]
    losing = [run.retention_time for run in named if run.retention_time is not None]
    back, active = runs.get(target.active_version), runs.get(state.route.active_version)
    return Readiness(
        possible=True,
        problems=tuple(told),
        warnings=change.warnings if isinstance(change, Change) else (),
        target=target,
        staleness=staleness(back, active) if back is not None and active is not None else None,
        lag=back.lag if back is not None else 0,
        rows_differing=differing,
        protected_until=state.protected_until,
        fresh_until=min(losing, default=None),
    )
