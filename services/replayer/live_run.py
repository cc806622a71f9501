"""A run under supervision: its newest record, what happens to it, and what keeps it waiting."""

import asyncio
import functools
import logging
from collections.abc import Awaitable, Callable

from services.replayer.run import Run
from services.replayer.states import Event
from services.replayer.store import Failure, Store
from turnout.errors import DataLoss, FailedPrecondition, TurnoutError

log = logging.getLogger(__name__)


class LiveRun:
    """Shared by everything that supervises one run. `run` is the newest record known."""

    def __init__(self, run: Run, store: Store) -> None:
        self.run = run
        self.changed = asyncio.Event()  # something is to be looked at
        self.closing = False  # no workers are wanted any more, whatever the state says
        self.trouble = ""  # why the last step could not be done; empty when it was
        self._store = store

    @property
    def wanted(self) -> bool:
        """Whether worker processes belong to the run at the moment."""
        return self.run.state.wants_workers and not self.closing

    def follow(self, run: Run) -> None:
        """The record was read, here or by the sampler. The one with the higher revision is newer, whichever arrives
        last."""
        if run.revision > self.run.revision:
            self.run = run
            self.changed.set()

    async def happened(self, event: Event, failure: Failure | None = None) -> None:
        """Store the event, and what follows from it."""
        before, now = await self._store.change(self.run.version, event, failure)
        if now.state is not before.state:
            log.info("%s is %s", now.version, now.state.value)
        self.follow(now)

    async def fail(self, failure: Failure) -> None:
        """Something that a person must mend."""
        log.error("%s fails: %s: %s", self.run.version, failure.reason, failure.message)
        await self.happened(Event.FAULT, failure)

    async def guarded(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Whether the work was done. What is away is told and waited for; what a person must mend fails the run."""
        failure = None
        try:
            await work()
        except (FailedPrecondition, DataLoss) as error:
            failure = Failure(error.reason, error.message)
        except TurnoutError as error:
            self._tell_trouble(error.message)
            return False
        except Exception:
            log.exception("supervising %s failed; going on", self.run.version)
            self._tell_trouble("the supervisor met an unexpected error, which the replayer's log tells; it goes on")
            return False
        if failure is not None:
            await self.guarded(functools.partial(self.fail, failure))
            return False
        self.trouble = ""
        return True

    def _tell_trouble(self, text: str) -> None:
        if text != self.trouble:
            log.warning("%s waits: %s", self.run.version, text)
        self.trouble = text
