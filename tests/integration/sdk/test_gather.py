"""Concurrent gets share calls, and nobody notices: against a real server that answers, refuses and holds as told."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import TracerProvider

from core.rpc.server import RpcServer, ServiceApp
from tests.support.eventually import eventually
from turnout import errors
from turnout.client import Client
from turnout.client.batches import reads_of, rows_of
from turnout.client.gather import KEYS_MAX
from turnout.column_values import column_of, values_of
from turnout.errors import FailedPrecondition, InvalidInput, NotFound, TurnoutError, Unavailable
from turnout.kinds import Kind
from turnout.query.v1 import query_pb2 as pb
from turnout.query.v1 import query_pb2_grpc
from turnout.reading.positions import Position
from turnout.reading.tokens import token_of
from turnout.results import AppliedPosition, Cause, Read

POSITIONS = (AppliedPosition("t", 0, 7, None),)


class Front(ServiceApp, query_pb2_grpc.QueryServicer):
    """Answers every key with a row that repeats it and its unit, from version 1 for even keys and 2 for odd ones."""

    name = "front"
    service_names: tuple[str, ...] = ("turnout.query.v1.Query",)

    def __init__(self) -> None:
        self.calls: list[list[int]] = []
        self.requests: list[Any] = []
        self.metadata: list[dict[str, Any]] = []
        self.refuses: dict[int, TurnoutError] = {}
        self.holds_no_value: dict[int, pb.Column] = {}
        """By key, the column that an answer with it has in the place of the keys'."""
        self.holds = asyncio.Event()
        self.holds.set()
        self.cancelled = 0

    def register(self, server: Any) -> None:
        query_pb2_grpc.add_QueryServicer_to_server(self, server)

    async def start(self) -> None: ...

    async def stop(self) -> None: ...

    async def Get(self, request: pb.GetRequest, context: Any) -> pb.GetResponse:
        (key,) = await self._asked(request, [request.key], context)
        if key in self.holds_no_value:
            rows_of(["key"], [self.holds_no_value[key]])
        token = token_of("j", 3, [Position("t", "", 0, 7, None)])
        return pb.GetResponse(row=_row(key, request.unit), served=_served(1 + key % 2), token=token)

    async def BatchGet(self, request: pb.BatchGetRequest, context: Any) -> pb.BatchGetResponse:
        messages = request.keys or [pb.Key(values=[pb.Value(int64_value=n)]) for n in values_of(request.key_columns[0])]
        keys = await self._asked(request, messages, context)
        units = request.units or [request.unit] * len(keys)
        response = pb.BatchGetResponse(served=[_served(1), _served(2)])
        if request.keys:
            response.results.extend(
                pb.BatchGetResult(row=_row(key, unit), served_index=key % 2)
                for key, unit in zip(keys, units, strict=True)
            )
        else:
            parities = sorted({key % 2 for key in keys})
            response.blocks.extend(_block(parity, keys, units) for parity in parities)
            for key in set(keys) & set(self.holds_no_value):
                response.blocks[parities.index(key % 2)].columns[0].CopyFrom(self.holds_no_value[key])
        return response

    async def _asked(self, request: Any, messages: Sequence[pb.Key], context: Any) -> list[int]:
        keys = [message.values[0].int64_value for message in messages]
        self.calls.append(sorted(keys))
        self.requests.append(request)
        self.metadata.append(dict(context.invocation_metadata() or ()))
        try:
            await self.holds.wait()
        except asyncio.CancelledError:
            self.cancelled += 1
            raise
        for key in keys:
            if key in self.refuses:
                raise self.refuses[key]
        return keys


def _served(version: int) -> pb.ServedVersion:
    return pb.ServedVersion(
        version=version,
        epoch=3,
        columns=["key", "unit"],
        applied_positions=[pb.AppliedPosition(topic="t", partition=0, next_offset=7)],
        cause=pb.ServedVersion.ROUTED,
    )


def _row(key: int, unit: str) -> pb.Row:
    return pb.Row(values=[pb.Value(int64_value=key), pb.Value(string_value=unit)])


def _block(parity: int, keys: Sequence[int], units: Sequence[str]) -> pb.BatchGetBlock:
    places = [place for place, key in enumerate(keys) if key % 2 == parity]
    columns = [
        column_of(Kind.INT64, [keys[place] for place in places]),
        column_of(Kind.STRING, [units[place] for place in places]),
    ]
    rows = range(1, len(places) + 1)
    return pb.BatchGetBlock(served_index=parity, key_indexes=places, rows=rows, columns=columns)


