"""Whose answer is told when a second one is asked."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine
from typing import Any

import pytest

from turnout.client.either import either

Asked = Callable[[], Coroutine[Any, Any, str]]


class AwayError(Exception):
    """Worth asking again."""


def says(answer: str) -> Asked:
    async def said() -> str:
        return answer

    return said


def fails(error: Exception) -> Asked:
    async def failed() -> str:
        raise error

    return failed


def waits(event: asyncio.Event, then: Asked, ends: list[str]) -> Asked:
    async def waited() -> str:
        try:
            await event.wait()
        except asyncio.CancelledError:
            ends.append("cancelled")
            raise
        return await then()

    return waited


async def ask(
    first: Asked, second: Asked, patience_s: float | None = None, heard: asyncio.Event | None = None
) -> tuple[str, list[bool]]:
    """What is told, and whether the second was asked, for silence or not."""
    asked: list[bool] = []

    def another(silent: bool) -> Coroutine[Any, Any, str]:
        asked.append(silent)
        return second()

    told = await either(
        first(), another, again=lambda error: isinstance(error, AwayError), patience_s=patience_s, heard=heard
    )
    return told, asked


async def test_an_answer_is_told_and_nobody_else_is_asked() -> None:
    assert await ask(says("a"), says("b"), 60.0) == ("a", [])


async def test_an_error_that_is_not_worth_it_is_told_at_once() -> None:
    with pytest.raises(ValueError, match="mine"):
        await ask(fails(ValueError("mine")), says("b"), 60.0)


async def test_the_second_is_asked_for_what_the_first_cannot() -> None:
    assert await ask(fails(AwayError()), says("b")) == ("b", [False])


async def test_of_two_that_cannot_the_second_is_heard() -> None:
    with pytest.raises(AwayError, match="second"):
        await ask(fails(AwayError("first")), fails(AwayError("second")))


async def test_the_second_answers_for_a_silent_one_which_is_cancelled() -> None:
    ends: list[str] = []
    assert await ask(waits(asyncio.Event(), says("a"), ends), says("b"), 0.0) == ("b", [True])
    assert ends == ["cancelled"]


async def test_a_slow_one_answers_while_the_second_is_silent_or_cannot() -> None:
    for second in (waits(asyncio.Event(), says("b"), []), fails(AwayError())):
        event = asyncio.Event()
        asyncio.get_running_loop().call_later(0.05, event.set)
        assert await ask(waits(event, says("a"), []), second, 0.0) == ("a", [True])


async def test_who_is_cancelled_takes_both_along() -> None:
    ends: list[str] = []
    never = asyncio.Event()
    task = asyncio.create_task(ask(waits(never, says("a"), ends), waits(never, says("b"), ends), 0.0))
    for _ in range(10):
        await asyncio.sleep(0.001)
    task.cancel()
    with pytest.raises(asyncio.CancelledError):
        await task
    assert ends == ["cancelled", "cancelled"]


async def test_one_that_was_heard_of_is_waited_for() -> None:
    heard, event = asyncio.Event(), asyncio.Event()
    heard.set()
    asyncio.get_running_loop().call_later(0.05, event.set)
    assert await ask(waits(event, says("a"), []), says("b"), 0.001, heard) == ("a", [])
    event.clear()
    asyncio.get_running_loop().call_later(0.05, event.set)
    assert await ask(waits(event, fails(AwayError()), []), says("b"), 0.001, heard) == ("b", [False])
