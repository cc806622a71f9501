"""What the stores ask PostgreSQL for."""

from collections.abc import Coroutine
from datetime import timedelta
from typing import Any

import asyncpg

from services.switcher.experiments.store import ExperimentStore
from services.switcher.rollouts.store import RolloutStore
from tests.integration.switcher.conftest import Switcher
from turnout.errors import NotFound
from turnout.routing import Units


async def test_one_statement_opens_no_transaction(switcher: Switcher, postgres: str) -> None:
    """A process that is frozen in the middle would hold it open, and it takes two more round trips."""
    said: list[str] = []

    async def heard(connection: asyncpg.Connection) -> None:
        connection.add_query_logger(lambda record: said.append(record.query))

    async with asyncpg.create_pool(postgres, min_size=1, max_size=1, init=heard) as pool:
        await _looked_at(RolloutStore(pool), ExperimentStore(pool))
        assert any("rollout" in statement for statement in said)
        assert not [statement for statement in said if statement.startswith("BEGIN")]
        # Two are one.
        await ExperimentStore(pool).tidy()
        assert [statement for statement in said if statement.startswith("BEGIN")]


async def _looked_at(rollouts: RolloutStore, experiments: ExperimentStore) -> None:
    await rollouts.now()
    assert await rollouts.going_on() == []
    assert await rollouts.list_rollouts("-", None, 10) == []
    assert await rollouts.list_decisions("none", "r", None, 10) == []
    await rollouts.expected("none", Units.KEY)
    assert await _is_missing(rollouts.read("none", "r"))
    assert await _is_missing(rollouts.decision("none", "r", 1))
    assert await experiments.counting() == []
    assert await experiments.list_experiments("-", None, 10) == []
    assert await experiments.list_decisions("none", "e", None, 10) == []
    assert await experiments.last_of("none", "nobody") is None
    assert await experiments.change_of("none", 1) is None
    assert await _is_missing(experiments.read("none", "e"))
    assert await _is_missing(experiments.decision("none", "e", 1))
    assert await experiments.lease_loop("of nothing", "me", timedelta(seconds=1))
    await experiments.give_loop("of nothing", "me")
    assert await experiments.forget_units(timedelta(days=1)) == 0


async def _is_missing(asked: Coroutine[Any, Any, object]) -> bool:
    try:
        await asked
    except NotFound:
        return True
    return False
