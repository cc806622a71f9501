"""What new code changes, told while everything goes on; and whether code is a function at all."""

from __future__ import annotations

import asyncio
from contextlib import aclosing
from datetime import timedelta
from functools import partial
from pathlib import Path

import pytest

from tests.acceptance.conftest import BOTH_WAYS
from tests.acceptance.orders import JOB, Orders, stored
from tests.acceptance.test_life_cycle import caught_up, has_state
from tests.support.eventually import eventually
from turnout.client import Client
from turnout.contract import Contract, Expected, ExpectedColumn
from turnout.errors import FailedPrecondition
from turnout.results import VersionState

PATIENT = timedelta(seconds=20)  # with a run that stands still for a moment on a busy machine
AS_MEANT = Contract(columns=(ExpectedColumn("cents", Expected(1.0)),))

RANDOM = '''
"""Orders by user, with a number that nobody can compute again."""
import random

from turnout import Key, Record, Row, Sum, aggregate


class Order(Record):
    user: str
    cents: int


class Total(Row):
    user: Key[str]
    orders: Sum[int] = 1
    cents: Sum[int] = 0


@aggregate("{job}", topic="{topic}")
def totals(order: Order) -> Total:
    return Total(user=order.user, cents=order.cents + random.randrange(2))
'''


@BOTH_WAYS
async def test_a_comparison_while_orders_come_and_what_it_is_evidence_for(client: Client, orders: Orders) -> None:
    await orders.produce(2_000)
    for version in (1, 2):
        await client.apply(orders.code(version))
        await client.start_run(JOB, version)
        await caught_up(client, version)

    enough = asyncio.Event()

    async def come() -> None:
        while not enough.is_set():
            await orders.produce(50)

    coming = asyncio.create_task(come())
    try:
        found = await client.compare(JOB, 1, 2, contract=AS_MEANT, align_within=PATIENT)
        assert (found.finished, found.aligned, found.exact, found.passed) == (True, True, True, True)
        wrong = await client.compare(JOB, 1, 2, contract=Contract(), align_within=PATIENT)
        assert wrong.passed is False
        steps = []
        async with aclosing(client.comparing(JOB, 1, 2, range_rows=100, align_within=PATIENT)) as answers:
            async for answer in answers:
                steps.append((answer.ranges_done, answer.finished))
        assert len(steps) >= 3
        assert [done for done, _ in steps] == [*range(1, len(steps) + 1)]
        assert [finished for _, finished in steps] == [False] * (len(steps) - 1) + [True]
    finally:
        enough.set()
        await coming
    gates = await client.check_gates(JOB, 2, baseline=1, comparison=True)
    assert [(gate.gate, gate.passed) for gate in gates.gates][-1] == ("comparison", False), "the newest one failed"
    again = await client.compare(JOB, 1, 2, contract=AS_MEANT, align_within=PATIENT)
    gates = await client.check_gates(JOB, 2, baseline=1, comparison=True)
    assert gates.gates[-1].passed
    listed = [one.id async for one in client.list_comparisons(JOB, versions=[1, 2])]
    assert (len(listed), listed[0], listed[-1]) == (4, again.id, found.id)
    assert (await client.get_comparison(JOB, listed[1])).ranges_done == len(steps)
    assert (await client.resume_comparison(JOB, listed[1])).finished
    for version in (1, 2):
        await caught_up(client, version)
        assert await stored(client, version) == orders.table(version)


async def test_an_audit_tells_a_function_from_what_is_none(client: Client, orders: Orders, tmp_path: Path) -> None:
    await orders.produce(1_000)
    told: list[str] = []
    found = await client.audit(orders.code(2), told=told.append)
    assert found.deterministic
    assert (found.comparison.rows_old, found.comparison.exact) == (len(orders.table(2)), True)
    assert len(told) == 2
    for version in (1, 2):
        await eventually(partial(has_state, client, version, VersionState.DROPPED))

    job = "nobody-knows"
    file = tmp_path / "random_job.py"
    file.write_text(RANDOM.format(job=job, topic=orders.topic))
    found = await client.audit(file)
    assert not found.deterministic
    assert [one.column for one in found.comparison.columns if one.rows] == ["cents"]
    assert len(found.comparison.samples) == 10

    async def dropped() -> bool:
        return [one.state async for one in client.list_versions(job)] == [VersionState.DROPPED] * 2

    await eventually(dropped)
    # The same file is a version of its own afterwards, which has nothing to do with what was computed for the audit.
    applied = await client.apply(orders.code(2))
    assert (applied.created, applied.version.number) == (True, 3)


async def test_an_audit_that_cannot_be_computed_cleans_up_too(client: Client, orders: Orders) -> None:
    await orders.produce_value(b"no order")
    with pytest.raises(FailedPrecondition, match="malformed") as failed:
        await client.audit(orders.code(1))
    assert failed.value.reason == "AUDIT_FAILED"
    for version in (1, 2):
        await eventually(partial(has_state, client, version, VersionState.DROPPED))
