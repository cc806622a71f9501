"""Measuring all the time: four times a second the committed positions of the runs that have a
table, the ends of the log and who is live.

One history answers everybody: progress, gates, watches. Asking costs nothing and never waits.
"""

import asyncio
import logging
from collections.abc import Mapping, Sequence

from services.replayer.forecast import Forecast
from services.replayer.history import History
from services.replayer.presence import Presence
from services.replayer.protocol import TopicPartition
from services.replayer.retention import StartLine
from services.replayer.run import Sample
from services.replayer.store import Store
from services.replayer.topics import EndsWatch
from turnout.clock import Clock
from turnout.errors import Unavailable
from turnout.names import VersionId
from turnout.tasks import end

log = logging.getLogger(__name__)


class Sampler:
    """Keeps the samples of the last seconds, oldest first; see `history`."""

    EVERY_S = 0.25

    def __init__(self, store: Store, ends: EndsWatch, presence: Presence, clock: Clock) -> None:
        self._store = store
        self._presence = presence
        self._ends = ends
        self._clock = clock
        self._history = History()
        self._taken = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.away = ""  # why nothing is measured at the moment; empty = all is well

    @property
    def samples(self) -> Sequence[Sample]:
        return self._history.samples

    def forecast(self, version: VersionId) -> Forecast:
        """When the run reaches its end, as of the newest sample."""
        return self._history.forecast(version)

    @property
    def log_starts(self) -> Mapping[TopicPartition, StartLine]:
        """How the start of each partition's log has moved."""
        return self._history.starts

    @property
    def newest(self) -> Sample | None:
        samples = self._history.samples
        return samples[-1] if samples else None

    def start(self) -> None:
        """Begin to measure."""
        self._tasks = [
            asyncio.create_task(self._sample(), name="sample positions"),
            asyncio.create_task(self._watch_ends(), name="watch log ends"),
        ]

    async def stop(self) -> None:
        """End measuring."""
        await end(*self._tasks)

    async def next_sample(self) -> None:
        """Wait until another sample was taken, or was tried in vain."""
        await self._taken.wait()

    async def fresh(self) -> Sequence[Sample]:
        """The history with a sample of this moment at its end, for one answer. Unavailable while PostgreSQL is away."""
        return (*self._history.samples, await self._measure())

    async def _measure(self) -> Sample:
        # The time before asking: positions are then no older than the sample says.
        monotonic_s, at = self._clock.monotonic_s(), self._clock.now()
        runs = {run.version: run for run in await self._store.standing()}
        positions = await self._store.positions()
        replicas = await self._store.replicas()
        return Sample(
            monotonic_s=monotonic_s,
            at=at,
            runs=runs,
            positions=positions,
            ends=self._ends.ends,
            replicas=replicas,
        )

    async def _sample(self) -> None:
        while True:
            try:
                sample = await self._measure()
                await self._presence.renew()
                self._history.add(sample)
                self.away = ""
            except Unavailable as error:
                self.away = error.message
            except Exception:
                log.exception("measuring failed")
            taken, self._taken = self._taken, asyncio.Event()
            taken.set()
            await asyncio.sleep(self.EVERY_S)

    async def _watch_ends(self) -> None:
        while True:
            runs = self.newest.runs.values() if self.newest is not None else ()
            topics = {topic for run in runs for topic in run.topic_ids}
            try:
                await self._ends.refresh(sorted(topics))
            except Exception:
                log.exception("asking for the ends of the log failed")
            await asyncio.sleep(self._ends.EVERY_S if self.newest is not None else self.EVERY_S)