def expected(key: int, unit: str = "") -> Read:
    token = token_of("j", 3, [Position("t", "", 0, 7, None)])
    return Read({"key": key, "unit": unit}, 1 + key % 2, 3, POSITIONS, Cause.ROUTED, token)


@pytest.fixture
def front() -> Front:
    return Front()  # type: ignore[abstract]  # only what gets ask


@pytest.fixture
async def client(front: Front) -> AsyncIterator[Client]:
    server = RpcServer("127.0.0.1:0", [front])
    async with Client(f"127.0.0.1:{await server.start()}", timeout_s=20) as opened:
        yield opened
    front.holds.set()
    await server.stop(0.1)


async def under_way(front: Front, calls: int) -> None:
    """Wait until the front has been asked so many times."""

    async def asked() -> bool:
        return len(front.calls) >= calls

    await eventually(asked)


async def test_a_get_alone_is_a_get(front: Front, client: Client) -> None:
    assert await client.get("j", 4, unit="u") == expected(4, "u")
    assert isinstance(front.requests[0], pb.GetRequest)


async def test_gets_of_one_turn_share_a_call_and_each_has_its_own_answer(front: Front, client: Client) -> None:
    reads = await asyncio.gather(*(client.get("j", key) for key in range(100)))
    assert reads == [expected(key) for key in range(100)]
    assert front.calls == [list(range(100))]


async def test_callers_that_come_back_together_go_on_together(front: Front, client: Client) -> None:
    async def page(first: int) -> list[Read]:
        return [await client.get("j", first + 100 * turn) for turn in range(10)]

    pages = await asyncio.gather(*(page(first) for first in range(20)))
    assert pages == [[expected(first + 100 * turn) for turn in range(10)] for first in range(20)]
    assert len(front.calls) == 10


async def test_what_comes_while_one_is_under_way_leaves_together(front: Front, client: Client) -> None:
    front.holds.clear()
    first = asyncio.create_task(client.get("j", 1))
    await under_way(front, 1)
    others = [asyncio.create_task(client.get("j", key)) for key in range(2, 10)]
    await under_way(front, 2)  # although the first one is still held
    front.holds.set()
    assert await first == expected(1)
    assert await asyncio.gather(*others) == [expected(key) for key in range(2, 10)]
    assert front.calls == [[1], list(range(2, 10))]


