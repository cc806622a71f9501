"""One run's worker processes, made to follow the run's state.

Theory of operation. The supervisor is a loop of one step: take note of processes that ended, decide from the state how
many there should be and which partitions each has, start, stop or tell them, then judge whether the run has got on. A
step can be repeated at any time; whatever it could not do, because PostgreSQL or Kafka is away, the next one does. It
runs after every message from a worker and every change of the run, and a few times a second anyway.

Every replica of the replayer supervises every run, but staffs only the partitions that fall to it (`replicas.py`). What
one says of a run (it works, it has caught up, it failed) is an event in the database, from where all follow it.

What it works on has a file each: the run's record (`live_run.py`), its processes (`slots.py`), its topics
(`topic_watch.py`).
"""

import asyncio
import contextlib
import logging
from collections.abc import Sequence

import asyncpg

from core.postgres import is_away
from services.replayer import gates
from services.replayer.assignment import hands, rate_shares
from services.replayer.live_run import LiveRun
from services.replayer.progress import lag_of
from services.replayer.protocol import Rate
from services.replayer.replicas import lead
from services.replayer.run import Run, Sample, complete
from services.replayer.slots import Slots
from services.replayer.states import Event, State
from services.replayer.surroundings import Surroundings
from services.replayer.topic_watch import TopicWatch
from turnout.errors import FailedPrecondition, Unavailable

log = logging.getLogger(__name__)

STEP_S = 0.25
TELL_S = 1.0
INDEX_RETRY_S = 2.0


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
            asyncio.create_task(self._tell_others(), name=f"tell of {run.name}"),
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
    def words(self) -> tuple[str, ...]:
        """What the run waits for or has just met, as seen from here; nothing when all is well."""
        # Of a topic that is missing the workers can only say that Kafka does not answer about it.
        unread = "KAFKA_UNAVAILABLE" if self._topics.missing else None
        workers = self._slots.workers
        waiting = sorted({w.waiting.message for w in workers if w.waiting and w.waiting.reason != unread})
        indexing = "the copy is complete; the indexes of the table are being built" if self._indexing else ""
        trouble = self._live.trouble or self._topics.trouble
        return tuple(part for part in (trouble, self._slots.notice, *waiting, indexing) if part)

    async def _tell_others(self) -> None:
        """Until cancelled: let every replica know the words that only this one can."""
        presence, said = self._around.presence, None
        while True:
            await asyncio.sleep(TELL_S)
            try:
                words = self.words
                if words == said or len(presence.sharing(self._around.sampler.newest)) < 2:
                    continue
                await self._around.store.say(presence.instance, self.run.version, words)
                said = words
            except Unavailable:
                continue  # nobody could read it now
            except Exception:
                log.exception("telling the other replicas of %s failed", self.run.version)

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
        await self._slots.kill_stuck()
        await self._slots.reap()
        if not self._live.wanted:
            await self._slots.end()
            return
        if self._topics.checked:
            await self._staff()
        if self._around.presence.holds:
            await self._judge()

    async def _staff(self) -> None:
        """Make the processes those that the state wants, as far as they fall to this replica."""
        sample = self._around.sampler.newest
        positions = sample.of(self.run.version) if sample is not None else {}
        replicas, instance = self._around.presence.sharing(sample), self._around.presence.instance
        mine = hands(self.run.version, self.run.state, self.run.workers, positions, replicas, instance)
        throttle, write_s_max = self._around.governing.pace_of(self.run)
        ends = sample.ends if sample is not None else {}
        lags = {tp: lag_of(position, ends.get(tp)) for tp, position in positions.items()}
        shares = rate_shares(None if throttle is None else throttle.records_per_s, mine, lags)
        rates = [Rate(per_s=share, write_s_max=write_s_max) for share in shares]
        await self._slots.staff(mine, rates, background=self.run.state is not State.TAILING)

    @property
    def _leads(self) -> bool:
        """Whether what one replica alone does for the run falls to this one."""
        replicas = self._around.presence.sharing(self._around.sampler.newest)
        return bool(replicas) and lead(self.run.version.name, replicas) == self._around.presence.instance

    async def _judge(self) -> None:
        """Has the run got further? Every replica that sees it may say so: saying it twice changes nothing."""
        samples = self._around.sampler.samples
        if self.run.state is not State.REPLAYING or not samples or not self._topics.checked:
            return
        if not any(worker.working for worker in self._slots.workers):
            return  # even with nothing to read: a job that does not load, or may not write, has not caught up
        if complete(samples[-1].of(self.run.version)):
            event = Event.COMPLETED
        elif self._caught_up(samples):
            event = Event.CAUGHT_UP
        else:
            return
        if self.run.indexes_built:
            await self._live.happened(event)
        elif self._indexing is None and self._leads:
            self._indexing = asyncio.create_task(self._build_indexes(), name=f"index {self.run.table}")

    def _caught_up(self, samples: Sequence[Sample]) -> bool:
        if self._around.ends.away or not samples[-1].of(self.run.version):
            return False
        return gates.caught_up_with_log(self.run, samples, self._around.limits)

    async def _build_indexes(self) -> None:
        """After the copy, beside the live writes."""
        store = self._around.store

        async def build() -> None:
            try:
                while not await self._around.indexes.build(self.run.definition, self.run.table):
                    await asyncio.sleep(INDEX_RETRY_S)  # another replica is at it, which led before
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
