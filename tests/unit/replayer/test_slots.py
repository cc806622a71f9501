"""The watch over worker processes outlives whatever it meets."""

from __future__ import annotations

import asyncio
import logging
from typing import cast

import pytest

from services.replayer import slots
from services.replayer.live_run import LiveRun
from services.replayer.slots import Slot, Slots
from services.replayer.store import Store
from services.replayer.surroundings import Surroundings
from services.replayer.workers import Worker
from tests.unit.replayer.made import run


class _Worker:
    """One that cannot be looked at the first time."""

    ended = False

    def __init__(self) -> None:
        self.looks = 0
        self.beaten = asyncio.Event()

    def kill_if_silent(self) -> None:
        self.looks += 1
        if self.looks == 1:
            raise RuntimeError("no descriptors left")

    def beat(self) -> None:
        self.beaten.set()


async def test_the_watch_over_workers_goes_on_after_an_error_and_tells_it(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(slots, "LOOK_S", 0.001)
    watched = Slots(LiveRun(run(), cast(Store, None)), cast(Surroundings, None))
    worker = _Worker()
    watched._slots[0] = Slot(0, cast(Worker, worker))
    with caplog.at_level(logging.ERROR):
        watch = asyncio.create_task(watched.watch_silence())
        beaten = asyncio.create_task(worker.beaten.wait())
        await asyncio.wait({watch, beaten}, return_when=asyncio.FIRST_COMPLETED, timeout=30.0)
    assert worker.beaten.is_set()
    assert not watch.done()
    watch.cancel()
    assert "no descriptors left" in caplog.text
