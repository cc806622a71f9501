"""A second one is asked where the first cannot answer, or says nothing for too long."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


async def either(
    first: Coroutine[Any, Any, T],
    second: Callable[[bool], Coroutine[Any, Any, T]],
    *,
    again: Callable[[BaseException], bool],
    patience_s: float | None,
    heard: asyncio.Event | None = None,
) -> T:
    """The result of `first`, or of whichever answers first once `second` is asked as well.

    That is done when the first fails with an error that is worth asking `again`, or has not ended after `patience_s`
    seconds (None = however long it takes); heard: set once the first is known to work on it, which is then waited for
    however long that takes. `second` is told whether the first is silent. That one goes on meanwhile, as
    it may be slow only. Who is not needed any more is cancelled. Raises an error that is not worth asking again, else
    what the second one failed with.
    """
    tasks = [asyncio.create_task(first)]
    try:
        await asyncio.wait(tasks, timeout=patience_s)
        if heard is not None and heard.is_set():
            await asyncio.wait(tasks)
        if _stands(tasks[0], again):
            return tasks[0].result()
        tasks.append(asyncio.create_task(second(not tasks[0].done())))
        pending = {task for task in tasks if not task.done()}
        while pending:
            done, pending = await asyncio.wait(pending, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                if _stands(task, again):
                    return task.result()
        return tasks[1].result()
    finally:
        await _drop(tasks)


def _stands(task: asyncio.Task[Any], again: Callable[[BaseException], bool]) -> bool:
    """Whether it has ended, and with something to tell."""
    if not task.done() or task.cancelled():
        return task.done()
    error = task.exception()
    return error is None or not again(error)


async def _drop(tasks: list[asyncio.Task[Any]]) -> None:
    """Cancel those that go on. What the others failed with is told, or of no interest."""
    for task in tasks:
        task.cancel()
    if not all(task.done() for task in tasks):
        await asyncio.wait(tasks)
    for task in tasks:
        if not task.cancelled():
            task.exception()
