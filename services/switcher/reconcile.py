"""What goes on by itself: dead proposals are cancelled, pending views and runs tried again, old records forgotten."""

import asyncio
import logging
from collections.abc import Awaitable, Callable
from datetime import timedelta

from services.switcher.store import RouteStore
from services.switcher.views import Views
from services.switcher.wakes import Wakes
from turnout.errors import Unavailable

log = logging.getLogger(__name__)

_EVERY_S = 0.5
_FORGET_EVERY_S = 60.0
_PROPOSALS_KEPT = timedelta(hours=1)
_REQUESTS_KEPT = timedelta(days=7)


class Reconcile:
    """The loops; several replicas may run them side by side. None waits for another: a view may be blocked for long."""

    def __init__(self, store: RouteStore, views: Views, wakes: Wakes) -> None:
        self._store = store
        self._views = views
        self._wakes = wakes

    async def run(self) -> None:
        """Reconcile until cancelled; waits while PostgreSQL is away."""
        async with asyncio.TaskGroup() as loops:
            loops.create_task(_every(_EVERY_S, self._cancel_dead))
            loops.create_task(_every(_EVERY_S, self._views.follow_all))
            loops.create_task(_every(_EVERY_S, self._wakes.wake_all))
            loops.create_task(_every(_FORGET_EVERY_S, self._forget))

    async def _cancel_dead(self) -> None:
        for proposal in await self._store.cancel_dead():
            log.warning("proposal %s outlived its proposer and was cancelled", proposal)

    async def _forget(self) -> None:
        await self._store.forget(_PROPOSALS_KEPT, _REQUESTS_KEPT)


async def _every(seconds: float, work: Callable[[], Awaitable[None]]) -> None:
    complaint = ""
    while True:
        try:
            await work()
            complaint = ""
        except Unavailable as error:
            if error.message != complaint:
                log.warning("reconciling waits: %s", error.message)
            complaint = error.message
        except Exception:
            log.exception("reconciling failed and is tried again")
        await asyncio.sleep(seconds)
