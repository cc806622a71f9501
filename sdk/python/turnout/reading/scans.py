"""What bounds scans: few at a time, few that wait for a place, and an end to each, whoever takes its rows or not.

A scan has a connection, a snapshot that keeps PostgreSQL from cleaning up, and a lock on its table until it ends.
"""

import asyncio
from collections.abc import AsyncGenerator, AsyncIterator, Awaitable
from contextlib import aclosing, asynccontextmanager
from dataclasses import dataclass
from typing import Final, TypeVar

from turnout.errors import ResourceExhausted, Unavailable
from turnout.reading.deadline import Deadline
from turnout.reading.limits import READ_S_MAX
from turnout.tasks import end

AT_ONCE_MAX: Final = 4
"""Scans at a time: slow readers of large scans must leave connections to everybody else."""
WAITING_MAX: Final = 16
"""Scans that wait for a place; one more is refused: each takes one of the front's places for calls."""

T = TypeVar("T")


class ScanPlaces:
    """The places for scans of a front."""

    def __init__(self) -> None:
        self._free = asyncio.Semaphore(AT_ONCE_MAX)
        self._waiting = 0

    @asynccontextmanager
    async def place(self, deadline: Deadline) -> AsyncIterator[None]:
        """One of them, for as long as the block lasts. Unavailable (SCANS_BUSY)."""
        await self._take(deadline)
        try:
            yield
        finally:
            self._free.release()

    async def _take(self, deadline: Deadline) -> None:
        if self._waiting >= WAITING_MAX:
            raise _busy()
        self._waiting += 1
        try:
            async with asyncio.timeout(deadline.left_s):
                await self._free.acquire()
        except TimeoutError:
            raise _busy() from None
        finally:
            self._waiting -= 1


def _busy() -> Unavailable:
    return Unavailable(
        "SCANS_BUSY",
        f"This front answers {AT_ONCE_MAX} scans at a time and lets {WAITING_MAX} wait, and all places are taken; try "
        f"again.",
    )


def too_long() -> ResourceExhausted:
    """A scan was not through within its time."""
    return ResourceExhausted(
        "SCAN_TOO_LONG",
        f"The scan was not through within its deadline, or within the {READ_S_MAX:g} s that a scan may take: take its "
        f"rows faster, or ask for fewer of them with a limit.",
    )


async def taken_in_time(source: AsyncGenerator[T, None], deadline: Deadline) -> AsyncGenerator[T, None]:
    """The items of `source`, which is closed at the deadline though nobody takes them any more.

    The source is run in a task of its own: one that waits for its taker would notice nothing. It goes on only when the
    item before has been taken. Its errors; ResourceExhausted (SCAN_TOO_LONG).
    """
    items: asyncio.Queue[T | _Ended] = asyncio.Queue()
    taken = asyncio.Semaphore(0)
    running = asyncio.create_task(_run(source, deadline, items, taken), name="scan")
    try:
        while not isinstance(item := await items.get(), _Ended):
            yield item
            taken.release()
        if item.error is not None:
            raise item.error
    finally:
        await end(running)


@dataclass(frozen=True, slots=True)
class _Ended:
    error: Exception | None


async def _run(
    source: AsyncGenerator[T, None], deadline: Deadline, items: "asyncio.Queue[T | _Ended]", taken: asyncio.Semaphore
) -> None:
    failed: Exception | None = None
    try:
        async with aclosing(source):
            async for item in source:
                items.put_nowait(item)
                await _until(taken.acquire(), deadline)
    except Exception as error:
        failed = error
    items.put_nowait(_Ended(failed))


async def _until(work: Awaitable[object], deadline: Deadline) -> None:
    """ResourceExhausted (SCAN_TOO_LONG) at the deadline."""
    try:
        async with asyncio.timeout(deadline.left_s):
            await work
    except TimeoutError:
        raise too_long() from None
