"""The reads of a client in direct mode."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import socket
import time
from collections.abc import AsyncGenerator, Awaitable, Callable, Sequence
from contextlib import aclosing
from typing import TypeAlias, TypeVar

import asyncpg
import grpc

from turnout import results
from turnout.client.calls import job_name
from turnout.client.connection import LONG_S, QUICK_S, too_late
from turnout.client.direct import Direct
from turnout.client.values import Key
from turnout.direct.keys import PythonKeys
from turnout.direct.rows import Shape
from turnout.errors import InvalidInput, TurnoutError, Unavailable
from turnout.postgres import connect, refusal
from turnout.reading.deadline import Deadline
from turnout.reading.denials import told_to_the_reader
from turnout.reading.freshness import Limits
from turnout.reading.path import ReadPath
from turnout.reading.positions import Positions
from turnout.reading.reads import Request, Served, token_after
from turnout.reading.routing import Cause
from turnout.reading.table import Page, Values, refuse_without_rights
from turnout.reading.tokens import parse_token
from turnout.tracing import is_traced, read_span

_BACKOFF_S = 0.05
_BACKOFF_S_MAX = 1.0
_CAUSES = {cause: results.Cause[cause.name] for cause in Cause}
_FIRST_CONTACT_S = 1.0
# What a new connection meets at any time, as where the password was changed.
_REFUSALS = (
    asyncpg.InvalidAuthorizationSpecificationError,
    asyncpg.InvalidCatalogNameError,
    asyncpg.ClientConfigurationError,
)

T = TypeVar("T")
Pages: TypeAlias = AsyncGenerator[tuple[Served, Page], None]


class DirectReads:
    """Reads that this process answers itself, by the read path of the fronts."""

    def __init__(
        self,
        settings: Direct,
        switcher: Callable[[], grpc.aio.Channel],
        registry: grpc.aio.Channel,
        deadline_s: Callable[[float | None, float], float],
    ) -> None:
        self._postgres = settings.postgres
        name = f"{socket.gethostname()}-{os.getpid()}-{secrets.token_hex(3)}"
        self._path = ReadPath(
            name,
            settings.postgres,
            Limits(active_s=settings.max_stale_active_s, experiment_s=settings.max_stale_experiment_s),
            switcher,
            registry,
            denial=told_to_the_reader,
            address=f"direct, {name}",
            routes_file=settings.routes_file,
            attributes={"front": name},
        )
        self._front = self._path.front
        self._reads = self._path.reads
        self._deadline_s = deadline_s
        self._traced = False

    async def open(self) -> None:
        """Begin to watch; see `ReadPath.start`. Reads are traced if a tracer is set up by now.

        InvalidInput (POSTGRES_REFUSED) where PostgreSQL would never answer, FailedPrecondition (POSTGRES_DENIED) where
        its user may not read; that it is away is told by the reads.
        """
        self._traced = is_traced()
        await _refuse_where_refused(self._postgres)
        await self._path.start()

    async def close(self) -> None:
        """Say goodbye to the switcher, so that no change waits for this client, and close what is open."""
        await self._path.leave()
        await self._path.stop()

    # --- reads ---

    async def get(
        self, job: str, key: Key, *, unit: str, version: int, token: bytes, timeout_s: float | None
    ) -> results.Read:
        request, keys = self._request(job, unit, version, token), PythonKeys((key,))
        served, values = await self._answered(
            "Get", job, lambda by: self._reads.get(request, keys, by), self._deadline_s(timeout_s, QUICK_S)
        )
        return self._read(request, served, values)

    async def batch_get(
        self, job: str, keys: Sequence[Key], *, unit: str, version: int, token: bytes, timeout_s: float | None
    ) -> results.Batch:
        request, python_keys = self._request(job, unit, version, token), PythonKeys(keys)
        groups = await self._answered(
            "BatchGet",
            job,
            lambda by: self._reads.batch(request, python_keys, by),
            self._deadline_s(timeout_s, QUICK_S),
        )
        reads: dict[int, results.Read] = {}
        for group in groups:
            shape = self._shape(group.served)
            rows = [None if values is None else shape.row(values) for values in group.found.rows]
            found = self._read(request, group.served, None).with_rows(rows, group.exposure_ids)
            reads.update(zip(group.places, found, strict=True))
        token = token_after(request, [group.served for group in groups])
        return results.Batch(tuple(reads[place] for place in range(len(keys))), token)

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
    ) -> AsyncGenerator[results.Read, None]:
        request = self._request(job, unit, version, token)

        async def begun(by: Deadline) -> tuple[Pages, tuple[Served, Page]]:
            pages = self._reads.scan(request, order_by, limit, by)
            return pages, await anext(pages)

        began_s, deadline_s = time.monotonic(), self._deadline_s(timeout_s, LONG_S)
        pages, (served, page) = await self._answered("Scan", job, begun, deadline_s)
        who, shape = self._read(request, served, None), self._shape(served)
        async with aclosing(pages):
            try:
                for read in who.with_rows(map(shape.row, page.rows)):
                    yield read
                async for _, page in pages:
                    for read in who.with_rows(map(shape.row, page.rows)):
                        yield read
            except Unavailable:
                if time.monotonic() - began_s >= deadline_s:
                    raise too_late("query", "Scan", deadline_s) from None
                raise

    async def explain(self, job: str, *, unit: str, key: Key | None, timeout_s: float | None) -> results.Explanation:
        request, keys = self._request(job, unit, 0, b""), None if key is None else PythonKeys((key,))
        found = await self._answered(
            "ExplainRoute", job, lambda by: self._reads.explain(request, keys, by), self._deadline_s(timeout_s, QUICK_S)
        )
        return results.Explanation(
            unit=found.unit,
            unit_hash=found.hashed,
            version=found.resolution.version,
            active_version=found.active_version,
            epoch=found.resolution.epoch,
            interval_low=found.interval.low,
            interval_high=found.interval.high,
            acquired_epoch=found.interval.acquired_epoch,
            front=self._front.name,
            route_age_s=found.age_s,
        )

    # --- around them ---

    async def _answered(self, method: str, job: str, read: Callable[[Deadline], Awaitable[T]], deadline_s: float) -> T:
        """The answer; what is UNAVAILABLE is tried again until the deadline, as it is through a front."""
        first_s = began_s = time.monotonic()
        deadline = Deadline(deadline_s)
        backoff_s = _BACKOFF_S
        while True:
            try:
                if not self._traced:
                    return await read(deadline)
                with read_span(method, job, self._front.name):
                    return await read(deadline)
            except _REFUSALS as error:
                raise _refused(error) from None
            except Unavailable:
                wait_s = backoff_s * random.uniform(0.5, 1.0)  # noqa: S311  # spreads retries, keeps no secret
                spent_s = time.monotonic() - first_s
                if spent_s >= deadline_s:
                    raise too_late("query", method, deadline_s) from None
                if spent_s + wait_s >= deadline_s:
                    raise
            finally:
                self._front.latency.add(time.monotonic() - began_s)
            await asyncio.sleep(wait_s)
            began_s = time.monotonic()
            backoff_s = min(backoff_s * 2, _BACKOFF_S_MAX)

    def _request(self, job: str, unit: str, version: int, token: bytes) -> Request:
        job_name(job)  # refuses what is no id
        return Request(job, unit, version, parse_token(token, job) if token else None)

    def _read(self, request: Request, served: Served, values: Values | None) -> results.Read:
        resolution, positions = served.resolution, served.positions
        return results.Read(
            None if values is None else self._shape(served).row(values),
            resolution.version,
            resolution.epoch,
            positions.kept("results", lambda: _applied(positions)),
            _CAUSES[resolution.cause],
            token_after(request, [served]),
            served.exposure_id,
        )

    def _shape(self, served: Served) -> Shape:
        return served.table.kept("shape", lambda: Shape(served.table))


def _applied(positions: Positions) -> tuple[results.AppliedPosition, ...]:
    return tuple(
        results.AppliedPosition(one.topic, one.partition, one.next_offset, one.event_time) for one in positions.each
    )


async def _refuse_where_refused(postgres: str) -> None:
    """InvalidInput (POSTGRES_REFUSED) where PostgreSQL refuses for good, or where this is no URL; FailedPrecondition
    (POSTGRES_DENIED) where it would refuse every read: such a client would also refuse every change of a route."""
    if not postgres.strip():  # from which the driver would make up one of its own
        raise _refused(ValueError("no URL"))
    try:
        async with asyncio.timeout(_FIRST_CONTACT_S):
            connection = await connect(postgres, application_name="turnout query")
            try:
                await refuse_without_rights(connection, _FIRST_CONTACT_S)
                await connection.close()
            finally:
                connection.terminate()  # where it is not closed: from who fell silent no goodbye is waited for
    except TurnoutError:
        raise
    except Exception as error:
        if refusal(error) is not None:
            raise _refused(error) from None


def _refused(error: Exception) -> InvalidInput:
    return InvalidInput("POSTGRES_REFUSED", f"PostgreSQL {refusal(error)}. Check what `direct` was given.")
