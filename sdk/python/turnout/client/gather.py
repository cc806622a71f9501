"""Concurrent gets of one event loop, gathered into batches.

A get that is alone goes at once, as it is. Gets made in the same turn of the loop leave together; what comes while a
call is under way gathers until that one is answered, for two milliseconds at most, so that nobody stands behind a slow
one.

Nobody notices the others: each caller keeps its own deadline, its cancellation, its answer and its error. What is
refused for the sake of one key is asked again in halves at once, until that key stands alone; only then is it tried
again, so that it costs the others no time.
"""

from __future__ import annotations

import asyncio
import contextvars
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, NamedTuple, Protocol

from turnout.client.batches import Values
from turnout.client.connection import too_late
from turnout.errors import DeadlineExceeded, TurnoutError
from turnout.results import Read

GATHER_S: Final = 0.002
"""Longest wait for company, in seconds."""
KEYS_MAX: Final = 1000
"""Most gets of a batch; a tenth of what a front takes, so that one batch does not hold up the next for long."""

OF_ONE_KEY: Final = frozenset(
    {
        "ANSWER_TOO_LARGE",
        "BEHIND_TOKEN",
        "INTERNAL",
        "INVALID_KEY",
        "POSTGRES_DENIED",
        "TABLE_CHANGING",
        "TABLE_MISSING",
        "TABLE_UNREADABLE",
        "UNKNOWN",
        "VALUE_UNREADABLE",
    }
)
"""Reasons for which one key, or the version that it leads to, may fail a whole batch."""


class Alike(NamedTuple):
    """What gets must have in common to share a call.

    names: of the key's columns, in the order in which their values are given; empty = in the table's. deadline_s: 0,
    or with a token the deadline, which tells a front how long to wait until it is no more behind.
    """

    job: str
    version: int
    with_unit: bool
    names: tuple[str, ...]
    token: bytes
    deadline_s: float


@dataclass(slots=True)
class Asked:
    """One get: key, unit ("" = the row's key), deadline in seconds, and when that is on the loop's clock."""

    key: Values
    unit: str
    deadline_s: float
    until_s: float
    answer: asyncio.Future[Read] = field(init=False)
    batch: _Batch = field(init=False)


class Calls(Protocol):
    """How gets are asked, within a number of seconds."""

    async def one(self, alike: Alike, asked: Asked, within_s: float) -> Read:
        """Ask a single one."""

    async def many(self, alike: Alike, asked: Sequence[Asked], within_s: float) -> list[Read]:
        """Ask several in one call; an answer for each, in their order. What is OF_ONE_KEY is told at once."""


