"""A real registry on a real database; in place of its neighbours real servers that the test commands."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass
from datetime import date
from pathlib import Path

import pytest

from core.config import Settings
from core.kafka.properties import KafkaConfig
from core.rpc.server import RpcServer
from services.registry.app import RegistryApp
from tests.integration.registry.fakes import FakeApp
from turnout import Key, Record, Row, Sum, aggregate
from turnout.client import Client
from turnout.schema import JobDefinition

JOB = "carrier-punctuality"


class Flight(Record):
    carrier: str
    day: date


class Punctuality(Row):
    carrier: Key[str]
    flights: Sum[int] = 1


@aggregate(JOB, topic="flights")
def punctuality(flight: Flight) -> Punctuality:
    return Punctuality(carrier=flight.carrier)


DEFINITION: JobDefinition = punctuality.definition


@dataclass(frozen=True)
class Registry:
    """A running registry, a client of it, and its neighbours."""

    target: str
    client: Client
    fakes: FakeApp

    async def new_version(self, artifact: bytes = b"code 1") -> str:
        """A version of a new or the same job with a tailing run; its resource name."""
        version = (await self.client.create_version(JOB, DEFINITION, artifact)).version
        name = f"jobs/{version.job}/versions/{version.number}"
        self.fakes.replayer.start(name)
        return name


@asynccontextmanager
async def serving(app: FakeApp | RegistryApp) -> AsyncIterator[str]:
    """The app on a port of its own; HOST:PORT."""
    server = RpcServer("127.0.0.1:0", [app])
    try:
        yield f"127.0.0.1:{await server.start()}"
    finally:
        await server.stop(0.5)


@pytest.fixture
async def fakes() -> AsyncIterator[tuple[FakeApp, str]]:
    """The neighbours and their target."""
    app = FakeApp()
    async with serving(app) as target:
        yield app, target


def settings(postgres: str, neighbours: str, data_dir: Path) -> Settings:
    return Settings(
        listen="127.0.0.1:0",
        kafka=KafkaConfig.of_bootstrap("127.0.0.1:1"),
        postgres=postgres,
        data_dir=data_dir,
        registry_target="127.0.0.1:1",
        replayer_target=neighbours,
        switcher_target=neighbours,
    )


@pytest.fixture
async def registry(postgres: str, fakes: tuple[FakeApp, str], tmp_path: Path) -> AsyncIterator[Registry]:
    """The registry with one job, of no version yet."""
    app, neighbours = fakes
    async with (
        serving(RegistryApp(settings(postgres, neighbours, tmp_path))) as target,
        Client(targets={"registry": target}, actor="ann@desk") as client,
    ):
        await client.create_job(JOB, "How punctual is each carrier?")
        yield Registry(target, client, app)
