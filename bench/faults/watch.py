"""Watches the stored positions ten times a second: they never move back, and how soon they move on after a fault."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

from bench.faults.tables import AWAY
from bench.faults.world import World
from turnout.tasks import end

EVERY_S: Final = 0.1
_ANSWER_S: Final = 2.0

Place = tuple[str, int]  # version, partition


@dataclass(frozen=True, slots=True)
class Sample:
    """The positions at some time (monotonic seconds): next offset, fence, owner of each partition of each version."""

    at_s: float
    offsets: dict[Place, int]
    fences: dict[Place, int]
    owners: dict[Place, str]


class Watch:
    """Samples from `start` to `stop`. What speaks against exactly-once is added to `findings`."""

    def __init__(self, world: World, versions: Sequence[str]) -> None:
        self.samples: list[Sample] = []
        self.findings: list[str] = []
        self._world = world
        self._versions = list(versions)
        self._connection: Any = None
        self._task: asyncio.Task[None] | None = None

    def start(self) -> None:
        self._task = asyncio.create_task(self._sample_all_the_time())

    async def stop(self) -> None:
        await end(self._task)
        if self._connection is not None:
            self._connection.terminate()

    async def _sample_all_the_time(self) -> None:
        crashes = self._world.crashes
        while True:
            self._world.workers.alive()  # so that those which lose their replayer are known
            before = self._world.crashes
            try:
                sample = await self._sample()
            except AWAY:
                if self._connection is not None:
                    self._connection.terminate()
                    self._connection = None
            else:
                if self.samples:
                    self._judge(self.samples[-1], sample, crashed=crashes != self._world.crashes)
                self.samples.append(sample)
                crashes = before
            await asyncio.sleep(EVERY_S)

    async def _sample(self) -> Sample:
        if self._connection is None:
            self._connection = await asyncpg.connect(
                self._world.stack.postgres, timeout=_ANSWER_S, command_timeout=_ANSWER_S
            )
        rows = await self._connection.fetch(
            "select version, partition, next_offset, fence, owner from serving.positions where version = any($1)",
            self._versions,
        )
        return Sample(
            time.monotonic(),
            {(row["version"], row["partition"]): row["next_offset"] for row in rows},
            {(row["version"], row["partition"]): row["fence"] for row in rows},
            {(row["version"], row["partition"]): row["owner"] or "" for row in rows},
        )

    def _judge(self, old: Sample, new: Sample, *, crashed: bool) -> None:
        """A crash of PostgreSQL takes back the newest batches, which are committed asynchronously; nothing else does.
        Leases are committed synchronously: no fence ever goes back."""
        for place, offset in old.offsets.items():
            if new.offsets.get(place, -1) < offset and not crashed:
                self.findings.append(f"the position of {place} moved back from {offset} to {new.offsets.get(place)}")
        for place, fence in old.fences.items():
            if new.fences.get(place, -1) < fence:
                self.findings.append(f"the fence of {place} moved back from {fence} to {new.fences.get(place)}")

    def recovered_s(self, since_s: float, ends: dict[Place, int]) -> float | None:
        """Seconds from then until every partition had moved on, or stood at the end of the log; None if there was
        nothing left to read, or not everything was read."""
        later = [sample for sample in self.samples if sample.at_s >= since_s]
        if not later:
            return None
        first = later[0].offsets
        waiting = {place for place, offset in first.items() if offset < ends.get(place, 0)}
        if not waiting:
            return None
        for sample in later:
            waiting -= {
                place
                for place in waiting
                if sample.offsets[place] > first[place] or sample.offsets[place] >= ends.get(place, 0)
            }
            if not waiting:
                return sample.at_s - since_s
        return None
