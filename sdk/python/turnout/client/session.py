"""Reads of one reader, that never go back."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing
from typing import TYPE_CHECKING

from turnout.client.values import Key
from turnout.reading.tokens import carried_over, group_of, merged
from turnout.results import Batch, Read

if TYPE_CHECKING:
    from turnout.client.query import QueryCalls


class Session:
    """Reads as those of the client, each of which knows what this reader has seen: `Client.session` makes one.

    A read is nowhere answered from before an earlier one of the session, through cutover, rollback and splits, as far
    as positions of the log go; values may differ between versions. A read that would be behind waits; then the active
    version stands in, if it is not behind as well (Read.cause says so); else Unavailable (BEHIND_TOKEN).
    Of jobs that were cut over in one step a read is not from before it once another one was from after it.
    FailedPrecondition (TOKEN_OF_ANOTHER_TOPIC) after a topic was deleted and made anew: `forget` what was seen of the
    job.

    Reads that run at the same time do not know of one another. tokens: what has been seen, by job; hand it on to go on
    in another process, in a cookie for example.
    """

    def __init__(self, client: QueryCalls, unit: str | None, tokens: Mapping[str, bytes]) -> None:
        self._client = client
        self._unit = unit
        self.tokens: dict[str, bytes] = dict(tokens)
        self._group = max(map(group_of, self.tokens.values()), default=0)

    def forget(self, job: str) -> None:
        """Begin anew with the job."""
        self.tokens.pop(job, None)

    async def get(self, job: str, key: Key, *, version: int | None = None, timeout_s: float | None = None) -> Read:
        """One row; Read.row is None where there is none."""
        token = self._brought(job)
        read = await self._client.get(job, key, unit=self._unit, version=version, token=token, timeout_s=timeout_s)
        self._seen(job, read.token)
        return read

    async def batch_get(
        self, job: str, keys: Iterable[Key], *, version: int | None = None, timeout_s: float | None = None
    ) -> Batch:
        """Up to 10000 rows."""
        token = self._brought(job)
        batch = await self._client.batch_get(
            job, keys, unit=self._unit, version=version, token=token, timeout_s=timeout_s
        )
        self._seen(job, batch.token)
        return batch

    async def scan(
        self,
        job: str,
        *,
        order_by: Iterable[str] = (),
        limit: int | None = None,
        version: int | None = None,
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Read, None]:
        """Rows of one version in an order."""
        token = self._brought(job)
        rows = self._client.scan(
            job,
            order_by=order_by,
            limit=limit,
            unit=self._unit,
            version=version,
            token=token,
            timeout_s=timeout_s,
        )
        async with aclosing(rows):
            first = True
            async for row in rows:
                if first:
                    self._seen(job, row.token)
                    first = False
                yield row

    def _seen(self, job: str, token: bytes) -> None:
        self.tokens[job] = merged(self.tokens.get(job, b""), token)
        self._group = max(self._group, group_of(token))

    def _brought(self, job: str) -> bytes:
        """What was seen of the job, and the newest group of routes that was seen at all."""
        return carried_over(self.tokens.get(job, b""), job, self._group)
