"""A front on a real PostgreSQL, watched over by a scripted switcher."""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import AsyncExitStack
from pathlib import Path
from typing import Any

import pytest

from tests.integration.query.fronts import FrontProcess, Serving
from tests.integration.query.switcher import ScriptedSwitcher, SwitcherProcess
from tests.support.eventually import eventually
from tests.support.ports import own_port

MakeFront = Callable[..., Awaitable[FrontProcess]]


@pytest.fixture(autouse=True)
def _patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """What a front asks of its neighbours is not given up because the machine is busy."""
    monkeypatch.setattr("turnout.reading.neighbours._WITHIN_S", 15.0)


@pytest.fixture
async def serving(postgres: str) -> AsyncIterator[Serving]:
    """The schema `serving`, with positions and no output table."""
    made = await Serving.create(postgres)
    yield made
    await made.connection.close()


@pytest.fixture
async def switcher_process() -> AsyncIterator[SwitcherProcess]:
    """The switcher's server, to be stopped and started."""
    process = SwitcherProcess(ScriptedSwitcher(), own_port())  # type: ignore[abstract]  # only what fronts call
    await process.start()
    yield process
    await process.stop()


@pytest.fixture
def switcher(switcher_process: SwitcherProcess) -> ScriptedSwitcher:
    """What the switcher says."""
    return switcher_process.script


@pytest.fixture
async def make_front(
    postgres: str, serving: Serving, switcher_process: SwitcherProcess, tmp_path: Path
) -> AsyncIterator[MakeFront]:
    """Starts a front with other settings; stopped at the end, unless the test did."""
    async with AsyncExitStack() as stack:

        async def make(**settings: Any) -> FrontProcess:
            given: dict[str, Any] = {
                "postgres": postgres,
                "switcher": switcher_process.target,
                "data_dir": tmp_path,
            } | settings
            front = FrontProcess(**given)
            await front.start()
            stack.push_async_callback(front.stop)
            if switcher_process.runs:  # after two seconds a front starts without its routes
                await eventually(lambda: ready(front))
            return front

        yield make


async def ready(front: FrontProcess) -> bool:
    """Whether it has routes."""
    return front.app.ready


@pytest.fixture
async def front(make_front: MakeFront) -> FrontProcess:
    """A front that runs."""
    return await make_front()
