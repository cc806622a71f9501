"""Background tasks of an event loop."""

import asyncio
from collections.abc import AsyncIterator, Coroutine
from contextlib import asynccontextmanager
from typing import Any


async def end(*tasks: "asyncio.Task[Any] | None") -> None:
    """Cancel the tasks and wait until they have ended; None is none. Raises what the first of them failed with."""
    there = [task for task in tasks if task is not None]
    for task in there:
        task.cancel()
    if there:
        await asyncio.wait(there)
    for task in there:
        if not task.cancelled() and (error := task.exception()) is not None:
            raise error


@asynccontextmanager
async def beside(work: Coroutine[Any, Any, Any], name: str | None = None) -> AsyncIterator[None]:
    """Do the work while the block runs, and give it up at its end."""
    task = asyncio.create_task(work, name=name)
    try:
        yield
    finally:
        await end(task)
