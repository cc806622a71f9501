"""The supervisors of all runs: started with the service, told of every change, ended with the service."""

import asyncio
import logging

from core.domain.names import VersionId
from services.replayer.run import Run
from services.replayer.supervisor import RunSupervisor
from services.replayer.surroundings import Surroundings

log = logging.getLogger(__name__)

_NO_LONGER_S = 9.0  # a little more than a worker's grace


class Fleet:
    """One supervisor for each run that wants workers or still has some."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._supervisors: dict[VersionId, RunSupervisor] = {}

    async def start(self) -> None:
        """Take up all runs that should run."""
        for run in await self._around.store.all():
            self.follow(run)

    async def stop(self) -> None:
        """End all workers in order. What the runs want stays as it is, and is taken up at the next start."""
        live = [supervisor for supervisor in self._supervisors.values() if not supervisor.finished]
        for supervisor in live:
            supervisor.close()
        await asyncio.gather(*(supervisor.ended() for supervisor in live))

    def follow(self, run: Run) -> None:
        """The run is new or was changed."""
        supervisor = self._supervisors.get(run.version)
        if supervisor is not None and not supervisor.finished:
            supervisor.follow(run)
        elif run.state.wants_workers:
            self._supervisors[run.version] = RunSupervisor(run, self._around)

    async def idle(self, version: VersionId) -> bool:
        """Wait until the run has no worker left; False when that takes too long."""
        supervisor = self._supervisors.get(version)
        if supervisor is None or supervisor.finished:
            return True
        try:
            await asyncio.wait_for(supervisor.ended(), _NO_LONGER_S)
        except TimeoutError:
            return False
        return True

    def status(self, version: VersionId) -> str:
        """What the run waits for, in words; empty when it moves."""
        supervisor = self._supervisors.get(version)
        return supervisor.status if supervisor is not None else ""

    def live_workers(self, version: VersionId) -> int:
        """How many processes work on the run."""
        supervisor = self._supervisors.get(version)
        return len(supervisor.workers) if supervisor is not None else 0
