"""Scans beside everything else: how many there are at a time, how many wait, and how long one may last."""

from __future__ import annotations

import asyncio
from typing import Any

import grpc
import pytest

from services.query.app import QueryApp
from tests.integration.query.conftest import MakeFront
from tests.integration.query.fronts import FrontProcess, Serving, error_of, i, plain, refused
from tests.integration.query.switcher import ScriptedSwitcher, route
from tests.integration.query.test_reads import adopt
from tests.integration.query.test_watch import reported
from tests.support.eventually import eventually
from turnout.query.v1 import query_pb2 as pb
from turnout.reading import deadline, scans

LARGE = pb.ScanRequest(job="jobs/j", limit=20_000, version=1)


@pytest.fixture
async def large(serving: Serving) -> None:
    """Version 1 of the job j, of which more rows are read than fit between a front and its caller."""
    await serving.numbers(1, {})
    await serving.sql("insert into serving.j__v1 select n, repeat('x', 1000) from generate_series(1, 20000) n")


async def test_slow_scans_leave_connections_to_everybody_else(front: FrontProcess, large: None) -> None:
    calls = [front.query.Scan(LARGE, timeout=60) for _ in range(4)]
    try:
        for call in calls:
            assert await call.read()
        with pytest.raises(grpc.aio.AioRpcError):
            await front.query.Scan(LARGE, timeout=0.2).read()
        assert plain((await front.get(i(1), version=1)).row)[0] == 1
    finally:
        for call in calls:
            call.cancel()


async def test_scans_that_wait_take_no_more_than_their_places(
    make_front: MakeFront, large: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(QueryApp, "calls_max", scans.AT_ONCE_MAX + scans.WAITING_MAX + 10)
    front = await make_front()
    calls = [front.query.Scan(LARGE, timeout=60) for _ in range(scans.AT_ONCE_MAX)]
    try:
        for call in calls:
            assert await call.read()
        waiting = [front.query.Scan(LARGE, timeout=60) for _ in range(scans.WAITING_MAX)]
        calls += waiting
        reads = [asyncio.ensure_future(one.read()) for one in waiting]

        async def none_more_waits() -> bool:
            return (await refused(front.query.Scan(LARGE, timeout=1).read()))[1] == "SCANS_BUSY"

        for _ in range(20):
            await eventually(none_more_waits, 60)
        assert plain((await front.get(i(1), version=1)).row)[0] == 1
        assert not any(one.done() for one in reads)
    finally:
        for call in calls:
            call.cancel()
    await asyncio.gather(*reads, return_exceptions=True)


async def test_a_scan_whose_rows_nobody_takes_is_ended(
    front: FrontProcess, serving: Serving, large: None, switcher: ScriptedSwitcher, monkeypatch: pytest.MonkeyPatch
) -> None:
    await serving.numbers(2, {1: "eins"})
    await adopt(switcher, front, route("j", 1, active=1))
    monkeypatch.setattr(deadline, "READ_S_MAX", 4.0)
    call = front.query.Scan(pb.ScanRequest(job="jobs/j", limit=20_000), timeout=600)
    assert await call.read()
    await adopt(switcher, front, route("j", 2, active=2))
    await eventually(reported(switcher, "p2", ["SERVING", "DRAINED"]))
    await serving.sql("set lock_timeout = '20s'")
    await serving.drop(1)
    with pytest.raises(grpc.aio.AioRpcError) as caught:
        await _rest(call)
    code, reason, _ = error_of(caught.value)
    assert (code, reason) == (grpc.StatusCode.RESOURCE_EXHAUSTED, "SCAN_TOO_LONG")


async def _rest(call: Any) -> None:
    while await call.read():
        pass
