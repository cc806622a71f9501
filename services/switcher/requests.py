"""First answers to requests, so that a repeated one changes nothing. What is read in several statements does not change
between them.

The commit of a change stores an answer together with its proposal: the change stands, and its adoption is still to be
seen. Whoever repeats the request, at whatever replica, sees to that again, so that no answer comes before it is true.
"""

from dataclasses import dataclass
from typing import Any

from core.postgres import Pool
from services.switcher.records import ChangeRecord, Intent
from services.switcher.refusals import refuse_reused
from services.switcher.rows import SQL, change_of, statement, transaction


@dataclass(frozen=True, slots=True)
class Answered:
    """The stored answer; with a proposal, the committed changes whose adoption it does not tell yet."""

    answer: bytes
    proposal: str = ""
    records: tuple[ChangeRecord, ...] = ()
    counted: frozenset[str] = frozenset()


class RequestStore:
    """Answers by request_id; kept as long as `forget` of the routes leaves them."""

    def __init__(self, pool: Pool) -> None:
        self._pool = pool

    async def find(self, intent: Intent) -> Answered | None:
        """The answer to a request; InvalidInput where the id stands for another request."""
        async with statement(self._pool) as connection:
            return await _find(connection, intent)

    async def in_flight(self, intent: Intent) -> bool:
        """Whether the request is being carried out, by this replica or another one; InvalidInput as for `find`."""
        async with statement(self._pool) as connection:
            row = await connection.fetchrow(SQL.find_proposal_of_request, intent.request_id)
        if row is None:
            return False
        refuse_reused(intent.request_id, intent.fingerprint, row["fingerprint"])
        return not row["dead"]

    async def store(self, intent: Intent, answer: bytes) -> Answered:
        """Keep the answer to a request that needed no change; the first one, if the same request came twice at once.

        That one may be of a commit, which this one was decided behind. InvalidInput as for `find`.
        """
        async with transaction(self._pool) as connection:
            await connection.execute(SQL.store_request, intent.request_id, intent.fingerprint, answer, "")
            first = await _find(connection, intent)
        assert first is not None, "it was stored, now or before"
        return first

    async def complete(self, intent: Intent, answer: bytes) -> bytes:
        """Put the whole answer in the place of the one that the commit stored; the whole one that was first."""
        async with statement(self._pool) as connection:
            if await connection.fetchval(SQL.complete_request, intent.request_id, answer) is not None:
                return answer
            row = await connection.fetchrow(SQL.find_request, intent.request_id)
        return answer if row is None else bytes(row["answer"])


async def _find(connection: Any, intent: Intent) -> Answered | None:
    row = await connection.fetchrow(SQL.find_request, intent.request_id)
    if row is None:
        return None
    refuse_reused(intent.request_id, intent.fingerprint, row["fingerprint"])
    if not row["proposal"]:
        return Answered(bytes(row["answer"]))
    changes = await connection.fetch(SQL.changes_of_request, intent.request_id)
    counted = await connection.fetchval(SQL.counted_fronts, row["proposal"])
    records = tuple(change_of(change) for change in changes)
    return Answered(bytes(row["answer"]), row["proposal"], records, frozenset(counted or ()))
