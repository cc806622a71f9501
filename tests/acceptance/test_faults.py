"""Parts die or are away; the table is the reference table all the same, and reads recover."""

from __future__ import annotations

import os
import signal
from pathlib import Path

import pytest

from deploy.local.stack import LocalStack
from tests.acceptance.conftest import LEASES, client_of
from tests.acceptance.orders import JOB, Orders
from tests.acceptance.test_life_cycle import caught_up, holds_reference, once_level, serve_version_1
from tests.support.databases import fresh_database
from tests.support.eventually import eventually
from tests.support.processes import SERVICES, ServiceProcesses
from tests.support.topics import Topics
from tests.support.workers import children_of, worker_pids
from turnout.client import Client
from turnout.errors import DeadlineExceeded, TurnoutError, Unavailable
from turnout.results import RunState


@pytest.mark.parametrize("service", SERVICES)
async def test_a_killed_service_comes_back(
    service: str, postgres: str, kafka: Topics, orders: Orders, tmp_path: Path
) -> None:
    async with (
        ServiceProcesses(
            postgres=postgres, kafka=kafka.bootstrap, data_dir=tmp_path / "services", separate=True, options=LEASES
        ) as processes,
        client_of(processes) as client,
    ):
        await serve_version_1(client, orders)
        await client.apply(orders.code(2))
        await client.start_run(JOB, 2, rate_limit=2_000)
        await eventually(lambda: has_read(client, 2, 500), 60)
        await processes.kill(service)
        await orders.produce(500)
        await processes.start(service)
        await eventually(lambda: without_limit(client), 60)
        await holds_reference(client, 1, orders)
        await holds_reference(client, 2, orders)
        await caught_up(client, 2)
        change = await once_level(lambda: client.cut_over(JOB, 2))
        assert change.route.active_version == 2

        async def served() -> bool:
            # At once, unless the front was not counted: its lease may have run out while the switcher was away.
            return (await client.get(JOB, {"user": "user-1"})).version == 2

        await eventually(served, 60)


async def test_killed_workers_lose_and_double_nothing(client: Client, orders: Orders) -> None:
    # Few enough: a partition in which two workers in a row got no further is read record by record from there on.
    await orders.produce(6_000)
    await client.apply(orders.code(1))
    await client.start_run(JOB, 1, workers=2, rate_limit=1_000)
    for round_number in range(3):
        await eventually(lambda goal=1 + round_number * 1_500: has_read(client, 1, goal), 60)  # type: ignore[misc]
        services = children_of(os.getpid())
        for pid in [pid for parent in services for pid in worker_pids(parent)]:
            os.kill(pid, signal.SIGKILL)
    await client.set_run_rate(JOB, 1, None)
    await holds_reference(client, 1, orders, within_s=150)
    assert (await client.get_run(JOB, 1)).worker_restarts > 0


async def test_postgres_and_kafka_away_for_a_while(fault_stack: LocalStack, tmp_path: Path) -> None:
    topics = Topics(fault_stack.kafka)
    orders = Orders(topics, await topics.create(partitions=4), tmp_path / "jobs")
    async with (
        fresh_database(fault_stack.postgres) as postgres,
        ServiceProcesses(
            postgres=postgres, kafka=fault_stack.kafka, data_dir=tmp_path / "services", options=LEASES
        ) as processes,
        client_of(processes) as client,
    ):
        await serve_version_1(client, orders)

        await fault_stack.kill_postgres()
        with pytest.raises((Unavailable, DeadlineExceeded)):
            await client.get(JOB, {"user": "user-1"}, timeout_s=3)
        await orders.produce(500)
        await fault_stack.start_postgres()
        await eventually(lambda: answers(client), 60)
        await holds_reference(client, 1, orders)

        await fault_stack.kill_kafka()
        await eventually(lambda: answers(client), 60)  # reads do not need Kafka
        await eventually(lambda: is_waiting(client), 60)
        await fault_stack.start_kafka()
        await orders.produce(500)
        await holds_reference(client, 1, orders)
    await topics.delete_all()


async def has_read(client: Client, version: int, records: int) -> bool:
    run = await client.get_run(JOB, version)
    assert run.records >= records, f"{run.records} read"
    return True


async def without_limit(client: Client) -> bool:
    try:
        await client.set_run_rate(JOB, 2, None)
    except TurnoutError as error:
        raise AssertionError(str(error)) from None
    return True


async def answers(client: Client) -> bool:
    try:
        return (await client.get(JOB, {"user": "user-1"}, timeout_s=3)).row is not None
    except TurnoutError as error:
        raise AssertionError(str(error)) from None


async def is_waiting(client: Client) -> bool:
    run = await client.get_run(JOB, 1)
    assert run.state is RunState.TAILING
    assert "Kafka" in run.status_message, run.status_message
    return True
