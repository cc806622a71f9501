"""Letting queued runs begin, as far as the budget allows: after each sample, and at once after what people do.

Every replica of the replayer goes through the queue. The decision and what it rests on are read and stored in one
transaction under a lock of its own, so that of several replicas each finds what the one before has admitted.
"""

import asyncio
import logging
from collections.abc import Callable, Mapping
from typing import Any

from services.replayer import budget
from services.replayer.budget import Capacity, Decision, Waiting
from services.replayer.capacity import capacity_of
from services.replayer.overtaken import begin_later, overtaken
from services.replayer.run import Run, Sample
from services.replayer.states import Event, State
from services.replayer.store import QUERIES, positions_of
from services.replayer.surroundings import Surroundings
from turnout.errors import Unavailable
from turnout.names import VersionId
from turnout.tasks import end

log = logging.getLogger(__name__)


class Admission:
    """The queue of copies. `follow` is told of every run that was admitted."""

    def __init__(self, around: Surroundings, follow: Callable[[Run], None]) -> None:
        self._around = around
        self._follow = follow
        self._waiting: Mapping[VersionId, Waiting] = {}
        self._trouble = ""
        self._one_at_a_time = asyncio.Lock()
        self._task: asyncio.Task[None] | None = None
        self._under_way: set[asyncio.Task[None]] = set()

    def start(self) -> None:
        """Go through the queue after every sample from now on."""
        self._task = asyncio.create_task(self._go_on(), name="admit copies")

    async def stop(self) -> None:
        """End it. Queued runs stay queued."""
        await end(self._task)
        await asyncio.gather(*self._under_way, return_exceptions=True)

    def waiting(self, run: Run) -> Waiting | None:
        """Why the run is queued, as of the last time; None for a run that is not."""
        if run.state is not State.QUEUED:
            return None
        last = Waiting(len(self._waiting) + 1, "its place in the queue of copies is being found")
        return self._waiting.get(run.version, last)

    async def admit(self) -> None:
        """Go through the queue now. What cannot be done because PostgreSQL is away is done after a later sample.

        Goes on when its caller gives up: whoever was admitted must be followed.
        """
        task = asyncio.create_task(self._admit(), name="go through the queue of copies")
        self._under_way.add(task)
        task.add_done_callback(self._under_way.discard)
        await asyncio.shield(task)

    async def _admit(self) -> None:
        try:
            async with self._one_at_a_time:
                admitted = await self._pass()
        except Unavailable as error:
            if error.message != self._trouble:
                log.warning("the queue of copies waits: %s", error.message)
            self._trouble = error.message
            return
        self._trouble = ""
        for run in admitted:
            log.info("%s is admitted to copy the log", run.version)
            self._follow(run)

    async def _pass(self) -> list[Run]:
        store = self._around.store
        sizes = await self._around.sizes.known()
        async with store.transaction() as connection:
            await connection.execute(QUERIES.lock_budget)
            decision = await self._decision(connection, sizes)
            changes = [await store.change_within(connection, version, Event.ADMITTED) for version in decision.admitted]
        self._waiting = decision.waiting
        return [after for before, after in changes if after.state is not before.state]

    async def _decision(self, connection: Any, sizes: Mapping[VersionId, int]) -> Decision:
        capacity: Capacity = capacity_of(await connection.fetchrow(QUERIES.capacity))
        runs = await self._around.store.standing(connection)
        positions = positions_of(await connection.fetch(QUERIES.positions))
        sizes = {run.version: sizes.get(run.version, 0) for run in runs}  # without tables dropped since
        ends = self._around.ends
        return budget.decide(capacity, budget.books_of(runs, positions, ends.ends, sizes, ends.missing))

    async def _go_on(self) -> None:
        sampler = self._around.sampler
        while True:
            await sampler.next_sample()
            sample = sampler.newest
            if sample is None or not any(run.state is State.QUEUED for run in sample.runs.values()):
                continue
            try:
                await asyncio.gather(*(self._begin_later(run, sample) for run in overtaken(sample)))
                await self.admit()
            except Exception:
                log.exception("going through the queue of copies failed; going on")

    async def _begin_later(self, run: Run, sample: Sample) -> None:
        """See `overtaken.begin_later`. A topic that cannot be read is its run's trouble, and nobody else's."""
        try:
            await begin_later(self._around, run, sample)
        except Unavailable as error:
            log.warning("%s cannot begin later, where its log begins now: %s", run.version, error.message)
        except Exception:
            log.exception("letting %s begin where its log begins now failed; going on", run.version)
