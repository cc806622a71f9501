"""Keeps the front's routes on disk: after each change, and often enough that the stored time is of use."""

import asyncio
import logging
from datetime import timedelta
from pathlib import Path

from turnout.clock import Clock
from turnout.errors import DataLoss
from turnout.reading.front import Front
from turnout.reading.routes_file import RoutesFile, StoredRoutes

log = logging.getLogger(__name__)


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

    @property
    def path(self) -> Path | None:
        """Where the routes are."""
        return None if self._file is None else self._file.path

    def start(self) -> None:
        """Give the front what was stored, and begin to write in the background."""
        if self._file is None:
            return
        try:
            stored = self._file.load()
        except DataLoss as error:
            log.warning("%s", error.message)
            stored = None
        if stored is not None:
            # The wall clock counts only here, across two processes; a clock set back must not prolong anything.
            age_s = max(0.0, (self._clock.now() - stored.vouched_at).total_seconds())
            self._front.table = stored.table
            self._front.vouched(self._clock.monotonic_s() - age_s)
        self._task = asyncio.create_task(self._run(self._file), name="keep routes")

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
        if age_s is None:
            return
        self._stored_at_s = self._clock.monotonic_s()
        routes = StoredRoutes(self._front.table, self._clock.now() - timedelta(seconds=age_s))
        try:
            await asyncio.to_thread(file.store, routes)
        except OSError as error:
            log.warning("the routes cannot be stored for a restart: %s", error)
