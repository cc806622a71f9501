"""Some simulations from their seeds and at some steps, that the same seed goes the same way, and that a broken rule is
found."""

from __future__ import annotations

import asyncio
import os
import random
import secrets
import time
import uuid
from collections.abc import AsyncIterator, Callable, Sequence
from contextlib import ExitStack, suppress
from typing import Any
from unittest import mock

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.switcher.adoption import Readiness, Verdict
from services.switcher.experiments.store import ExperimentStore
from services.switcher.records import CommandKind, Intent
from services.switcher.rollouts.acting import Acts
from services.switcher.rollouts.acts import Act, ActKind
from services.switcher.rollouts.plan import Gate
from services.switcher.rollouts.store import Stored
from services.switcher.rollouts.verdicts import Finding, GateVerdict
from services.switcher.rows import SQL, Fence
from tests.simulation.courses import COURSES
from tests.simulation.database import simulated_database
from tests.simulation.loop import Process
from tests.simulation.pool import here
from tests.simulation.postgres import circle_from
from tests.simulation.real import Real
from tests.simulation.simulation import Plan, plan_of, run
from tests.simulation.stepwise import FROZEN_S, died_behind, halted_at, joined, steps_of
from tests.simulation.world import World
from tests.support.shared_stack import Addresses
from turnout.clock import SystemClock
from turnout.reading.routing import Committed, RoutingTable

HALTED = [
    name for name, course in COURSES.items() if not course.rollouts or name in ("roll out", "take back what harms")
]
"""The other rollouts are broken below."""
STEPS_SEED = os.environ.get("TURNOUT_TEST_STEPS_SEED", "1")
"""Decides at which steps whoever takes part is halted: any text."""
FOUND_WITHIN = 20  # seeds, or steps; each of these is found by the first few


@pytest.fixture(scope="module")
async def real(stack: Addresses) -> AsyncIterator[Real]:
    """A database to run the product's statements on."""
    async with simulated_database(stack.postgres) as dsn:
        opened = Real(dsn)
        yield opened
        opened.close()


def test_what_must_hold_holds_and_a_seed_goes_the_same_way_again(real: Real) -> None:
    first, *others, again = (run(real, plan_of(seed)) for seed in (3, 2, 5, 3))
    for outcome in (first, *others):
        assert not outcome.violations, f"python -m tests.simulation --seed {outcome.seed}"
        assert outcome.counts.get("reads"), outcome.counts
        assert outcome.trace != first.trace or outcome is first
    assert again == first


# --- nothing but the seed decides how a simulation goes -----------------------------------------------------------


@pytest.mark.parametrize(
    "ask",
    [
        lambda: SystemClock().now(),
        lambda: time.perf_counter(),
        lambda: time.clock_gettime_ns(time.CLOCK_MONOTONIC),
        lambda: random.random(),
        lambda: random.gauss(),
        lambda: random.Random(),
        lambda: random.Random(None),
        lambda: random.SystemRandom().random(),
        lambda: secrets.randbits(8),
        lambda: uuid.uuid4(),
        lambda: uuid.uuid1(),
    ],
    ids=[
        *("the date", "a clock", "a clock by its number", "chance", "another distribution", "an unseeded source"),
        *("one seeded with nothing", "the system's source", "secret bits", "a new id", "an id of the time"),
    ],
)
def test_who_asks_the_machine_for_time_or_chance_is_found(real: Real, ask: Callable[[], Any]) -> None:
    async def asks() -> None:
        with suppress(RuntimeError):  # as a loop that goes on whatever happens
            ask()

    async def scenario(world: World, plan: Plan, rng: random.Random) -> None:
        await world.loop.spawn(Process("curious"), asks())

    [violation] = run(real, Plan(seed=1), scenario).violations
    assert "another run of the seed answers in another way" in violation


def test_tasks_and_futures_are_in_sets_by_their_numbers(real: Real) -> None:
    """Else whoever ends a set of them does so by their addresses."""

    async def scenario(world: World, plan: Plan, rng: random.Random) -> None:
        tasks = [world.loop.spawn(None, asyncio.sleep(0)) for _ in range(50)]
        futures = [world.loop.create_future() for _ in range(50)]
        hashes = [hash(one) for one in (*tasks, *futures)]
        assert hashes == [*range(hashes[0], hashes[0] + 100)]
        await asyncio.gather(*tasks)

    run(real, Plan(seed=1), scenario)


