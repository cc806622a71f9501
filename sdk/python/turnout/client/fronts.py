"""Reads through query fronts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence

from turnout.client import convert
from turnout.client.calls import job_name
from turnout.client.connection import QUICK_S, Connections
from turnout.client.gather import Alike, Asked, Gather
from turnout.client.values import Key, from_row, to_key
from turnout.query.v1 import query_pb2
from turnout.results import Explanation, Read

_MOMENT_S = 0.001


class FrontReads:
    """Reads that a front answers over gRPC."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._gather = Gather(self)

    async def get(self, job: str, key: Key, *, unit: str, version: int, timeout_s: float | None) -> Read:
        unit.encode()  # what cannot be sent is refused here, before it can fail a call that others share
        alike = Alike(job_name(job), version, unit != "")
        return await self._gather.get(alike, to_key(key), unit, self._connections.deadline_s(timeout_s, QUICK_S))

    async def one(self, alike: Alike, asked: Asked, within_s: float) -> Read:
        request = query_pb2.GetRequest(job=alike.job, key=asked.key, unit=asked.unit, version=alike.version)
        answer = await self._connections.unary(
            "query", "Get", request, query_pb2.GetResponse, timeout_s=max(within_s, _MOMENT_S), default_s=QUICK_S
        )
        return convert.read(answer.served, answer.row if answer.HasField("row") else None)

    async def many(self, alike: Alike, asked: Sequence[Asked], within_s: float) -> list[Read]:
        request = query_pb2.BatchGetRequest(job=alike.job, keys=[one.key for one in asked], version=alike.version)
        if alike.with_unit:
            units = [one.unit for one in asked]
            if units.count(units[0]) == len(units):
                request.unit = units[0]
            else:
                request.units.extend(units)
        return await self._batch(request, max(within_s, _MOMENT_S))

    async def batch_get(
        self, job: str, keys: Sequence[Key], *, unit: str, version: int, timeout_s: float | None
    ) -> list[Read]:
        request = query_pb2.BatchGetRequest(
            job=job_name(job), keys=[to_key(key) for key in keys], unit=unit, version=version
        )
        return await self._batch(request, timeout_s)

    async def _batch(self, request: query_pb2.BatchGetRequest, timeout_s: float | None) -> list[Read]:
        answer = await self._connections.unary(
            "query", "BatchGet", request, query_pb2.BatchGetResponse, timeout_s=timeout_s, default_s=QUICK_S
        )
        return convert.reads(answer)

    async def scan(
        self,
        job: str,
        *,
        order_by: Sequence[tuple[str, bool]],
        limit: int,
        unit: str,
        version: int,
        timeout_s: float | None,
    ) -> AsyncGenerator[Read, None]:
        order = [query_pb2.ScanRequest.OrderBy(column=column, descending=descending) for column, descending in order_by]
        request = query_pb2.ScanRequest(job=job_name(job), order_by=order, limit=limit, unit=unit, version=version)
        stream = self._connections.stream("query", "Scan", request, query_pb2.ScanResponse, timeout_s=timeout_s)
        try:
            served = None
            async for page in stream:
                served = page.served if served is None else served
                who = convert.read(served, None)
                columns = list(served.columns)
                for row in page.rows:
                    yield Read(from_row(columns, row), who.version, who.epoch, who.applied_positions, who.cause)
        finally:
            await stream.aclose()

    async def explain(self, job: str, *, unit: str, key: Key | None, timeout_s: float | None) -> Explanation:
        request = query_pb2.ExplainRouteRequest(job=job_name(job), unit=unit, key=None if key is None else to_key(key))
        return convert.explanation(
            await self._connections.unary(
                "query", "ExplainRoute", request, query_pb2.ExplainRouteResponse, timeout_s=timeout_s, default_s=QUICK_S
            )
        )
