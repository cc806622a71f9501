"""The reads as somebody would write them by hand for one table, with all that makes them fast.

Row and positions come from one statement, as the front's do. The table is that of `bench/jobs/append.py`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final

import asyncpg

CONNECTIONS: Final = 8
COLUMNS: Final = ("order_id", "user_id", "amount_cents", "country", "ts")

_POSITIONS: Final = """
    select array_agg(topic order by topic, partition) as topics,
           array_agg(partition order by topic, partition) as partitions,
           array_agg(next_offset order by topic, partition) as next_offsets,
           array_agg(event_time order by topic, partition) as event_times
    from serving.positions where version = '{version}'"""


@dataclass(frozen=True)
class Place:
    """A table with its positions: its name in the schema serving, and its version's name."""

    table: str
    version: str

    @property
    def one(self) -> str:
        """The statement for one row."""
        columns = ", ".join(f"t.{name}" for name in COLUMNS)
        return (
            f"select p.*, {columns} from ({_POSITIONS.format(version=self.version)}) p "
            f"left join serving.{self.table} t on t.order_id = $1::bigint"
        )

    @property
    def many(self) -> str:
        """The statement for many rows: first the positions, then the rows that exist."""
        types = ("bigint", "text", "bigint", "text", "bigint")
        nothing = "".join(f", null::{kind} as {name}" for name, kind in zip(COLUMNS, types, strict=True))
        return (
            f"select p.*{nothing} from ({_POSITIONS.format(version=self.version)}) p union all "
            f"select null, null, null, null, {', '.join(COLUMNS)} from serving.{self.table} "
            f"where order_id = any($1::bigint[])"
        )


async def _keep_as_it_is(_connection: Any) -> None:
    """A pool resets each connection that it takes back: a round trip a read, which these reads do not need."""


async def open_pool(dsn: str, connections: int = CONNECTIONS) -> Any:
    """Connections to read with."""
    return await asyncpg.create_pool(dsn, min_size=connections, max_size=connections, reset=_keep_as_it_is)


async def read_one(pool: Any, statement: str, key: int) -> Any:
    """The row of that key, beside the positions."""
    async with pool.acquire() as connection:
        return await connection.fetchrow(statement, key)


async def read_many(pool: Any, statement: str, keys: Sequence[int]) -> list[Any]:
    """The rows of those keys, behind the positions."""
    async with pool.acquire() as connection:
        found: list[Any] = await connection.fetch(statement, keys)
    return found