class Gather:
    """Gathers gets that are alike."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._groups: dict[Alike, _Group] = {}

    async def get(self, alike: Alike, key: Values, unit: str, deadline_s: float) -> Read:
        """The answer, as it would be without the others."""
        group = self._groups.get(alike)
        if group is None:
            group = self._groups[alike] = _Group(alike, self._calls, self._groups)
        return await group.get(Asked(key, unit, deadline_s, group.loop.time() + deadline_s))


class _Group:
    """Gets that may share a call. It is among `groups` for as long as there are any."""

    def __init__(self, alike: Alike, calls: Calls, groups: dict[Alike, _Group]) -> None:
        self.loop = asyncio.get_running_loop()
        self._alike = alike
        self._calls = calls
        self._groups = groups
        self._under_way = 0
        self._waiting: list[Asked] = []
        self._context: contextvars.Context | None = None
        self._leaves: asyncio.Handle | None = None
        self._led = False

    async def get(self, asked: Asked) -> Read:
        if not self._under_way and not self._led and not self._waiting and await self._leads():
            return await self._alone(asked)
        return await self._together(asked)

    async def _leads(self) -> bool:
        """Wait for who else asks in this turn of the loop. Whether nobody has: then a call is under way from now."""
        self._led = True
        try:
            await asyncio.sleep(0)
            alone = not self._waiting
            # Counted before the group goes on: with nothing under way it would go, and who comes later start another.
            self._under_way += alone
        finally:
            self._led = False
            self._go_on()
        return alone

    async def _alone(self, asked: Asked) -> Read:
        try:
            return await self._calls.one(self._alike, asked, asked.until_s - self.loop.time())
        except DeadlineExceeded:
            raise too_late("query", "Get", asked.deadline_s) from None
        finally:
            self._ended()

    async def _together(self, asked: Asked) -> Read:
        asked.answer = self.loop.create_future()
        if not self._waiting:
            self._context = contextvars.copy_context()  # a batch stands in the trace of the first that it answers
            if not self._led:
                self._leaves = self.loop.call_later(GATHER_S, self._leave)
        self._waiting.append(asked)
        if len(self._waiting) >= KEYS_MAX:
            self._leave()
        try:
            return await asked.answer
        except asyncio.CancelledError:
            if hasattr(asked, "batch"):
                asked.batch.left()
            raise

    def _leave_soon(self) -> None:
        """Leave at the end of this turn of the loop: who is just being answered may ask again in it."""
        if self._leaves is not None:
            self._leaves.cancel()
        self._leaves = self.loop.call_soon(self._leave)

    def _leave(self) -> None:
        if self._leaves is not None:
            self._leaves.cancel()
            self._leaves = None
        waiting, self._waiting = self._waiting, []
        if waiting:
            self._under_way += 1
            _Batch(self._alike, self._calls, waiting, self._ended).send(self._context)

    def _ended(self) -> None:
        self._under_way -= 1
        self._go_on()

    def _go_on(self) -> None:
        if self._waiting:
            self._leave_soon()
        elif not self._under_way:
            self._groups.pop(self._alike, None)


class _Batch:
    """Gets that have left together."""

    def __init__(self, alike: Alike, calls: Calls, asked: list[Asked], ended: Callable[[], None]) -> None:
        self._alike = alike
        self._calls = calls
        self._asked = asked
        self._ended = ended
        self._loop = asyncio.get_running_loop()
        self._task: asyncio.Task[None] | None = None
        self._expires: asyncio.Handle | None = None
        for one in asked:
            one.batch = self

    def send(self, context: contextvars.Context | None) -> None:
        """Ask, in the background."""
        self._expire()
        self._task = self._loop.create_task(self._run(), context=context)

    def left(self) -> None:
        """A caller has gone. When none is left, nobody needs the answer."""
        if self._task is not None and all(one.answer.done() for one in self._asked):
            self._task.cancel()

    async def _run(self) -> None:
        try:
            await self._answer(self._asked)
        except asyncio.CancelledError:
            for one in self._asked:  # the client is being closed, or nobody is left
                one.answer.cancel()
        except Exception as error:  # a fault of our own; without an answer they would wait for ever
            for one in self._asked:
                if not one.answer.done():
                    one.answer.set_exception(error)
        finally:
            if self._expires is not None:
                self._expires.cancel()
            self._ended()

    async def _answer(self, asked: Sequence[Asked]) -> None:
        asked = [one for one in asked if not one.answer.done()]
        if not asked:
            return
        within_s = max(one.until_s for one in asked) - self._loop.time()
        try:
            if len(asked) == 1:
                reads = [await self._calls.one(self._alike, asked[0], within_s)]
            else:
                reads = await self._calls.many(self._alike, asked, within_s)
        except Exception as error:  # what is no TurnoutError is a fault of our own with one of the answers
            if len(asked) > 1 and (not isinstance(error, TurnoutError) or error.reason in OF_ONE_KEY):
                half = len(asked) // 2  # side by side: one key alone may be tried again until its deadline
                await asyncio.gather(self._answer(asked[:half]), self._answer(asked[half:]))
            else:
                _refuse(asked, error)
        else:
            for one, read in zip(asked, reads, strict=True):
                if not one.answer.done():
                    one.answer.set_result(read)

    def _expire(self) -> None:
        """Tell those whose time is over, and look again when the next one's is."""
        now_s = self._loop.time()
        next_s = float("inf")
        for one in self._asked:
            if one.answer.done():
                continue
            if one.until_s <= now_s:
                one.answer.set_exception(too_late("query", "Get", one.deadline_s))
            else:
                next_s = min(next_s, one.until_s)
        if next_s < float("inf"):
            self._expires = self._loop.call_at(next_s, self._expire)
        self.left()


def _refuse(asked: Sequence[Asked], error: Exception) -> None:
    for one in asked:
        if one.answer.done():
            continue
        if isinstance(error, DeadlineExceeded):
            one.answer.set_exception(too_late("query", "Get", one.deadline_s))
        elif not isinstance(error, TurnoutError):
            one.answer.set_exception(error)
        else:  # one for each, as each is raised in a place of its own
            own = type(error)(error.reason, error.message, metadata=error.metadata, violations=error.violations)
            one.answer.set_exception(own)
