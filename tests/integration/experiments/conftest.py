"""A real switcher and a real front in processes of their own, on a real PostgreSQL with tables made by SQL."""

from __future__ import annotations

from collections.abc import AsyncIterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from tests.integration.query.fronts import Serving
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.support.processes import ServiceProcesses
from turnout.client import Client

JOB = "j"
ROWS = {number: f"row {number}" for number in range(10)}


@dataclass
class Lab:
    """Two tables, v1 serving everybody, and a client."""

    processes: ServiceProcesses
    serving: Serving
    client: Client
    replayer: ReplayerOnDemand

    async def stored(self) -> set[int]:
        """Units of which an outcome is stored."""
        rows = await self.serving.connection.fetch("select distinct unit from switcher.experiment_outcomes")
        return {row["unit"] for row in rows}


@pytest.fixture
async def lab(postgres: str, tmp_path: Path) -> AsyncIterator[Lab]:
    """The experiment's surroundings; gates pass."""
    serving = await Serving.create(postgres)
    for version in (1, 2):
        await serving.numbers(version, ROWS, job=JOB)
    replayer = ReplayerOnDemand()  # type: ignore[abstract]  # the methods that the switcher calls
    await replayer.start()
    elsewhere = {"replayer": replayer.target, "registry": replayer.target}
    processes = ServiceProcesses(
        postgres=postgres, kafka="127.0.0.1:1", data_dir=tmp_path, separate=True, elsewhere=elsewhere
    )
    targets = {"switcher": processes.target("switcher"), "query": processes.target("query")}
    async with processes, Client(targets=targets, actor="ada") as client:
        await client.cut_over(JOB, 1)
        yield Lab(processes, serving, client, replayer)
    await replayer.stop()
    await serving.connection.close()
