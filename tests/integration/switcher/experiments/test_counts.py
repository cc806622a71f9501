"""What an experiment counts, on a real database: each unit and outcome once, and nothing that is not its own."""

import asyncio
import re
from datetime import timedelta
from typing import Any

import asyncpg
from google.protobuf.duration_pb2 import Duration

from services.switcher.experiments.ledger import REWARDS_MAX
from services.switcher.experiments.store import ExperimentStore
from tests.integration.switcher.conftest import Switcher, refused
from tests.integration.switcher.experimenting import AT_ONCE, Experimenting, harm, units
from tests.support.eventually import eventually
from turnout.exposure import Exposure
from turnout.switcher.v1 import experiment_pb2, outcome_pb2


async def test_a_unit_counts_once_in_the_epoch_of_its_first_exposure(lab: Experimenting, switcher: Switcher) -> None:
    await lab.create({1: 5000, 2: 5000})
    first = lab.expose(f"u{n}" for n in range(200))
    await lab.observe(first.values())
    await lab.observe(first.values())  # a flush that was repeated
    counted = units(await lab.get())
    assert sum(counted) == 200
    assert min(counted) > 60
    await switcher.set_traffic({1: 9000, 2: 1000}, override_owner=True)
    await lab.observe(lab.expose(f"u{n}" for n in range(300)).values())  # two thirds of them return
    assert sum(units(await lab.get())) == 300
    assert (await lab.get()).standing.mismatch.e_value < 20


async def test_outcomes_count_once_whatever_their_order_and_enrol_nobody(lab: Experimenting) -> None:
    await lab.create({1: 5000, 2: 5000})
    exposures = list(lab.expose(f"u{n}" for n in range(40)).values())
    own = sum(one.version == 2 for one in exposures)
    assert await lab.report(exposures) == ["STORED"] * 40  # before the front tells of them
    assert await lab.report(reversed(exposures)) == ["DUPLICATE"] * 40
    twice = [exposures[0], exposures[0]]
    assert await lab.report(twice, outcome_pb2.METRIC_CONVERSION) == ["STORED", "DUPLICATE"]
    found = await lab.get()
    assert units(found) == [0, 0]
    assert harm(found) == (40 - own, own)
    await lab.observe(exposures)
    assert sum(units(await lab.get())) == 40


async def test_before_a_window_is_over_it_says_when_the_first_is(lab: Experimenting) -> None:
    await lab.create({1: 5000, 2: 5000})
    await lab.observe(lab.expose(f"u{n}" for n in range(6)).values())
    standing = (await lab.get()).standing
    assert "no window is over yet, of 6 units" in standing.sentence
    assert re.search(r"The first is added up at [0-9: -]{19} UTC at the earliest\.$", standing.sentence)


async def test_rewards_add_up_and_repeats_are_none(lab: Experimenting, database: Any) -> None:
    await lab.create({1: 5000, 2: 5000}, experiment={"plan": AT_ONCE})
    [one] = lab.expose(["u"]).values()
    assert await lab.report([one], outcome_pb2.METRIC_REWARD, reward=2.5, outcome_id="a") == ["STORED"]
    assert await lab.report([one], outcome_pb2.METRIC_REWARD, reward=2.5, outcome_id="a") == ["DUPLICATE"]
    assert await lab.report([one], outcome_pb2.METRIC_REWARD, reward=4.0, outcome_id="b") == ["STORED"]
    assert await lab.report([one], outcome_pb2.METRIC_REWARD, reward=1.0) == ["STORED"]
    await lab.observe([one])  # only now: a window that is over takes nothing more up

    async def closed() -> bool:
        return sum(arm.windows for arm in (await lab.get()).standing.arms) == 1

    await eventually(closed)
    [arm] = [arm for arm in (await lab.get()).standing.arms if arm.windows]
    assert arm.mean_reward.value == 7.5


