"""A hint that something may have changed, shared by everybody in the process who polls."""

import asyncio
import contextlib


class Hint:
    """Wakes all who wait. Take a ticket *before* looking, then wait with it: a hint in between is not lost."""

    def __init__(self) -> None:
        self._next = asyncio.Event()

    def give(self) -> None:
        """Wake everybody."""
        given, self._next = self._next, asyncio.Event()
        given.set()

    def ticket(self) -> asyncio.Event:
        """What to wait with."""
        return self._next

    async def wait(self, ticket: asyncio.Event, limit_s: float) -> None:
        """Return at the next hint since the ticket was taken, or after the limit."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(limit_s):
                await ticket.wait()
