"""A replayer for each test."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.integration.replayer.stage import Stage
from tests.support.topics import Topics


@pytest.fixture
async def stage(postgres: str, kafka: Topics, tmp_path: Path) -> AsyncIterator[Stage]:
    made = Stage(postgres, kafka, tmp_path)
    await made.registry.start()
    await made.start()
    yield made
    await made.stop()
    await made.registry.stop()
