"""A loop looks after each of its things by itself, as long as it has the right to."""

import asyncio
from collections import Counter
from collections.abc import AsyncIterator, Collection
from contextlib import asynccontextmanager
from datetime import timedelta
from unittest import mock

from services.switcher.loop import Loop
from tests.support.eventually import eventually
from turnout.errors import Unavailable
from turnout.tasks import beside


class Lease:
    """The right to run one loop."""

    def __init__(self) -> None:
        self.free = True
        self.renewed = 0
        self.given = 0

    async def lease_loop(self, loop: str, holder: str, lease: timedelta) -> bool:
        self.renewed += self.free
        return self.free

    async def give_loop(self, loop: str, holder: str) -> None:
        self.given += 1


class Looking:
    """Counts its looks; some last until they are given up, and some fail."""

    def __init__(self, *numbers: int) -> None:
        self.numbers = list(numbers)
        self.waiting: set[int] = set()
        self.failing: dict[int, Exception] = {}
        self.looks: Counter[int] = Counter()
        self.ended: list[int] = []
        self.turns = 0
        self.turn_fails = False
        self.let_go = 0

    async def going_on(self) -> Collection[int]:
        return self.numbers

    async def one(self, number: int) -> bool:
        self.looks[number] += 1
        if number in self.failing:
            raise self.failing[number]
        try:
            while number in self.waiting:
                await asyncio.Event().wait()
        finally:
            self.ended.append(number)
        return False

    async def turned(self) -> None:
        self.turns += 1
        if self.turn_fails:
            raise RuntimeError("nothing can be tidied")

    async def given_up(self) -> None:
        self.let_go += 1

    async def seen(self, number: int, more: int = 3) -> None:
        """Wait for so many more looks at it."""
        before = self.looks[number]

        async def more_looks() -> bool:
            return self.looks[number] >= before + more

        await eventually(more_looks, every_s=0.001)


@asynccontextmanager
async def running(work: Looking, lease: Lease) -> AsyncIterator[None]:
    """The loop, turning as fast as it can."""
    loop = Loop("things", "thing", work, lease, "me", timedelta(seconds=5))
    with mock.patch("services.switcher.loop._EVERY_S", 0.0):
        async with beside(loop.run()):
            yield


async def test_what_waits_holds_up_neither_the_others_nor_the_lease() -> None:
    work, lease = Looking(1, 2), Lease()
    work.waiting.add(1)
    async with running(work, lease):
        await work.seen(2)
        before = lease.renewed
        await work.seen(2)
        assert lease.renewed > before
        assert work.looks[1] == 1  # and is not begun a second time
        assert work.turns
    assert work.ended.count(1) == 1
    assert (work.let_go, lease.given) == (1, 1)


async def test_what_fails_is_tried_again_and_so_is_the_turn() -> None:
    work, lease = Looking(1, 2, 3), Lease()
    work.failing = {1: Unavailable("POSTGRES_UNAVAILABLE", "PostgreSQL does not answer."), 2: ValueError("no number")}
    work.turn_fails = True
    async with running(work, lease):
        for number in (1, 2, 3):
            await work.seen(number)


async def test_without_the_right_to_it_everything_is_given_up_until_it_is_back() -> None:
    work, lease = Looking(1), Lease()
    work.waiting.add(1)
    async with running(work, lease):
        await work.seen(1, more=1)
        lease.free = False

        async def given_up() -> bool:
            return work.ended == [1] and work.let_go > 0

        await eventually(given_up, every_s=0.001)
        assert work.looks[1] == 1
        lease.free = True
        await work.seen(1, more=1)
