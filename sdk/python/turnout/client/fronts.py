"""Reads through query fronts."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Collection, Sequence

from turnout.client import convert
from turnout.client.batches import key_of, parts, put_keys, put_values, reads_of, rows_of
from turnout.client.calls import job_name, split_job
from turnout.client.connection import QUICK_S, Connections
from turnout.client.gather import OF_ONE_KEY, Alike, Asked, Gather
from turnout.client.values import Key, to_key
from turnout.query.v1 import query_pb2
from turnout.results import Batch, Explanation, Read

_MOMENT_S = 0.001
_WAITS_S = 2.0  # a front at most, with a read that would be behind its token


class FrontReads:
    """Reads that a front answers over gRPC."""

    def __init__(self, connections: Connections) -> None:
        self._connections = connections
        self._gather = Gather(self)

    async def get(self, job: str, key: Key, *, unit: str, version: int, token: bytes, timeout_s: float | None) -> Read:
        names, values = parts(key)  # what cannot be sent is refused here, before it can fail a call that others share
        deadline_s = self._connections.deadline_s(timeout_s, QUICK_S)
        alike = Alike(job_name(job), version, unit != "", names, token, deadline_s if token else 0.0)
        return await self._gather.get(alike, values, unit, deadline_s)

    async def one(self, alike: Alike, asked: Asked, within_s: float) -> Read:
        key = to_key(key_of(alike.names, asked.key))
        request = query_pb2.GetRequest(
            job=alike.job, key=key, unit=asked.unit, version=alike.version, token=alike.token
        )
        answer = await self._connections.unary(
            "query",
            "Get",
            request,
            query_pb2.GetResponse,
            timeout_s=max(within_s, _MOMENT_S),
            default_s=QUICK_S,
            waits_s=_WAITS_S if alike.token else 0.0,
        )
        row = answer.row if answer.HasField("row") else None
        return convert.read(answer.served, row, answer.token, answer.exposure_id)

    async def many(self, alike: Alike, asked: Sequence[Asked], within_s: float) -> list[Read]:
        request = query_pb2.BatchGetRequest(job=alike.job, version=alike.version, token=alike.token)
        put_values(request, alike.names, [one.key for one in asked])
        if alike.with_unit:
            units = [one.unit for one in asked]
            if units.count(units[0]) == len(units):
                request.unit = units[0]
            else:
                request.units.extend(units)
        reads, _ = await self._batch(request, len(asked), max(within_s, _MOMENT_S), at_once=OF_ONE_KEY)
        return reads

    async def batch_get(
        self, job: str, keys: Sequence[Key], *, unit: str, version: int, token: bytes, timeout_s: float | None
    ) -> Batch:
        request = query_pb2.BatchGetRequest(job=job_name(job), unit=unit, version=version, token=token)
        put_keys(request, keys)
        reads, token = await self._batch(request, len(keys), timeout_s)
        return Batch(tuple(reads), token)

    async def _batch(
        self, request: query_pb2.BatchGetRequest, keys: int, timeout_s: float | None, at_once: Collection[str] = ()
    ) -> tuple[list[Read], bytes]:
        answer = await self._connections.unary(
            "query",
            "BatchGet",
            request,
            query_pb2.BatchGetResponse,
            timeout_s=timeout_s,
            default_s=QUICK_S,
            at_once=at_once,
            waits_s=_WAITS_S if request.token else 0.0,
        )
        return reads_of(answer, split_job(request.job), keys, request.token), answer.token

    async def scan(
        self,
        job: str,
        *,
        order_by: Sequence[tuple[str, bool]],
        limit: int,
        unit: str,
        version: int,
        token: bytes,
        timeout_s: float | None,
    ) -> AsyncGenerator[Read, None]:
        order = [query_pb2.ScanRequest.OrderBy(column=column, descending=descending) for column, descending in order_by]
        request = query_pb2.ScanRequest(
            job=job_name(job),
            order_by=order,
            limit=limit,
            unit=unit,
            version=version,
            token=token,
            format=query_pb2.ScanRequest.COLUMNS,
        )
        stream = self._connections.stream("query", "Scan", request, query_pb2.ScanResponse, timeout_s=timeout_s)
        try:
            who: Read | None = None
            async for page in stream:
                if who is None:
                    who = convert.read(page.served, None, page.token, page.exposure_id)
                    columns = list(page.served.columns)
                for read in who.with_rows(rows_of(columns, page.columns)):
                    yield read
        finally:
            await stream.aclose()

    async def explain(self, job: str, *, unit: str, key: Key | None, timeout_s: float | None) -> Explanation:
        request = query_pb2.ExplainRouteRequest(job=job_name(job), unit=unit, key=None if key is None else to_key(key))
        return convert.explanation(
            await self._connections.unary(
                "query", "ExplainRoute", request, query_pb2.ExplainRouteResponse, timeout_s=timeout_s, default_s=QUICK_S
            )
        )
