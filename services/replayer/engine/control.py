"""What the worker was told, and what it tells: assignment, rate, stop in; progress and waiting out."""

import asyncio
import logging
import time
from collections.abc import Callable, Iterable, Mapping
from typing import Final

from services.replayer.engine.background import step_back
from services.replayer.engine.batch import Tempo
from services.replayer.engine.ingest import Log
from services.replayer.engine.leases import Lease
from services.replayer.engine.pace import Pace
from services.replayer.liveness import Silence, left_alone_after_s
from services.replayer.protocol import (
    Alive,
    Assign,
    PartitionState,
    Progress,
    Rate,
    Start,
    TopicPartition,
    ToSupervisor,
    ToWorker,
    Trying,
    Waiting,
)

log = logging.getLogger(__name__)

REPORT_S: Final = 0.25


class Control:
    """Shared by everything in the worker; used on the event loop only."""

    def __init__(self, start: Start, send: Callable[[ToSupervisor], None], flush: Callable[[], None]) -> None:
        self.partitions = frozenset(start.partitions)
        self.pace = Pace(start.rate_per_s, time.monotonic())
        self.tempo = Tempo(start.lease_s, start.write_s_max)
        self._in_front = start.background  # a copy, which goes behind everything else once reads are live
        self.stopping = False
        self.stopped = asyncio.Event()
        self._send = send
        self._flush = flush
        self._reassigned = False
        self._hold_hinted = False
        self._held: Mapping[TopicPartition, Lease] = {}
        self._log: Log | None = None
        self._waiting: dict[str, str] = {}
        self._silence = Silence(time.monotonic())  # of the supervisor
        self._left_alone_after_s = left_alone_after_s(start.lease_s)
        self._make_way()

    def heard(self, message: ToWorker | None) -> None:
        """A message of the supervisor's; None = it is gone, which ends the worker like Stop."""
        self._silence.broken()
        if isinstance(message, Alive):
            pass
        elif isinstance(message, Rate):
            self.pace.change(message.per_s, time.monotonic())
            self.tempo.write_s_max = message.write_s_max
            self._make_way()
        elif isinstance(message, Assign):
            self.partitions = frozenset(message.partitions)
            self._reassigned = True
        else:
            self.stopping = True
            self.stopped.set()

    def _make_way(self) -> None:
        """Step back for good when the supervisor bounds what a write may take: somebody reads."""
        if self._in_front and self.tempo.write_s_max is not None:
            self._in_front = False
            step_back()

    @property
    def interrupted(self) -> bool:
        """Whether what is going on now should come to an orderly end."""
        return self.stopping or self._reassigned

    def hold_hinted(self) -> None:
        """Somebody holds positions, perhaps some of ours."""
        self._hold_hinted = True

    def hold_seen(self) -> bool:
        """Whether that was said since it was asked last."""
        hinted, self._hold_hinted = self._hold_hinted, False
        return hinted

    def assignment_seen(self) -> None:
        """`partitions` is about to be acted upon."""
        self._reassigned = False

    async def pause(self, seconds: float) -> None:
        """Wait; not once told to stop."""
        try:
            async with asyncio.timeout(seconds):
                await self.stopped.wait()
        except TimeoutError:
            pass

    # --- to the supervisor ------------------------------------------------------------------------------------------

    def report_on(self, log: Log) -> None:
        """The log whose ends go into the progress."""
        self._log = log

    def report(self, held: Mapping[TopicPartition, Lease]) -> None:
        """The leases whose positions are the progress, from now on; kept up to date by their owner."""
        self._held = held

    def trying(self, tp: TopicPartition, offset: int) -> None:
        """The job's function gets this record next; returns when that is said, for it may be the last word."""
        self._send(Trying(topic=tp.topic, partition=tp.partition, offset=offset))
        self._flush()

    def wait_for(self, reason: str, message: str) -> None:
        """Something holds the worker up."""
        if reason not in self._waiting:
            self._send(Waiting(reason=reason, message=message))
        self._waiting[reason] = message

    def goes_on(self, reason: str) -> None:
        """That no longer holds it up."""
        self._waiting.pop(reason, None)

    async def report_regularly(self) -> None:
        """Send Progress, or Waiting instead, until cancelled."""
        while True:
            await asyncio.sleep(REPORT_S)
            self._notice_silence()
            self.report_now()

    def _notice_silence(self) -> None:
        """A supervisor that was frozen ends the worker as one that is gone. One that never says Alive is not listened
        for."""
        silent_s = self._silence.look(time.monotonic())
        if self._silence.spoke and silent_s > self._left_alone_after_s and not self.stopping:
            log.warning("the supervisor has said nothing for %.0f s; stopping", silent_s)
            self.heard(None)

    def report_now(self) -> None:
        """Send Progress, or Waiting instead."""
        if self._waiting:
            reason, message = next(iter(self._waiting.items()))
            self._send(Waiting(reason=reason, message=message))
        elif self._held and self._log is not None:
            states = tuple(_states(self._held.values(), self._log))
            self._send(Progress(partitions=states, write_s=self.tempo.write_s))


def _states(held: Iterable[Lease], log: Log) -> Iterable[PartitionState]:
    for lease in held:
        if lease.tp not in log.ranges:
            continue  # the log has not been asked yet
        end = log.end_of(lease.tp)
        yield PartitionState(
            topic=lease.tp.topic,
            partition=lease.tp.partition,
            next_offset=lease.next_offset,
            end_offset=max(end, lease.next_offset),
            log_start=log.ranges[lease.tp].start,
            event_time_ms=lease.event_time_ms,
            records=lease.records,
            set_aside=lease.set_aside,
            at_end=lease.next_offset >= end,
        )