async def test_what_comes_in_different_turns_leaves_together_too(
    front: Front, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("turnout.client.gather.GATHER_S", 60.0)  # however slow this machine is
    front.holds.clear()
    first = asyncio.create_task(client.get("j", 1))
    await under_way(front, 1)
    others = []
    for key in range(2, 10):
        others.append(asyncio.create_task(client.get("j", key)))
        for _ in range(5):
            await asyncio.sleep(0)
    front.holds.set()
    assert await asyncio.gather(first, *others) == [expected(key) for key in range(1, 10)]
    assert front.calls == [[1], list(range(2, 10))]


async def test_only_what_is_alike_shares_a_call(front: Front, client: Client) -> None:
    await asyncio.gather(
        *(client.get("j", key) for key in (1, 2)),
        *(client.get("k", key) for key in (3, 4)),
        *(client.get("j", key, version=2) for key in (5, 6)),
        *(client.get("j", key, unit=f"u{key}") for key in (7, 8)),
    )
    assert sorted(front.calls) == [[1, 2], [3, 4], [5, 6], [7, 8]]


async def test_readers_with_units_of_their_own_share_a_call(front: Front, client: Client) -> None:
    reads = await asyncio.gather(*(client.get("j", key, unit=f"u{key}") for key in range(10)))
    assert reads == [expected(key, f"u{key}") for key in range(10)]
    assert len(front.calls) == 1
    assert sorted(front.requests[0].units) == [f"u{key}" for key in range(10)]
    await asyncio.gather(*(client.get("j", key, unit="one") for key in range(10)))
    assert (front.requests[1].unit, list(front.requests[1].units)) == ("one", [])


async def test_no_call_has_more_keys_than_the_limit(front: Front, client: Client) -> None:
    reads = await asyncio.gather(*(client.get("j", key) for key in range(2 * KEYS_MAX + 500)))
    assert reads == [expected(key) for key in range(2 * KEYS_MAX + 500)]
    assert max(map(len, front.calls)) == KEYS_MAX


async def test_a_key_that_is_refused_fails_its_own_caller_alone(front: Front, client: Client) -> None:
    front.refuses = {5: InvalidInput("INVALID_KEY", "5 is none."), 17: InvalidInput("INVALID_KEY", "17 is none.")}
    answers = await asyncio.gather(*(client.get("j", key) for key in range(50)), return_exceptions=True)
    for key, answer in enumerate(answers):
        if key in front.refuses:
            assert isinstance(answer, errors.InvalidInput)
            assert answer.message == f"{key} is none."
        else:
            assert answer == expected(key)
    assert len(front.calls) < 30


@pytest.mark.parametrize("reason", ["TABLE_MISSING", "TABLE_CHANGING", "BEHIND_TOKEN"])
async def test_a_version_that_is_away_costs_the_others_nothing(front: Front, client: Client, reason: str) -> None:
    front.refuses = {1: Unavailable(reason, "Version 2 cannot be read now; try again.")}
    keys = (1, 0, 2, 4, 6, 8)
    tasks = {key: asyncio.create_task(client.get("j", key)) for key in keys}
    assert await asyncio.gather(*(tasks[key] for key in keys[1:])) == [expected(key) for key in keys[1:]]
    assert not tasks[1].done()
    assert front.calls.count(sorted(keys)) == 1  # only the key that stands alone is tried again
    front.refuses = {}
    assert await tasks[1] == expected(1)


async def test_a_version_that_the_front_may_not_read_fails_its_own_readers_alone(front: Front, client: Client) -> None:
    front.refuses = {1: FailedPrecondition("POSTGRES_DENIED", "The PostgreSQL user may not read version 2.")}
    keys = (0, 1, 2, 4)
    answers = await asyncio.gather(*(client.get("j", key) for key in keys), return_exceptions=True)
    assert [isinstance(answer, FailedPrecondition) for answer in answers] == [False, True, False, False]


@pytest.mark.parametrize(
    ("column", "told"),
    [
        (
            pb.Column(date_days=(9_000_000).to_bytes(4)),
            "day 9000000 since 1970-01-01 lies outside of the years 1 to 9999",
        ),
        (pb.Column(json_values=b"1" * 5000 + b"\0"), "Exceeds the limit"),
    ],
)
async def test_a_value_that_python_does_not_have_fails_its_own_caller_alone(
    front: Front, client: Client, column: pb.Column, told: str
) -> None:
    front.holds_no_value = {6: column}
    answers = await asyncio.gather(*(client.get("j", key) for key in range(20)), return_exceptions=True)
    assert [key for key, answer in enumerate(answers) if answer != expected(key)] == [6]
    error = answers[6]
    assert isinstance(error, errors.FailedPrecondition)
    assert error.reason == "VALUE_UNREADABLE"
    assert error.message.startswith(f"Column key holds a value that cannot be read here: {told}")
    assert "SQL" in error.message


async def test_a_fault_of_ones_own_with_one_answer_takes_nobody_along(
    front: Front, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    def faulty(answer: pb.BatchGetResponse, job: str, keys: int, seen: bytes) -> list[Read]:
        reads = reads_of(answer, job, keys, seen)
        if any(read.row is not None and read.row["key"] == 6 for read in reads):
            raise RuntimeError("a fault")
        return reads

    monkeypatch.setattr("turnout.client.fronts.reads_of", faulty)
    answers = await asyncio.gather(*(client.get("j", key) for key in range(20)), return_exceptions=True)
    assert answers == [expected(key) for key in range(20)]  # the one is a Get in the end, whose answer has no fault


async def test_a_value_that_cannot_be_sent_is_refused_before_it_joins(front: Front, client: Client) -> None:
    answers = await asyncio.gather(
        client.get("j", 1),
        client.get("j", 2**63),
        client.get("j", 2),
        client.get("j", 3, unit=""),
        return_exceptions=True,
    )
    assert [type(answer) for answer in answers] == [Read, errors.InvalidInput, Read, errors.InvalidInput]
    assert front.calls == [[1, 2]]


async def test_what_is_wrong_with_all_is_told_to_all_at_once(front: Front, client: Client) -> None:
    front.refuses = {1: NotFound("JOB_NOT_ROUTED", "No version of j serves readers yet.", metadata={"job": "j"})}
    answers = await asyncio.gather(*(client.get("j", key) for key in range(10)), return_exceptions=True)
    assert len(front.calls) == 1
    assert len({id(answer) for answer in answers}) == 10
    for answer in answers:
        assert isinstance(answer, errors.NotFound)
        assert (answer.reason, answer.metadata) == ("JOB_NOT_ROUTED", {"job": "j"})


async def test_what_is_away_is_tried_again_for_all(front: Front, client: Client) -> None:
    front.refuses = {1: Unavailable("POSTGRES_UNAVAILABLE", "PostgreSQL does not answer; try again.")}
    reads = asyncio.gather(*(client.get("j", key) for key in range(10)))
    await under_way(front, 2)
    front.refuses = {}
    assert await reads == [expected(key) for key in range(10)]


async def test_each_caller_has_its_own_deadline(front: Front, client: Client) -> None:
    front.holds.clear()
    patient = [asyncio.create_task(client.get("j", key, timeout_s=20)) for key in (1, 2)]
    hasty = [asyncio.create_task(client.get("j", key, timeout_s=0.1)) for key in (3, 4)]
    for task in hasty:
        with pytest.raises(errors.DeadlineExceeded, match=r"within 0\.1 s"):
            await task
    assert not any(task.done() for task in patient)
    front.holds.set()
    assert await asyncio.gather(*patient) == [expected(1), expected(2)]
    assert front.calls == [[1, 2, 3, 4]]


async def test_a_get_alone_has_its_own_deadline_too(front: Front, client: Client) -> None:
    front.holds.clear()
    with pytest.raises(errors.DeadlineExceeded, match=r"within 0\.1 s"):
        await client.get("j", 1, timeout_s=0.1)


async def test_who_is_cancelled_leaves_the_others_their_answers(front: Front, client: Client) -> None:
    front.holds.clear()
    tasks = [asyncio.create_task(client.get("j", key)) for key in range(4)]
    await under_way(front, 1)
    tasks[0].cancel()
    tasks[2].cancel()
    await asyncio.wait([tasks[0], tasks[2]])
    front.holds.set()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert [type(answer) for answer in answers] == [asyncio.CancelledError, Read, asyncio.CancelledError, Read]


async def test_who_is_cancelled_before_the_call_leaves_takes_nobody_along(front: Front, client: Client) -> None:
    tasks = [asyncio.create_task(client.get("j", key)) for key in range(4)]
    await asyncio.sleep(0)  # all have asked, the first waits for the end of the turn
    tasks[0].cancel()
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert answers[1:] == [expected(key) for key in range(1, 4)]
    assert isinstance(answers[0], asyncio.CancelledError)


async def test_a_call_for_which_nobody_waits_is_cancelled(front: Front, client: Client) -> None:
    front.holds.clear()
    tasks = [asyncio.create_task(client.get("j", key)) for key in range(3)]
    await under_way(front, 1)
    for task in tasks:
        task.cancel()
    await asyncio.gather(*tasks, return_exceptions=True)

    async def cancelled() -> bool:
        return front.cancelled == 1

    await eventually(cancelled)
    front.holds.set()
    assert await client.get("j", 1) == expected(1)


async def test_a_client_that_is_closed_answers_everybody(front: Front) -> None:
    server = RpcServer("127.0.0.1:0", [front])
    front.holds.clear()
    async with Client(f"127.0.0.1:{await server.start()}") as client:
        tasks = [asyncio.create_task(client.get("j", key)) for key in range(3)]
        await under_way(front, 1)
    answers = await asyncio.gather(*tasks, return_exceptions=True)
    assert {type(answer) for answer in answers} <= {asyncio.CancelledError, errors.Unavailable}
    front.holds.set()
    await server.stop(0.1)


async def test_a_shared_call_stands_in_the_trace_of_the_first(front: Front, client: Client) -> None:
    if not isinstance(trace.get_tracer_provider(), TracerProvider):
        trace.set_tracer_provider(TracerProvider())
    tracer = trace.get_tracer("test")

    async def caller(key: int) -> str:
        with tracer.start_as_current_span("caller") as span:
            await client.get("j", key)
            return f"{span.get_span_context().trace_id:032x}"

    traces = await asyncio.gather(*(caller(key) for key in range(5)))
    assert len(front.calls) == 1
    assert str(front.metadata[0]["traceparent"]).split("-")[1] in traces
