"""What goes on by itself: dead proposals are cancelled, pending views and runs tried again, old records
forgotten."""

import asyncio
import logging
import time
from datetime import timedelta

from core.domain.errors import Unavailable
from services.switcher.store import RouteStore
from services.switcher.views import Views
from services.switcher.wakes import Wakes

log = logging.getLogger(__name__)

_EVERY_S = 0.5
_FORGET_EVERY_S = 60.0
_PROPOSALS_KEPT = timedelta(hours=1)
_REQUESTS_KEPT = timedelta(days=7)


class Reconcile:
    """The loop; several replicas may run it side by side."""

    def __init__(self, store: RouteStore, views: Views, wakes: Wakes) -> None:
        self._store = store
        self._views = views
        self._wakes = wakes
        self._forgotten_at = time.monotonic()

    async def run(self) -> None:
        """Reconcile until cancelled; waits while PostgreSQL is away."""
        while True:
            try:
                await self._once()
            except Unavailable as error:
                log.warning("reconciling waits: %s", error.message)
            except Exception:
                log.exception("reconciling failed and is tried again")
            await asyncio.sleep(_EVERY_S)

    async def _once(self) -> None:
        for proposal in await self._store.cancel_dead():
            log.warning("proposal %s outlived its proposer and was cancelled", proposal)
        await self._views.follow_all()
        await self._wakes.wake_all()
        if time.monotonic() - self._forgotten_at > _FORGET_EVERY_S:
            await self._store.forget(_PROPOSALS_KEPT, _REQUESTS_KEPT)
            self._forgotten_at = time.monotonic()
