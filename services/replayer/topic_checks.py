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
from turnout.errors import TurnoutError
from turnout.names import VersionId

STANDS_S: Final = 1.0
"""For how long topics that were found right count as right: less than the age of any measurement that a gate takes."""

Infos = Mapping[str, TopicInfo]


@dataclass(slots=True)
class _Check:
    """The newest check of a run, and what came of it. began_s: monotonic."""

    began_s: float = -math.inf
    infos: Infos = field(default_factory=dict)
    failed: TurnoutError | None = None
    lock: asyncio.Lock = field(default_factory=asyncio.Lock)


class TopicChecks:
    """Checks, each of which answers all who ask for the same run until STANDS_S after its begin, and whoever had asked
    before: nobody waits for a second one of others. What failed is told to those who had asked before, alone.

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
        asked_s = self._clock.monotonic_s()
        async with one.lock:
            stands = one.failed is None and one.began_s >= asked_s - STANDS_S
            if not stands and one.began_s <= asked_s:
                await self._renew(one, run)
            if one.failed is not None:
                raise one.failed
            return one.infos

    async def _renew(self, one: _Check, run: Run) -> None:
        began_s, failed = self._clock.monotonic_s(), None
        try:
            one.infos = await self._check(run)
        except TurnoutError as error:
            failed = error
        one.began_s, one.failed = began_s, failed

    def _forget(self) -> None:
        now_s = self._clock.monotonic_s()
        old = [key for key, one in self._checks.items() if now_s - one.began_s > STANDS_S and not one.lock.locked()]
        for key in old:
            del self._checks[key]
