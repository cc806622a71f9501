"""Fixtures on a real PostgreSQL and a real Kafka.

They start once a session, in a temporary directory, for all its processes; TURNOUT_TEST_POSTGRES and TURNOUT_TEST_KAFKA
name running ones instead.
"""

from __future__ import annotations

import os
import signal
from collections.abc import AsyncIterator, Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, settings
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter

from deploy.local.stack import LocalStack
from tests.support.databases import fresh_database
from tests.support.processes import ServiceProcesses
from tests.support.shared_stack import Addresses, SharedStack, addresses_of, session_stack, temporary_stack
from tests.support.topics import Topics

# How long an example takes, and making it, depends on what else the machine does; a test that times out says nothing of
# the product.
settings.register_profile("turnout", deadline=None, suppress_health_check=[HealthCheck.too_slow])
settings.load_profile("turnout")

# A shell lets what it starts in the background ignore Ctrl-C, and so would every program that a test starts.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_LONG_S = 600

POSTGRES_VARIABLE = "TURNOUT_TEST_POSTGRES"
KAFKA_VARIABLE = "TURNOUT_TEST_KAFKA"

_SHARED_STACK = pytest.StashKey[SharedStack]()


def pytest_sessionstart(session: pytest.Session) -> None:
    """Where several processes run the tests, the one that divides them among the others starts a stack for all."""
    config = session.config
    if not config.pluginmanager.hasplugin("dsession") or _running_ones():  # pytest-xdist's, of the one that divides
        return
    directory = config._tmp_path_factory.mktemp("stack")  # type: ignore[attr-defined]  # fixtures are not there yet
    config.stash[_SHARED_STACK] = SharedStack(directory)


@pytest.hookimpl(optionalhook=True)
def pytest_configure_node(node: Any) -> None:
    """Tell a process that runs tests where that stack is."""
    if (shared := node.config.stash.get(_SHARED_STACK, None)) is not None:
        node.workerinput["stack"] = str(shared.directory)


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Stop it, once those who run tests have ended."""
    if (shared := session.config.stash.get(_SHARED_STACK, None)) is not None:
        shared.stop()


def _running_ones() -> Addresses | None:
    """What the variables name, if they do."""
    postgres, kafka = os.environ.get(POSTGRES_VARIABLE), os.environ.get(KAFKA_VARIABLE)
    return Addresses(postgres, kafka) if postgres and kafka else None


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Begin with the long tests: whoever took one last would keep everybody else waiting at the end. On a busy machine
    they take minutes."""
    items.sort(key=lambda item: item.get_closest_marker("long") is None)
    for item in items:
        if item.get_closest_marker("long") and not item.get_closest_marker("timeout"):
            item.add_marker(pytest.mark.timeout(_LONG_S))


@pytest.fixture(scope="session")
async def stack(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[Addresses]:
    """PostgreSQL and Kafka for the session. Tests that break them use `fault_stack`."""
    if running := _running_ones():
        yield running
    elif shared := getattr(request.config, "workerinput", {}).get("stack"):
        yield await addresses_of(Path(shared))
    else:
        async with session_stack(tmp_path_factory.mktemp("stack")) as started:
            yield started


@pytest.fixture(scope="session")
async def _fault_stack(tmp_path_factory: pytest.TempPathFactory) -> AsyncIterator[LocalStack]:
    async with temporary_stack(tmp_path_factory.mktemp("fault-stack")) as started:
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


@pytest.fixture
def spans() -> Iterator[InMemorySpanExporter]:
    """Spans that end during the test. A process has one provider for good, so an existing one is listened to."""
    provider = trace.get_tracer_provider()
    if not isinstance(provider, TracerProvider):
        provider = TracerProvider()
        trace.set_tracer_provider(provider)
    exporter = InMemorySpanExporter()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    yield exporter
    exporter.shutdown()
