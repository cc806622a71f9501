"""The runs that a rollback returned to are woken: right after its commit, and again until the replayer has answered."""

from services.switcher.pending import PendingStore, PendingWake
from services.switcher.replayer_client import ReplayerClient
from turnout.errors import Unavailable


class Wakes:
    """Resumes runs through the replayer and notes when that is done.

    Only after the commit: until then the rollback may be refused, and a run of a version that is being retired must
    stay stopped. From then on the route names the versions, so that they cannot be released.
    """

    def __init__(self, pending: PendingStore, replayer: ReplayerClient) -> None:
        self._pending = pending
        self._replayer = replayer

    async def wake(self, job: str) -> tuple[str, ...]:
        """Try to resume the runs of a job that are pending; what a person must know of it."""
        try:
            return tuple(
                [
                    warning
                    for wake in await self._pending.wakes()
                    if wake.job == job
                    for warning in await self._wake(wake)
                ]
            )
        except Unavailable as error:
            return (f"The runs of {job} are resumed later: {error.message}",)

    async def wake_all(self) -> None:
        """Try to resume all pending runs."""
        for wake in await self._pending.wakes():
            await self._wake(wake)

    async def _wake(self, wake: PendingWake) -> tuple[str, ...]:
        warnings, answered = await self._replayer.wake_runs(wake.job, wake.versions)
        if answered:
            await self._pending.woken(wake)
        return warnings
