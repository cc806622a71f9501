"""Bad input and bad moments: each is refused with what to do, and nothing has changed."""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import pytest

from tests.acceptance.orders import JOB, Orders, stored
from tests.acceptance.test_faults import has_read
from tests.acceptance.test_life_cycle import caught_up, has_state, holds_reference, serve_version_1
from tests.support.eventually import eventually
from turnout.client import Client
from turnout.errors import Aborted, FailedPrecondition, InvalidInput, NotFound, TurnoutError
from turnout.results import RouteChange, Run, RunState, VersionState


async def failed(client: Client, version: int = 1) -> Run:
    async def check() -> Run:
        run = await client.get_run(JOB, version)
        assert run.state is RunState.FAILED, run.state
        return run

    return await eventually(check, 60)


async def test_what_does_not_exist_is_named(client: Client, orders: Orders) -> None:
    for call in (client.get_job("no-such-job"), client.start_run("no-such-job", 1), client.route("no-such-job")):
        with pytest.raises(NotFound, match="no-such-job"):
            await call
    with pytest.raises(NotFound, match="no-such-job"):
        await client.get("no-such-job", {"user": "user-1"})
    await client.apply(orders.code(1))
    with pytest.raises(NotFound, match="v7"):
        await client.start_run(JOB, 7)
    with pytest.raises(NotFound) as unrouted:
        await client.get(JOB, {"user": "user-1"})
    assert unrouted.value.reason == "JOB_NOT_ROUTED"


async def test_other_code_than_expected_stores_nothing(client: Client, orders: Orders) -> None:
    await client.apply(orders.code(1))
    with pytest.raises(FailedPrecondition) as refused:
        await client.apply(orders.code(2), expected_number=1)
    assert refused.value.reason == "VERSION_MISMATCH"
    assert (await client.get_job(JOB)).newest_version == 1


async def test_weights_that_cannot_be(client: Client, orders: Orders) -> None:
    await serve_version_1(client, orders)
    await client.apply(orders.code(2))
    with pytest.raises(InvalidInput, match="sum"):
        await client.set_traffic(JOB, {1: 5_000, 2: 4_000})
    with pytest.raises(NotFound, match="has no run") as without_run:
        await client.set_traffic(JOB, {1: 9_000, 2: 1_000})
    assert without_run.value.reason == "RUN_NOT_FOUND"
    assert (await client.route(JOB)).epoch == 1


async def test_a_stale_etag_changes_nothing(client: Client, orders: Orders) -> None:
    await serve_version_1(client, orders)
    await client.apply(orders.code(2))
    await client.start_run(JOB, 2)
    await caught_up(client, 2)
    stale = (await client.route(JOB)).etag
    await client.set_traffic(JOB, {1: 9_000, 2: 1_000})
    with pytest.raises(Aborted) as refused:
        await client.cut_over(JOB, 2, etag=stale)
    assert refused.value.reason == "STALE_ETAG"
    assert (await client.route(JOB)).active_version == 1


async def test_a_cutover_asked_too_early_lists_the_partitions(client: Client, orders: Orders) -> None:
    await serve_version_1(client, orders)
    await client.apply(orders.code(2))
    await client.start_run(JOB, 2, rate_limit=100)
    await eventually(lambda: has_read(client, 2, 1), 60)
    with pytest.raises(FailedPrecondition) as refused:
        await client.cut_over(JOB, 2)
    violations = refused.value.violations
    assert {violation.type for violation in violations} == {"catch-up"}
    assert any(f"{orders.topic}/" in violation.description for violation in violations)
    change = await client.cut_over(JOB, 2, override_gates=["catch-up"], reason="on purpose")
    [audited] = [gate for gate in change.gates if gate.gate == "catch-up"]
    assert (audited.passed, audited.overridden) == (False, True)


