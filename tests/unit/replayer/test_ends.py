"""The ends of the log: asked for at once, and as old as the question."""

from __future__ import annotations

import asyncio
import math
from collections.abc import Collection
from typing import cast

from services.replayer.protocol import TopicPartition
from services.replayer.run import LogEnds
from services.replayer.topics import EndsWatch, Topics
from tests.unit.replayer.made import tp
from turnout.errors import FailedPrecondition


class _Topics:
    """A broker that answers for some topics only: no real one can be made to."""

    def __init__(self) -> None:
        self.silent: set[str] = set()
        self.missing: set[str] = set()
        self.end = 100

    async def ends(self, topics: Collection[str]) -> dict[TopicPartition, LogEnds]:
        (topic,) = topics
        if topic in self.silent:
            await asyncio.Event().wait()
        if topic in self.missing:
            raise FailedPrecondition("TOPIC_NOT_FOUND", "gone")
        return {tp(0, topic): LogEnds(0, self.end, float(self.end))}


async def test_a_silent_topic_makes_no_other_one_old() -> None:
    topics = _Topics()
    ends = EndsWatch(cast(Topics, topics))
    await ends.refresh(["a", "b"])
    assert not ends.away
    topics.silent, topics.end = {"a"}, 200
    await ends.refresh(["a", "b"])
    assert ends.ends == {tp(0, "a"): LogEnds(0, 100, 100.0), tp(0, "b"): LogEnds(0, 200, 200.0)}
    assert "Kafka does not answer about a" in ends.away
    topics.silent, topics.missing = set(), {"b"}
    await ends.refresh(["a", "b"])
    assert (ends.away, set(ends.ends)) == ("", {tp(0, "a")})


async def test_what_workers_tell_moves_on_and_gets_no_younger() -> None:
    ends = EndsWatch(cast(Topics, _Topics()))
    ends.told(tp(0, "a"), 0, 50)
    assert ends.ends == {tp(0, "a"): LogEnds(0, 50, -math.inf)}
    await ends.refresh(["a"])
    ends.told(tp(0, "a"), 10, 130)
    ends.told(tp(0, "a"), 0, 120)
    assert ends.ends == {tp(0, "a"): LogEnds(10, 130, 100.0)}
