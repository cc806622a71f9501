"""From a job file to a version, with the client and a real registry."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.integration.registry.conftest import Registry
from turnout import errors
from turnout.errors import Unavailable
from turnout.job.artifact import pack
from turnout.job.errors import JobFileError
from turnout.results import VersionState

V1 = '''"""Counts flights."""
from turnout import Key, Record, Row, Sum, aggregate

class Flight(Record):
    carrier: str

class Count(Row):
    carrier: Key[str]
    flights: Sum[int] = 1

@aggregate("flight-count", topic="flights")
def count(flight: Flight) -> Count:
    return Count(carrier=flight.carrier)
'''


async def test_applying_a_file(registry: Registry, tmp_path: Path) -> None:
    client, path = registry.client, tmp_path / "count.py"
    path.write_text(V1)
    first = await client.apply(path)
    assert (first.version.number, first.created, first.job_created) == (1, True, True)
    assert (await client.get_job("flight-count")).description == "Counts flights."
    assert await client.get_artifact("flight-count", 1) == pack(path).data
    again = await client.apply(path)
    assert (again.version, again.created, again.job_created) == (first.version, False, False)
    path.write_text(V1 + "# mended\n")
    with pytest.raises(errors.FailedPrecondition, match="this code differs from v1 and would be v2"):
        await client.apply(path, expected_number=1)
    second = await client.apply(path, expected_number=2)
    assert (second.version.number, second.created, second.job_created) == (2, True, False)
    path.write_text(V1)
    third = await client.apply(path, expected_number=1)
    assert (third.version, third.created) == (first.version, False)


async def test_the_code_of_a_version_that_is_being_retired_is_a_new_version(registry: Registry, tmp_path: Path) -> None:
    client, path = registry.client, tmp_path / "count.py"
    path.write_text(V1)
    await client.apply(path)
    registry.fakes.calls.always("StopRun", Unavailable("AWAY", "The replayer is away."))
    await client.retire("flight-count", 1)
    again = await client.apply(path)
    assert (again.version.number, again.created, again.version.state) == (2, True, VersionState.REGISTERED)


async def test_a_file_that_does_not_load_registers_nothing(registry: Registry, tmp_path: Path) -> None:
    path = tmp_path / "count.py"
    path.write_text(V1.replace("Sum[int]", "Sum[float]"))
    with pytest.raises(JobFileError):
        await registry.client.apply(path)
    with pytest.raises(errors.NotFound):
        await registry.client.get_job("flight-count")
