"""Keeps the front's routes on disk: after each change, and often enough that the stored time is of use.

A front that starts asks the switcher first and goes by what is stored only where the switcher does not answer: else it
would serve a route that a cutover has replaced meanwhile, after that cutover was answered. For the same reason a front
that says goodbye, which no cutover counts any more, leaves routes that nobody vouches for.
"""

import asyncio
import logging
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path

from turnout.clock import Clock
from turnout.errors import DataLoss
from turnout.reading.front import Front
from turnout.reading.routes_file import RoutesFile, StoredRoutes

log = logging.getLogger(__name__)

_NEVER = datetime(1970, 1, 1, tzinfo=UTC)


class RoutesKeeper:
    """Writes in the background, one write at a time; several changes during a write make one more.

    Without a file it keeps nothing.
    """

    def __init__(self, front: Front, file: RoutesFile | None, clock: Clock, every_s: float) -> None:
        self._front = front
        self._file = file
        self._clock = clock
        self._every_s = every_s
        self._stored_at_s = clock.monotonic_s()
        self._due = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._stopping = False
        self._given_up = False
        self._given_up_stored = asyncio.Event()
        self._stored_vouched_s: float | None = None
        self._changes = 0
        self._waiting: list[tuple[int, Callable[[], None]]] = []  # for that many changes to be on disk

    @property
    def path(self) -> Path | None:
        """Where the routes are."""
        return None if self._file is None else self._file.path

    def start(self) -> None:
        """Tell the front what was stored, and begin to write in the background. The front may serve by it after
        `vouch_stored`."""
        if self._file is None:
            return
        try:
            stored = self._file.load()
        except DataLoss as error:
            log.warning("%s", error.message)
            stored = None
        if stored is not None:
            self._front.table = stored.table
            self._stored_vouched_s = self._vouched_s(stored.vouched_at)
        self._task = asyncio.create_task(self._run(self._file), name="keep routes")

    def _vouched_s(self, at: datetime) -> float | None:
        """When the stored routes were vouched for, on the monotonic clock; None where they may not be served by.

        The wall clock counts only here, across two processes. One that was set back tells no age: then there is none
        that would let them be served for too long.
        """
        age_s = (self._clock.now() - at).total_seconds()
        if age_s < 0:
            log.warning(
                "the stored routes were vouched for in %.0f s from now: the clock was set back, so their age is not "
                "known, and nothing is served by them.",
                -age_s,
            )
        return None if at == _NEVER or age_s < 0 else self._clock.monotonic_s() - age_s

    def vouch_stored(self) -> None:
        """Let the front serve by what was stored, as long as that may be; where it has newer routes nothing changes."""
        if self._stored_vouched_s is not None:
            self._front.vouched(self._stored_vouched_s)

    async def give_up(self) -> None:
        """Store that nobody vouches for the routes any more; returns when that is on disk."""
        if self._file is None:
            return
        self._given_up = True
        self._due.set()
        await self._given_up_stored.wait()

    def when_stored(self, tell: Callable[[], None]) -> None:
        """Call `tell` once everything up to now is on disk: at once without a file; while the disk refuses, not yet."""
        if self._file is None:
            tell()
            return
        self._changes += 1
        self._waiting.append((self._changes, tell))
        self._due.set()

    def forget_waiting(self) -> None:
        """Nobody is to be told any more: the session has ended that would have passed it on."""
        self._waiting.clear()

    async def stop(self) -> None:
        """Store what there is once more, after the write that may be under way: a thread cannot be cancelled."""
        if self._task is not None:
            self._stopping = True
            self._due.set()
            await self._task

    def changed(self) -> None:
        """The table has changed: store it now."""
        self._due.set()

    def vouched(self) -> None:
        """The switcher has vouched for the table: store the time now and then."""
        if self._clock.monotonic_s() - self._stored_at_s >= self._every_s:
            self._due.set()

    async def _run(self, file: RoutesFile) -> None:
        stopping = False
        while not stopping:
            await self._due.wait()
            self._due.clear()
            stopping = self._stopping
            await self._store(file)

    async def _store(self, file: RoutesFile) -> None:
        age_s = self._front.age_s
        if age_s is not None:
            self._stored_at_s, changes, given_up = self._clock.monotonic_s(), self._changes, self._given_up
            vouched_at = _NEVER if given_up else self._clock.now() - timedelta(seconds=age_s)
            try:
                await asyncio.to_thread(file.store, StoredRoutes(self._front.table, vouched_at))
            except OSError as error:
                log.warning(
                    "the routes cannot be stored for a restart, and until they can, this front does not say DRAINED of "
                    "a change, so that the tables before it are kept; %d changes wait: %s",
                    len(self._waiting),
                    error,
                )
                return
            if given_up:
                self._given_up_stored.set()
            self._tell(changes)

    def _tell(self, changes: int) -> None:
        """Call those who waited for so many changes."""
        told = [tell for waits_for, tell in self._waiting if waits_for <= changes]
        self._waiting = [one for one in self._waiting if one[0] > changes]
        for tell in told:
            tell()
