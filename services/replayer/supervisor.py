"""One run's worker processes, made to follow the run's state.

Theory of operation. The supervisor is a loop of one step: take note of processes that ended, decide from the state how
many there should be and which partitions each has, start, stop or tell them, then judge whether the run has got on. A
step can be repeated at any time; whatever it could not do, because PostgreSQL or Kafka is away, the next one does. It
runs after every message from a worker and every change of the run, and a few times a second anyway.

A process that ended without being told to is dead, and one that gives no sign of life is killed (`liveness.py`): what
is left of it in the database is ended and its leases are freed before another takes its partitions, so that nothing
waits for a lease to run out.
"""

import asyncio
import contextlib
import functools
import logging
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import asyncpg

from core.config import Settings
from core.domain.errors import DataLoss, FailedPrecondition, TurnoutError, Unavailable
from core.postgres import is_away
from services.replayer import gates
from services.replayer.artifacts import Artifacts
from services.replayer.assignment import Deaths, died, rate_shares, slots_wanted, spread
from services.replayer.indexes import build_indexes
from services.replayer.liveness import LOOK_S
from services.replayer.protocol import STOP_WITHIN_S, Start, TopicPartition
from services.replayer.run import Run
from services.replayer.sampler import Sampler
from services.replayer.states import Event, State
from services.replayer.store import Failure, Store
from services.replayer.topics import EndsWatch, Topics, retention_s
from services.replayer.workers import Worker
from turnout.schema import encode

log = logging.getLogger(__name__)

STEP_S = 0.25
GRACE_S = STOP_WITHIN_S + 2.0  # for a worker to finish its batch or cut it off, and to release its leases
TOPICS_CHECK_S = 30.0
RETRY_S = 1.0
NOTICE_S = 15.0  # for which a run says that a worker was given up
MISSING_MAX = 3  # a topic missing so many checks in a row is gone; a starting broker may not know it for a moment


@dataclass(frozen=True, slots=True)
class Surroundings:
    """What every supervisor works with."""

    settings: Settings
    store: Store
    topics: Topics
    ends: EndsWatch
    sampler: Sampler
    artifacts: Artifacts
    limits: gates.Limits


@dataclass(slots=True)
class Slot:
    """A worker's place in the run."""

    number: int
    worker: Worker | None = None
    deaths: Deaths = field(default_factory=Deaths)
    start_at_s: float = 0.0  # monotonic; not before
    replaces: bool = False  # the next process takes the place of a dead one
    born: int = 0


