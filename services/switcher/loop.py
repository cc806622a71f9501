"""A loop that one replica at a time runs, by a lease, with a task for each thing that it looks after.

None of these waits for another: what one waits for, its fronts or its gates, holds up neither the looks at the others
nor the renewal of the lease. A replica that has lost the lease gives all of them up.
"""

import asyncio
import logging
from collections.abc import Collection
from datetime import timedelta
from typing import Final, Protocol

from turnout.errors import TurnoutError, Unavailable
from turnout.tasks import end

log = logging.getLogger(__name__)

_EVERY_S: Final = 1.0


class Leases(Protocol):
    """Who may run which loop."""

    async def lease_loop(self, loop: str, holder: str, lease: timedelta) -> bool:
        """Take or renew the right to run a loop; whether this holder has it."""

    async def give_loop(self, loop: str, holder: str) -> None:
        """Give the right back."""


class Work(Protocol):
    """What a loop does."""

    async def going_on(self) -> Collection[int]:
        """Numbers of the things to look after."""

    async def one(self, number: int) -> bool:
        """Look after one of them; whether there may be more to do at once."""

    async def turned(self) -> None:
        """What is to be done once a turn, apart from the single things."""

    async def given_up(self) -> None:
        """This replica does not run the loop, or not any more; no task of it is left."""


class Loop:
    """The loop of one replica. thing: what it looks after, as the log says it."""

    def __init__(self, name: str, thing: str, work: Work, leases: Leases, holder: str, lease: timedelta) -> None:
        self._name = name
        self._thing = thing
        self._work = work
        self._leases = leases
        self._holder = holder
        self._lease = lease
        self._tasks: dict[int, asyncio.Task[None]] = {}

    async def run(self) -> None:
        """Run until cancelled; waits while PostgreSQL is away."""
        try:
            while True:
                try:
                    await self._turn()
                except Unavailable as error:
                    log.warning("the loop of the %s waits: %s", self._name, error.message)
                except Exception:
                    log.exception("the loop of the %s failed and is tried again", self._name)
                await asyncio.sleep(_EVERY_S)
        finally:
            await asyncio.shield(self._leave())

    async def _turn(self) -> None:
        if not await self._leases.lease_loop(self._name, self._holder, self._lease):
            await self._give_up()
            return
        self._tasks = {number: task for number, task in self._tasks.items() if not task.done()}
        for number in await self._work.going_on():
            if number not in self._tasks:
                self._tasks[number] = asyncio.create_task(self._guarded(number), name=f"{self._thing} {number}")
        await self._work.turned()

    async def _give_up(self) -> None:
        tasks, self._tasks = self._tasks, {}
        await end(*tasks.values())
        await self._work.given_up()

    async def _leave(self) -> None:
        try:
            await self._give_up()
            await self._leases.give_loop(self._name, self._holder)
        except TurnoutError as error:
            log.warning("the right to run the loop of the %s was not given back: %s", self._name, error.message)

    async def _guarded(self, number: int) -> None:
        try:
            while await self._work.one(number):
                pass
        except Unavailable as error:
            log.warning("%s %d waits: %s", self._thing, number, error.message)
        except Exception:
            log.exception("%s %d failed and is tried again", self._thing, number)
