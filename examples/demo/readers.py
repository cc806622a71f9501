"""Readers that never pause: 2,000 units, each reading rows of the table, counting who answered and what failed."""

import asyncio
import random
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from datetime import date

from turnout.client import Client
from turnout.errors import TurnoutError

UNITS = 2_000
_LOOPS = 4
# Each loop rests this long between two reads: the demo shows that no read fails, not how many fit into a second.
_REST_S = 0.004
# The client retries a part that is away until a read's deadline; a longer one would hide an outage.
_READ_WITHIN_S = 1.0


@dataclass
class Window:
    """What the readers saw since the window was opened."""

    by_version: Counter[int] = field(default_factory=Counter)
    version_of_unit: dict[str, int] = field(default_factory=dict)
    units_moved: int = 0

    @property
    def units_by_version(self) -> Counter[int]:
        """How many units each version answered."""
        return Counter(self.version_of_unit.values())


class Readers:
    """Reads `job` in the background until it is stopped. Every answer must be a row of the version it names."""

    def __init__(self, target: str, job: str, keys: Sequence[tuple[str, date]]) -> None:
        self._target = target
        self._job = job
        self._keys = keys
        self._tasks: list[asyncio.Task[None]] = []
        self._stopping = False
        self.reads = 0
        self.by_version: Counter[int] = Counter()
        self.failures: list[str] = []
        self.slowest_ms = 0.0
        self._window = Window()

    @property
    def failed(self) -> int:
        """Reads that failed, or whose answer was not a row."""
        return len(self.failures)

    def start(self) -> None:
        """Begin to read."""
        self._tasks = [asyncio.create_task(self._read(loop), name=f"reader {loop}") for loop in range(_LOOPS)]

    async def stop(self) -> None:
        """Let each loop end its read."""
        self._stopping = True
        await asyncio.gather(*self._tasks)

    async def observe(self, reads: int) -> Window:
        """What the next `reads` reads saw, counted from now on."""
        window = self._window = Window()
        # A read that began before the window may still answer by the route before: let those pass.
        goal = self.reads + _LOOPS
        await self._reach(goal)
        window = self._window = Window()
        await self._reach(goal + reads)
        return window

    async def _reach(self, goal: int) -> None:
        while self.reads < goal:
            await asyncio.sleep(0.02)

    async def _read(self, loop: int) -> None:
        choose = random.Random(loop)
        async with Client(self._target) as client:
            unit = loop
            while not self._stopping:
                carrier, month = self._keys[choose.randrange(len(self._keys))]
                await self._read_once(client, f"user-{unit}", carrier, month)
                unit = (unit + _LOOPS) % UNITS
                await asyncio.sleep(_REST_S)

    async def _read_once(self, client: Client, unit: str, carrier: str, month: date) -> None:
        window = self._window
        began_s = time.monotonic()
        try:
            read = await client.get(
                self._job, {"carrier": carrier, "month": month}, unit=unit, timeout_s=_READ_WITHIN_S
            )
        except TurnoutError as error:
            self.failures.append(str(error))
        else:
            if read.row is None or (read.row["carrier"], read.row["month"]) != (carrier, month):
                self.failures.append(f"{carrier} {month}: not the row that was asked for: {read.row}")
            before = window.version_of_unit.setdefault(unit, read.version)
            window.units_moved += before != read.version
            window.by_version[read.version] += 1
            self.by_version[read.version] += 1
        self.reads += 1
        self.slowest_ms = max(self.slowest_ms, (time.monotonic() - began_s) * 1000)
