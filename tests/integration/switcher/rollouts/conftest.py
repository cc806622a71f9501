"""A route on which v1 has all readers, and what is done to its rollouts."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator

import pytest

from tests.integration.switcher.conftest import MakeFront, Switcher
from tests.integration.switcher.experimenting import Experimenting
from tests.integration.switcher.front import Front
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.integration.switcher.rollouts.rolling import (
    Rolling,
    ready,
)


@pytest.fixture
async def front(switcher: Switcher, make_front: MakeFront, replayer: ReplayerOnDemand) -> AsyncIterator[Front]:
    """A route on which v1 has all readers, served by one front that tells all it sees; v2 is ready."""
    ready(replayer)
    front = await make_front("front")
    await switcher.cut_over(1)
    lab = Experimenting(switcher, front)

    async def tell() -> None:
        while True:
            await lab.observe([])
            await asyncio.sleep(1)

    telling = asyncio.create_task(tell())
    yield front
    telling.cancel()
    await asyncio.gather(telling, return_exceptions=True)


@pytest.fixture
def lab(switcher: Switcher, front: Front) -> Experimenting:
    return Experimenting(switcher, front)


@pytest.fixture
def rolling(switcher: Switcher, front: Front) -> Rolling:
    return Rolling(lambda: switcher.stub)
