"""Two jobs over one topic are cut over and rolled back in one step, unless one of them could not come back."""

from __future__ import annotations

import pytest

from tests.acceptance.orders import JOB, Orders
from tests.support.eventually import eventually
from turnout.client import Client
from turnout.errors import FailedPrecondition
from turnout.results import RunState

TWIN = "order-twins"
BOTH = (JOB, TWIN)
LAG = ("catch-up",)  # on a busy machine one of them may fall behind for a moment right after it was level


async def running(client: Client, orders: Orders, number: int) -> None:
    """The version of both jobs, caught up."""
    for job in BOTH:
        await client.apply(orders.code(number, job=job))
        await client.start_run(job, number)

    async def passes() -> bool:
        for job in BOTH:
            check = await client.check_gates(job, number, baseline=number - 1 or None)
            assert all(gate.passed for gate in check.gates), check.gates
        return True

    await eventually(passes, 60)


async def test_two_jobs_move_together_and_come_back_together(client: Client, orders: Orders) -> None:
    await orders.produce(2_000)
    await running(client, orders, 1)
    first = await client.cut_over_many(dict.fromkeys(BOTH, 1), override_gates=LAG)
    assert [change.route.job for change in first] == sorted(BOTH)
    await running(client, orders, 2)

    await client.stop_run(TWIN, 1)
    with pytest.raises(FailedPrecondition) as refused:
        await client.cut_over_many(dict.fromkeys(BOTH, 2), override_gates=LAG)
    assert [(one.type, one.subject) for one in refused.value.violations] == [
        ("rollback", f"jobs/{TWIN}/versions/2"),
    ]
    assert [(await client.route(job)).active_version for job in BOTH] == [1, 1]

    await client.resume_run(TWIN, 1)

    async def alive() -> bool:
        return (await client.get_run(TWIN, 1)).state is RunState.TAILING

    await eventually(alive, 60)
    second = await client.cut_over_many(dict.fromkeys(BOTH, 2), override_gates=LAG)
    assert len({change.group for change in second}) == 1
    assert all(change.adoption_time is not None for change in second)

    reader = client.session(unit="user-1")
    for job in BOTH:
        assert (await reader.get(job, "user-1")).version == 2
        readiness = await client.rollback_readiness(job)
        assert (readiness.possible, readiness.version, readiness.weights) == (True, 1, {1: 10_000})
        assert readiness.staleness is not None
        assert readiness.protected_until is not None

    alone = await client.roll_back(JOB, validate_only=True)
    assert any(f"together with {TWIN}" in warning for warning in alone.warnings)
    back = await client.roll_back_many(BOTH)
    assert [change.route.active_version for change in back] == [1, 1]
    for job in BOTH:
        assert (await reader.get(job, "user-1")).version == 1
        assert not (await client.rollback_readiness(job)).possible
