"""Some simulations from their seeds and at some steps, that the same seed goes the same way, and that a broken rule is
found."""

from __future__ import annotations

from collections.abc import AsyncIterator, Sequence
from contextlib import ExitStack
from typing import Any
from unittest import mock

import pytest

from services.switcher.adoption import Readiness, Verdict
from services.switcher.rows import SQL
from tests.conftest import Addresses
from tests.simulation.database import simulated_database
from tests.simulation.real import Real
from tests.simulation.simulation import plan_of, run
from tests.simulation.stepwise import COURSES, FROZEN_S, halted_at, steps_of
from turnout.reading.routing import Committed, RoutingTable

SEEDS = range(1, 5)
STEPS_TRIED = 4  # about; `--every-step` tries all of them
FOUND_WITHIN = 20  # seeds, or steps; each of these is found by the first few


@pytest.fixture(scope="module")
async def real(stack: Addresses) -> AsyncIterator[Real]:
    """A database to run the product's statements on."""
    async with simulated_database(stack.postgres) as dsn:
        opened = Real(dsn)
        yield opened
        opened.close()


@pytest.mark.parametrize("seed", SEEDS)
def test_what_must_hold_holds(real: Real, seed: int) -> None:
    outcome = run(real, plan_of(seed))
    assert not outcome.violations, f"python -m tests.simulation --seed {seed}"
    assert outcome.counts.get("reads"), outcome.counts


def test_a_seed_goes_the_same_way_again(real: Real) -> None:
    first, second = run(real, plan_of(9)), run(real, plan_of(9))
    assert first == second
    assert first.trace != run(real, plan_of(10)).trace


@pytest.mark.parametrize("course", COURSES)
def test_a_change_stands_or_not_whoever_is_halted_in_it(real: Real, course: str) -> None:
    undisturbed, steps = steps_of(real, COURSES[course], seed=1)
    assert not undisturbed.violations
    for number, at in enumerate(steps[:: len(steps) // STEPS_TRIED]):
        freeze_s = FROZEN_S if number % 2 else 0.0
        halted = halted_at(real, COURSES[course], 1, at, freeze_s)
        assert not halted.violations, f"{at}, {freeze_s=}: see --every-step --course {course!r}"


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


@pytest.mark.parametrize("rule", BROKEN)
def test_a_broken_rule_is_found(real: Real, rule: str) -> None:
    with ExitStack() as broken:
        for patch in BROKEN[rule]:
            broken.enter_context(patch)
        assert any(run(real, plan_of(seed)).violations for seed in range(1, 1 + FOUND_WITHIN))


def test_a_drop_that_waits_for_no_front_is_found_by_a_frozen_one(real: Real) -> None:
    with _statement("undrained_fronts", "not s.drained", "false"):
        _, steps = steps_of(real, COURSES["replace"], seed=1)
        of_fronts = [at for at in steps if at[0].startswith("front")]
        tried = (halted_at(real, COURSES["replace"], 1, at, FROZEN_S) for at in of_fronts[:FOUND_WITHIN])
        assert any("was dropped while" in what for outcome in tried for what in outcome.violations)
