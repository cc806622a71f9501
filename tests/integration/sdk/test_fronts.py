"""A client of several fronts, against real servers."""

from __future__ import annotations

import pytest

from deploy.local.ports import free_port
from tests.integration.sdk.servers import Script, serving
from turnout import errors
from turnout.client import Client
from turnout.errors import InvalidInput, ResourceExhausted, Unavailable
from turnout.query.v1 import query_pb2 as pb

ANSWER = pb.GetResponse(served=pb.ServedVersion(version=1, epoch=3, columns=["k"], cause=pb.ServedVersion.ROUTED))
PAGE = pb.ScanResponse(served=ANSWER.served, columns=[pb.Column(int64_values=[7])])
AWAY = Unavailable("ROUTE_STALE", "This front last heard from the switcher 61 s ago.")


@pytest.fixture
def in_order(monkeypatch: pytest.MonkeyPatch) -> None:
    """Clients ask their fronts in the order in which they were given."""
    monkeypatch.setattr("turnout.client.connection.random.sample", lambda some, _: list(some))


async def test_a_read_is_tried_once_more_on_another_front() -> None:
    stale, good = Script(Get=[AWAY]), Script(Get=[ANSWER])
    async with serving(stale) as first, serving(good) as second, Client(targets={"query": [first, second]}) as client:
        for _ in range(20):
            assert (await client.get("j", 1)).version == 1
    assert len(good.requests["Get"]) == 20
    assert len(stale.requests["Get"]) <= 3  # it rests meanwhile


async def test_a_front_does_not_rest_for_one_jobs_fault(in_order: None) -> None:
    missing = Unavailable("TABLE_MISSING", "The table of version 2 is not there.")
    healthy, other = Script(Get=[missing, ANSWER]), Script(Get=[ANSWER])
    async with (
        serving(healthy) as first,
        serving(other) as second,
        Client(targets={"query": [first, second]}) as client,
    ):
        for _ in range(5):
            assert (await client.get("j", 1)).version == 1
    assert len(healthy.requests["Get"]) == 5
    assert len(other.requests["Get"]) == 1


async def test_a_front_that_is_gone_costs_no_read() -> None:
    good = Script(Get=[ANSWER], Scan=[[PAGE]])
    gone = f"127.0.0.1:{free_port()}"
    async with serving(good) as target, Client(targets={"query": [gone, target]}) as client:
        assert (await client.get("j", 1)).epoch == 3
        assert [read.version async for read in client.scan("j")] == [1]


async def test_two_fronts_that_cannot_are_asked_once_each() -> None:
    scripts = Script(Get=[AWAY]), Script(Get=[AWAY]), Script(Get=[AWAY])
    async with (
        serving(scripts[0]) as a,
        serving(scripts[1]) as b,
        serving(scripts[2]) as c,
        Client(targets={"query": [a, b, c]}) as client,
    ):
        with pytest.raises(errors.Unavailable) as refused:
            await client.get("j", 1)
    assert refused.value.reason == "ROUTE_STALE"
    assert sorted(len(script.requests["Get"]) for script in scripts) == [0, 1, 1]


@pytest.mark.parametrize(
    "refusal",
    [InvalidInput("INVALID_KEY", "It is a number."), ResourceExhausted("OVERLOADED", "Too many calls.")],
    ids=["the caller's fault", "too much to do"],
)
async def test_what_a_front_refuses_is_not_asked_of_another(refusal: errors.TurnoutError) -> None:
    scripts = Script(Get=[refusal]), Script(Get=[refusal])
    async with (
        serving(scripts[0]) as a,
        serving(scripts[1]) as b,
        Client(targets={"query": [a, b]}) as client,
    ):
        with pytest.raises(type(refusal)):
            await client.get("j", 1)
    assert sum(len(script.requests["Get"]) for script in scripts) == 1
