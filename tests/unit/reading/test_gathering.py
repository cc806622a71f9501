"""Reads that come at once share a statement and nothing else."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

import pytest

from tests.support.eventually import eventually
from turnout.errors import ResourceExhausted, Unavailable
from turnout.reading import gathering
from turnout.reading.deadline import Deadline
from turnout.reading.gathering import Gathering


class Statements:
    """Keeps what was asked, and answers when it is let go: each key with its double."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.open: list[asyncio.Event] = []
        self.given_up = 0
        self.fails: Exception | None = None
        self.refuses: set[int] = set()

    async def _answer(self, keys: Sequence[int]) -> list[int]:
        self.asked.append(list(keys))
        let_go = asyncio.Event()
        self.open.append(let_go)
        try:
            await let_go.wait()
        except asyncio.CancelledError:
            self.given_up += 1
            raise
        if self.fails is not None:
            raise self.fails
        if self.refuses & set(keys):
            raise ValueError(f"{keys} cannot be asked for")
        return [key * 2 for key in keys]

    async def one(self, key: int, deadline: Deadline) -> int:
        return (await self._answer([key]))[0]

    async def many(self, keys: Sequence[int], deadline: Deadline) -> Sequence[int]:
        return await self._answer(keys)

    def let_go(self) -> None:
        for one in self.open:
            one.set()


@pytest.fixture
def statements() -> Statements:
    return Statements()


@pytest.fixture
def gathered(statements: Statements, monkeypatch: pytest.MonkeyPatch) -> Gathering[int, int]:
    monkeypatch.setattr(gathering, "SLOW_S", 1000.0)
    return Gathering(statements.one, statements.many, (Unavailable,))


def begin(gathered: Gathering[int, int], *keys: int, within_s: float = 30.0) -> list[asyncio.Task[int]]:
    return [asyncio.create_task(gathered.send(key, Deadline(within_s))) for key in keys]


async def asked(statements: Statements, *expected: list[int]) -> None:
    async def so() -> bool:
        return statements.asked == list(expected)

    await eventually(so)


async def test_a_lone_read_goes_at_once_and_the_others_together(
    gathered: Gathering[int, int], statements: Statements
) -> None:
    reads = begin(gathered, 1, 2, 3)
    await asked(statements, [1])
    reads += begin(gathered, 4)
    await asyncio.sleep(0)
    statements.let_go()
    await asked(statements, [1], [2, 3, 4])
    statements.let_go()
    assert await asyncio.gather(*reads) == [2, 4, 6, 8]
    last = begin(gathered, 5)
    await asked(statements, [1], [2, 3, 4], [5])
    statements.let_go()
    assert await last[0] == 10


async def test_who_leaves_takes_nothing_from_the_others(gathered: Gathering[int, int], statements: Statements) -> None:
    reads = begin(gathered, 1, 2, 3, 4)
    await asked(statements, [1])
    reads[1].cancel()  # while it gathers
    await asyncio.sleep(0)
    statements.let_go()
    await asked(statements, [1], [3, 4])
    reads[2].cancel()  # while its statement is under way
    await asyncio.sleep(0)
    statements.let_go()
    assert await reads[3] == 8
    assert await reads[0] == 2
    assert statements.given_up == 0


async def test_a_statement_that_nobody_waits_for_is_given_up_and_the_next_one_sent(
    gathered: Gathering[int, int], statements: Statements
) -> None:
    reads = begin(gathered, 1, 2, 3)
    await asked(statements, [1])
    statements.let_go()
    await asked(statements, [1], [2, 3])
    reads += begin(gathered, 4)
    await asyncio.sleep(0)
    reads[1].cancel()
    reads[2].cancel()
    await asked(statements, [1], [2, 3], [4])
    assert statements.given_up == 1
    statements.let_go()
    assert await reads[3] == 8


async def test_a_lone_read_that_is_cancelled_lets_the_others_go(
    gathered: Gathering[int, int], statements: Statements
) -> None:
    reads = begin(gathered, 1, 2)
    await asked(statements, [1])
    reads[0].cancel()
    await asked(statements, [1], [2])
    statements.let_go()
    assert await reads[1] == 4


