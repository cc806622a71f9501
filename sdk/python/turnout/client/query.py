"""Reads."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable

from turnout.client import convert
from turnout.client.calls import Calls, job_name
from turnout.client.connection import QUICK_S
from turnout.client.values import Key, from_row, to_key
from turnout.errors import InvalidInput
from turnout.query.v1 import query_pb2
from turnout.results import Batch, Explanation, Read


class QueryCalls(Calls):
    """Methods of the query front.

    key: a mapping by column name, a tuple or list in the order of the table's key, or the bare value of a one-column
    key. unit: what the route splits readers by, such as a user id; None = the row's key. Give the same unit with all
    calls of one page, and the page never mixes versions. version: read this one, whatever the route says.
    NotFound (JOB_NOT_ROUTED) before the job's first cutover, unless `version` is given.
    """

    async def get(
        self, job: str, key: Key, *, unit: str | None = None, version: int | None = None, timeout_s: float | None = None
    ) -> Read:
        """One row; Read.row is None where there is none."""
        request = query_pb2.GetRequest(job=job_name(job), key=to_key(key), unit=_unit(unit), version=version or 0)
        answer = await self._connections.unary(
            "query", "Get", request, query_pb2.GetResponse, timeout_s=timeout_s, default_s=QUICK_S
        )
        return convert.read(answer.served, answer.row if answer.HasField("row") else None)

    async def batch_get(
        self,
        job: str,
        keys: Iterable[Key],
        *,
        unit: str | None = None,
        version: int | None = None,
        timeout_s: float | None = None,
    ) -> Batch:
        """Up to 10000 rows. Without a unit each key is one, so that the batch may hold rows of several versions."""
        request = query_pb2.BatchGetRequest(
            job=job_name(job), keys=[to_key(key) for key in keys], unit=_unit(unit), version=version or 0
        )
        answer = await self._connections.unary(
            "query", "BatchGet", request, query_pb2.BatchGetResponse, timeout_s=timeout_s, default_s=QUICK_S
        )
        return Batch(
            tuple(
                convert.read(answer.served[result.served_index], result.row if result.HasField("row") else None)
                for result in answer.results
            )
        )

    async def scan(
        self,
        job: str,
        *,
        order_by: Iterable[str] = (),
        limit: int | None = None,
        unit: str | None = None,
        version: int | None = None,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Read, None]:
        """Rows of one version in an order, each labelled as in `get`. Without a unit it reads the active version.

        order_by: columns, "-column" for largest first; none = by key. limit: most rows; None = 1000.
        Break off with `contextlib.aclosing` around it to end the stream at once.
        """
        request = query_pb2.ScanRequest(
            job=job_name(job), order_by=_order(order_by), limit=limit or 0, unit=_unit(unit), version=version or 0
        )
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

    async def explain(
        self, job: str, *, unit: str | None = None, key: Key | None = None, timeout_s: float | None = None
    ) -> Explanation:
        """Which version a unit, or the unit that a row's key stands for, reads and why; reads no table."""
        if (unit is None) == (key is None):
            raise InvalidInput("INVALID_UNIT", "Give either a unit or a key to explain.")
        request = query_pb2.ExplainRouteRequest(
            job=job_name(job), unit=_unit(unit), key=None if key is None else to_key(key)
        )
        return convert.explanation(
            await self._connections.unary(
                "query", "ExplainRoute", request, query_pb2.ExplainRouteResponse, timeout_s=timeout_s, default_s=QUICK_S
            )
        )


def _unit(unit: str | None) -> str:
    if unit == "":
        raise InvalidInput("INVALID_UNIT", "The unit is empty; leave it out to split by the row's key.")
    return unit or ""


def _order(order_by: Iterable[str]) -> list[query_pb2.ScanRequest.OrderBy]:
    return [
        query_pb2.ScanRequest.OrderBy(column=column.removeprefix("-"), descending=column.startswith("-"))
        for column in order_by
    ]
