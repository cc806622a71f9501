"""One run's worker processes, made to follow the run's state.

Theory of operation. The supervisor is a loop of one step: take note of processes that ended, decide from the state how
many there should be and which partitions each has, start, stop or tell them, then judge whether the run has got on. A
step can be repeated at any time; whatever it could not do, because PostgreSQL or Kafka is away, the next one does. It
runs after every message from a worker and every change of the run, and a few times a second anyway.

What it works on has a file each: the run's record (`live_run.py`), its processes (`slots.py`), its topics
(`topic_watch.py`).
"""

import asyncio
import contextlib
import logging

import asyncpg

from core.domain.errors import FailedPrecondition, Unavailable
from core.postgres import is_away
from services.replayer import gates
from services.replayer.assignment import rate_shares, slots_wanted, spread
from services.replayer.indexes import build_indexes
from services.replayer.live_run import LiveRun
from services.replayer.run import Run
from services.replayer.slots import Slots
from services.replayer.states import Event, State
from services.replayer.surroundings import Surroundings
from services.replayer.topic_watch import TopicWatch
from services.replayer.workers import Worker

log = logging.getLogger(__name__)

STEP_S = 0.25


class RunSupervisor:
    """Supervises one run until it wants no workers and has none."""

    def __init__(self, run: Run, around: Surroundings) -> None:
        self._around = around
        self._live = LiveRun(run, around.store)
        self._slots = Slots(self._live, around)
        self._topics = TopicWatch(self._live, around, lambda: self._slots.workers)
        self._indexing: asyncio.Task[None] | None = None
        self._tasks = [
            asyncio.create_task(self._supervise(), name=f"supervise {run.name}"),
            asyncio.create_task(self._topics.watch(), name=f"watch topics of {run.name}"),
            asyncio.create_task(self._slots.watch_silence(), name=f"watch workers of {run.name}"),
        ]

    @property
    def run(self) -> Run:
        """The newest record known."""
        return self._live.run

    @property
    def finished(self) -> bool:
        """Whether the loop has ended; a finished supervisor is replaced by a new one."""
        return self._tasks[0].done()

    @property
    def workers(self) -> list[Worker]:
        """The processes that are alive."""
        return self._slots.workers

    @property
    def status(self) -> str:
        """What the run waits for or has just met, in words; empty when all is well."""
        # Of a topic that is missing the workers can only say that Kafka does not answer about it.
        unread = "KAFKA_UNAVAILABLE" if self._topics.missing else None
        waiting = sorted({w.waiting.message for w in self.workers if w.waiting and w.waiting.reason != unread})
        indexing = ["the copy is complete; the indexes of the table are being built"] if self._indexing else []
        warnings: list[str] = []
        if self.run.state is State.REPLAYING:
            warnings += gates.warnings(self.run, self._around.sampler.samples, self._topics.retention_s)
        trouble = self._live.trouble or self._topics.trouble
        return "; ".join([part for part in (trouble, self._slots.notice, *waiting, *indexing, *warnings) if part])

    def follow(self, run: Run) -> None:
        """The run was changed."""
        self._live.follow(run)

    def close(self) -> None:
        """End the workers, whatever the run's state wants; it is taken up again at the next start of the service."""
        self._live.closing = True
        self._live.changed.set()

    async def ended(self) -> None:
        """Wait until no worker is left and the loop has ended."""
        await asyncio.wait([self._tasks[0]])

    async def _supervise(self) -> None:
        try:
            while True:
                self._live.changed.clear()
                await self._live.guarded(self._step)
                if not self._live.wanted and self._slots.empty:
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._live.changed.wait(), STEP_S)
        finally:
            self._slots.kill()
            for task in (*self._tasks[1:], self._indexing):
                if task is not None:
                    task.cancel()

    async def _step(self) -> None:
        await self._slots.reap()
        if not self._live.wanted:
            await self._slots.end()
            return
        if self._topics.partitions:
            await self._staff()
        await self._judge()

    async def _staff(self) -> None:
        """Make the processes those that the state wants."""
        hands = spread(self._topics.partitions, slots_wanted(self.run.state, self.run.workers, self._topics.partitions))
        await self._slots.staff(hands, rate_shares(self.run.rate_limit, hands))

    async def _judge(self) -> None:
        """Has the run got further?"""
        if self.run.state is State.QUEUED and any(worker.working for worker in self.workers):
            await self._live.happened(Event.WORKING)
        samples, partitions = self._around.sampler.samples, self._topics.partitions
        if self.run.state is not State.REPLAYING or not samples or self._around.ends.away:
            return
        known = partitions and all(tp in samples[-1].of(self.run.version) for tp in partitions)
        if not known or not gates.caught_up_with_log(self.run, samples, self._around.limits):
            return
        if self.run.indexes_built:
            await self._live.happened(Event.CAUGHT_UP)
        elif self._indexing is None:
            self._indexing = asyncio.create_task(self._build_indexes(), name=f"index {self.run.table}")

    async def _build_indexes(self) -> None:
        """After the copy, beside the live writes."""
        store = self._around.store

        async def build() -> None:
            try:
                await build_indexes(store.pool, self.run.definition, self.run.table)
            except asyncpg.PostgresError as error:
                if is_away(error):
                    raise Unavailable("POSTGRES_UNAVAILABLE", "PostgreSQL went away while an index was built") from None
                raise FailedPrecondition(
                    "INDEX_REFUSED",
                    f"PostgreSQL cannot build an index of {self.run.version}: {error}. Change the job's indexes.",
                ) from None
            self._live.follow(await store.set_indexes_built(self.run.version))

        try:
            await self._live.guarded(build)
        finally:
            self._indexing = None
            self._live.changed.set()
