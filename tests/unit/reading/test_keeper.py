"""The keeper writes one write at a time, the last one with what there is at the end."""

import asyncio
import errno
import threading
from datetime import timedelta
from pathlib import Path

import pytest

from tests.support.eventually import eventually
from tests.unit.reading.test_routing import commit, split
from turnout.clock import SystemClock
from turnout.reading.freshness import Limits
from turnout.reading.front import Front
from turnout.reading.keeper import RoutesKeeper
from turnout.reading.routes_file import RoutesFile, StoredRoutes
from turnout.reading.routing import RoutingTable


class SlowFile(RoutesFile):
    """A disk whose writes last until they are let go."""

    def __init__(self, path: Path) -> None:
        super().__init__(path)
        self.began = threading.Event()
        self.go = threading.Event()
        self.writing = 0
        self.together = 0

    def store(self, routes: StoredRoutes) -> None:
        self.writing += 1
        self.together = max(self.together, self.writing)
        self.began.set()
        self.go.wait(30)
        super().store(routes)
        self.writing -= 1


async def test_the_end_waits_for_the_write_under_way(tmp_path: Path) -> None:
    clock = SystemClock()
    front = Front("front-1", clock, Limits(active_s=60, experiment_s=15))
    file = SlowFile(tmp_path / "routes.json")
    keeper = RoutesKeeper(front, file, clock, every_s=3)
    keeper.start()
    front.vouched(clock.monotonic_s())
    keeper.changed()
    await asyncio.to_thread(file.began.wait, 30)
    newer = RoutingTable().with_snapshot(9, [commit(split("j", 4), 9)])
    front.table = newer
    stopping = asyncio.create_task(keeper.stop())
    await asyncio.sleep(0)
    assert not stopping.done()
    file.go.set()
    await stopping
    stored = file.load()
    assert stored is not None
    assert (stored.table, file.together) == (newer, 1)


async def test_without_routes_nothing_is_stored(tmp_path: Path) -> None:
    clock = SystemClock()
    keeper = RoutesKeeper(
        Front("front-1", clock, Limits(active_s=60, experiment_s=15)),
        RoutesFile(tmp_path / "routes.json"),
        clock,
        every_s=3,
    )
    keeper.start()
    await keeper.stop()
    assert not (tmp_path / "routes.json").exists()


async def test_stored_routes_are_served_only_when_they_are_vouched_for(tmp_path: Path) -> None:
    clock = SystemClock()
    limits = Limits(active_s=60, experiment_s=15)
    file = RoutesFile(tmp_path / "routes.json")
    file.store(StoredRoutes(RoutingTable().with_snapshot(9, [commit(split("j", 4), 9)]), clock.now()))
    front = Front("front-1", clock, limits)
    keeper = RoutesKeeper(front, file, clock, every_s=3)
    keeper.start()
    assert front.table.revision == 9
    assert not front.ready
    keeper.vouch_stored()
    assert front.ready
    await keeper.stop()


async def test_who_says_goodbye_leaves_routes_that_nobody_vouches_for(tmp_path: Path) -> None:
    clock = SystemClock()
    limits = Limits(active_s=60, experiment_s=15)
    file = RoutesFile(tmp_path / "routes.json")
    leaving = Front("front-1", clock, limits)
    keeper = RoutesKeeper(leaving, file, clock, every_s=3)
    keeper.start()
    leaving.table = RoutingTable().with_snapshot(9, [commit(split("j", 4), 9)])
    leaving.vouched(clock.monotonic_s())
    await keeper.give_up()
    await keeper.stop()
    starting = Front("front-2", clock, limits)
    again = RoutesKeeper(starting, file, clock, every_s=3)
    again.start()
    again.vouch_stored()
    assert starting.table.revision == 9  # an older snapshot is refused still
    assert not starting.ready
    await again.stop()


async def test_what_waits_for_the_disk_is_told_when_it_is_there(tmp_path: Path) -> None:
    clock = SystemClock()
    front = Front("front-1", clock, Limits(active_s=60, experiment_s=15))
    file = SlowFile(tmp_path / "routes.json")
    keeper = RoutesKeeper(front, file, clock, every_s=3)
    keeper.start()
    front.vouched(clock.monotonic_s())
    told = asyncio.Event()
    keeper.when_stored(told.set)
    await asyncio.to_thread(file.began.wait, 30)
    assert not told.is_set()
    file.go.set()
    await asyncio.wait_for(told.wait(), 30)
    await keeper.stop()


async def test_routes_that_were_vouched_for_in_the_future_are_not_served_by(tmp_path: Path) -> None:
    clock = SystemClock()
    file = RoutesFile(tmp_path / "routes.json")
    file.store(StoredRoutes(RoutingTable().with_snapshot(9, []), clock.now() + timedelta(seconds=30)))
    front = Front("front-1", clock, Limits(active_s=60, experiment_s=15))
    keeper = RoutesKeeper(front, file, clock, every_s=3)
    keeper.start()
    keeper.vouch_stored()
    assert front.table.revision == 9
    assert not front.ready, "the clock was set back, by nobody knows how much"
    await keeper.stop()


class FullFile(RoutesFile):
    """A disk that is full, until it is not."""

    full = True

    def store(self, routes: StoredRoutes) -> None:
        if self.full:
            raise OSError(errno.ENOSPC, "No space left on device")
        super().store(routes)


async def test_a_full_disk_is_said_to_keep_changes_waiting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    clock = SystemClock()
    front = Front("front-1", clock, Limits(active_s=60, experiment_s=15))
    file = FullFile(tmp_path / "routes.json")
    keeper = RoutesKeeper(front, file, clock, every_s=3)
    keeper.start()
    front.vouched(clock.monotonic_s())
    told: list[str] = []
    keeper.when_stored(lambda: told.append("of a session that has ended"))

    async def said() -> bool:
        return "does not say DRAINED" in caplog.text

    await eventually(said)
    assert "1 changes wait: [Errno 28] No space left on device" in caplog.text
    keeper.forget_waiting()
    keeper.when_stored(lambda: told.append("of this one"))
    file.full = False
    keeper.changed()

    async def stored() -> bool:
        return told == ["of this one"]

    await eventually(stored)
    await keeper.stop()
