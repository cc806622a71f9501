"""One statement for what comes at the same time: for the reads of one table, and for what fronts report.

A read that finds none under way is sent at once, alone, in its caller's own task. What comes while one is under way
gathers, and is sent as one statement when that has been answered. So a lone read never waits for others, and the more
callers there are the more keys a statement has. A statement that takes long holds nobody up for longer than `SLOW_S`:
then the next one is sent beside it.

Callers share a statement and nothing else: one that leaves, by its deadline or because it is cancelled, takes nothing
from the others; when all have left, the statement is given up; and where PostgreSQL refuses a statement for what is in
it, each half is asked for alone, down to the key, so that only the caller whose key it was is told.
"""

import asyncio
from collections.abc import Awaitable, Callable, Sequence
from typing import Final, Generic, TypeVar

from turnout.errors import ResourceExhausted
from turnout.reading.deadline import Deadline

WAITING_MAX: Final = 10_000
"""Reads that wait for the statement before theirs; one more is refused."""
KEYS_MAX: Final = 1_000
"""Keys of one statement."""
SLOW_S: Final = 0.02
RUNNING_MAX: Final = 4
"""Statements of one table at a time: an idle connection for other tables must be left."""

Key = TypeVar("Key")
Answer = TypeVar("Answer")


class _Waiter(Generic[Key, Answer]):
    """A read that waits for the statement that it will be in, then for its answer."""

    __slots__ = ("answer", "deadline", "key", "statement")

    def __init__(self, key: Key, deadline: Deadline, answer: "asyncio.Future[Answer]") -> None:
        self.key = key
        self.deadline = deadline
        self.answer = answer
        self.statement: _Statement | None = None


class _Statement:
    """A statement under way, and how many still wait for it."""

    __slots__ = ("task", "waiting")

    def __init__(self, waiting: int) -> None:
        self.waiting = waiting
        self.task: asyncio.Task[None] | None = None

    def left(self) -> None:
        """A caller has gone, with its answer or without."""
        self.waiting -= 1
        if not self.waiting and self.task is not None:
            self.task.cancel()


class Gathering(Generic[Key, Answer]):
    """The reads of one table, or what else is one statement for many.

    one: asks for one key; many: for several, and answers in their order. shared: errors that say nothing about a single
    key, which every caller of a statement is told. what: of what it is one, in words.
    """

    def __init__(
        self,
        one: Callable[[Key, Deadline], Awaitable[Answer]],
        many: Callable[[Sequence[Key], Deadline], Awaitable[Sequence[Answer]]],
        shared: tuple[type[Exception], ...],
        what: str = "reads of this table",
    ) -> None:
        self._one = one
        self._many = many
        self._shared = shared
        self._what = what
        self._name = f"gathered {what}"
        self._running = 0
        self._waiting: list[_Waiter[Key, Answer]] = []
        self._slow: asyncio.TimerHandle | None = None

    async def send(self, key: Key, deadline: Deadline) -> Answer:
        """The answer for one key. ResourceExhausted (OVERLOADED) when too many wait; TimeoutError at the deadline."""
        if not self._running:
            self._running += 1
            try:
                return await self._one(key, deadline)
            finally:
                self._ended()
        if len(self._waiting) >= WAITING_MAX:
            raise ResourceExhausted(
                "OVERLOADED",
                f"{WAITING_MAX} {self._what} wait here already; try again later or elsewhere, and add another process "
                f"of this service if it lasts.",
            )
        return await self._wait(key, deadline)

    async def _wait(self, key: Key, deadline: Deadline) -> Answer:
        loop = asyncio.get_running_loop()
        waiter: _Waiter[Key, Answer] = _Waiter(key, deadline, loop.create_future())
        self._waiting.append(waiter)
        if self._slow is None and self._running < RUNNING_MAX:
            self._slow = loop.call_later(SLOW_S, self._start)
        try:
            async with asyncio.timeout(deadline.left_s):
                return await waiter.answer
        finally:
            if waiter.statement is not None:
                waiter.statement.left()

    def _ended(self) -> None:
        """A statement has been answered: send what has gathered meanwhile."""
        self._running -= 1
        self._start()

    def _start(self) -> None:
        """Send what waits, and look again soon for what is left or comes."""
        if self._slow is not None:
            self._slow.cancel()
            self._slow = None
        waiting = [one for one in self._waiting if not one.answer.done()]  # who has left is cancelled
        now, self._waiting = waiting[:KEYS_MAX], waiting[KEYS_MAX:]
        if not now:
            return
        statement = _Statement(len(now))
        for one in now:
            one.statement = statement
        self._running += 1
        statement.task = asyncio.create_task(self._run(now), name=self._name)
        if self._waiting and self._running < RUNNING_MAX:
            self._slow = asyncio.get_running_loop().call_later(SLOW_S, self._start)

    async def _run(self, waiters: Sequence[_Waiter[Key, Answer]]) -> None:
        try:
            await self._together(waiters)
        finally:
            self._ended()

    async def _together(self, waiters: Sequence[_Waiter[Key, Answer]]) -> None:
        if len(waiters) == 1:
            await self._alone(waiters[0])
            return
        last = max((one.deadline for one in waiters), key=lambda deadline: deadline.left_s)
        try:
            answers = await self._many([one.key for one in waiters], last)
        except self._shared as error:
            for one in waiters:
                if not one.answer.done():
                    one.answer.set_exception(error)
        except Exception:
            there = [one for one in waiters if not one.answer.done()]
            middle = len(there) // 2
            for half in (there[:middle], there[middle:]):
                if half := [one for one in half if not one.answer.done()]:
                    await self._together(half)
        else:
            for one, answer in zip(waiters, answers, strict=True):
                if not one.answer.done():
                    one.answer.set_result(answer)

    async def _alone(self, waiter: _Waiter[Key, Answer]) -> None:
        try:
            answer = await self._one(waiter.key, waiter.deadline)
        except Exception as error:
            if not waiter.answer.done():
                waiter.answer.set_exception(error)
        else:
            if not waiter.answer.done():
                waiter.answer.set_result(answer)
