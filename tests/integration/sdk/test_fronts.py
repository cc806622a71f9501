"""A client of several fronts, against real servers."""

from __future__ import annotations

import asyncio
import signal
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

import pytest

from tests.integration.sdk.servers import Script, serving
from tests.support.eventually import eventually
from tests.support.ports import own_port
from turnout import errors
from turnout.client import Client, connection
from turnout.client.either import either
from turnout.column_values import column_of
from turnout.errors import InvalidInput, ResourceExhausted, Unavailable
from turnout.kinds import Kind
from turnout.query.v1 import query_pb2 as pb
from turnout.switcher.v1 import change_pb2, route_pb2
from turnout.tasks import beside

ANSWER = pb.GetResponse(served=pb.ServedVersion(version=1, epoch=3, columns=["k"], cause=pb.ServedVersion.ROUTED))
PAGE = pb.ScanResponse(served=ANSWER.served, columns=[column_of(Kind.INT64, [7])])
CHANGE = change_pb2.RouteChange(
    route=route_pb2.Route(name="jobs/j/route", epoch=4, active_version=2),
    command=change_pb2.RouteChange.CUT_OVER,
    changed=True,
)
AWAY = Unavailable("ROUTE_STALE", "This front last heard from the switcher 61 s ago.")

_SERVER = """
import asyncio
from tests.integration.sdk.servers import serving
from tests.integration.sdk.test_fronts import ANSWER, CHANGE, PAGE, Script

async def main():
    async with serving(Script(Get=[ANSWER], Scan=[[PAGE]], CutOverRoute=[CHANGE])) as target:
        print(target, flush=True)
        await asyncio.Event().wait()

asyncio.run(main())
"""


@asynccontextmanager
async def process_of_a_front() -> AsyncIterator[tuple[str, asyncio.subprocess.Process]]:
    """A front in a process of its own: HOST:PORT, and the process."""
    process = await asyncio.create_subprocess_exec(sys.executable, "-c", _SERVER, stdout=asyncio.subprocess.PIPE)
    try:
        assert process.stdout is not None
        yield (await process.stdout.readline()).decode().strip(), process
    finally:
        process.kill()
        await process.wait()


@pytest.fixture(autouse=True)
def soon(monkeypatch: pytest.MonkeyPatch) -> Callable[[], None]:
    """Nobody is asked besides a front, or asked again, because the machine is busy. Called, it lets a front that says
    nothing count as silent as soon as ever."""
    usual_s = connection._SILENT_S
    monkeypatch.setattr(connection, "_SILENT_S", 60.0)
    monkeypatch.setattr("turnout.client.places.REST_S", 60.0)
    monkeypatch.setattr("turnout.client.places.REST_S_MAX", 60.0)
    return lambda: monkeypatch.setattr(connection, "_SILENT_S", usual_s)


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
    assert len(stale.requests["Get"]) <= 1  # it rests meanwhile


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
    gone = f"127.0.0.1:{own_port()}"
    async with serving(good) as target, Client(targets={"query": [gone, target]}) as client:
        assert (await client.get("j", 1)).epoch == 3
        assert [read.version async for read in client.scan("j")] == [1]


async def test_a_front_that_falls_silent_costs_no_read(in_order: None, soon: Callable[[], None]) -> None:
    other = Script(Get=[ANSWER])
    async with (
        process_of_a_front() as (first, process),
        serving(other) as second,
        Client(targets={"query": [first, second]}) as client,
    ):
        assert (await client.get("j", 1)).epoch == 3
        assert not other.requests["Get"]
        soon()
        process.send_signal(signal.SIGSTOP)  # its connections stay, and nothing is refused
        reads = await asyncio.gather(*(client.get("j", 1, version=1 + n, timeout_s=8) for n in range(5)))
        assert [read.epoch for read in reads] == [3] * 5
        assert (await client.get("j", 1, timeout_s=8)).epoch == 3
    assert len(other.requests["Get"]) == 6


async def test_a_scan_begins_at_another_front_where_the_first_is_silent(
    in_order: None, soon: Callable[[], None]
) -> None:
    other = Script(Scan=[[PAGE]])
    async with (
        process_of_a_front() as (first, process),
        serving(other) as second,
        Client(targets={"query": [first, second]}) as client,
    ):
        assert [read.epoch async for read in client.scan("j")] == [3]
        soon()
        process.send_signal(signal.SIGSTOP)
        assert [read.epoch async for read in client.scan("j")] == [3]
    assert len(other.requests["Scan"]) == 1


async def test_a_change_goes_to_another_switcher_where_the_first_is_silent(
    in_order: None, soon: Callable[[], None]
) -> None:
    other = Script(CutOverRoute=[CHANGE])
    async with (
        process_of_a_front() as (first, process),
        serving(other) as second,
        Client(targets={"switcher": [first, second]}) as client,
    ):
        assert (await client.cut_over("j", 2)).route.epoch == 4
        soon()
        process.send_signal(signal.SIGSTOP)
        assert (await client.cut_over("j", 2)).route.epoch == 4
    (asked,) = other.requests["CutOverRoute"]
    assert asked.request_id, "whoever carries it out as well must know it for the same"


async def test_a_front_that_is_slow_is_not_given_up(in_order: None, soon: Callable[[], None]) -> None:
    soon()
    slow, silent = Script(Get=[None]), Script(Get=[None])
    async with serving(slow) as a, serving(silent) as b, Client(targets={"query": [a, b]}) as client:
        with pytest.raises(errors.DeadlineExceeded):
            await client.get("j", 1, timeout_s=5)

        async def cancelled() -> bool:
            return slow.cancelled["Get"] == silent.cancelled["Get"] == 1

        await eventually(cancelled)
    assert (len(slow.requests["Get"]), len(silent.requests["Get"])) == (1, 1)


@pytest.mark.parametrize("method", ["Scan", "CutOverRoute"])
async def test_what_takes_long_is_told_to_be_heard(
    method: str, in_order: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """`either` asks nobody else then."""
    noted: list[asyncio.Event] = []

    async def spy(first: Any, second: Any, *, again: Any, patience_s: Any, heard: asyncio.Event) -> Any:
        noted.append(heard)
        return await either(first, second, again=again, patience_s=None, heard=heard)

    async def heard() -> bool:
        return bool(noted) and noted[0].is_set()

    async def ask(client: Client) -> None:
        if method == "Scan":
            assert [read async for read in client.scan("j")]
        else:
            await client.cut_over("j", 1)

    monkeypatch.setattr("turnout.client.connection.either", spy)
    slow, other = Script(Scan=[[None]], CutOverRoute=[None]), Script()
    async with (
        serving(slow) as a,
        serving(other) as b,
        Client(targets={"query": [a, b], "switcher": [a, b]}) as client,
        beside(ask(client)),
    ):
        await eventually(heard)
        assert not slow.cancelled[method]


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