class RunSupervisor:
    """Supervises one run until it wants no workers and has none. `run` is the newest record known."""

    def __init__(self, run: Run, around: Surroundings) -> None:
        self.run = run
        self._around = around
        self._slots: dict[int, Slot] = {}
        self._partitions: tuple[TopicPartition, ...] = ()
        self._wake = asyncio.Event()
        self._closing = False
        self._trouble = ""
        self._topic_trouble = ""
        self._notice = ""
        self._notice_ends_s = 0.0  # monotonic
        self._retention_s: dict[str, float] = {}
        self._indexing: asyncio.Task[None] | None = None
        self._tasks = [
            asyncio.create_task(self._supervise(), name=f"supervise {run.name}"),
            asyncio.create_task(self._watch_topics(), name=f"watch topics of {run.name}"),
            asyncio.create_task(self._watch_silence(), name=f"watch workers of {run.name}"),
        ]

    @property
    def finished(self) -> bool:
        """Whether the loop has ended; a finished supervisor is replaced by a new one."""
        return self._tasks[0].done()

    @property
    def workers(self) -> list[Worker]:
        """The processes that are alive."""
        return [slot.worker for slot in self._slots.values() if slot.worker is not None and not slot.worker.ended]

    @property
    def status(self) -> str:
        """What the run waits for or has just met, in words; empty when all is well."""
        notice = [self._notice] if time.monotonic() < self._notice_ends_s else []
        # Of a topic that is missing the workers can only say that Kafka does not answer about it.
        unread = "KAFKA_UNAVAILABLE" if self._missing_topics else None
        waiting = sorted({w.waiting.message for w in self.workers if w.waiting and w.waiting.reason != unread})
        warnings: list[str] = []
        if self.run.state is State.REPLAYING:
            warnings += gates.warnings(self.run, self._around.sampler.samples, self._retention_s)
        indexing = ["the copy is complete; the indexes of the table are being built"] if self._indexing else []
        return "; ".join(
            [part for part in (self._trouble or self._topic_trouble, *notice, *waiting, *indexing, *warnings) if part]
        )

    def follow(self, run: Run) -> None:
        """The run was changed. Of two records the one with the higher revision is newer, whichever arrives last."""
        if run.revision >= self.run.revision:
            self.run = run
        self._wake.set()

    def close(self) -> None:
        """End the workers, whatever the run's state wants; it is taken up again at the next start of the service."""
        self._closing = True
        self._wake.set()

    async def ended(self) -> None:
        """Wait until no worker is left and the loop has ended."""
        await asyncio.wait([self._tasks[0]])

    # --- the loop ---

    async def _supervise(self) -> None:
        try:
            while True:
                self._wake.clear()
                await self._guarded(self._step)
                if not self._wanted and not self._slots:
                    return
                with contextlib.suppress(TimeoutError):
                    await asyncio.wait_for(self._wake.wait(), STEP_S)
        finally:
            for slot in self._slots.values():
                if slot.worker is not None:
                    slot.worker.kill()
            for task in (*self._tasks[1:], self._indexing):
                if task is not None:
                    task.cancel()

    @property
    def _wanted(self) -> bool:
        return self.run.state.wants_workers and not self._closing

    async def _guarded(self, work: Callable[[], Awaitable[None]]) -> bool:
        """Whether the work was done. What is away is told and waited for; what a person must mend fails the run."""
        failure = None
        try:
            await work()
        except (FailedPrecondition, DataLoss) as error:
            failure = Failure(error.reason, error.message)
        except TurnoutError as error:
            self._tell_trouble(error.message)
            return False
        except Exception:
            log.exception("supervising %s failed; going on", self.run.version)
            self._tell_trouble("the supervisor met an unexpected error, which the replayer's log tells; it goes on")
            return False
        if failure is not None:
            await self._guarded(functools.partial(self._fail, failure))
            return False
        self._trouble = ""
        return True

    def _tell_trouble(self, text: str) -> None:
        if text != self._trouble:
            log.warning("%s waits: %s", self.run.version, text)
        self._trouble = text

    async def _step(self) -> None:
        for slot in list(self._slots.values()):
            if slot.worker is not None and slot.worker.ended:
                await self._reap(slot, slot.worker)
        if not self._wanted:
            await self._end(list(self._slots.values()))
            return
        if self._partitions:
            await self._staff()
        await self._judge()

    def _heard(self) -> None:
        for worker in self.workers:
            for state in worker.progress.partitions if worker.progress is not None else ():
                tp = TopicPartition(state.topic, state.partition)
                self._around.ends.told(tp, state.log_start, state.end_offset)
        self._wake.set()

    # --- processes ---

    async def _watch_silence(self) -> None:
        """Beside the loop, whose steps wait for PostgreSQL: a worker that is killed is then one that ended."""
        while True:
            await asyncio.sleep(LOOK_S)
            for worker in self.workers:
                worker.kill_if_silent()

    async def _reap(self, slot: Slot, worker: Worker) -> None:
        """Take note of an ended worker, which stays in its slot until all of this is done: a repeat is complete."""
        store = self._around.store
        if not worker.in_order:
            await store.release(self.run.version, worker.owner)
        if worker.fault is not None:
            await self._fail(Failure(worker.fault.reason, worker.fault.message))
        elif not worker.in_order and self._wanted:
            await self._count_death(slot, worker)
        slot.worker = None

    async def _count_death(self, slot: Slot, worker: Worker) -> None:
        positions = (await self._around.store.positions([self.run.version])).get(self.run.version, {})
        lived_s = time.monotonic() - worker.born_s
        deaths = died(slot.deaths, worker.partitions, positions, self._around.ends.ends, lived_s=lived_s)
        log.warning("a worker of %s (process %d) %s", self.run.version, worker.pid, worker.end_text)
        if worker.given_up_after_s:
            self._notice = f"a worker {worker.end_text}; another one takes its place"
            self._notice_ends_s = time.monotonic() + NOTICE_S
        if deaths.hopeless:
            await self._fail(Failure("WORKER_KEEPS_DYING", self._hopeless_text(deaths, worker)))
        slot.deaths = deaths
        slot.start_at_s = time.monotonic() + deaths.backoff_s
        slot.replaces = True

    def _hopeless_text(self, deaths: Deaths, worker: Worker) -> str:
        at = ", ".join(f"{tp.topic}/{tp.partition} at offset {n:,}" for tp, n in sorted(deaths.offsets.items()))
        return (
            f"A worker {worker.end_text}, {deaths.in_a_row} times in a row without getting further ({at}). Its log is "
            f"{self._log_file()}. Mend the cause, then resume the run."
        )

    async def _end(self, slots: list[Slot]) -> None:
        """End these slots' workers in order, those that do not end in time by force."""
        workers = [slot.worker for slot in slots if slot.worker is not None]
        for worker in workers:
            worker.stop()
        await asyncio.gather(*(worker.gone(GRACE_S) for worker in workers))
        for slot in slots:
            if slot.worker is not None:
                try:
                    await self._reap(slot, slot.worker)
                except Unavailable:
                    if not self._closing:
                        raise
                    log.warning("%s: the leases of %s run out by themselves", self.run.version, slot.worker.owner)
            self._slots.pop(slot.number, None)

    async def _staff(self) -> None:
        """Make the processes those that the state wants."""
        count = slots_wanted(self.run.state, self.run.workers, self._partitions)
        surplus = [slot for slot in self._slots.values() if slot.number >= count]
        if surplus:
            await self._end(surplus)
        hands = spread(self._partitions, count)
        shares = rate_shares(self.run.rate_limit, hands)
        for number, (hand, share) in enumerate(zip(hands, shares, strict=True)):
            slot = self._slots.setdefault(number, Slot(number))
            if slot.worker is not None:
                slot.worker.assign(hand)
                slot.worker.set_rate(share)
            elif time.monotonic() >= slot.start_at_s:
                await self._start_worker(slot, hand, share)

    async def _start_worker(self, slot: Slot, hand: tuple[TopicPartition, ...], share: float | None) -> None:
        run, settings = self.run, self._around.settings
        code = await self._around.artifacts.unpacked(run.version, run.artifact_digest)
        slot.born += 1
        start = Start(
            version=run.version.name,
            job=run.version.job,
            owner=f"{settings.instance}:{run.version.job}-v{run.version.number}:{slot.number}.{slot.born}",
            artifact_dir=str(code),
            definition_json=encode(run.definition).decode(),
            kafka=settings.kafka.properties,
            postgres=settings.postgres,
            table=run.table,
            lease_s=settings.run_lease_s,
            partitions=hand,
            rate_per_s=share,
            record_by_record=tuple(sorted(slot.deaths.record_by_record)),
        )
        if slot.replaces:
            self.follow(await self._around.store.count_restart(run.version))
            slot.replaces = False
        slot.worker = await Worker.start(start, self._log_file(), self._heard)

    def _log_file(self) -> Path:
        version = self.run.version
        return self._around.settings.data_dir / "logs" / f"{version.job}-v{version.number}-worker.log"

    # --- the run itself ---

    async def _judge(self) -> None:
        """Has the run got further?"""
        if self.run.state is State.QUEUED and any(worker.working for worker in self.workers):
            await self._happened(Event.WORKING)
        samples = self._around.sampler.samples
        if self.run.state is not State.REPLAYING or not samples or self._around.ends.away:
            return
        known = self._partitions and all(tp in samples[-1].of(self.run.version) for tp in self._partitions)
        if not known or not gates.caught_up_with_log(self.run, samples, self._around.limits):
            return
        if self.run.indexes_built:
            await self._happened(Event.CAUGHT_UP)
        elif self._indexing is None:
            self._indexing = asyncio.create_task(self._build_indexes(), name=f"index {self.run.table}")

    async def _happened(self, event: Event, failure: Failure | None = None) -> None:
        before, now = await self._around.store.change(self.run.version, event, failure)
        if now.state is not before.state:
            log.info("%s is %s", now.version, now.state.value)
        self.follow(now)

    async def _fail(self, failure: Failure) -> None:
        log.error("%s fails: %s: %s", self.run.version, failure.reason, failure.message)
        await self._happened(Event.FAULT, failure)

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
            self.follow(await store.set_indexes_built(self.run.version))

        try:
            await self._guarded(build)
        finally:
            self._indexing = None
            self._wake.set()

    # --- its topics ---

    @property
    def _missing_topics(self) -> frozenset[str]:
        return self._around.ends.missing & self.run.topic_ids.keys()

    @property
    def _topics_in_doubt(self) -> bool:
        unread = any(w.waiting is not None and w.waiting.reason == "KAFKA_UNAVAILABLE" for w in self.workers)
        return unread or bool(self._missing_topics)

    async def _watch_topics(self) -> None:
        """Check that the topics are those of the start, and see new partitions: at the start, then every so often, and
        soon when something about them is odd."""
        missing = 0
        while True:
            pause_s, failure = RETRY_S, None
            try:
                await self._check_topics()
                missing, pause_s = 0, TOPICS_CHECK_S
                self._topic_trouble = ""
            except FailedPrecondition as error:
                missing = missing + 1 if error.reason == "TOPIC_NOT_FOUND" else MISSING_MAX
                failure = Failure(error.reason, error.message)
                self._topic_trouble = error.message
            except TurnoutError as error:
                self._topic_trouble = error.message
            except Exception:
                log.exception("checking the topics of %s failed", self.run.version)
            if failure is not None and missing >= MISSING_MAX:
                await self._guarded(functools.partial(self._fail, failure))
            next_s = time.monotonic() + pause_s
            await asyncio.sleep(RETRY_S)
            while time.monotonic() < next_s and not self._topics_in_doubt:
                await asyncio.sleep(RETRY_S)

    async def _check_topics(self) -> None:
        store, version = self._around.store, self.run.version
        infos = await self._around.topics.check_identity(self.run)
        self._retention_s = retention_s(infos)
        there = {TopicPartition(topic, n) for topic, info in infos.items() for n in range(info.partitions)}
        known = set((await store.positions([version])).get(version, {}))
        new = there - known
        if new:
            log.warning("%s: its topics were widened by %d partitions", version, len(new))
            await store.add_partitions(version, new)
        if known | new != set(self._partitions):
            self._partitions = tuple(sorted(known | new))
            self._wake.set()