def test_locks_are_given_in_the_order_in_which_they_were_waited_for(real: Real) -> None:
    """In the database two that wait for the same transaction go on at the same time."""
    order: list[int] = []

    async def scenario(world: World, plan: Plan, rng: random.Random) -> None:
        world.server.slow = 0.0

        async def takes(number: int) -> None:
            await asyncio.sleep(0.1 * number)
            pool = here(world.server)
            async with pool.acquire() as connection, connection.transaction():
                await connection.fetchval("select value from switcher.revision")  # seen before the wait, too
                await connection.execute("update switcher.revision set value = value + 1")
                order.append(number)
                await asyncio.sleep(1.5)
                waits = "select from pg_stat_activity where datname = current_database() and wait_event_type = 'Lock'"
                assert len(real.fetch(waits)) <= 1, "two would go on at once"

        await asyncio.gather(*(world.loop.spawn(Process(f"process-{number}"), takes(number)) for number in range(5)))
        assert real.fetch("select value from switcher.revision")[0]["value"] == 5

    assert not run(real, Plan(seed=1), scenario).violations
    assert order == [*range(5)]


@pytest.mark.parametrize("course", HALTED)
def test_a_change_stands_or_not_whoever_is_halted_in_it(real: Real, course: str) -> None:
    undisturbed, steps = steps_of(real, COURSES[course], seed=1)
    assert not undisturbed.violations
    rng = random.Random(f"{course} {STEPS_SEED}")
    for freeze_s in (0.0, FROZEN_S):
        at = rng.choice(steps)  # `--every-step` tries all of them
        halted = halted_at(real, COURSES[course], 1, at, freeze_s)
        assert not halted.violations, (
            f"TURNOUT_TEST_STEPS_SEED={STEPS_SEED}: {at}, {freeze_s=}: see --every-step --course {course!r}"
        )


# --- who waits for whom -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("waits", "circle"),
    [
        ({}, ()),
        ({1: [2]}, ()),
        ({1: [2], 2: [1]}, (1, 2)),
        ({1: [2, 3], 2: [4], 3: [1]}, (1, 3)),  # the first that it waits for is in no circle
        ({1: [2], 2: [3, 4], 3: [5], 4: [5, 1]}, (1, 2, 4)),
        ({1: [2], 2: [3], 3: [2]}, ()),  # found by 2 and 3 already
    ],
)
def test_a_circle_of_waits_is_found_through_whomever_it_goes(waits: dict[int, list[int]], circle: Any) -> None:
    assert circle_from(1, waits) == circle


@given(st.dictionaries(st.integers(1, 5), st.lists(st.integers(1, 5), max_size=3)))
def test_there_is_a_circle_exactly_where_one_comes_back_to_itself(waits: dict[int, list[int]]) -> None:
    reached = set(waits.get(1, ()))
    for _ in range(5):
        reached.update(other for one in list(reached) for other in waits.get(one, ()))
    circle = circle_from(1, waits)
    assert bool(circle) == (1 in reached)
    for one, other in zip(circle, (*circle[1:], 1)[: len(circle)], strict=True):
        assert other in waits[one]


@pytest.mark.parametrize("closes", [0, 1])
def test_who_waits_for_several_is_in_the_circle_of_any(real: Real, closes: int) -> None:
    """Two share a lock. Whoever wants it alone waits for both, and either may wait for that one."""
    deadlocks: list[str] = []

    async def scenario(world: World, plan: Plan, rng: random.Random) -> None:
        world.server.slow = 0.0

        async def shares(number: int) -> None:
            async with here(world.server).acquire() as connection, connection.transaction():
                await connection.execute("lock table switcher.requests in share mode")
                await asyncio.sleep(1.0)
                if number == closes:
                    await connection.execute("lock table registry.jobs in share mode")
                await asyncio.sleep(1.0)

        async def alone() -> None:
            async with here(world.server).acquire() as connection, connection.transaction():
                await connection.execute("lock table registry.jobs in exclusive mode")
                await asyncio.sleep(0.5)
                await connection.execute("lock table switcher.requests in exclusive mode")

        for number in range(2):
            world.loop.spawn(Process(f"shares-{number}"), shares(number))
        world.loop.spawn(Process("alone"), alone())
        await asyncio.sleep(1.5)
        deadlocks.extend(world.server.deadlocks)

    run(real, Plan(seed=1), scenario)
    assert deadlocks == [f"sessions of shares-{closes}, alone wait in a circle"]


# --- a simulation that cannot fail would prove nothing: each of these breaks one rule -----------------------------


