"""Drives retirements: the reconcile loop, and the first step while the caller waits.

Each step is: claim it (stored), make its call, store the outcome. A claim ends by itself a while after the call's own
deadline, so that a crash at any point only means that the call is made again, by this registry or another one, and so
that no two calls for one version overtake one another.
"""

import asyncio
import contextlib
import logging
from datetime import datetime, timedelta
from uuid import UUID

from services.registry import retirement as rules
from services.registry.lifecycle import State
from services.registry.neighbours import Neighbours
from services.registry.records import Version
from services.registry.retirement import Asked, Call, Change, Failed, Nothing, Outcome, Retirement
from services.registry.store import Store
from turnout.clock import Clock
from turnout.errors import FailedPrecondition, TurnoutError, Unavailable
from turnout.names import VersionId
from turnout.tasks import end

log = logging.getLogger(__name__)

CLAIM_MARGIN_S = 5.0  # a claim outlives its call by this, so that the call is over on the other side too
LOOK_EVERY_S = 0.25
AT_ONCE_MAX = 8
REQUESTS_KEPT = timedelta(days=7)
_FORGET_EVERY = timedelta(hours=1)


class Saga:
    """Retirements of versions."""

    def __init__(self, store: Store, neighbours: Neighbours, clock: Clock) -> None:
        self._store = store
        self._neighbours = neighbours
        self._clock = clock
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._forget_after: datetime | None = None

    def start(self) -> None:
        """Begin the reconcile loop."""
        self._task = asyncio.create_task(self._run(), name="retirements")

    async def stop(self) -> None:
        """End the loop; a step that is under way is made again after the next start."""
        await end(self._task)

    # --- commands ---

    async def retire(self, version: VersionId, asked: Asked) -> Version:
        """Begin a retirement, and make its first call while the caller waits; the version then.

        What the switcher refuses is raised, and nothing has changed. When it is away the retirement waits for it, as it
        does while somebody else's call is under way; where that one is refused meanwhile, this one is made.
        """
        while True:
            answered = await self._retired(version, asked)
            found = await self._store.version(version)
            if answered or found.state is not State.REGISTERED:
                return found

    async def _retired(self, version: VersionId, asked: Asked) -> bool:
        """Whether the call was made, or none is needed; False while somebody else's is under way."""
        now = self._clock.now()
        change: Change | None = None

        def decide(state: State, found: Retirement | None) -> Change | None:
            nonlocal change
            change = rules.retire(version, state, found, asked, now)
            return change

        begun = await self._store.begin(version, decide, "RETIRE", now, claim_until=self._claim_end(now))
        if begun is None:
            return change is None
        claim, intent = begun
        outcome = await self._neighbours.make(Call.RELEASE, intent)
        await self._finish(intent, claim, outcome)
        if isinstance(outcome, Failed) and outcome.is_refusal:
            raise _refusal(version, outcome.error)
        self._wake.set()
        return True

    async def unretire(self, version: VersionId, actor: str) -> None:
        """Take a retirement back. FailedPrecondition (VERSION_DROPPED) once its drop is decided."""
        now = self._clock.now()
        await self._store.begin(
            version, lambda state, found: rules.unretire(version, state, found, actor, now), "UNRETIRE", now
        )
        self._wake.set()

    # --- the loop ---

    async def _run(self) -> None:
        away = False
        while True:
            try:
                busy = await self.run_due()
                await self._forget()
                away = False
            except Unavailable as error:
                busy = False
                if not away:
                    log.warning("retirements wait: %s", error.message)
                away = True
            except Exception:
                busy = False
                log.exception("the retirement loop failed; it goes on")
            if not busy:
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), LOOK_EVERY_S)
                self._wake.clear()

    async def run_due(self) -> bool:
        """Make one step of each retirement that is due; whether there was any."""
        now = self._clock.now()
        claim, due = await self._store.claim_due(now, self._claim_end(now), AT_ONCE_MAX)
        results = await asyncio.gather(
            *(self._step(claim, state, retirement) for state, retirement in due), return_exceptions=True
        )
        for result in results:
            if isinstance(result, BaseException):
                raise result
        return bool(due)

    async def _step(self, claim: UUID, state: State, retirement: Retirement) -> None:
        action = rules.next_action(retirement, state, self._clock.now())
        if not isinstance(action, Call):
            time = None if isinstance(action, Nothing) else action.time
            await self._store.wait(retirement.version, claim, time)
            return
        outcome = await self._neighbours.make(action, retirement)
        if isinstance(outcome, Failed) and retirement.failures == 0:
            log.warning("%s: %s failed: %s", retirement.version, action.value, outcome.error.message)
        await self._finish(retirement, claim, outcome)

    async def _finish(self, retirement: Retirement, claim: UUID, outcome: Outcome) -> None:
        now = self._clock.now()

        def decide(state: State, stored: Retirement) -> Change:
            return rules.after(stored, state, outcome, now)

        if await self._store.finish(retirement, claim, decide, now):
            log.info("%s: %s answered (%s)", retirement.version, retirement.step.value, type(outcome).__name__)

    async def _forget(self) -> None:
        now = self._clock.now()
        if self._forget_after is None or now >= self._forget_after:
            self._forget_after = now + _FORGET_EVERY
            await self._store.forget_requests(now - REQUESTS_KEPT)

    def _claim_end(self, now: datetime) -> datetime:
        return now + timedelta(seconds=self._neighbours.call_s + CLAIM_MARGIN_S)


def _refusal(version: VersionId, error: TurnoutError) -> TurnoutError:
    if isinstance(error, FailedPrecondition):
        message = f"{version} was not retired, and nothing has changed. {error.message}"
        return FailedPrecondition(error.reason, message, violations=error.violations, metadata=error.metadata)
    return error
