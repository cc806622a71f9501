"""Fixtures on a real PostgreSQL and a real Kafka.

They start once a session, in a temporary directory; TURNOUT_TEST_POSTGRES and TURNOUT_TEST_KAFKA name running ones
instead.
"""

from __future__ import annotations

import os
import shutil
import signal
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path

import pytest
from hypothesis import settings

from deploy.local.stack import LocalStack
from tests.support.databases import fresh_database
from tests.support.processes import ServiceProcesses
from tests.support.topics import Topics

# How long an example takes depends on what else the machine does; a test that times out says nothing of the product.
settings.register_profile("turnout", deadline=None)
settings.load_profile("turnout")

# A shell lets what it starts in the background ignore Ctrl-C, and so would every program that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

POSTGRES_VARIABLE = "TURNOUT_TEST_POSTGRES"
KAFKA_VARIABLE = "TURNOUT_TEST_KAFKA"


@dataclass(frozen=True)
class Addresses:
    """Where PostgreSQL (a connection string) and Kafka (HOST:PORT) are."""

    postgres: str = field(repr=False)
    kafka: str


@asynccontextmanager
async def _temporary_stack(data_dir: Path) -> AsyncIterator[LocalStack]:
    """A stack whose data go afterwards and whose logs stay, as long as pytest keeps its temporary directories."""
    async with LocalStack(data_dir) as started:
        yield started
    for part in ("postgres", "kafka"):
        shutil.rmtree(data_dir / part)


@pytest.fixture(scope="session")
async def stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Addresses]:
    """PostgreSQL and Kafka for the session. Tests that break them use `fault_stack`."""
    postgres, kafka = os.environ.get(POSTGRES_VARIABLE), os.environ.get(KAFKA_VARIABLE)
    if postgres and kafka:
        yield Addresses(postgres, kafka)
        return
    async with _temporary_stack(tmp_path_factory.mktemp("stack")) as started:
        yield Addresses(started.postgres, started.kafka)


@pytest.fixture(scope="session")
async def _fault_stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalStack]:
    async with _temporary_stack(tmp_path_factory.mktemp("fault-stack")) as started:
        yield started


@pytest.fixture
async def fault_stack(_fault_stack: LocalStack) -> AsyncIterator[LocalStack]:
    """A stack whose parts a test may stop, kill and start; whole again for the next test."""
    yield _fault_stack
    await _fault_stack.start_postgres()
    await _fault_stack.start_kafka()


@pytest.fixture(scope="session")
async def postgres_template(stack: Addresses) -> AsyncIterator[str]:
    """Name of the database that every test's own is a copy of."""
    async with fresh_database(stack.postgres) as dsn:
        yield dsn.rpartition("/")[2].partition("?")[0]


@pytest.fixture
async def postgres(stack: Addresses, postgres_template: str) -> AsyncIterator[str]:
    """Connection string of a database of the test's own."""
    async with fresh_database(stack.postgres, template=postgres_template) as dsn:
        yield dsn


@pytest.fixture
async def kafka(stack: Addresses) -> AsyncIterator[Topics]:
    """The broker (`kafka.bootstrap`) and topics of the test's own, deleted afterwards."""
    topics = Topics(stack.kafka)
    yield topics
    await topics.delete_all()


@pytest.fixture
async def services(postgres: str, kafka: Topics, tmp_path: Path) -> AsyncIterator[ServiceProcesses]:
    """All four services in one real process, on the test's own database."""
    async with ServiceProcesses(postgres=postgres, kafka=kafka.bootstrap, data_dir=tmp_path / "services") as started:
        yield started


@pytest.fixture
async def separate_services(postgres: str, kafka: Topics, tmp_path: Path) -> AsyncIterator[ServiceProcesses]:
    """Each service in a real process of its own, on the test's own database."""
    async with ServiceProcesses(
        postgres=postgres, kafka=kafka.bootstrap, data_dir=tmp_path / "services", separate=True
    ) as started:
        yield started