async def test_what_was_not_given_out_is_invalid(lab: Experimenting) -> None:
    await lab.create({1: 5000, 2: 5000})
    [one] = lab.expose(["u"]).values()
    good = lab.id_of(one)
    reports = [
        outcome_pb2.ReportedOutcome(exposure_id=good, metric=outcome_pb2.METRIC_ERROR),
        outcome_pb2.ReportedOutcome(
            exposure_id=good[:-1] + ("A" if good[-1] != "A" else "B"), metric=outcome_pb2.METRIC_ERROR
        ),
        outcome_pb2.ReportedOutcome(exposure_id=good, metric=outcome_pb2.METRIC_SLOW),  # the front's own to tell
        outcome_pb2.ReportedOutcome(exposure_id=good, metric=outcome_pb2.METRIC_REWARD, reward=float("nan")),
        # Its square is no double.
        outcome_pb2.ReportedOutcome(exposure_id=good, metric=outcome_pb2.METRIC_REWARD, reward=1e300),
    ]
    assert await lab.record(outcomes=reports) == ["STORED", *["INVALID"] * 4]
    strange = Exposure(one.experiment + 1, one.epoch, one.version, 5000, one.time_s, one.unit)
    never = Exposure(one.experiment, one.epoch + 7, one.version, 5000, one.time_s, one.unit + 1)
    assert await lab.report([strange, never]) == ["NOT_COUNTED", "NOT_COUNTED"]


async def test_a_reward_from_before_the_bound_harms_no_sum(lab: Experimenting, database: Any) -> None:
    await lab.create({1: 5000, 2: 5000}, experiment={"plan": AT_ONCE})
    [one] = lab.expose(["u"]).values()
    await lab.report([one], outcome_pb2.METRIC_REWARD, reward=1.0, outcome_id="a")
    await database.execute("update switcher.experiment_outcomes set value = 1e300")
    await lab.report([one], outcome_pb2.METRIC_REWARD, reward=2.0, outcome_id="b")
    await lab.observe([one])

    async def closed() -> bool:
        return sum(arm.windows for arm in (await lab.get()).standing.arms) == 1

    await eventually(closed)
    [arm] = [arm for arm in (await lab.get()).standing.arms if arm.windows]
    assert arm.mean_reward.value == 2.0


async def test_reports_of_many_fronts_at_once_are_counted_exactly(lab: Experimenting) -> None:
    await lab.create({1: 5000, 2: 5000})
    exposures = list(lab.expose(f"u{n}" for n in range(500)).values())

    async def front(shift: int) -> None:
        mine = exposures[shift:] + exposures[:shift]
        await lab.observe(mine)
        await lab.report(mine[:250])
        await lab.report(mine[250:])

    await asyncio.gather(*(front(shift) for shift in range(0, 500, 70)))
    found = await lab.get()
    assert sum(units(found)) == 500
    assert sum(harm(found)) == 500


async def test_rewards_of_a_unit_beyond_the_most_are_not_counted(lab: Experimenting) -> None:
    await lab.create({1: 5000, 2: 5000})
    one, other = lab.expose(["u", "w"]).values()
    await lab.observe([one, other])

    async def reported(first: int, last: int) -> list[str]:
        return await lab.record(
            outcomes=[
                outcome_pb2.ReportedOutcome(
                    exposure_id=lab.id_of(one), metric=outcome_pb2.METRIC_REWARD, reward=1.0, outcome_id=f"outcome {n}"
                )
                for n in range(first, last)
            ]
        )

    assert await reported(0, REWARDS_MAX - 10) == ["STORED"] * (REWARDS_MAX - 10)
    # Repeats are none of the ten that are left.
    told = await reported(REWARDS_MAX - 20, REWARDS_MAX + 5)
    assert told == ["DUPLICATE"] * 10 + ["STORED"] * 10 + ["NOT_COUNTED"] * 5
    assert await reported(REWARDS_MAX, REWARDS_MAX + 1) == ["NOT_COUNTED"]
    assert await lab.report([other], outcome_pb2.METRIC_REWARD, reward=1.0) == ["STORED"]
    assert await lab.report([one], outcome_pb2.METRIC_CONVERSION) == ["STORED"]


