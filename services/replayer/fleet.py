"""The supervisors of all runs: started with the service, told of every change, ended with the service."""

import asyncio
import logging
import time
from collections.abc import Sequence

from services.replayer.replicas import left_over
from services.replayer.run import Run, Sample
from services.replayer.supervisor import RunSupervisor
from services.replayer.surroundings import Surroundings
from turnout.errors import Unavailable
from turnout.names import VersionId
from turnout.tasks import end

log = logging.getLogger(__name__)

_NO_LONGER_S = 9.0  # a little more than a worker's grace
_LOOK_S = 0.1


class Fleet:
    """One supervisor for each run that wants workers or still has some, also where this replica has no share in it."""

    def __init__(self, around: Surroundings) -> None:
        self._around = around
        self._supervisors: dict[VersionId, RunSupervisor] = {}
        self._following: asyncio.Task[None] | None = None

    async def start(self) -> None:
        """Take up all runs that should run, and from now on whatever is changed, here or at another replica."""
        for run in await self._around.store.standing():
            self.follow(run)
        self._following = asyncio.create_task(self._follow_samples(), name="follow runs")

    async def stop(self) -> None:
        """End all workers in order. What the runs want stays as it is, and is taken up at the next start."""
        await end(self._following)
        live = [supervisor for supervisor in self._supervisors.values() if not supervisor.finished]
        for supervisor in live:
            supervisor.close()
        await asyncio.gather(*(supervisor.ended() for supervisor in live))

    def follow(self, run: Run) -> None:
        """The record of a run as it was read; it may be new, changed, or older than what is known."""
        supervisor = self._supervisors.get(run.version)
        if supervisor is not None and not supervisor.finished:
            supervisor.follow(run)
        elif run.state.wants_workers and (supervisor is None or run.revision >= supervisor.run.revision):
            self._supervisors[run.version] = RunSupervisor(run, self._around)

    async def _follow_samples(self) -> None:
        sampler = self._around.sampler
        while True:
            await sampler.next_sample()
            if sampler.newest is None:
                continue
            try:
                for run in sampler.newest.runs.values():
                    self.follow(run)
                await self._follow_dropped(sampler.newest)
            except Unavailable:  # looked at again after the next sample
                continue
            except Exception:
                log.exception("following the runs failed; going on")

    async def _follow_dropped(self, sample: Sample) -> None:
        """Runs that were stopped and dropped elsewhere between two samples are in none; let their workers end."""
        for version, supervisor in list(self._supervisors.items()):
            if version not in sample.runs and not supervisor.finished and supervisor.run.state.wants_workers:
                run = await self._around.store.find(version)
                if run is not None:
                    self.follow(run)

    async def idle(self, version: VersionId) -> bool:
        """Wait until no worker of any replica may write the run's rows any more; False when that takes too long.

        To be called once the run is stored as one that wants no workers: none takes a partition after that.
        """
        ends_s = time.monotonic() + _NO_LONGER_S
        while time.monotonic() < ends_s:
            supervisor = self._supervisors.get(version)
            if supervisor is None or supervisor.finished:
                if await self._free(version):
                    return True
            elif supervisor.run.state.wants_workers:
                return False  # resumed meanwhile
            await asyncio.sleep(_LOOK_S)
        return False

    async def _free(self, version: VersionId) -> bool:
        """Whether nobody holds a partition of the run, on which no worker of this replica is left.

        What nobody looks after any more is ended: a worker that was frozen with its replica must not wake and write.
        """
        holders = await self._around.store.holders(version)
        left = left_over(holders, self._around.presence.instance)
        for holder in left:
            await self._around.store.release(version, holder.owner)
        return len(left) == len(holders)

    def status(self, run: Run, samples: Sequence[Sample]) -> str:
        """What the run waits for or has just met, in the words of all replicas; empty when it moves."""
        version = run.version
        supervisor = self._supervisors.get(version)
        here = supervisor.words if supervisor is not None else ()
        told = samples[-1].replicas if samples and run.state.wants_workers else {}
        instance = self._around.presence.instance
        elsewhere = [part for other, said in told.items() if other != instance for part in said.get(version, ())]
        return "; ".join(dict.fromkeys([*here, *elsewhere]))
