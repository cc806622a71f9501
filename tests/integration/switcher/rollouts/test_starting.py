"""Who may start a rollout, and what is told before it begins."""

from __future__ import annotations

import math
from typing import Any

import grpc
import pytest

from tests.integration.switcher.conftest import Switcher, refused
from tests.integration.switcher.experimenting import Experimenting
from tests.integration.switcher.registry import RegistryOnDemand
from tests.integration.switcher.replayer import ReplayerOnDemand
from tests.integration.switcher.rollouts.rolling import (
    ALL,
    JOB,
    REPLAY,
    RETIRE,
    SOME,
    Rolling,
    Step,
    soak,
    traffic,
)
from turnout.contract import Contract, Expected, ExpectedColumn
from turnout.contract_proto import to_proto
from turnout.schema import Column, ColumnType, JobDefinition, JobKind, Merge, TopicSource
from turnout.switcher.v1 import experiment_pb2, rollout_pb2


async def test_a_dry_run_tells_what_each_step_takes(rolling: Rolling) -> None:
    checked = await rolling.create(
        [REPLAY, traffic(500, seconds=60), traffic(2500, seconds=60, no_worse=True), ALL, soak(60)],
        expected_units_per_day=1000.0,
        expected_risk=0.02,
        validate_only=True,
    )
    replay, some, more, everybody, soaking = checked.previews
    assert (replay.least_time.seconds, list(replay.warnings)) == (90, ["It reads 1,000 records."])
    assert any("ends before harm would be found" in one for one in some.warnings)
    assert more.units_needed > 1000
    assert any("no-worse" in one for one in more.warnings) or more.least_time.seconds > 86_400
    assert everybody.does == "makes the candidate the active version"
    assert soaking.least_time.seconds == 60
    assert (await refused(rolling.get())).reason == "ROLLOUT_NOT_FOUND"
    assert (await rolling.route()).owner == ""


async def test_a_dry_run_foresees_columns_that_readers_would_miss(rolling: Rolling, registry: RegistryOnDemand) -> None:
    carrier = Column("carrier", ColumnType.STRING, merge=Merge.KEY)
    cancelled = Column("cancelled", ColumnType.INT64, merge=Merge.SUM)
    for version, columns in ((1, (carrier, cancelled)), (2, (carrier,))):
        registry.definitions[version] = JobDefinition(
            "carrier-punctuality", JobKind.AGGREGATE, (TopicSource("flights"),), columns, ("carrier",)
        )
    for steps in ([REPLAY, ALL], [traffic(500), ALL]):  # it is asked at the cutover, too
        checked = await rolling.create(steps, validate_only=True)
        [told] = [one for one in checked.previews[0].warnings if "schema" in one]
        assert told.startswith("The gate schema will fail, column by column: cancelled: removed (int64, not null). ")
        assert "`turnout cutover carrier-punctuality v2 --override-gates schema`" in told


async def test_a_contract_that_does_not_fit_the_tables_is_refused(rolling: Rolling, registry: RegistryOnDemand) -> None:
    columns = (Column("carrier", ColumnType.STRING, merge=Merge.KEY), Column("n", ColumnType.INT64, merge=Merge.SUM))
    for version in (1, 2):
        registry.definitions[version] = JobDefinition(
            "carrier-punctuality", JobKind.AGGREGATE, (TopicSource("flights"),), columns, ("carrier",)
        )
    contract = to_proto(Contract((ExpectedColumn("nope", Expected()),)))
    for checked in (True, False):
        steps = [REPLAY, Step(kind=Step.COMPARE, contract=contract), ALL]
        refusal = await refused(rolling.create(steps, validate_only=checked))
        assert (refusal.reason, [subject for _, subject, _ in refusal.violations]) == (
            "INVALID_PLAN",
            ["rollout.plan.steps[1]"],
        )
        assert "nope is not compared; compared are n" in refusal.message


async def test_a_dry_run_foresees_that_nobody_starts_the_run(rolling: Rolling, replayer: ReplayerOnDemand) -> None:
    replayer.without_run.add(f"{JOB}/versions/2/run")
    checked = await rolling.create([traffic(500), ALL], validate_only=True)
    assert checked.previews[0].warnings[0].startswith("v2 has no run, and the plan starts none")
    checked = await rolling.create([REPLAY, ALL], validate_only=True)
    assert not any("no run" in warning for one in checked.previews for warning in one.warnings)


async def test_without_known_units_it_says_what_is_missing(rolling: Rolling) -> None:
    checked = await rolling.create([traffic(500, seconds=60), ALL], validate_only=True)
    assert "cannot be told without knowing how many units read in a day" in checked.previews[0].warnings[-1]
    assert checked.expectation.startswith("an unknown number of units a day (`--units-per-day` says it)")


