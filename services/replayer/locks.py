"""DDL that other sessions may hold up: asked for briefly, several times, and the one in the way is named.

A statement that waits for an exclusive lock makes everybody behind it wait as well, so it must not wait for long.
"""

import asyncio
import random
from collections.abc import Awaitable, Callable
from typing import Any

import asyncpg

from services.replayer.store import Blocker, Store

LOCK_TIMEOUT_MS = 200
TRIES = 6
PAUSE_S = (0.1, 0.4)  # with jitter, so that two who retry do not meet again


async def with_lock(store: Store, relation: str, work: Callable[[Any], Awaitable[None]]) -> Blocker | None:
    """Do the work in a transaction of its own: None when it is done, else the session that kept the lock."""
    blocker = None
    for attempt in range(TRIES):
        if attempt:
            await asyncio.sleep(random.uniform(*PAUSE_S))  # noqa: S311  # jitter, no secret
        try:
            async with store.transaction() as connection:
                await connection.execute(f"set local lock_timeout = {LOCK_TIMEOUT_MS}")
                await work(connection)
        except (asyncpg.LockNotAvailableError, asyncpg.DeadlockDetectedError):
            # Asked for each time: whoever blocks now is the one to name.
            blocker = await store.blocker(relation) or blocker
        else:
            return None
    return blocker or Blocker(0, "unknown", 0.0, "gone by now")
