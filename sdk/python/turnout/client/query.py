"""Reads."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Iterable, Mapping
from contextlib import aclosing

from turnout.client.calls import Calls
from turnout.client.readers import Reader
from turnout.client.session import Session
from turnout.client.values import Key, check_text
from turnout.errors import InvalidInput
from turnout.results import Batch, Explanation, Read


class QueryCalls(Calls):
    """Reads, through query fronts or in direct mode.

    key: a mapping by column name, a tuple or list in the order of the table's key, or the bare value of a one-column
    key. unit: what the route splits readers by, such as a user id; None = the row's key. Give the same unit with all
    calls of one page, and the page never mixes versions. version: read this one, whatever the route says.
    token: Read.token of an earlier read of the job; the answer is then nowhere from before it (`session` keeps it).
    NotFound (JOB_NOT_ROUTED) before the job's first cutover, unless `version` is given.
    """

    _reader: Reader

    async def get(
        self,
        job: str,
        key: Key,
        *,
        unit: str | None = None,
        version: int | None = None,
        token: bytes = b"",
        timeout_s: float | None = None,
    ) -> Read:
        """One row; Read.row is None where there is none."""
        return await self._reader.get(
            job, key, unit=_unit(unit), version=version or 0, token=token, timeout_s=timeout_s
        )

    async def batch_get(
        self,
        job: str,
        keys: Iterable[Key],
        *,
        unit: str | None = None,
        version: int | None = None,
        token: bytes = b"",
        timeout_s: float | None = None,
    ) -> Batch:
        """Up to 10000 rows. Without a unit each key is one, so that the batch may hold rows of several versions."""
        return await self._reader.batch_get(
            job, list(keys), unit=_unit(unit), version=version or 0, token=token, timeout_s=timeout_s
        )

    async def scan(
        self,
        job: str,
        *,
        order_by: Iterable[str] = (),
        limit: int | None = None,
        unit: str | None = None,
        version: int | None = None,
        token: bytes = b"",
        timeout_s: float | None = None,
    ) -> AsyncGenerator[Read, None]:
        """Rows of one version in an order, each labelled as in `get`. Without a unit it reads the active version.

        order_by: columns, "-column" for largest first; none = by key. limit: most rows; None = 1000.
        Break off with `contextlib.aclosing` around it to end the stream at once.
        """
        rows = self._reader.scan(
            job,
            order_by=[(column.removeprefix("-"), column.startswith("-")) for column in order_by],
            limit=limit or 0,
            unit=_unit(unit),
            version=version or 0,
            token=token,
            timeout_s=timeout_s,
        )
        async with aclosing(rows):
            async for row in rows:
                yield row

    def session(self, *, unit: str | None = None, tokens: Mapping[str, bytes] | None = None) -> Session:
        """Reads of one reader, none of which is answered from before what it has seen.

        unit: of all its reads. tokens: what it has seen already, `Session.tokens` of an earlier one.
        """
        return Session(self, unit, tokens or {})

    async def explain(
        self, job: str, *, unit: str | None = None, key: Key | None = None, timeout_s: float | None = None
    ) -> Explanation:
        """Which version a unit, or the unit that a row's key stands for, reads and why; reads no table."""
        if (unit is None) == (key is None):
            raise InvalidInput("INVALID_UNIT", "Give either a unit or a key to explain.")
        return await self._reader.explain(job, unit=_unit(unit), key=key, timeout_s=timeout_s)


def _unit(unit: str | None) -> str:
    if unit == "":
        raise InvalidInput("INVALID_UNIT", "The unit is empty; leave it out to split by the row's key.")
    return check_text("INVALID_UNIT", unit) if unit else ""
