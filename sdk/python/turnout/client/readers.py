"""Who answers the reads of a client."""

from __future__ import annotations

from collections.abc import AsyncGenerator, Sequence
from typing import Protocol

from turnout.client.values import Key
from turnout.results import Batch, Explanation, Read


class Reader(Protocol):
    """The reads of `QueryCalls`, with what was left out filled in: unit "" = the row's key, version 0 = as routed,
    token b"" = none.

    timeout_s: the caller's own deadline; None = the client's, or the method's.
    """

    async def get(self, job: str, key: Key, *, unit: str, version: int, token: bytes, timeout_s: float | None) -> Read:
        """One row."""

    async def batch_get(
        self, job: str, keys: Sequence[Key], *, unit: str, version: int, token: bytes, timeout_s: float | None
    ) -> Batch:
        """One read for each key."""

    def scan(
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
        """Rows in an order of (column, descending). limit: 0 = 1000."""

    async def explain(self, job: str, *, unit: str, key: Key | None, timeout_s: float | None) -> Explanation:
        """Why a unit or a key is read from where it is."""
