"""Reads within an experiment and reports of what became of them, through a real front to a real switcher."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

import pytest

from tests.integration.experiments.conftest import JOB, Lab
from tests.support.eventually import eventually
from turnout.errors import InvalidInput, TurnoutError
from turnout.experiments import Experiment, ExperimentState, Metric, Outcome, Plan
from turnout.exposure import identity
from turnout.results import Cause, Read

NAME = f"jobs/{JOB}/experiments/e"
HALVES = {1: 5000, 2: 5000}


async def units_of(lab: Lab) -> int:
    """Units counted so far."""
    standing = (await lab.client.get_experiment(JOB, "e")).standing
    return 0 if standing is None else sum(arm.units for arm in standing.arms)


async def read(lab: Lab, unit: str, key: int = 1) -> Read:
    return await lab.client.get(JOB, (key,), unit=unit)


async def test_answers_carry_exposures_by_which_outcomes_are_reported(lab: Lab) -> None:
    assert (await read(lab, "u1")).exposure_id == ""
    await lab.client.create_experiment(JOB, "e", HALVES, holdout=1000, overrides={"tester": 2})
    reads = {f"u{n}": await read(lab, f"u{n}") for n in range(40)}
    counted = {unit: one for unit, one in reads.items() if one.exposure_id}
    held = [one for one in reads.values() if not one.exposure_id]
    assert held
    assert {(one.cause, one.version) for one in held} == {(Cause.HOLDOUT, 1)}
    assert {one.version for one in counted.values()} == {1, 2}

    tester = await read(lab, "tester")
    assert (tester.version, tester.cause, tester.exposure_id) == (2, Cause.OVERRIDE, "")
    by_key = await lab.client.get(JOB, (1,))
    assert (by_key.version, by_key.cause, by_key.exposure_id) == (1, Cause.ACTIVE, "")
    pinned = await lab.client.get(JOB, (1,), unit="u1", version=2)
    assert pinned.exposure_id == ""

    # Units are known although nobody has reported anything of them.
    async def all_told() -> bool:
        return await units_of(lab) == len(counted)

    await eventually(all_told)

    # So is the read that brought none.
    async def left_out() -> bool:
        standing = (await lab.client.get_experiment(JOB, "e")).standing
        return standing is not None and standing.reads_left_out > 0

    await eventually(left_out)
    unit, one = next(iter(counted.items()))
    assert await lab.client.report_outcome(one, error=True)
    assert await lab.client.report_outcome(one, error=True)  # told twice
    assert not await lab.client.report_outcome(held[0], error=True)
    assert not await lab.client.report_outcome(pinned, conversion=True)
    assert not await lab.client.report_outcome(one, error=False)  # nothing happened
    assert await lab.stored() == {identity(NAME, unit)}
    with pytest.raises(InvalidInput):
        await lab.client.report_outcome("made up", error=True)


async def test_batches_scans_and_streams_report_as_single_reads_do(lab: Lab) -> None:
    await lab.client.create_experiment(JOB, "e", HALVES)
    batch = await lab.client.batch_get(JOB, [(1,), (2,), (99,)], unit="ada")
    ids = {one.exposure_id for one in batch.reads}
    assert len(ids) == 1
    assert ids != {""}
    [row, *_] = [one async for one in lab.client.scan(JOB, unit="bob")]
    assert row.exposure_id
    gathered = await asyncio.gather(*(read(lab, f"u{n}") for n in range(50)))
    assert len({one.exposure_id for one in gathered}) == 50

    async def batches() -> AsyncIterator[Sequence[Outcome]]:
        for start in range(0, 50, 10):
            yield [Outcome(one.exposure_id, Metric.CONVERSION) for one in gathered[start : start + 10]]

    answers = [one async for one in lab.client.stream_outcomes(batches())]
    assert [one.stored for one in answers] == [10] * 5
    again = await lab.client.report_outcomes(Outcome(one.exposure_id, Metric.CONVERSION) for one in gathered)
    assert (again.stored, again.duplicates) == (0, 50)

    # What the front saw itself: of ada a row was missing.
    async def seen() -> bool:
        query = "select count(*) from switcher.experiment_outcomes where metric = 'NOT_FOUND' and unit = $1"
        return bool(await lab.serving.connection.fetchval(query, identity(NAME, "ada")))

    await eventually(seen)


async def test_a_version_that_cannot_be_read_is_rolled_back_by_what_the_front_saw(lab: Lab) -> None:
    await lab.client.create_experiment(JOB, "e", HALVES)
    await lab.serving.drop(2, job=JOB)

    async def failing() -> bool:
        # Together, so that some of a batch fail: only their version is to blame.
        reads = (lab.client.get(JOB, (1,), unit=f"u{n}", timeout_s=0.5) for n in range(60))
        await asyncio.gather(*reads, return_exceptions=True)
        return (await lab.client.get_experiment(JOB, "e")).state is ExperimentState.ROLLED_BACK

    await eventually(failing)
    assert "FAILURE" in (await lab.client.get_experiment(JOB, "e")).end_reason
    assert (await read(lab, "u1")).version == 1


class Reporter:
    """Reads and reports as clients do, through whatever happens; knows what was acknowledged."""

    def __init__(self, lab: Lab) -> None:
        self._lab = lab
        self.bad = 0
        """The version whose answers are an error to most; of all others few are."""
        self.acknowledged: set[int] = set()

    async def run(self, name: int) -> None:
        """Read for one new unit after another, and report."""
        number = 0
        while True:
            number += 1
            unit = f"{name}-{number}"
            try:
                one = await self._lab.client.get(JOB, (1,), unit=unit, timeout_s=5)
                wrong = number % 3 > 0 if one.version == self.bad else number % 20 == 0
                if wrong and await self._lab.client.report_outcome(one, error=True, timeout_s=2):
                    self.acknowledged.add(identity(NAME, unit))
            except TurnoutError:
                continue  # not acknowledged
            await asyncio.sleep(0.005)


async def test_what_was_acknowledged_survives_kills_and_the_bad_arm_is_rolled_back(lab: Lab) -> None:
    plan = Plan(harms=(Metric.ERROR, Metric.FAILURE))
    await lab.client.create_experiment(JOB, "e", {1: 9500, 2: 500}, plan=plan)
    reporter = Reporter(lab)
    running = [asyncio.create_task(reporter.run(name)) for name in range(4)]
    try:
        for victim in ("query", "switcher", "query", "switcher"):
            before = len(reporter.acknowledged)

            async def reported(before: int = before) -> bool:
                return len(reporter.acknowledged) > before

            await eventually(reported)
            await lab.processes.kill(victim)
            await lab.processes.start(victim)
        reporter.bad = 2
        ended = await _over(lab)
    finally:
        for task in running:
            task.cancel()
        await asyncio.gather(*running, return_exceptions=True)
    assert ended.state is ExperimentState.ROLLED_BACK
    assert "v2 does harm (ERROR)" in ended.end_reason
    assert reporter.acknowledged <= await lab.stored()
    route = await lab.client.route(JOB)
    assert (route.weights, route.owner) == ({1: 10_000}, None)
    replays = [await lab.client.replay_decision(JOB, "e", one.decision) async for one in lab.client.decisions(JOB, "e")]
    assert replays
    assert all(one.equal for one in replays)


async def _over(lab: Lab) -> Experiment:
    async def ended() -> Experiment | None:
        try:
            found = await lab.client.get_experiment(JOB, "e")
        except TurnoutError:
            return None
        return found if found.state is ExperimentState.ROLLED_BACK else None

    found = await eventually(ended, deadline_s=90.0)
    assert found is not None
    return found