async def test_a_dry_run_says_where_it_has_seen_the_units_that_it_expects(rolling: Rolling, lab: Experimenting) -> None:
    await lab.create({1: 5000, 2: 5000})
    await lab.observe(lab.expose(f"u{n}" for n in range(40)).values())
    await lab.stop()
    checked = await rolling.create([traffic(500), ALL], validate_only=True, expected_risk=0.02)
    assert checked.expectation.startswith("an unknown number of units a day (the experiment e, where 40 came in ")
    assert checked.expectation.endswith("2 % of them erring (`--risk`)")


async def test_a_dry_run_foresees_that_a_retirement_waits(rolling: Rolling) -> None:
    checked = await rolling.create([ALL, soak(60), RETIRE], validate_only=True)
    assert any("it waits for" in warning and "`soak: 24h`" in warning for warning in checked.previews[2].warnings)


async def test_templates_are_plans(rolling: Rolling) -> None:
    checked = await rolling.create([], plan={"template": "careful"}, validate_only=True)
    assert [step.kind for step in checked.plan.steps][:3] == [Step.REPLAY, Step.COMPARE, Step.SHADOW]
    assert checked.plan.guardrails.margin == 0.1
    assert checked.plan.template == ""


async def test_what_makes_no_sense_is_refused_with_all_that_is_wrong(rolling: Rolling) -> None:
    refusal = await refused(rolling.create([traffic(500, seconds=0), RETIRE, soak(0)]))
    assert refusal.reason == "INVALID_PLAN"
    for complaint in ("it would be over at once", "must end with everybody", "Step 3, soak"):
        assert complaint in refusal.message
    fields = [subject for _, subject, _ in refusal.violations]
    assert fields == ["rollout.plan.steps[0]", "rollout.plan.steps[2]", "rollout.plan.steps"]
    assert "no template 'brave'" in (await refused(rolling.create([], plan={"template": "brave"}))).message
    assert (await refused(rolling.create([ALL], version=1))).reason == "INVALID_PLAN"
    absent = await refused(rolling.create([ALL], version=91))
    assert (absent.code, absent.reason) == (grpc.StatusCode.NOT_FOUND, "VERSION_NOT_FOUND")


@pytest.mark.parametrize(
    ("fields", "named"),
    [
        ({"guardrails": experiment_pb2.Plan(margin=9.0)}, "rollout.plan.guardrails.margin"),
        ({"guardrails": experiment_pb2.Plan(margin=math.inf)}, "rollout.plan.guardrails.margin"),
        ({"steps": [traffic(500, seconds=315_576_000_001), ALL]}, "rollout.plan.steps[0]"),
        ({"expected_risk": math.nan}, "expected_risk"),
        ({"expected_units_per_day": math.inf}, "expected_units_per_day"),
    ],
)
async def test_numbers_that_mean_nothing_are_refused(rolling: Rolling, fields: dict[str, Any], named: str) -> None:
    refusal = await refused(rolling.create(fields.pop("steps", [SOME, ALL]), **fields, validate_only=True))
    assert (refusal.code, refusal.reason) == (grpc.StatusCode.INVALID_ARGUMENT, "INVALID_PLAN")
    assert [subject for _, subject, _ in refusal.violations] == [named]


async def test_it_begins_on_a_route_of_one_version_that_nobody_owns(
    rolling: Rolling, lab: Experimenting, switcher: Switcher
) -> None:
    await switcher.set_traffic({1: 9000, 3: 1000})
    refusal = await refused(rolling.create([ALL]))
    assert (refusal.reason, "v3 has 10 % of the units" in refusal.message) == ("ROUTE_SHARED", True)
    await switcher.set_traffic({1: 10_000})
    await lab.create({1: 9000, 2: 1000})
    assert (await refused(rolling.create([ALL]))).reason == "ROUTE_OWNED"


async def test_a_repeated_request_starts_one_rollout(rolling: Rolling) -> None:
    first = await rolling.create([SOME, ALL], request_id="one")
    await rolling.until_step(1)
    assert (await rolling.create([SOME, ALL], request_id="one")).create_time == first.create_time
    assert (await refused(rolling.create([ALL], request_id="one"))).reason == "REQUEST_ID_REUSED"
    assert (await refused(rolling.create([ALL], "third"))).reason == "ROLLOUT_RUNS"
    await rolling.say("Abort")
    await rolling.until(rollout_pb2.Rollout.ABORTED)
    assert (await refused(rolling.create([ALL]))).reason == "ROLLOUT_EXISTS"
