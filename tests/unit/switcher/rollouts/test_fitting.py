"""A contract names columns that are compared, or the rollout does not begin."""

import pytest

from services.switcher.rollouts.fitting import misfits
from services.switcher.rollouts.plan import Plan, Step, StepKind
from tests.unit.switcher.rollouts.made import ALL
from turnout.contract import Contract, Expected, ExpectedColumn, How, Measure, Pair, Projection, Tolerance, encode
from turnout.schema import Column, ColumnType, DerivedColumn, JobDefinition, JobKind, Merge, TopicSource

CARRIER = Column("carrier", ColumnType.STRING, merge=Merge.KEY)
FLIGHTS = Column("flights", ColumnType.INT64, merge=Merge.SUM)
DELAY = Column("delay", ColumnType.INT64, merge=Merge.SUM)


def made(*columns: Column, derived: tuple[DerivedColumn, ...] = ()) -> JobDefinition:
    topics = (TopicSource("flights"),)
    return JobDefinition("j", JobKind.AGGREGATE, topics, (CARRIER, *columns), ("carrier",), derived)


ACTIVE = made(FLIGHTS, DELAY, derived=(DerivedColumn("mean", "delay / flights"),))
CANDIDATE = made(FLIGHTS, derived=(DerivedColumn("mean", "flights"),))
BY_CARRIER = Projection((Pair("carrier", "carrier"),), (Measure(Pair("delay", "flights"), How.SUM),))


def expecting(*names: str, projection: Projection | None = None) -> Contract:
    return Contract(tuple(ExpectedColumn(name, Expected()) for name in names), projection=projection)


def told(contract: Contract) -> list[str]:
    plan = Plan((Step(StepKind.COMPARE, contract=encode(contract)), ALL))
    found = misfits(plan, ACTIVE, CANDIDATE)
    assert {one.subject for one in found} <= {"rollout.plan.steps[0]"}
    return [one.description for one in found]


@pytest.mark.parametrize(
    "contract", [Contract(), expecting("flights", "mean"), expecting("flights", projection=BY_CARRIER)]
)
def test_what_is_compared_may_be_named(contract: Contract) -> None:
    assert told(contract) == []


@pytest.mark.parametrize("name", ["nope", "delay", "carrier"])
def test_what_is_not_compared_may_not(name: str) -> None:
    compared = f"{name} is not compared; compared are flights, mean."
    assert [compared in one for one in told(expecting(name))] == [True]
    assert [compared in one for one in told(Contract(tolerances=(Tolerance(name, absolute=1.0),)))] == [True]


def test_a_projection_names_columns_of_both() -> None:
    projection = Projection((Pair("carrier", "carrier"),), (Measure(Pair("nope", "delay"), How.SUM),))
    [old, new] = told(expecting("delay", projection=projection))
    assert "the active version has no column nope" in old
    assert "the candidate has no column delay" in new


def test_a_step_that_compares_under_no_contract_fits() -> None:
    assert misfits(Plan((Step(StepKind.COMPARE), ALL)), ACTIVE, CANDIDATE) == []
