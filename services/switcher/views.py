"""The SQL view follows the committed route: asked for right after a change, and again until it has."""

from services.switcher.pending import PendingStore, PendingView
from services.switcher.records import View
from services.switcher.replayer_client import ReplayerClient
from services.switcher.store import RouteStore
from turnout.errors import Unavailable


class Views:
    """Moves views through the replayer and notes how that went."""

    def __init__(self, store: RouteStore, pending: PendingStore, replayer: ReplayerClient) -> None:
        self._store = store
        self._pending = pending
        self._replayer = replayer

    async def follow(self, job: str) -> View:
        """Try to move the view of one job, if it is pending; how it stands."""
        try:
            for view in await self._pending.views():
                if view.job == job:
                    await self._move(view)
            return (await self._store.read(job)).view
        except Unavailable as error:
            return View(pending=True, version=0, waiting_for=error.message)

    async def follow_all(self) -> None:
        """Try to move every pending view."""
        for view in await self._pending.views():
            await self._move(view)

    async def _move(self, view: PendingView) -> None:
        waiting_for = await self._replayer.move_view(view)
        if waiting_for is None:
            await self._pending.view_moved(view)
        else:
            await self._pending.view_waiting(view, waiting_for)
