"""The product as its users have it: the SDK against real processes, all four services in one or each on its own."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

from tests.acceptance.orders import Orders
from tests.support.processes import SERVICES, ServiceProcesses
from tests.support.topics import Topics
from turnout.client import Client

# Short leases, so that what waits for one to expire does not wait long.
LEASES = ("--run-lease-s", "3", "--reader-lease-s", "2", "--max-stale-active-s", "5", "--max-stale-experiment-s", "3")


BOTH_WAYS = pytest.mark.parametrize("product", ["one process", "four processes"], indirect=True)
"""Marks tests that must hold whether the services share a process or not."""


def client_of(processes: ServiceProcesses) -> Client:
    """A client that finds each service where it is."""
    return Client(targets={name: processes.target(name) for name in SERVICES}, actor="test")


@pytest.fixture
async def product(
    request: pytest.FixtureRequest, postgres: str, kafka: Topics, tmp_path: Path
) -> AsyncIterator[ServiceProcesses]:
    """The services in one process, or in four where a test asks for that (see `BOTH_WAYS`)."""
    async with ServiceProcesses(
        postgres=postgres,
        kafka=kafka.bootstrap,
        data_dir=tmp_path / "services",
        separate=getattr(request, "param", "") == "four processes",
        options=LEASES,
    ) as processes:
        yield processes


@pytest.fixture
async def client(product: ServiceProcesses) -> AsyncIterator[Client]:
    """A client of the product."""
    async with client_of(product) as opened:
        yield opened


@pytest.fixture
async def orders(kafka: Topics, tmp_path: Path) -> Orders:
    """A topic of orders, the jobs that read it, and what their tables must hold."""
    return Orders(kafka, await kafka.create(partitions=4), tmp_path / "jobs")
