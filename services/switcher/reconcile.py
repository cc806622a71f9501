"""What goes on by itself: dead proposals are cancelled, pending views tried again, old records forgotten."""

import asyncio
import logging
import time
from datetime import timedelta

from core.domain.errors import Unavailable
from services.switcher.store import RouteStore
from services.switcher.views import Views

log = logging.getLogger(__name__)

_EVERY_S = 0.5
_FORGET_EVERY_S = 60.0
_PROPOSALS_KEPT = timedelta(hours=1)
_REQUESTS_KEPT = timedelta(days=7)


class Reconcile:
    """The loop; several replicas may run it side by side."""

    def __init__(self, store: RouteStore, views: Views, may_serve_for: timedelta) -> None:
        self._store = store
        self._views = views
        self._may_serve_for = may_serve_for
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
        if time.monotonic() - self._forgotten_at > _FORGET_EVERY_S:
            # A lease that expired longer ago than its front may serve counts as drained, as if it were not there.
            await self._store.forget(self._may_serve_for, _PROPOSALS_KEPT, _REQUESTS_KEPT)
            self._forgotten_at = time.monotonic()
