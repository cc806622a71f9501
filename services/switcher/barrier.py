"""Waiting for the fronts: until a proposal may be committed, and until all of them serve what was committed."""

import asyncio
import contextlib
import time
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, replace
from datetime import datetime, timedelta

from services.switcher.adoption import Front, Verdict, adopted, not_counted, readiness
from services.switcher.feed import POLL_IN_FLIGHT_S
from services.switcher.hint import Hint
from services.switcher.presence import FrontStore
from services.switcher.records import Adoption, ChangeRecord
from services.switcher.store import Committed, RouteStore, not_prepared
from turnout.errors import TurnoutError
from turnout.tasks import beside

_RENEWALS_A_LIFETIME = 4


@dataclass(frozen=True, slots=True)
class Limits:
    """Time limits of a change."""

    protection: timedelta  # how long a cutover's way back is kept from retirement
    prepare_s: float = 2.0  # for every live front to be PREPARED
    adopt_s: float = 5.0  # for every live front to be SERVING
    proposal_s: float = 3.0  # after which an open proposal whose proposer is not heard of has lost it


@dataclass(frozen=True, slots=True)
class Prepared:
    """The fronts as they took a proposal, and what a person must know of that."""

    fronts: tuple[Front, ...]
    warnings: tuple[str, ...]


class Barrier:
    """Looks at what the fronts said, sooner after a hint."""

    def __init__(self, store: RouteStore, fronts: FrontStore, hint: Hint, limits: Limits) -> None:
        self._store = store
        self._fronts = fronts
        self._hint = hint
        self._limits = limits

    @asynccontextmanager
    async def proposing(self, proposal: str) -> AsyncIterator[None]:
        """While the block runs, the proposal has a live proposer: replicas leave it alone."""
        async with beside(self._renew(proposal), f"renew {proposal}"):
            yield

    async def _renew(self, proposal: str) -> None:
        lifetime = timedelta(seconds=self._limits.proposal_s)
        while True:
            await asyncio.sleep(self._limits.proposal_s / _RENEWALS_A_LIFETIME)
            with contextlib.suppress(TurnoutError):  # the commit finds out whether it was in time
                await self._store.renew(proposal, lifetime)

    async def prepared(self, jobs: Sequence[str], proposal: str, *, emergency: bool) -> Prepared:
        """Wait until the proposal may be committed; Aborted with the fronts that cannot serve it."""

        def settled(fronts: Sequence[Front]) -> bool:
            return readiness(fronts, emergency=emergency, overdue=False).verdict is not Verdict.WAIT

        fronts = await self._await(proposal, settled, time.monotonic() + self._limits.prepare_s)
        ready = readiness(fronts, emergency=emergency, overdue=True)
        if ready.verdict is not Verdict.COMMIT:
            raise not_prepared(jobs, ready.complaint)
        return Prepared(tuple(fronts), _prepared_warnings(fronts, ready.not_ready))

    async def adopted(self, committed: Committed, answer_by: float) -> list[ChangeRecord]:
        """Wait until every live front serves the committed routes, as long as the limit and the caller allow.

        Every front is named that was counted at the commit or is live now: one whose lease was lost for a moment at the
        commit, and that came back with the routes of before, is late like any other.
        """
        limit = min(time.monotonic() + self._limits.adopt_s, answer_by)
        fronts = await self._await(committed.proposal, adopted, limit)
        named = [front for front in fronts if _to_name(front, committed)]
        late = [front.front for front in named if front.serving_at is None]
        warnings = (f"Not serving the new route yet: {', '.join(late)}.",) if late else ()
        return [
            replace(
                record,
                adoptions=tuple(Adoption(one.front, _after(record.commit_time, one.serving_at)) for one in named),
                fronts_not_counted=not_counted(fronts),
                warnings=record.warnings + warnings,
            )
            for record in committed.records
        ]

    async def _await(self, proposal: str, settled: Callable[[Sequence[Front]], bool], until: float) -> list[Front]:
        """The fronts once they are settled, or when the time (of the monotonic clock) is over."""
        while True:
            ticket = self._hint.ticket()
            fronts = await self._fronts.fronts(proposal)
            left = until - time.monotonic()
            if settled(fronts) or left <= 0:
                return fronts
            await self._hint.wait(ticket, min(left, POLL_IN_FLIGHT_S))


def _to_name(front: Front, committed: Committed) -> bool:
    if front.ended and front.serving_at is None:
        return False  # it left before it came to it, and reads by no route any more
    return front.live or front.front in committed.counted


def _prepared_warnings(fronts: Sequence[Front], not_ready: Sequence[tuple[str, str]]) -> tuple[str, ...]:
    if not any(front.live for front in fronts):
        return ("No query front is live: the route stands, and nobody reads by it yet.",)
    return tuple(f"The front {front} was not waited for: {why}." for front, why in not_ready)


def _after(commit_time: datetime | None, serving_at: datetime | None) -> timedelta | None:
    assert commit_time is not None, "the change is committed"
    return None if serving_at is None else max(serving_at - commit_time, timedelta())
