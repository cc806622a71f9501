"""The product as its users have it: the SDK against real processes, all four services in one or each on its own."""

from __future__ import annotations

import asyncio
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
_REPEATS_MAX = 5  # of changes, by one client
_PAUSE_S = 0.25  # doubled before each repeat

# Short leases, so that what waits for one to expire does not wait long. A reader's is longer than a busy machine lets a
# process stand still: a front that has lost it is not counted.
LEASES = ("--run-lease-s", "3", "--reader-lease-s", "6", "--max-stale-active-s", "12", "--max-stale-experiment-s", "9")


BOTH_WAYS = pytest.mark.parametrize("product", ["one process", "four processes"], indirect=True)
"""Marks tests that must hold whether the services share a process or not."""


class PatientClient(Client):
    """One that repeats a change for which a front said nothing in time. That has changed nothing, and on a busy machine
    it says that a process stood still for two seconds. It does so a few times in all: a front that is late as a rule is
    a fault, as is one that refuses."""

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self._repeats = 0

    async def cut_over(self, *args: Any, **options: Any) -> RouteChange:
        return await self._once_prepared(partial(super().cut_over, *args, **options))

    async def cut_over_many(self, *args: Any, **options: Any) -> tuple[RouteChange, ...]:
        return await self._once_prepared(partial(super().cut_over_many, *args, **options))

    async def set_traffic(self, *args: Any, **options: Any) -> RouteChange:
        return await self._once_prepared(partial(super().set_traffic, *args, **options))

    async def _once_prepared(self, change: Callable[[], Awaitable[T]]) -> T:
        while True:
            try:
                return await change()
            except Aborted as error:
                if not only_late(error) or self._repeats == _REPEATS_MAX:
                    raise
                self._repeats += 1
                await asyncio.sleep(_PAUSE_S * 2**self._repeats)


def only_late(error: Aborted) -> bool:
    """Whether a change was refused for fronts alone that have said nothing yet."""
    _, _, said = error.message.partition("nothing has changed. ")
    complaint, _, _ = said.partition(". Try again")
    late = all(one.endswith(": has not said that it is prepared") for one in complaint.split("; "))
    return error.reason == "NOT_PREPARED" and late


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
