"""Checks of a run's topics that answer several who ask."""

from __future__ import annotations

import asyncio
from dataclasses import dataclass, field
from datetime import UTC, datetime

import pytest

from core.kafka import TopicInfo
from services.replayer.run import Run
from services.replayer.topic_checks import STANDS_S, Infos, TopicChecks
from tests.unit.replayer.made import run
from turnout.errors import FailedPrecondition, TurnoutError, Unavailable
from turnout.names import VersionId

V1, V2 = run(1), run(2)


@dataclass
class HandClock:
    """A clock that goes on by a moment with each look."""

    at_s: float = 100.0

    def now(self) -> datetime:
        return datetime(2026, 1, 1, tzinfo=UTC)

    def monotonic_s(self) -> float:
        self.at_s += 1e-6
        return self.at_s


@dataclass
class Kafka:
    """Answers as it is told, once it may."""

    fails: TurnoutError | None = None
    asked: list[VersionId] = field(default_factory=list)
    may: asyncio.Event = field(default_factory=asyncio.Event)

    async def check(self, of: Run) -> Infos:
        self.asked.append(of.version)
        await self.may.wait()
        if self.fails is not None:
            raise self.fails
        topic = of.version.name
        return {topic: TopicInfo(topic, str(len(self.asked)), 1, compacted=False, retention_ms=-1)}


@pytest.fixture
def clock() -> HandClock:
    return HandClock()


@pytest.fixture
def kafka() -> Kafka:
    return Kafka()


@pytest.fixture
def checks(kafka: Kafka, clock: HandClock) -> TopicChecks:
    kafka.may.set()
    return TopicChecks(kafka.check, clock)


async def test_an_answer_stands_for_a_moment(checks: TopicChecks, kafka: Kafka, clock: HandClock) -> None:
    first = await checks.of(V1)
    clock.at_s += STANDS_S - 0.01
    assert await checks.of(V1) == first
    clock.at_s += 0.02
    assert await checks.of(V1) != first
    assert kafka.asked == [V1.version, V1.version]


async def test_each_run_has_its_own(checks: TopicChecks, kafka: Kafka) -> None:
    assert set(await checks.of(V1)) == {V1.version.name}
    assert set(await checks.of(V2)) == {V2.version.name}
    assert kafka.asked == [V1.version, V2.version]


async def test_who_asks_meanwhile_shares_it(checks: TopicChecks, kafka: Kafka) -> None:
    kafka.may.clear()
    asking = [asyncio.create_task(checks.of(V1)) for _ in range(3)]
    await asyncio.sleep(0)
    kafka.may.set()
    one, *others = await asyncio.gather(*asking)
    assert others == [one, one]
    assert kafka.asked == [V1.version]


async def test_it_stands_from_its_begin(checks: TopicChecks, kafka: Kafka, clock: HandClock) -> None:
    """What became of the topic while Kafka was slow is not known to the answer."""
    kafka.may.clear()
    asking = asyncio.create_task(checks.of(V1))
    await asyncio.sleep(0)
    clock.at_s += STANDS_S + 1
    kafka.may.set()
    await asking
    await checks.of(V1)
    assert kafka.asked == [V1.version, V1.version]


@pytest.mark.parametrize("error", [FailedPrecondition("TOPIC_RECREATED", "x"), Unavailable("KAFKA_UNAVAILABLE", "x")])
async def test_what_fails_is_asked_again(checks: TopicChecks, kafka: Kafka, error: TurnoutError) -> None:
    kafka.fails = error
    for _ in range(2):
        with pytest.raises(type(error)):
            await checks.of(V1)
    kafka.fails = None
    await checks.of(V1)
    assert len(kafka.asked) == 3


async def test_who_gives_up_leaves_the_next_one_to_ask(checks: TopicChecks, kafka: Kafka) -> None:
    kafka.may.clear()
    first, second = (asyncio.create_task(checks.of(V1)) for _ in range(2))
    await asyncio.sleep(0)
    first.cancel()
    kafka.may.set()
    assert set(await second) == {V1.version.name}
    assert kafka.asked == [V1.version, V1.version]


@pytest.mark.parametrize("error", [None, Unavailable("KAFKA_UNAVAILABLE", "x")])
async def test_nobody_waits_for_a_second_check_of_others(
    checks: TopicChecks, kafka: Kafka, clock: HandClock, error: TurnoutError | None
) -> None:
    """Who asks while a slow one is under way that says too little by then gets the next one's answer, all of them."""
    kafka.fails = error
    kafka.may.clear()
    asking = [asyncio.create_task(checks.of(V1))]
    await asyncio.sleep(0)
    clock.at_s += STANDS_S + 1
    asking += [asyncio.create_task(checks.of(V1)) for _ in range(5)]
    await asyncio.sleep(0)
    kafka.may.set()
    answers = await asyncio.gather(*asking, return_exceptions=True)
    assert len(kafka.asked) == 2
    assert all(one is answers[1] for one in answers[2:])
    assert isinstance(answers[1], Unavailable) is (error is not None)
