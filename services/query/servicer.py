"""The gRPC edge: message in, read, message out."""

import time
from collections.abc import AsyncIterator
from contextlib import aclosing
from typing import Any

import grpc

from services.query import convert, outcomes, scans
from turnout.names import parse_job
from turnout.query.v1 import query_pb2, query_pb2_grpc
from turnout.reading.deadline import Deadline
from turnout.reading.front import Front
from turnout.reading.outcomes import Outcomes
from turnout.reading.reads import Reads, Request
from turnout.reading.values import MessageKeys

Context = grpc.aio.ServicerContext[Any, Any]


class QueryServicer(query_pb2_grpc.QueryServicer):
    """`turnout.query.v1.Query`."""

    def __init__(self, reads: Reads, front: Front, reports: Outcomes) -> None:
        self._reads = reads
        self._front = front
        self._reports = reports

    async def Get(self, request: query_pb2.GetRequest, context: Context) -> bytes:  # type: ignore[override]  # encoded
        began_s = time.monotonic()
        try:
            asked = convert.request_of(request)
            served, row = await self._reads.get(asked, MessageKeys([request.key]), _deadline(context))
            return convert.get_response(asked, served, row)
        finally:
            self._front.latency.add(time.monotonic() - began_s)

    async def BatchGet(self, request: query_pb2.BatchGetRequest, context: Context) -> bytes:  # type: ignore[override]
        began_s = time.monotonic()
        try:
            asked = convert.request_of(request)
            keys = convert.keys_of(request)
            groups = await self._reads.batch(asked, keys, _deadline(context), units=request.units)
            respond = convert.block_response if request.key_columns else convert.batch_response
            return respond(asked, groups, len(keys))
        finally:
            self._front.latency.add(time.monotonic() - began_s)

    async def Scan(self, request: query_pb2.ScanRequest, context: Context) -> AsyncIterator[query_pb2.ScanResponse]:
        await context.send_initial_metadata(())  # a client goes to another front where it hears nothing soon
        order = [(one.column, one.descending) for one in request.order_by]
        asked = convert.request_of(request)
        pages = scans.ScanPages(request.format)
        async with aclosing(self._reads.scan(asked, order, request.limit, _deadline(context))) as read:
            async for served, page in read:
                for response in pages.of(asked, served, page.rows):
                    yield response
        for response in pages.end():
            yield response

    async def ExplainRoute(
        self, request: query_pb2.ExplainRouteRequest, context: Context
    ) -> query_pb2.ExplainRouteResponse:
        key = MessageKeys([request.key]) if request.HasField("key") else None
        asked = Request(parse_job(request.job), request.unit, 0)
        return convert.explain_response(await self._reads.explain(asked, key, _deadline(context)), self._front.name)

    async def ReportOutcomes(
        self, request: query_pb2.ReportOutcomesRequest, context: Context
    ) -> query_pb2.ReportOutcomesResponse:
        return outcomes.answer(await self._reports.report(outcomes.reported(request.outcomes)))

    async def StreamOutcomes(
        self, request_iterator: AsyncIterator[query_pb2.StreamOutcomesRequest], context: Context
    ) -> AsyncIterator[query_pb2.StreamOutcomesResponse]:
        async for results in self._reports.report_each(
            outcomes.reported(request.outcomes) async for request in request_iterator
        ):
            yield query_pb2.StreamOutcomesResponse(answer=outcomes.answer(results))


def _deadline(context: Context) -> Deadline:
    remaining_s = context.time_remaining()
    assert remaining_s is not None, "the chain of interceptors refuses calls without a deadline"
    return Deadline(remaining_s)
