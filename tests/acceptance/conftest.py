"""The product as its users have it: the SDK against real processes, all four services in one or each on its own."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import partial
from pathlib import Path
from typing import Any, TypeVar

import pytest

from tests.acceptance.orders import Orders
from tests.support.processes import SERVICES, ServiceProcesses
from tests.support.topics import Topics
from turnout.client import Client
from turnout.errors import Aborted
from turnout.results import RouteChange

T = TypeVar("T")
_PREPARED_WITHIN_S = 30.0

# Short leases, so that what waits for one to expire does not wait long. A reader's is longer than a busy machine lets a
# process stand still: a front that has lost it is not counted.
LEASES = ("--run-lease-s", "3", "--reader-lease-s", "6", "--max-stale-active-s", "12", "--max-stale-experiment-s", "9")


BOTH_WAYS = pytest.mark.parametrize("product", ["one process", "four processes"], indirect=True)
"""Marks tests that must hold whether the services share a process or not."""


class PatientClient(Client):
    """One that repeats a change for which a front was not prepared in time. That has changed nothing, and on a busy
    machine it says that a process stood still for two seconds."""

    async def cut_over(self, *args: Any, **options: Any) -> RouteChange:
        return await _once_prepared(partial(super().cut_over, *args, **options))

    async def cut_over_many(self, *args: Any, **options: Any) -> tuple[RouteChange, ...]:
        return await _once_prepared(partial(super().cut_over_many, *args, **options))

    async def set_traffic(self, *args: Any, **options: Any) -> RouteChange:
        return await _once_prepared(partial(super().set_traffic, *args, **options))


async def _once_prepared(change: Callable[[], Awaitable[T]]) -> T:
    ends_s = time.monotonic() + _PREPARED_WITHIN_S
    while True:
        try:
            return await change()
        except Aborted as error:
            if error.reason != "NOT_PREPARED" or time.monotonic() > ends_s:
                raise


def client_of(processes: ServiceProcesses) -> Client:
    """A client that finds each service where it is."""
    return PatientClient(targets={name: processes.target(name) for name in SERVICES}, actor="test")


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
