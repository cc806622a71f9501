"""Background tasks of an event loop."""

import asyncio
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
