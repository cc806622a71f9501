"""How the fronts take a proposal, and when that is enough. Pure.

A change may be committed when every live front is PREPARED for it; a NACK ends it. An emergency (a rollback, or traffic
back to the active version) may be committed as soon as every live front has answered (or the time limit is over) and at
least one can serve it, because a front that cannot must not keep the others on a version that harms.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime, timedelta
from enum import Enum


@dataclass(frozen=True, slots=True)
class Front:
    """A front, and what it has said about one proposal."""

    front: str
    live: bool  # its lease has not expired
    ended: bool = False  # it said goodbye
    silent_for: timedelta = timedelta()  # since its lease expired; negative while it is live
    may_serve_for: timedelta = timedelta()  # how long after that a read by what it has may still run
    prepared: bool = False
    nack: str | None = None  # why it cannot serve the proposal
    serving_at: datetime | None = None
    way_back_problem: str = ""  # prepared, but why it cannot read back what a rollback would return to

    @property
    def ready(self) -> bool:
        return self.prepared and self.nack is None


class Verdict(Enum):
    """What to do with a proposal."""

    WAIT = "WAIT"
    COMMIT = "COMMIT"
    CANCEL = "CANCEL"


@dataclass(frozen=True, slots=True)
class Readiness:
    """The verdict, and which live fronts are not ready and why."""

    verdict: Verdict
    not_ready: tuple[tuple[str, str], ...] = ()

    @property
    def complaint(self) -> str:
        """The fronts that are not ready, in words."""
        return "; ".join(f"{front}: {why}" for front, why in self.not_ready)


def readiness(fronts: Sequence[Front], *, emergency: bool, overdue: bool) -> Readiness:
    """Whether to commit. `overdue`: the time limit is over, so there is no more waiting."""
    live = [front for front in fronts if front.live]
    not_ready = tuple(
        (front.front, front.nack or "has not said that it is prepared") for front in live if not front.ready
    )
    if not not_ready:
        return Readiness(Verdict.COMMIT)
    answered = all(front.ready or front.nack is not None for front in live)
    if emergency:
        if not answered and not overdue:
            return Readiness(Verdict.WAIT, not_ready)
        some = any(front.ready for front in live)
        return Readiness(Verdict.COMMIT if some else Verdict.CANCEL, not_ready)
    refusing = tuple((front.front, front.nack) for front in live if front.nack is not None)
    if refusing:  # it ends here, and the others had no time to answer
        return Readiness(Verdict.CANCEL, refusing)
    return Readiness(Verdict.CANCEL if overdue else Verdict.WAIT, not_ready)


def adopted(fronts: Sequence[Front]) -> bool:
    """Whether every live front serves the committed route."""
    return all(front.serving_at is not None for front in fronts if front.live)


def not_counted(fronts: Sequence[Front]) -> tuple[str, ...]:
    """Fronts without a live lease that may still serve the route before: silent, but not longer than they may."""
    return tuple(
        front.front
        for front in fronts
        if not front.live and not front.ended and front.serving_at is None and front.silent_for < front.may_serve_for
    )
