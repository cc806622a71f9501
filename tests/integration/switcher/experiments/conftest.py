"""The route on which experiments run."""

import pytest

from tests.integration.switcher.conftest import MakeFront, Switcher
from tests.integration.switcher.experimenting import Experimenting


@pytest.fixture
async def lab(switcher: Switcher, make_front: MakeFront) -> Experimenting:
    """A route on which v1 has all readers, served by one front."""
    front = await make_front("front")
    await switcher.cut_over(1)
    return Experimenting(switcher, front)
