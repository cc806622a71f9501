"""Ending background tasks."""

from __future__ import annotations

import asyncio

import pytest

from turnout.tasks import beside, end


async def test_it_waits_until_they_have_ended() -> None:
    cleaned = []

    async def work(name: str) -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await asyncio.sleep(0)
            cleaned.append(name)

    tasks = [asyncio.create_task(work(name)) for name in "ab"]
    await asyncio.sleep(0)
    await end(*tasks, None)
    assert cleaned == ["a", "b"]
    assert all(task.cancelled() for task in tasks)


async def test_what_one_failed_with_is_raised() -> None:
    async def fail() -> None:
        raise ValueError("broken")

    task = asyncio.create_task(fail())
    await asyncio.wait({task})
    with pytest.raises(ValueError, match="broken"):
        await end(task)


async def test_to_be_cancelled_ends_the_waiting() -> None:
    stubborn = asyncio.Event()

    async def work() -> None:
        try:
            await asyncio.Event().wait()
        finally:
            await stubborn.wait()

    task = asyncio.create_task(work())
    await asyncio.sleep(0)
    ending = asyncio.create_task(end(task))
    await asyncio.sleep(0)
    ending.cancel()
    with pytest.raises(asyncio.CancelledError):
        await ending
    assert not task.done()
    stubborn.set()
    await asyncio.wait({task})


async def test_nothing_is_ended_at_once() -> None:
    await end(None)


async def test_what_is_done_beside_a_block_ends_with_it() -> None:
    done: list[str] = []

    async def work() -> None:
        try:
            done.append("begun")
            await asyncio.Event().wait()
        finally:
            done.append("given up")

    async def block() -> None:
        async with beside(work(), "work"):
            await asyncio.sleep(0)
            assert done == ["begun"]
            raise ValueError("the block failed")

    with pytest.raises(ValueError, match="the block"):
        await block()
    assert done == ["begun", "given up"]
