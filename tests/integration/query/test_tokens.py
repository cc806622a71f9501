"""Reads that bring a token are never answered from behind it."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import grpc
import pytest

from tests.integration.query.fronts import FrontProcess, Serving, i, key, plain, refused
from tests.integration.query.switcher import ScriptedSwitcher, route
from tests.support.eventually import eventually
from turnout.query.v1 import query_pb2 as pb
from turnout.reading.tokens import carried_over, group_of

ROUTED, STAND_IN = pb.ServedVersion.ROUTED, pb.ServedVersion.STAND_IN
UNIT = "u"


@pytest.fixture(autouse=True)
def waits(monkeypatch: pytest.MonkeyPatch) -> Callable[[float], None]:
    """How long a read waits for a version that is behind: for a moment, in which nothing comes, or for as long as it
    takes where a test brings it further."""

    def waits(for_s: float) -> None:
        monkeypatch.setattr("turnout.reading.reads._WAIT_S_MAX", for_s)

    waits(0.3)
    return waits


@pytest.fixture
async def split(serving: Serving, switcher: ScriptedSwitcher, make_front: Any) -> FrontProcess:
    """Version 1 at offset 20 is active; version 2 at offset 10 answers everybody."""
    await serving.numbers(1, {1: "one"}, offset=20)
    await serving.numbers(2, {1: "eins"}, offset=10)
    await serving.sql("update serving.positions set topic_id = 'first'")
    switcher.commit("p1", route("j", 1, active=1, share={2: 1.0}))
    front: FrontProcess = await make_front()
    return front


async def get(front: FrontProcess, token: bytes, *, version: int = 0, timeout_s: float = 20.0) -> pb.GetResponse:
    request = pb.GetRequest(job="jobs/j", key=key(i(1)), unit=UNIT, version=version, token=token)
    answer: pb.GetResponse = await front.query.Get(request, timeout=timeout_s)
    return answer


async def test_an_answer_that_is_not_behind_comes_as_routed(split: FrontProcess) -> None:
    token = (await get(split, b"")).token
    answer = await get(split, token)
    assert (answer.served.version, answer.served.cause) == (2, ROUTED)
    assert answer.token == token


async def test_a_read_waits_until_its_version_has_come_as_far(
    split: FrontProcess, serving: Serving, waits: Callable[[float], None]
) -> None:
    waits(60.0)
    seen = await get(split, b"", version=1)
    read = asyncio.ensure_future(get(split, seen.token))
    await asyncio.sleep(0.05)
    assert not read.done()
    await serving.position(2, 20)
    answer = await read
    assert (answer.served.version, answer.served.cause) == (2, ROUTED)
    assert answer.served.applied_positions[0].next_offset == 20


async def test_the_active_version_stands_in_for_one_that_stays_behind(split: FrontProcess) -> None:
    seen = await get(split, b"", version=1)
    answer = await get(split, seen.token)
    assert (answer.served.version, answer.served.cause, plain(answer.row)) == (1, STAND_IN, [1, "one"])
    request = pb.BatchGetRequest(job="jobs/j", keys=[key(i(1)), key(i(9))], unit=UNIT, token=seen.token)
    batch = await split.query.BatchGet(request, timeout=20)
    assert [(one.version, one.cause) for one in batch.served] == [(1, STAND_IN)]
    scan = pb.ScanRequest(job="jobs/j", unit=UNIT, token=seen.token)
    pages = [page async for page in split.query.Scan(scan, timeout=20)]
    assert (pages[0].served.version, pages[0].served.cause) == (1, STAND_IN)
    assert pages[0].token == seen.token


async def test_none_answers_from_behind(split: FrontProcess, serving: Serving) -> None:
    seen = await get(split, b"", version=1)
    await serving.position(1, 19)
    code, reason, message = await refused(get(split, seen.token))
    assert (code, reason) == (grpc.StatusCode.UNAVAILABLE, "BEHIND_TOKEN")
    assert "t/0 is applied up to 19, and the token has seen 20" in message
    assert (await refused(get(split, seen.token, version=2)))[1] == "BEHIND_TOKEN"


async def test_a_token_goes_on_over_answers_of_several_versions(split: FrontProcess, serving: Serving) -> None:
    seen = await get(split, b"", version=1)
    await serving.position(2, 5, partition=1)
    await serving.position(2, 25)
    both = await get(split, seen.token)
    await serving.position(2, 4, partition=1)
    assert (await refused(get(split, both.token, version=2)))[1] == "BEHIND_TOKEN"


async def test_a_front_behind_the_epoch_first_catches_up_its_route(
    split: FrontProcess, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    await serving.position(2, 20)
    token = pb.ReadToken(job="j", epoch=2).SerializeToString()
    assert (await refused(get(split, token)))[1] == "ROUTE_BEHIND_TOKEN"
    switcher.fetchable["jobs/j/route"] = route("j", 2, active=1)
    answer = await get(split, token)
    assert (answer.served.version, answer.served.epoch) == (1, 2)


async def test_a_topic_that_was_made_anew_is_no_place_to_wait_for(split: FrontProcess, serving: Serving) -> None:
    seen = await get(split, b"")
    await serving.sql("update serving.positions set topic_id = 'second', next_offset = 3")
    code, reason, _ = await refused(get(split, seen.token))
    assert (code, reason) == (grpc.StatusCode.FAILED_PRECONDITION, "TOKEN_OF_ANOTHER_TOPIC")


async def test_a_token_that_is_none(split: FrontProcess) -> None:
    code, reason, _ = await refused(get(split, b"\xff"))
    assert (code, reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_TOKEN")


async def test_a_session_through_a_rollback_sees_the_log_go_forward_only(
    split: FrontProcess, serving: Serving, switcher: ScriptedSwitcher, waits: Callable[[float], None]
) -> None:
    waits(60.0)
    token, offsets = b"", []
    for epoch, active in ((2, 1), (3, 2), (4, 1)):
        switcher.commit(f"p{epoch}", route("j", epoch, active=active))

        async def adopted(proposal: str = f"p{epoch}") -> bool:
            return "SERVING" in switcher.said(proposal)

        await eventually(adopted)
        read = asyncio.ensure_future(get(split, token))
        if active == 2:
            await asyncio.sleep(0.05)
            assert not read.done()
            await serving.position(2, 22)
            await serving.position(1, 22)
        answer = await read
        token = answer.token
        offsets.append((answer.served.version, answer.served.applied_positions[0].next_offset))
    assert offsets == [(1, 20), (2, 22), (1, 22)]


async def test_a_step_of_several_jobs_is_honoured_by_reads_of_the_others(
    split: FrontProcess, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    """Another front has answered job a from after the step; this one was told nothing of it yet."""
    await serving.numbers(3, {1: "drei"}, offset=20)
    step = switcher.revision + 1
    token = carried_over(b"", "j", step)
    assert (await refused(get(split, token)))[1] == "ROUTE_BEHIND_TOKEN"
    together = route("j", 2, active=3)
    together.group = step
    switcher.fetchable["jobs/j/route"] = together
    answer = await get(split, token)
    assert (answer.served.version, answer.served.epoch, answer.served.group) == (3, 2, step)
    assert group_of(answer.token) == step


async def test_a_front_that_was_told_of_the_step_asks_nobody(
    split: FrontProcess, serving: Serving, switcher: ScriptedSwitcher
) -> None:
    await serving.numbers(1, {1: "a"}, job="a")
    await serving.position(2, 20)
    switcher.commit_step("together", route("a", 1, active=1), route("j", 2, active=1))

    async def adopted() -> bool:
        return (await get(split, b"")).served.epoch == 2

    await eventually(adopted)
    request = pb.GetRequest(job="jobs/a", key=key(i(1)), unit=UNIT)
    seen = await split.query.Get(request, timeout=20)
    assert group_of(seen.token) == switcher.revision
    token = carried_over(b"", "j", group_of(seen.token))
    assert (await get(split, token)).served.group == switcher.revision
