"""Watching the topics of one run: are they still those of its start, and have they got new partitions?"""

import asyncio
import functools
import logging
import time
from collections.abc import Callable, Collection

from services.replayer.live_run import LiveRun
from services.replayer.protocol import TopicPartition
from services.replayer.run import bounded
from services.replayer.store import Failure
from services.replayer.surroundings import Surroundings
from services.replayer.workers import Worker
from turnout.errors import FailedPrecondition, TurnoutError

log = logging.getLogger(__name__)

CHECK_S = 30.0
RETRY_S = 1.0
DOUBTFUL = frozenset({"TOPIC_NOT_FOUND", "POSITION_BEYOND_END"})
MISSING_MAX = 3  # so many checks in a row are no accident; a starting broker may not know it all yet


class TopicWatch:
    """Checks at the start, then every so often, and soon when something about the topics is odd."""

    def __init__(self, live: LiveRun, around: Surroundings, workers: Callable[[], Collection[Worker]]) -> None:
        self.checked = False
        """Whether the topics have been found to be the right ones, at least once."""
        self.trouble = ""
        self._live = live
        self._around = around
        self._workers = workers

    @property
    def missing(self) -> frozenset[str]:
        """Topics of the run that Kafka did not know when it was asked last."""
        return self._around.ends.missing & self._live.run.topic_ids.keys()

    async def watch(self) -> None:
        """Until cancelled. A run whose topics are gone or others by now fails."""
        missing = 0
        while True:
            pause_s, failure = RETRY_S, None
            try:
                await self._check()
                missing, pause_s = 0, CHECK_S
                self.trouble = ""
            except FailedPrecondition as error:
                missing = missing + 1 if error.reason in DOUBTFUL else MISSING_MAX
                failure = Failure(error.reason, error.message)
                self.trouble = error.message
            except TurnoutError as error:
                self.trouble = error.message
            except Exception:
                log.exception("checking the topics of %s failed", self._live.run.version)
            if failure is not None and missing >= MISSING_MAX:
                await self._live.guarded(functools.partial(self._live.fail, failure))
            next_s = time.monotonic() + pause_s
            await asyncio.sleep(RETRY_S)
            while time.monotonic() < next_s and not self._in_doubt:
                await asyncio.sleep(RETRY_S)

    @property
    def _in_doubt(self) -> bool:
        unread = any(w.waiting is not None and w.waiting.reason == "KAFKA_UNAVAILABLE" for w in self._workers())
        return unread or bool(self.missing)

    async def _check(self) -> None:
        store, run = self._around.store, self._live.run
        infos = await self._around.topics.check_identity(run)
        there = {TopicPartition(topic, n) for topic, info in infos.items() for n in range(info.partitions)}
        positions = (await store.positions([run.version])).get(run.version, {})
        await self._around.topics.check_positions(run, positions, moving=True)
        await self._around.topics.check_applied(run, positions)
        new = set() if bounded(positions) else there - positions.keys()  # a bounded range was found out at the start
        if new:
            log.warning("%s: its topics were widened by %d partitions", run.version, len(new))
            await store.add_partitions(run.version, new)
        if not self.checked:
            self.checked = True
            self._live.changed.set()
