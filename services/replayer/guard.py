"""The retention guard at work: asks how long topics keep their records, judges every cursor, and warns in the log.

What it judges by is in `retention.py`. Every replica judges for itself, for each of them answers for all runs.
"""

import asyncio
import logging
from collections.abc import Collection, Iterable, Mapping
from datetime import datetime
from typing import Final

from services.replayer.outlook import Outlook
from services.replayer.protocol import TopicPartition
from services.replayer.retention import Alarms, Retention, Risk, has_cursor, risk_of, standing_cursors
from services.replayer.run import LogEnds, Run, Sample
from services.replayer.sampler import Sampler
from services.replayer.topics import Topics
from turnout.clock import Clock
from turnout.errors import TurnoutError
from turnout.names import VersionId
from turnout.tasks import end

log = logging.getLogger(__name__)

JUDGE_EVERY_S: Final = 1.0
ASK_EVERY_S: Final = 30.0  # how long topics keep records: a change of it is taken up within that time
READ_EVERY_S: Final = 5.0  # the records that cursors stand before; each of them once


class RetentionGuard:
    """Judges all the time, so that asking never waits."""

    def __init__(self, topics: Topics, sampler: Sampler, clock: Clock) -> None:
        self._topics = topics
        self._sampler = sampler
        self._clock = clock
        self._keeps_s: dict[str, float] = {}
        self._asked: frozenset[str] = frozenset()
        self._asked_s = self._read_s = float("-inf")
        self._next_times: dict[tuple[TopicPartition, int], datetime] = {}
        self._risks: Mapping[VersionId, Risk] = {}
        self._alarms = Alarms()
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        """Begin to judge."""
        self._task = asyncio.create_task(self._watch(), name="guard retention")

    async def stop(self) -> None:
        """Judge no more."""
        await end(self._task)

    def outlook(self, run: Run) -> Outlook:
        """What is to be expected of a run."""
        return Outlook(self._sampler.forecast(run.version), self._risks.get(run.version))

    async def _watch(self) -> None:
        while True:
            try:
                if self._sampler.newest is not None:
                    await self._judge(self._sampler.newest)
            except TurnoutError:
                pass  # Kafka is away, which the runs themselves say; the next round asks again
            except Exception:
                log.exception("judging the retention of topics failed; going on")
            await asyncio.sleep(JUDGE_EVERY_S)

    async def _judge(self, newest: Sample) -> None:
        runs = [run for run in newest.runs.values() if has_cursor(run)]
        try:
            await self._ask(frozenset(topic for run in runs for topic in run.topic_ids))
            await self._read(runs)
        finally:  # by what is known, while Kafka does not answer
            self._conclude(runs)

    def _conclude(self, runs: Iterable[Run]) -> None:
        known = Retention(self._keeps_s, self._sampler.log_starts, self._next_times)
        samples = self._sampler.samples
        judged = {run.version: risk_of(run, samples, self._sampler.forecast(run.version), known) for run in runs}
        self._risks = {version: risk for version, risk in judged.items() if risk is not None}
        for version in self._alarms.due(self._risks, self._clock.monotonic_s()):
            risk = self._risks[version]
            log.warning("%s%s: %s", "URGENT: " if risk.urgent else "", version, risk.message)

    async def _ask(self, topics: Collection[str]) -> None:
        now_s = self._clock.monotonic_s()
        if now_s - self._asked_s < ASK_EVERY_S and self._asked >= set(topics):
            return
        self._keeps_s = await self._topics.retention_s(sorted(topics))
        self._asked, self._asked_s = frozenset(topics), now_s

    async def _read(self, runs: Iterable[Run]) -> None:
        """When the records were written that cursors stand before, in topics that forget by time."""
        now_s, samples = self._clock.monotonic_s(), self._sampler.samples
        if now_s - self._read_s < READ_EVERY_S:
            return
        standing = {one for run in runs for one in standing_cursors(run, samples) if one[0].topic in self._keeps_s}
        self._next_times = {one: time for one, time in self._next_times.items() if one in standing}
        wanted: dict[TopicPartition, LogEnds] = {}
        for tp, offset in sorted(standing - self._next_times.keys()):  # of two at one partition the other comes later
            # By the sample that it was found standing in: an older one may not know the topic yet.
            wanted[tp] = LogEnds(offset, samples[-1].ends[tp].end, samples[-1].monotonic_s)
        if wanted:
            self._read_s = now_s
            times = await self._topics.first_times(wanted)
            self._next_times |= {(tp, wanted[tp].start): time for tp, time in times.items()}
