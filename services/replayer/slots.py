"""The worker processes of one run, each in its slot: started, told what to do, heard, ended, replaced.

A process that ended without being told to is dead, and one that gives no sign of life (`liveness.py`) or stands still
(`stuck.py`) is killed: what is left of it in the database is ended and its leases are freed before another takes its
partitions, so that nothing waits for a lease to run out.
"""

import asyncio
import itertools
import logging
import time
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path

from services.replayer.assignment import Deaths, died
from services.replayer.live_run import LiveRun
from services.replayer.liveness import LOOK_S
from services.replayer.protocol import STOP_WITHIN_S, Deadly, Fault, Rate, Start, Stretch, TopicPartition
from services.replayer.replicas import owner_name
from services.replayer.store import Failure
from services.replayer.stuck import excuses
from services.replayer.surroundings import Surroundings
from services.replayer.workers import Worker
from turnout.errors import Unavailable
from turnout.schema import OnMalformed, encode

log = logging.getLogger(__name__)

GRACE_S = STOP_WITHIN_S + 2.0  # for a worker to finish its batch or cut it off, and to release its leases
NOTICE_S = 15.0  # for which a run says that a worker was given up

_births = itertools.count(1)  # of this process: no two workers have the same name, in whichever run or slot


@dataclass(slots=True)
class Slot:
    """A worker's place in the run."""

    number: int
    worker: Worker | None = None
    deaths: Deaths = field(default_factory=Deaths)
    start_at_s: float = 0.0  # monotonic; not before
    replaces: bool = False  # the next process takes the place of a dead one
    replaces_stuck: bool = False  # which was alive, and stood still