async def test_units_beyond_the_plan_are_not_counted(lab: Experimenting) -> None:
    await lab.create({1: 5000, 2: 5000}, experiment={"plan": experiment_pb2.Plan(units_max=100, units_min=10)})
    exposures = list(lab.expose(f"u{n}" for n in range(150)).values())
    await lab.observe(exposures)
    assert sum(units(await lab.get())) == 100
    assert sorted(await lab.report(exposures)) == ["NOT_COUNTED"] * 50 + ["STORED"] * 100


async def test_what_was_seen_before_the_end_is_taken_in_after_it(lab: Experimenting, database: Any) -> None:
    plan = experiment_pb2.Plan(window=Duration(seconds=3600), delay=Duration(seconds=0))
    await lab.create({1: 5000, 2: 5000}, experiment={"plan": plan})
    one, two, three = (list(lab.expose(f"{kind}{n}" for n in range(10)).values()) for kind in ("a", "b", "c"))
    over = [each._replace(time_s=each.time_s - 7200) for each in one]
    after = [each._replace(time_s=each.time_s + 3600) for each in three]
    await lab.stop()
    await database.execute("update switcher.experiments set end_time = end_time + interval '1 second'")
    await lab.observe([*over, *two, *after])
    assert await lab.report([over[0], two[0], after[0]]) == ["STORED", "STORED", "NOT_COUNTED"]
    assert sum(units(await lab.get())) == 20

    async def closed() -> bool:
        return sum(arm.windows for arm in (await lab.get()).standing.arms) == 10

    await eventually(closed)
    # Long after it nothing is taken in any more.
    await database.execute("update switcher.experiments set end_time = end_time - interval '1 hour'")
    assert await lab.report([over[1], two[1]]) == ["NOT_COUNTED", "NOT_COUNTED"]
    await lab.observe([each._replace(unit=each.unit + 1) for each in over])
    assert sum(units(await lab.get())) == 20


async def test_units_are_forgotten_a_while_after_the_end_and_sums_stay(
    lab: Experimenting, database: Any, postgres: str
) -> None:
    await lab.create({1: 5000, 2: 5000})
    exposures = list(lab.expose(f"u{n}" for n in range(20)).values())
    await lab.observe(exposures)
    await lab.report(exposures)
    await lab.stop()
    async with asyncpg.create_pool(postgres, min_size=1, max_size=1) as pool:
        store = ExperimentStore(pool)
        assert await store.forget_units(timedelta(days=1)) == 0
        assert await database.fetchval("select count(*) from switcher.experiment_units") == 20
        # Some at a time, of each.
        assert [await store.forget_units(timedelta(0), 15) for _ in range(3)] == [30, 10, 0]
    assert await database.fetchval("select count(*) from switcher.experiment_units") == 0
    assert await database.fetchval("select count(*) from switcher.experiment_outcomes") == 0
    found = await lab.get()
    assert sum(units(found)) == sum(harm(found)) == 20


async def test_reads_that_bring_no_unit_are_told_of(lab: Experimenting) -> None:
    await lab.create({1: 5000, 2: 5000})
    number = next(iter(lab.expose(["u"]).values())).experiment
    for reads in (3, 5):  # since the front started: the newer word holds
        await lab.record(complete=True, reads_left_out={number: reads, number + 1: 70})
    found = await lab.get()
    assert (found.standing.reads_left_out, units(found)) == (5, [0, 0])
    many = dict.fromkeys(range(1, 102), 1)
    assert (await refused(lab.record(complete=True, reads_left_out=many))).reason == "INVALID_OUTCOME"
