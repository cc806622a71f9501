"""PostgreSQL away: reads say so, end in time, and recover by themselves."""

from __future__ import annotations

from collections.abc import AsyncIterator
from urllib.parse import urlsplit

import grpc
import pytest

from tests.integration.query.conftest import MakeFront
from tests.integration.query.fronts import Serving, error_of, i, key, plain, refused
from tests.integration.query.switcher import ScriptedSwitcher, route
from tests.integration.query.test_reads import adopt
from tests.support.eventually import eventually
from tests.support.proxy import TcpProxy
from turnout.query.v1 import query_pb2 as pb

AWAY = (grpc.StatusCode.UNAVAILABLE, "POSTGRES_UNAVAILABLE")


@pytest.fixture
async def proxy(postgres: str) -> AsyncIterator[TcpProxy]:
    parts = urlsplit(postgres)
    async with TcpProxy(parts.hostname or "", parts.port or 5432) as started:
        yield started


@pytest.fixture
def through(postgres: str, proxy: TcpProxy) -> str:
    """The connection string by way of the proxy."""
    parts = urlsplit(postgres)
    return postgres.replace(f"{parts.hostname}:{parts.port}", f"127.0.0.1:{proxy.port}")


async def test_away_and_back(
    make_front: MakeFront, serving: Serving, switcher: ScriptedSwitcher, proxy: TcpProxy, through: str
) -> None:
    front = await make_front(postgres=through)
    await serving.numbers(1, {1: "one"})
    await adopt(switcher, front, route("j", 1, active=1))
    assert plain((await front.get(i(1))).row) == [1, "one"]
    await proxy.cut()
    assert (await refused(front.get(i(1))))[:2] == AWAY
    assert (await refused(front.batch(key(i(1)))))[:2] == AWAY
    assert (await refused(front.scan()))[:2] == AWAY
    told = await front.query.ExplainRoute(pb.ExplainRouteRequest(job="jobs/j", unit="u"), timeout=5)
    assert told.version == 1, "no table is read for that"
    await proxy.restore()
    assert plain((await front.get(i(1))).row) == [1, "one"]
    assert (await front.scan()).rows == [[1, "one"]]


async def test_a_proposal_while_it_is_away_is_refused(
    make_front: MakeFront, serving: Serving, switcher: ScriptedSwitcher, proxy: TcpProxy, through: str
) -> None:
    await serving.numbers(1, {1: "one"})
    await proxy.cut()
    await make_front(postgres=through)
    switcher.propose("p", route("j", 1, active=1))

    async def nack() -> bool:
        return switcher.said("p") == ["NACK"]

    await eventually(nack)
    assert "PostgreSQL does not answer" in switcher.reason("p")


async def test_a_front_starts_while_it_is_away(
    make_front: MakeFront, serving: Serving, switcher: ScriptedSwitcher, proxy: TcpProxy, through: str
) -> None:
    await serving.numbers(1, {1: "one"})
    switcher.commit("p", route("j", 1, active=1))
    await proxy.cut()
    front = await make_front(postgres=through)
    assert (await refused(front.get(i(1))))[:2] == AWAY
    await proxy.restore()
    assert plain((await front.get(i(1))).row) == [1, "one"]


async def test_a_stalled_network_keeps_no_read_beyond_its_deadline(
    make_front: MakeFront, serving: Serving, switcher: ScriptedSwitcher, proxy: TcpProxy, through: str
) -> None:
    front = await make_front(postgres=through)
    await serving.numbers(1, {1: "one"})
    await adopt(switcher, front, route("j", 1, active=1))
    await front.get(i(1))
    proxy.stall()
    request = pb.GetRequest(job="jobs/j", key=key(i(1)))
    for _ in range(20):  # more than there are connections
        with pytest.raises(grpc.aio.AioRpcError) as caught:
            await front.query.Get(request, timeout=0.2)
        if caught.value.code() is not grpc.StatusCode.DEADLINE_EXCEEDED:
            assert error_of(caught.value)[:2] == AWAY
    await adopt(switcher, front, route("j", 2, active=1))

    async def drained() -> bool:
        return switcher.said("p2") == ["SERVING", "DRAINED"]

    await eventually(drained)
    await proxy.restore()

    async def answers() -> bool:
        try:
            return plain((await front.get(i(1))).row) == [1, "one"]
        except grpc.aio.AioRpcError as error:
            if error_of(error)[:2] != AWAY:
                raise
            return False

    await eventually(answers)