class Slots:
    """The slots of one run, numbered from 0."""

    def __init__(self, live: LiveRun, around: Surroundings) -> None:
        self._live = live
        self._around = around
        self._slots: dict[int, Slot] = {}
        self._notice = ""
        self._notice_ends_s = 0.0  # monotonic

    @property
    def workers(self) -> list[Worker]:
        """The processes that are alive."""
        return [slot.worker for slot in self._slots.values() if slot.worker is not None and not slot.worker.ended]

    @property
    def empty(self) -> bool:
        """Whether all workers have ended and everything about their ends is done."""
        return not self._slots

    @property
    def notice(self) -> str:
        """That a worker was given up, said for a moment after it."""
        return self._notice if time.monotonic() < self._notice_ends_s else ""

    async def watch_silence(self) -> None:
        """Until cancelled. Beside the loop, whose steps wait for PostgreSQL: a worker that is killed is then one that
        ended."""
        while True:
            await asyncio.sleep(LOOK_S)
            try:
                for worker in self.workers:
                    worker.kill_if_silent()
                    worker.beat()
            except Exception:
                log.exception("watching the workers of %s failed; going on", self._live.run.version)

    async def staff(
        self, hands: Sequence[tuple[TopicPartition, ...]], rates: Sequence[Rate], *, background: bool
    ) -> None:
        """Make the processes as many as there are hands, each with its partitions and its rate. A process stays in the
        background once it is there: for a tail another one takes its place."""
        surplus = [
            slot
            for slot in self._slots.values()
            if slot.number >= len(hands) or (slot.worker is not None and slot.worker.background is not background)
        ]
        if surplus:
            await self._end(surplus)
        for number, (hand, rate) in enumerate(zip(hands, rates, strict=True)):
            slot = self._slots.setdefault(number, Slot(number))
            if slot.worker is not None:
                slot.worker.assign(hand)
                slot.worker.set_rate(rate)
            elif time.monotonic() >= slot.start_at_s:
                await self._start_worker(slot, hand, rate, background=background)

    async def kill_stuck(self) -> None:
        """Kill those that are alive and have stood still for too long (`stuck.py`)."""
        for worker in self.workers:
            await worker.kill_if_stuck(self._around.store.worker_writes)

    async def reap(self) -> None:
        """Take note of workers that have ended."""
        for slot in list(self._slots.values()):
            if slot.worker is not None and slot.worker.ended:
                await self._reap(slot, slot.worker)

    async def end(self) -> None:
        """End all workers in order, those that do not end in time by force."""
        await self._end(list(self._slots.values()))

    def kill(self) -> None:
        """SIGKILL to all of them, at once."""
        for slot in self._slots.values():
            if slot.worker is not None:
                slot.worker.kill()

    async def _reap(self, slot: Slot, worker: Worker) -> None:
        """Take note of an ended worker, which stays in its slot until all of this is done: a repeat is complete."""
        self._around.governing.gone(worker.owner)
        if not worker.in_order:
            await self._around.store.release(self._live.run.version, worker.owner)
        if worker.fault is not None and not self._is_death(worker.fault):
            await self._live.fail(Failure(worker.fault.reason, worker.fault.message))
        elif not worker.in_order and self._live.wanted:
            await self._count_death(slot, worker)
        slot.worker = None

    def _is_death(self, fault: Fault) -> bool:
        """Whether the fault is one record's alone, of a job that sets such records aside."""
        return fault.reason == "TRANSFORM_TIMEOUT" and self._on_malformed is OnMalformed.SET_ASIDE

    @property
    def _on_malformed(self) -> OnMalformed:
        return self._live.run.definition.on_malformed

    async def _count_death(self, slot: Slot, worker: Worker) -> None:
        version = self._live.run.version
        positions = (await self._around.store.positions([version])).get(version, {})
        lived_s = time.monotonic() - worker.born_s
        deaths = died(
            slot.deaths,
            worker.partitions,
            positions,
            self._around.ends.ends,
            lived_s=lived_s,
            alone_with=worker.alone_with,
            how=f"the worker died on it twice: it {worker.end_text}",
        )
        log.warning("a worker of %s (process %d) %s", version, worker.pid, worker.end_text)
        slot.replaces, slot.replaces_stuck = True, worker.stuck
        if worker.given_up:
            self._notice = f"a worker {worker.end_text}; another one takes its place"
            self._notice_ends_s = time.monotonic() + NOTICE_S
        if worker.stuck:
            return  # no record is to blame, and it may heal; the next one is given its time again
        if deaths.deadly and self._on_malformed is OnMalformed.FAIL:
            await self._live.fail(Failure("MALFORMED_RECORD", self._deadly_text(deaths)))
        elif deaths.hopeless:
            await self._live.fail(Failure("WORKER_KEEPS_DYING", self._hopeless_text(deaths, worker)))
        slot.deaths = deaths
        slot.start_at_s = time.monotonic() + deaths.backoff_s

    def _deadly_text(self, deaths: Deaths) -> str:
        (tp, offset), how = next(iter(deaths.deadly.items()))
        return (
            f"The record at {tp.topic}, partition {tp.partition}, offset {offset} is malformed: {how}. The worker's "
            f"log is {self._log_file()}. Mend the job and apply it as a new version, or let it set such records aside: "
            f'on_malformed="set_aside".'
        )

    def _hopeless_text(self, deaths: Deaths, worker: Worker) -> str:
        at = ", ".join(f"{tp.topic}/{tp.partition} at offset {n:,}" for tp, n in sorted(deaths.offsets.items()))
        return (
            f"A worker {worker.end_text}, {deaths.in_a_row} times in a row without getting further ({at}). Its log is "
            f"{self._log_file()}. Mend the cause, then resume the run."
        )

    async def _end(self, slots: list[Slot]) -> None:
        workers = [slot.worker for slot in slots if slot.worker is not None]
        for worker in workers:
            worker.stop()
        await asyncio.gather(*(worker.gone(GRACE_S) for worker in workers))
        for slot in slots:
            if slot.worker is not None:
                try:
                    await self._reap(slot, slot.worker)
                except Unavailable:
                    if not self._live.closing:
                        raise
                    log.warning("%s: the leases of %s run out by themselves", self._live.run.version, slot.worker.owner)
            self._slots.pop(slot.number, None)

    async def _start_worker(
        self, slot: Slot, hand: tuple[TopicPartition, ...], rate: Rate, *, background: bool
    ) -> None:
        run, settings = self._live.run, self._around.settings
        code = await self._around.artifacts.unpacked(run.version, run.artifact_digest)
        start = Start(
            version=run.version.name,
            job=run.version.job,
            owner=owner_name(settings.instance, run.version.job, run.version.number, slot.number, next(_births)),
            artifact_dir=str(code),
            definition_json=encode(run.definition).decode(),
            kafka=settings.brokers.properties,
            postgres=settings.postgres,
            table=run.table,
            lease_s=settings.run_lease_s,
            partitions=hand,
            rate_per_s=rate.per_s,
            write_s_max=rate.write_s_max,
            background=background,
            record_by_record=tuple(Stretch(tp, until) for tp, until in sorted(slot.deaths.record_by_record.items())),
            deadly=tuple(Deadly(tp, offset, how) for (tp, offset), how in slot.deaths.deadly.items()),
        )
        if slot.replaces:
            self._live.follow(await self._around.store.count_restart(run.version, stuck=slot.replaces_stuck))
            slot.replaces = slot.replaces_stuck = False
        slot.worker = await Worker.start(start, self._log_file(), self._heard, self._may_wait)

    def _may_wait(self, reason: str) -> bool:
        """Whether a worker may wait for this as long as it lasts, by what this replica finds itself."""
        ends, run = self._around.ends, self._live.run
        away = bool(ends.away or ends.missing & run.topic_ids.keys())
        return excuses(reason, kafka_away=away, postgres_away=bool(self._around.sampler.away))

    def _heard(self) -> None:
        for worker in self.workers:
            if worker.background and worker.progress is not None:
                self._around.governing.wrote(worker.owner, worker.progress.write_s)
            for state in worker.progress.partitions if worker.progress is not None else ():
                tp = TopicPartition(state.topic, state.partition)
                self._around.ends.told(tp, state.log_start, state.end_offset)
        self._live.changed.set()

    def _log_file(self) -> Path:
        version = self._live.run.version
        return self._around.settings.data_dir / "logs" / f"{version.job}-v{version.number}-worker.log"