async def test_a_deadline_is_its_callers_alone(gathered: Gathering[int, int], statements: Statements) -> None:
    lone = begin(gathered, 1)
    await asked(statements, [1])
    hurried, patient = begin(gathered, 2, within_s=0.01) + begin(gathered, 3)
    with pytest.raises(TimeoutError):
        await hurried
    statements.let_go()
    await asked(statements, [1], [3])
    statements.let_go()
    assert await asyncio.gather(*lone, patient) == [2, 6]


async def test_what_says_nothing_of_a_key_is_told_to_all(gathered: Gathering[int, int], statements: Statements) -> None:
    reads = begin(gathered, 1, 2, 3)
    await asked(statements, [1])
    statements.fails = Unavailable("AWAY", "It is away.")
    statements.let_go()
    await asked(statements, [1], [2, 3])
    statements.let_go()
    assert [type(one) for one in await asyncio.gather(*reads, return_exceptions=True)] == [Unavailable] * 3


async def test_a_key_that_is_refused_is_its_callers_alone(
    gathered: Gathering[int, int], statements: Statements
) -> None:
    statements.refuses = {3}
    reads = begin(gathered, 1, 2, 3, 4)
    await asked(statements, [1])
    statements.let_go()
    for number in (2, 3, 4, 5, 6):

        async def so_many(number: int = number) -> bool:
            return len(statements.asked) == number

        await eventually(so_many)
        statements.let_go()
    assert statements.asked[1:] == [[2, 3, 4], [2], [3, 4], [3], [4]]
    answers = await asyncio.gather(*reads, return_exceptions=True)
    assert [answers[0], answers[1], answers[3]] == [2, 4, 8]
    assert isinstance(answers[2], ValueError)


async def test_a_key_that_is_refused_among_many_costs_few_statements() -> None:
    asked: list[int] = []
    refused = 700

    async def many(keys: Sequence[int], _deadline: Deadline) -> Sequence[int]:
        asked.append(len(keys))
        await asyncio.sleep(0)
        if refused in keys:
            raise ValueError(f"{refused} cannot be asked for")
        return keys

    async def one(key: int, deadline: Deadline) -> int:
        return (await many([key], deadline))[0]

    reads = begin(Gathering(one, many, (Unavailable,)), *range(gathering.KEYS_MAX + 1))
    answers = await asyncio.gather(*reads, return_exceptions=True)
    assert [at for at, answer in enumerate(answers) if answer != at] == [refused]
    assert asked[:2] == [1, gathering.KEYS_MAX]
    assert len(asked) == 2 + 2 * 10, "two halves of each size down to one key"


async def test_a_slow_statement_holds_nobody_up(statements: Statements, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(gathering, "SLOW_S", 0.001)
    gathered = Gathering(statements.one, statements.many, (Unavailable,))
    reads = begin(gathered, 1)
    for number in range(2, gathering.RUNNING_MAX + 1):
        reads += begin(gathered, number)
        await asked(statements, *([n] for n in range(1, number + 1)))
    reads += begin(gathered, 8, 9)
    await asyncio.sleep(0.05)  # many times as long as a statement may hold up the next one
    assert len(statements.asked) == gathering.RUNNING_MAX, "connections are left to others"
    statements.open[0].set()
    await asked(statements, *([n] for n in range(1, gathering.RUNNING_MAX + 1)), [8, 9])
    statements.let_go()
    assert await asyncio.gather(*reads) == [2 * n for n in (*range(1, gathering.RUNNING_MAX + 1), 8, 9)]


async def test_queues_and_statements_are_bounded(
    gathered: Gathering[int, int], statements: Statements, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gathering, "WAITING_MAX", 3)
    monkeypatch.setattr(gathering, "KEYS_MAX", 2)
    reads = begin(gathered, 1, 2, 3, 4, 5)
    with pytest.raises(ResourceExhausted) as caught:
        await reads.pop()
    assert caught.value.reason == "OVERLOADED"
    statements.let_go()
    await asked(statements, [1], [2, 3])
    statements.let_go()
    await asked(statements, [1], [2, 3], [4])
    statements.let_go()
    assert await asyncio.gather(*reads) == [2, 4, 6, 8]
