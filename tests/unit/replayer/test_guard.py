"""The retention guard asks Kafka, and meanwhile the log goes on."""

from __future__ import annotations

import asyncio
from collections.abc import Collection, Mapping
from datetime import datetime
from typing import cast

import pytest

from services.replayer import guard
from services.replayer.forecast import UNKNOWN, Forecast
from services.replayer.guard import RetentionGuard
from services.replayer.protocol import TopicPartition
from services.replayer.retention import StartLine
from services.replayer.run import LogEnds, Sample
from services.replayer.sampler import Sampler
from services.replayer.states import State
from services.replayer.topics import Topics
from tests.unit.replayer.made import NOW, at, run, sample, tp
from turnout.clock import SystemClock


class _Sampler:
    """What has been measured, and what is measured while Kafka is asked."""

    def __init__(self, samples: list[Sample]) -> None:
        self.samples = samples
        self.log_starts: Mapping[TopicPartition, StartLine] = {}

    @property
    def newest(self) -> Sample:
        return self.samples[-1]

    def forecast(self, version: object) -> Forecast:
        return UNKNOWN


class _Topics:
    """A broker whose answer comes in the very moment in which a partition has just become known."""

    def __init__(self, sampler: _Sampler, later: list[Sample]) -> None:
        self._sampler = sampler
        self._later = later
        self.asked: asyncio.Future[Mapping[TopicPartition, LogEnds]] = asyncio.get_running_loop().create_future()

    async def retention_s(self, topics: Collection[str]) -> dict[str, float]:
        self._sampler.samples = self._later
        return dict.fromkeys(topics, 3600.0)

    async def first_times(self, starts: Mapping[TopicPartition, LogEnds]) -> dict[TopicPartition, datetime]:
        self.asked.set_result(starts)
        return dict.fromkeys(starts, NOW)


async def test_a_topic_that_appears_while_kafka_is_asked_is_looked_at(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "JUDGE_EVERY_S", 3600.0)  # there is no second round
    one = run(state=State.PAUSED)
    unknown = [sample([(one, {0: at(5)})], {}, at_s=0.0)]
    known = [sample([(one, {0: at(5)})], {0: 1000}, at_s=n / 4) for n in range(48)]
    sampler = _Sampler(unknown)
    topics = _Topics(sampler, known)
    watch = RetentionGuard(cast(Topics, topics), cast(Sampler, sampler), SystemClock())
    watch.start()
    try:
        asked = await asyncio.wait_for(topics.asked, 10.0)
    finally:
        await watch.stop()
    assert asked == {tp(0): LogEnds(5, 1000, known[-1].monotonic_s)}
