"""Waiting in tests: poll until something holds, with a deadline. No test sleeps for a guessed time."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import TypeVar

T = TypeVar("T")


async def eventually(predicate: Callable[[], Awaitable[T]], deadline_s: float = 60.0, every_s: float = 0.05) -> T:
    """The first truthy result of the predicate, asked again and again.

    A predicate may also assert: AssertionError means "not yet". After `deadline_s` it fails with the last answer.
    """
    loop = asyncio.get_running_loop()
    deadline = loop.time() + deadline_s
    while True:
        refused: AssertionError | None = None
        try:
            result = await predicate()
        except AssertionError as error:
            refused = error
        else:
            if result:
                return result
        if loop.time() >= deadline:
            answer = str(refused) if refused is not None else repr(result)
            raise AssertionError(f"not so after {deadline_s:g} s; the last answer was: {answer}") from refused
        await asyncio.sleep(every_s)
