"""What a plan compares can be compared, as far as the definitions tell, or the rollout does not begin."""

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


def told(contract: Contract, active: JobDefinition = ACTIVE, candidate: JobDefinition = CANDIDATE) -> list[str]:
    plan = Plan((Step(StepKind.COMPARE, contract=encode(contract)), ALL))
    found = misfits(plan, active, candidate)
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


DAY = Column("day", ColumnType.DATE, merge=Merge.KEY)
LATE = Column("late", ColumnType.BOOL, nullable=True, merge=Merge.MAX)


def keyed(*key: Column) -> JobDefinition:
    columns = (*key, FLIGHTS, LATE)
    names = tuple(one.name for one in key)
    return JobDefinition("j", JobKind.AGGREGATE, (TopicSource("flights"),), columns, names)


@pytest.mark.parametrize("contract", [None, Contract(), expecting("flights")])
def test_rows_are_matched_by_equal_keys_of_equal_types(contract: Contract | None) -> None:
    step = Step(StepKind.COMPARE, contract=encode(contract) if contract else "")
    number = Column("carrier", ColumnType.INT64, merge=Merge.KEY)
    for other, key in ((keyed(CARRIER, DAY), "carrier string, day date"), (keyed(number), "carrier int64")):
        [found] = misfits(Plan((step, ALL)), keyed(CARRIER), other)
        assert f"the key of the active version is (carrier string), that of the candidate ({key})" in found.description
        assert "Give a contract with a projection" in found.description
    assert misfits(Plan((step, ALL)), keyed(CARRIER), keyed(Column("carrier", ColumnType.ENUM, merge=Merge.KEY))) == []


@pytest.mark.parametrize(
    ("key", "measure", "what"),
    [
        (Pair("carrier", "day"), None, "carrier of the active version is string, and day of the candidate date: rows"),
        (Pair("late", "late"), None, "late of the active version may be null, so that rows cannot be matched by it."),
        (Pair("carrier", "carrier"), Measure(Pair("carrier", "late"), How.SUM), "carrier of the active version is str"),
        (
            Pair("carrier", "carrier"),
            Measure(Pair("flights", "late"), How.MIN),
            "late of the candidate is bool, and has",
        ),
        (Pair("carrier", "carrier"), Measure(Pair("late", "late"), How.COUNT), ""),
        (Pair("carrier", "carrier"), Measure(Pair("day", "day"), How.MAX), ""),
    ],
)
def test_a_projection_brings_together_what_can_be(key: Pair, measure: Measure | None, what: str) -> None:
    projection = Projection((key,), () if measure is None else (measure,))
    found = told(Contract(projection=projection), keyed(CARRIER, DAY), keyed(CARRIER, DAY))
    assert what in found[0] if what else not found


@pytest.mark.parametrize("how", [None, How.MIN, How.COUNT, How.SUM])
def test_only_numbers_have_a_tolerance(how: How | None) -> None:
    """What is derived may be one: only the database knows."""
    mean = DerivedColumn("mean", "flights / 2")
    text = Column("carrier_name", ColumnType.STRING, merge=Merge.MAX)
    active, candidate = made(FLIGHTS, text, derived=(mean,)), made(FLIGHTS, text, derived=(mean,))
    for name, number in (("flights", True), ("mean", True), ("carrier_name", False)):
        measured = Measure(Pair(name, name), how) if how else None
        projection = Projection((Pair("carrier", "carrier"),), (measured,)) if measured else None
        if (how, name) == (How.SUM, "carrier_name"):
            continue  # it has no sum
        found = told(Contract(tolerances=(Tolerance(name, absolute=1.0),), projection=projection), active, candidate)
        assert (found == []) is (number or how is How.COUNT)
        assert not found or f"{name} is no number, and has no tolerance" in found[0]