async def test_a_log_that_has_lost_its_start_is_not_cut_over_silently(client: Client, orders: Orders) -> None:
    await serve_version_1(client, orders)
    ends = await orders.topics.end_offsets(orders.topic)
    await orders.topics.delete_records_before(orders.topic, {0: ends[0] // 2})
    await client.apply(orders.code(2))
    await client.start_run(JOB, 2)

    async def only_coverage_fails() -> bool:
        check = await client.check_gates(JOB, 2, baseline=1)
        assert [gate.gate for gate in check.gates if not gate.passed] == ["coverage"], check.gates
        return True

    await eventually(only_coverage_fails, 60)
    with pytest.raises(FailedPrecondition) as refused:
        await client.cut_over(JOB, 2)
    assert {violation.type for violation in refused.value.violations} == {"coverage"}
    assert f"{orders.topic}/0" in refused.value.violations[0].description


async def test_a_malformed_record_fails_the_run_and_is_named(client: Client, orders: Orders) -> None:
    await orders.produce(200)
    await orders.produce_value(b'{"user": 7}')
    await client.apply(orders.code(1))
    await client.start_run(JOB, 1)
    run = await failed(client)
    assert run.failure_reason == "MALFORMED_RECORD"
    assert orders.topic in run.status_message


@pytest.mark.parametrize(
    "value", [b"not json", b'{"user": 7}', b'{"user": "nul \\u0000 in it", "cents": 1}'], ids=["json", "type", "NUL"]
)
async def test_a_malformed_record_is_set_aside_and_counted(client: Client, orders: Orders, value: bytes) -> None:
    await orders.produce(200)
    await orders.produce_value(value)
    await orders.produce(200)
    await client.apply(orders.code(1, on_malformed="set_aside"))
    await client.start_run(JOB, 1)
    await holds_reference(client, 1, orders)

    async def counted() -> bool:
        return (await client.get_run(JOB, 1)).records_set_aside == 1

    await eventually(counted, 60)


async def test_a_missing_topic_starts_nothing(client: Client, orders: Orders) -> None:
    await orders.topics.delete(orders.topic)
    await client.apply(orders.code(1))

    async def refused() -> bool:
        with pytest.raises(FailedPrecondition) as caught:
            await client.start_run(JOB, 1)
        return caught.value.reason == "TOPIC_NOT_FOUND"

    await eventually(refused, 60)
    with pytest.raises(NotFound):
        await client.get_run(JOB, 1)


async def test_a_topic_made_anew_is_refused_at_resume(client: Client, orders: Orders) -> None:
    await orders.produce(500)
    await client.apply(orders.code(1))
    await client.start_run(JOB, 1)
    await caught_up(client, 1)
    before = await stored(client, 1)
    await client.pause_run(JOB, 1)
    await orders.topics.delete(orders.topic)
    await orders.topics.create(partitions=4, name=orders.topic)
    await orders.produce(500)
    with pytest.raises(FailedPrecondition) as refused:
        await client.resume_run(JOB, 1)
    assert refused.value.reason == "TOPIC_RECREATED"
    assert await stored(client, 1) == before


async def race(client: Client, rollback_lead_s: float) -> tuple[Any, Any]:
    """What a rollback to version 1 and its retirement answer; the rollback is asked that much earlier (or later)."""

    async def after_s(head_start_s: float, call: Coroutine[Any, Any, Any]) -> Any:
        await asyncio.sleep(head_start_s)
        return await call

    return await asyncio.gather(
        after_s(max(-rollback_lead_s, 0), client.roll_back(JOB)),
        after_s(
            max(rollback_lead_s, 0),
            client.retire(JOB, 1, retain_for=timedelta(hours=1), forgo_rollback=True),
        ),
        return_exceptions=True,
    )


async def run_is(client: Client, version: int, state: RunState) -> bool:
    run = await client.get_run(JOB, version)
    assert run.state is state, f"{run.state}: {run.status_message}"
    return True


async def rolled_back(client: Client, back: Any, gone: Any) -> bool:
    """Which of the two won: checks that the answers, the route, the version and its run all say the same."""
    active = (await client.route(JOB)).active_version
    if isinstance(back, RouteChange):
        assert active == 1
        assert isinstance(gone, TurnoutError), (back, gone)
        # Asked in the meantime, the switcher has refused; the registry may be about to note that down.
        await eventually(lambda: has_state(client, 1, VersionState.REGISTERED), 60)
        await eventually(lambda: run_is(client, 1, RunState.TAILING), 60)
        return True
    assert isinstance(back, TurnoutError), (back, gone)
    assert active == 2
    assert not isinstance(gone, BaseException), (back, gone)
    await eventually(lambda: has_state(client, 1, VersionState.RETIRED), 60)
    await run_is(client, 1, RunState.STOPPED)
    return False


async def test_retirement_raced_against_rollback(client: Client, orders: Orders) -> None:
    """One of the two wins, whatever the timing: a version that serves is never released."""
    await serve_version_1(client, orders)
    await client.apply(orders.code(2))
    await client.start_run(JOB, 2)
    await caught_up(client, 2)
    outcomes: list[bool] = []
    lead_s, step_s = 0.0, 0.002
    while len(outcomes) < 8 or len(set(outcomes)) < 2:
        assert len(outcomes) < 24, f"only ever the same outcome: {outcomes}"
        await client.cut_over(JOB, 2)
        outcomes.append(await rolled_back(client, *await race(client, lead_s)))
        if not outcomes[-1]:
            await client.unretire(JOB, 1)
            await eventually(lambda: has_state(client, 1, VersionState.REGISTERED), 60)
            await eventually(lambda: run_is(client, 1, RunState.TAILING), 60)
        # Towards the moment at which the other one wins: faster while that does not come about, then closer to it.
        repeated = outcomes[-2:-1] == outcomes[-1:]
        step_s = min(step_s * 2, 0.4) if repeated else max(step_s / 2, 0.001)
        lead_s += -step_s if outcomes[-1] else step_s
