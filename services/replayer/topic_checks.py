"""Are the topics of a run still those that its positions belong to? For who asks often: an answer stands for a moment.

A check costs Kafka ten requests and a connection, and a change of a route asks for it twice within a tenth of a second.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass, field
from typing import Final

from core.kafka import TopicInfo
from services.replayer.run import Run
from turnout.clock import Clock
from turnout.names import VersionId

STANDS_S: Final = 1.0
"""For how long topics that were found right count as right: less than the age of any measurement that a gate takes."""

Infos = Mapping[str, TopicInfo]


@dataclass(slots=True)
class _Check:
    """The newest check of a run that found its topics right. began_s: monotonic."""

    began_s: float = -math.inf
    infos: Infos = field(default_factory=dict)
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class TopicChecks:
    """Checks, each of which answers all who ask for the same run within STANDS_S. What fails is asked again each time.

    check: raises FailedPrecondition where a topic is not the one that it was, Unavailable while Kafka does not answer.
    """

    def __init__(self, check: Callable[[Run], Awaitable[Infos]], clock: Clock) -> None:
        self._check = check
        self._clock = clock
        self._checks: dict[VersionId, _Check] = {}

    async def of(self, run: Run) -> Infos:
        """The run's topics by name, by a check that began STANDS_S ago or later. Raises as `check` does."""
        self._forget()
        one = self._checks.setdefault(run.version, _Check())
        async with one.lock:
            began_s = self._clock.monotonic_s()
            if began_s - one.began_s > STANDS_S:
                one.infos = await self._check(run)
                one.began_s = began_s
            return one.infos

    def _forget(self) -> None:
        now_s = self._clock.monotonic_s()
        old = [key for key, one in self._checks.items() if now_s - one.began_s > STANDS_S and not one.lock.locked()]
        for key in old:
            del self._checks[key]
