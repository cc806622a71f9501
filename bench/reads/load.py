"""`python -m bench.reads.load`: reads, in a process of its own, as it is told.

Each line of its input is a JSON object {"do": NAME, ...arguments}, each line of its output the answer to one: the rate
of what was read, or latencies. What is opened stays open for the next line. Every row that comes is looked at: a wrong
one ends the measurement.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import random
import sys
import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, Final

import grpc
import uvloop

from bench.reads.by_hand import Place, open_pool, read_many, read_one
from turnout.client import Client, convert
from turnout.client.values import to_key
from turnout.query.v1 import query_pb2 as pb
from turnout.query.v1 import query_pb2_grpc

WARM_UP_S: Final = 0.5
UNITS: Final = 20_000  # callers' units, where reads have them
_READ_S: Final = 10.0


class Wrong(Exception):
    """A row is not the one that was asked for."""

    def __init__(self, asked: object, came: object) -> None:
        super().__init__(f"{asked} was asked for, and {came} came")


class Load:
    """One method for each kind of read. rows: order ids go from 0 to below that. in_flight: reads at a time."""

    def __init__(self, dsn: str) -> None:
        self._dsn = dsn
        self._rng = random.Random(7)
        self._open = contextlib.AsyncExitStack()
        self._stubs: dict[str, Any] = {}
        self._clients: dict[str, Client] = {}
        self._pool: Any = None

    async def close(self) -> None:
        """Close what is open."""
        await self._open.aclose()

    async def get(self, target: str, job: str, rows: int, in_flight: int, seconds: float) -> float:
        """Gets a second, by the stub alone, so that the client is the same on both sides."""
        return await _rate(lambda: self._one(target, job, rows), in_flight, seconds)

    async def get_by_unit(
        self, target: str, job: str, rows: int, in_flight: int, seconds: float, counted: bool
    ) -> float:
        """The same, each for one of many callers' units. counted: whether an experiment counts them all."""

        async def one() -> int:
            unit = f"user-{self._rng.randrange(UNITS)}"
            answer = await self._answer(target, job, rows, unit)
            if bool(answer.exposure_id) != counted:
                raise Wrong(f"an answer that {'counts' if counted else 'does not count'}", answer)
            return 1

        return await _rate(one, in_flight, seconds)

    async def paced(self, target: str, job: str, rows: int, per_s: float, seconds: float) -> list[float]:
        """Milliseconds of each Get at a rate that is low enough for none to wait for another."""
        took_ms = []
        due_s = time.monotonic()
        counted_from_s = due_s + WARM_UP_S
        while due_s < counted_from_s + seconds:
            due_s += 1 / per_s
            await asyncio.sleep(max(0.0, due_s - time.monotonic()))
            began_s = time.monotonic()
            await self._one(target, job, rows)
            if began_s >= counted_from_s:
                took_ms.append((time.monotonic() - began_s) * 1000)
        return took_ms

    async def batch(self, target: str, job: str, rows: int, keys: int, in_flight: int, seconds: float) -> float:
        """Keys a second, by the client's batch_get."""
        client = await self._client(target)

        async def one() -> int:
            asked = self._keys(rows, keys)
            batch = await client.batch_get(job, asked)
            for order_id, read in zip(asked, batch.reads, strict=True):
                _check(order_id, read.row)
            return keys

        return await _rate(one, in_flight, seconds)

    async def raw_batch(self, table: str, version: str, rows: int, keys: int, in_flight: int, seconds: float) -> float:
        """Keys a second, by asyncpg alone."""
        pool, statement = await self._connections(), Place(table, version).many

        async def one() -> int:
            asked = self._keys(rows, keys)
            found = await read_many(pool, statement, asked)
            if {record["order_id"] for record in found[1:]} != set(asked):
                raise Wrong(asked, found)
            return keys

        return await _rate(one, in_flight, seconds)

    async def gathered(self, target: str, job: str, rows: int, in_flight: int, seconds: float) -> float:
        """Gets a second, by the client, which gathers those that are asked at once."""
        client = await self._client(target)
        return await _rate(lambda: self._read(client, job, rows), in_flight, seconds)

    async def one_by_one(self, target: str, job: str, rows: int, in_flight: int, seconds: float) -> float:
        """Gets a second, a call for each, and the same results as the client's."""
        stub = self._stub(target)

        async def one() -> int:
            order_id = self._rng.randrange(rows)
            request = pb.GetRequest(job=f"jobs/{job}", key=to_key(order_id))
            answer = await stub.Get(request, timeout=_READ_S)
            row = answer.row if answer.HasField("row") else None
            _check(order_id, convert.read(answer.served, row, answer.token).row)
            return 1

        return await _rate(one, in_flight, seconds)

    async def direct(self, target: str, job: str, rows: int, in_flight: int, seconds: float) -> float:
        """Gets a second, by a client in direct mode."""
        client = await self._client(target, self._dsn)
        return await _rate(lambda: self._read(client, job, rows), in_flight, seconds)

    async def raw_get(self, table: str, version: str, rows: int, in_flight: int, seconds: float) -> float:
        """Gets a second, by asyncpg alone."""
        pool, statement = await self._connections(), Place(table, version).one

        async def one() -> int:
            order_id = self._rng.randrange(rows)
            _check(order_id, await read_one(pool, statement, order_id))
            return 1

        return await _rate(one, in_flight, seconds)

    async def _read(self, client: Client, job: str, rows: int) -> int:
        order_id = self._rng.randrange(rows)
        _check(order_id, (await client.get(job, order_id)).row)
        return 1

    async def _one(self, target: str, job: str, rows: int) -> int:
        await self._answer(target, job, rows)
        return 1

    async def _answer(self, target: str, job: str, rows: int, unit: str = "") -> pb.GetResponse:
        order_id = self._rng.randrange(rows)
        request = pb.GetRequest(job=f"jobs/{job}", key=pb.Key(values=[pb.Value(int64_value=order_id)]), unit=unit)
        answer: pb.GetResponse = await self._stub(target).Get(request, timeout=_READ_S)
        if answer.row.values[0].int64_value != order_id or not answer.served.applied_positions:
            raise Wrong(order_id, answer)
        return answer

    def _keys(self, rows: int, keys: int) -> list[int]:
        return self._rng.sample(range(rows), keys)

    def _stub(self, target: str) -> Any:
        if target not in self._stubs:
            channel = grpc.aio.insecure_channel(target)
            self._open.push_async_callback(channel.close)
            self._stubs[target] = query_pb2_grpc.QueryStub(channel)
        return self._stubs[target]

    async def _client(self, target: str, direct: str | None = None) -> Client:
        known = f"{target} {direct}"
        if known not in self._clients:
            client = Client(target, actor="bench", direct=direct)
            self._clients[known] = await self._open.enter_async_context(client)
        return self._clients[known]

    async def _connections(self) -> Any:
        if self._pool is None:
            self._pool = await self._open.enter_async_context(await open_pool(self._dsn))
        return self._pool


def _check(order_id: int, row: Mapping[str, object] | None) -> None:
    if row is None or row["order_id"] != order_id:
        raise Wrong(order_id, row)


async def _rate(read: Callable[[], Awaitable[int]], in_flight: int, seconds: float) -> float:
    """What `read` gives, a second, by so many callers who each wait for their answer before they ask again."""
    counted_from_s = time.monotonic() + WARM_UP_S
    until_s = counted_from_s + seconds
    count = 0

    async def caller() -> None:
        nonlocal count
        while True:
            got = await read()
            now_s = time.monotonic()
            if now_s >= until_s:
                return
            if now_s >= counted_from_s:
                count += got

    async with asyncio.TaskGroup() as group:
        for _ in range(in_flight):
            group.create_task(caller())
    return count / seconds


async def _obey() -> None:
    load = Load(os.environ["TURNOUT_POSTGRES"])
    loop = asyncio.get_running_loop()
    try:
        while line := await loop.run_in_executor(None, sys.stdin.readline):
            told = json.loads(line)
            answer = await getattr(load, told.pop("do"))(**told)
            print(json.dumps(answer), flush=True)
    finally:
        await load.close()


if __name__ == "__main__":
    uvloop.run(_obey())
