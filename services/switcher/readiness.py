"""Answers how ready a rollback is, from the route and from what the replayer says at this moment."""

import asyncio

from services.switcher.presence import FrontStore
from services.switcher.replayer_client import ReplayerClient
from services.switcher.store import RouteStore
from services.switcher.way_back import Readiness, readiness
from turnout.errors import NotFound


class RollbackReadiness:
    """Asks nothing of the fronts, which are asked by the rollback itself; tells what they last said of the way back."""

    def __init__(self, store: RouteStore, fronts: FrontStore, replayer: ReplayerClient) -> None:
        self._store = store
        self._fronts = fronts
        self._replayer = replayer

    async def of(self, job: str) -> Readiness:
        """How ready the rollback of a job's route is. NotFound (ROUTE_NOT_FOUND) before the first cutover."""
        record = await self._store.read(job)
        state = record.state
        if state.route is None:
            raise NotFound("ROUTE_NOT_FOUND", f"{job} has no route yet: its first cutover creates it.")
        back = state.open_way_back
        if back is None:
            return readiness(state, record.now, {}, None)
        active, target = state.route.active_version, back.active_version
        fronts, seen, differing = await asyncio.gather(
            self._fronts.fronts(record.proposal),
            self._replayer.runs(job, back.versions | {active}),
            self._replayer.rows_differing(job, active, target),
        )
        return readiness(state, record.now, {run.version: run for run in seen}, differing, fronts)