def _always_ready(*_: Any, **__: Any) -> Readiness:
    return Readiness(Verdict.COMMIT)


def _unchanged(table: RoutingTable, committed: Committed) -> RoutingTable:
    return table


def _statement(name: str, replaced: str, by: str) -> Any:
    statements = SQL._statements
    assert replaced in statements[name]
    return mock.patch.dict(statements, {name: statements[name].replace(replaced, by)})


BROKEN: dict[str, Sequence[Any]] = {
    "commit without asking the fronts": (
        mock.patch("services.switcher.barrier.readiness", _always_ready),
        mock.patch("services.switcher.store.readiness", _always_ready),
    ),
    "a front that is prepared counts as serving": (
        _statement("fronts_of_proposal", "r.state in ('SERVING', 'DRAINED')", "r.state <> 'NACK'"),
    ),
    "a front keeps to the route that it has": (mock.patch.object(RoutingTable, "with_commit", _unchanged),),
}


def test_a_front_that_comes_at_the_last_moment_is_waited_for(real: Real) -> None:
    course = COURSES["cut over"]
    assert not joined(real, course, seed=1).violations
    with mock.patch("services.switcher.store.readiness", _always_ready):  # the leases are not read again
        assert any("front-late.1 is not prepared" in what for what in joined(real, course, seed=1).violations)


def _no_fence(*_: Any) -> Fence:
    async def never(_: Any) -> None:
        return

    return never


def test_an_experiment_that_never_started_goes_with_its_rollout(real: Real) -> None:
    """Though whoever took the rollout back died before it came to that."""
    assert not died_behind(real, COURSES["abort a rollout under way"], 1, ActKind.WITHDRAW).violations
    assert not real.fetch("select from switcher.experiments where state = 'STARTING'")


async def _without_looking(acts: Acts, stored: Stored, act: Act) -> Any:
    intent = Intent(CommandKind.ROLL_OUT, "", "", secrets.token_hex(8), b"")
    return await acts._changed(stored, act, intent)


def _all_the_same(**_: Any) -> Finding:
    return Finding(Gate.COMPARISON, GateVerdict.PASS, "Nothing differs.")


def test_an_act_that_an_abort_has_overtaken_changes_nothing(real: Real) -> None:
    course = COURSES["abort a rollout under way"]
    assert not steps_of(real, course, seed=1)[0].violations
    with mock.patch("services.switcher.rollouts.acting.fence", _no_fence):
        assert any("was due" in what for what in steps_of(real, course, seed=1)[0].violations)


def test_an_act_whose_committer_died_is_done_once(real: Real) -> None:
    course = COURSES["roll out"]
    assert not died_behind(real, course, 1, ActKind.RELEASE).violations
    with mock.patch.object(Acts, "_change_of_route", _without_looking):
        assert died_behind(real, course, 1, ActKind.RELEASE).violations


async def _granted(*_: Any) -> bool:
    return True


def test_two_who_drive_one_rollout_disagree_about_nothing(real: Real) -> None:
    """The lease of the loops only saves work."""
    with mock.patch.object(ExperimentStore, "lease_loop", _granted):
        for course in ("roll out and retire", "stop what a guardrail ends"):
            assert not steps_of(real, COURSES[course], seed=1)[0].violations


def test_nothing_is_promoted_whose_gate_failed(real: Real) -> None:
    course = COURSES["take back what differs"]
    assert not steps_of(real, course, seed=1)[0].violations
    with mock.patch("services.switcher.rollouts.comparing.of_comparison", _all_the_same):
        assert any("whose gate comparison fails" in what for what in steps_of(real, course, seed=1)[0].violations)


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(real: Real, rule: str) -> None:
    with ExitStack() as broken:
        for patch in BROKEN[rule]:
            broken.enter_context(patch)
        assert any(run(real, plan_of(seed)).violations for seed in range(1, 1 + FOUND_WITHIN))


def test_a_drop_that_waits_for_no_front_is_found_by_a_frozen_one(real: Real) -> None:
    with _statement("undrained_fronts", "not s.drained", "false"):
        _, steps = steps_of(real, COURSES["replace"], seed=1)
        of_fronts = [at for at in steps if at.process.startswith("front")]
        tried = (halted_at(real, COURSES["replace"], 1, at, FROZEN_S) for at in of_fronts[:FOUND_WITHIN])
        assert any("was dropped while" in what for outcome in tried for what in outcome.violations)
