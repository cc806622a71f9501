"""Whoever watches a rollout, or an experiment, by the command line watches on when the switcher comes back."""

from __future__ import annotations

import contextlib

from tests.integration.switcher.rollouts.rolling import ALL, traffic
from tests.integration.switcher.rollouts.test_deaths import Replica, replicas  # noqa: F401  # a fixture
from turnout.cli.commands import experiment
from turnout.cli.commands.rollout import _watched
from turnout.client import Client
from turnout.experiments import ExperimentState
from turnout.rollouts import RolloutState


async def test_a_watch_outlives_the_switcher(replicas: list[Replica]) -> None:  # noqa: F811
    [replica, _] = replicas
    await replica.rolling.create([traffic(500, seconds=24 * 3600), ALL])
    await replica.rolling.until_step(1)
    # So short a deadline that the stream gives up before the switcher is back.
    client = Client(targets={"switcher": replica.process.target}, timeout_s=1.0)
    async with client, contextlib.aclosing(_watched(client, "carrier-punctuality", "second")) as watched:
        await anext(watched)
        await replica.process.kill()
        async for seen in watched:
            if seen.rollout.waiting_for.startswith("the switcher, which does not answer"):
                break
        await replica.process.start()
        await replica.serving()
        await replica.rolling.say("Abort")
        states = [seen.rollout.state async for seen in watched]
        assert states[-1] is RolloutState.ABORTED


async def test_so_does_one_of_an_experiment(replicas: list[Replica]) -> None:  # noqa: F811
    [replica, _] = replicas
    await replica.rolling.create([traffic(500, seconds=24 * 3600), ALL])
    await replica.rolling.until_step(1)
    client = Client(targets={"switcher": replica.process.target}, timeout_s=1.0)
    async with client:
        name = (await client.get_rollout("carrier-punctuality", "second")).experiment
        async with contextlib.aclosing(experiment._watched(client, "carrier-punctuality", name)) as watched:
            await anext(watched)
            await replica.process.kill()
            async for seen in watched:
                if seen.standing is not None and seen.standing.waiting_for.startswith("the switcher, which does not"):
                    break
            await replica.process.start()
            await replica.serving()
            await replica.rolling.say("Abort")
            states = [seen.state async for seen in watched]
            assert states[-1] is ExperimentState.STOPPED
