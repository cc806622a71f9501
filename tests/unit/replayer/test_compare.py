"""Which columns are compared with which, and when a comparison is exact. The SQL itself is run in integration tests."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replayer.compare import ColumnTotals, Compared, Plan, Totals, exact, plan, together
from tests.unit.replayer.made import COUNT, KEY, NOW, at, definition, run, tp
from turnout.contract import Contract, Expected, ExpectedColumn, How, Measure, Pair, Projection, Tolerance
from turnout.errors import FailedPrecondition, InvalidInput
from turnout.names import VersionId
from turnout.schema import Column, ColumnType, DerivedColumn, Merge

V1, V2 = run(1), run(2)
TYPES = {"carrier": "text", "flights": "bigint", "cancelled": "bigint", "share": "double precision"}


def test_common_columns_are_compared_and_the_others_named() -> None:
    old = replace(V1, definition=definition(COUNT, derived=(DerivedColumn("share", "1.0"),)))
    new = replace(V2, definition=definition(COUNT, Column("cancelled", ColumnType.INT64, merge=Merge.SUM)))
    found = plan(old, new, TYPES, TYPES)
    assert [column.name for column in found.columns] == ["flights"]
    assert (found.added, found.removed) == (("cancelled",), ("share",))


def test_only_binary_fractions_have_a_tolerance() -> None:
    assert "1e-09" in Compared("share", "double precision", "double precision").differs
    assert "1e-09" not in Compared("flights", "bigint", "bigint").differs
    assert "::text" in Compared("flights", "bigint", "text").differs


def test_exact_means_the_same_records() -> None:
    assert exact({tp(0): at(10)}, {tp(0): at(10)})
    assert not exact({tp(0): at(10)}, {tp(0): at(11)})
    assert not exact({tp(0): at(10)}, {tp(0): at(10, start=5)})  # equal positions, other beginnings
    assert not exact({tp(0): at(10)}, {tp(0): at(10), tp(1): at(0)})
    assert not exact({}, {})


def test_what_cannot_be_compared() -> None:
    with pytest.raises(InvalidInput, match="different jobs"):
        plan(V1, replace(V2, version=VersionId("other", 2)), TYPES, TYPES)
    with pytest.raises(FailedPrecondition, match="dropped"):
        plan(replace(V1, drop_time=NOW), V2, TYPES, TYPES)
    month = Column("month", ColumnType.DATE, merge=Merge.KEY)
    keyed = definition(columns=(KEY, month, COUNT), key=("carrier", "month"))
    with pytest.raises(FailedPrecondition, match=r"\(carrier\).*\(carrier, month\).*projection"):
        plan(V1, replace(V2, definition=keyed), TYPES, TYPES)


# --- contracts ------------------------------------------------------------------------------------------------------

NAME = Column("name", ColumnType.STRING, nullable=True, merge=Merge.LAST_BY, last_by="flights")
WITH_NAME = {**TYPES, "name": "text", "month": "date", "delay": "bigint"}


def test_a_tolerance_is_added_to_that_of_binary_fractions() -> None:
    assert "greatest(0.5, 0.0 *" in Compared("flights", "bigint", "bigint", absolute=0.5).differs
    assert "greatest(0.0, 1e-09 *" in Compared("share", "double precision", "double precision").differs
    assert "greatest(0.0, 0.01 *" in Compared("share", "double precision", "real", relative=0.01).differs
    assert "::numeric" in Compared("flights", "bigint", "numeric", relative=0.01).differs


@pytest.mark.parametrize(
    ("contract", "says"),
    [
        (
            Contract(columns=(ExpectedColumn("carrier", Expected()),)),
            "carrier is not compared; compared are flights, name",
        ),
        (Contract(tolerances=(Tolerance("missing", 1.0),)), "missing is not compared"),
        (Contract(tolerances=(Tolerance("name", 1.0),)), "name is no number"),
        (Contract(projection=Projection((Pair("nothing", "nothing"),))), "v1 has no column nothing"),
        (
            Contract(projection=Projection((Pair("carrier", "flights"),))),
            "carrier is text in version 1 and flights is bigint in version 2",
        ),
        (Contract(projection=Projection((Pair("name", "name"),))), "name of version 1 may be null"),
        (
            Contract(projection=Projection((Pair("carrier", "carrier"),), (Measure(Pair("name", "name"), How.SUM),))),
            "no sum",
        ),
    ],
)
def test_a_contract_that_does_not_fit(contract: Contract, says: str) -> None:
    old, new = (replace(one, definition=definition(COUNT, NAME)) for one in (V1, V2))
    with pytest.raises(InvalidInput, match=says) as refused:
        plan(old, new, WITH_NAME, WITH_NAME, contract)
    assert refused.value.reason == "INVALID_CONTRACT"


@pytest.mark.parametrize("kind", [ColumnType.BOOL, ColumnType.BYTES, ColumnType.UUID, ColumnType.JSON])
def test_a_projection_takes_no_smallest_of_what_has_none(kind: ColumnType) -> None:
    other = Column("other", kind, nullable=True, merge=Merge.MAX)
    old, new = (replace(one, definition=definition(COUNT, other)) for one in (V1, V2))
    types = {**TYPES, "other": kind.postgres}
    projection = Projection((Pair("carrier", "carrier"),), (Measure(Pair("other", "other"), How.MIN),))
    with pytest.raises(InvalidInput, match=f"other is {kind.postgres}, and has no min"):
        plan(old, new, types, types, Contract(projection=projection))


def test_a_projection_brings_both_to_one_key() -> None:
    month = Column("month", ColumnType.DATE, merge=Merge.KEY)
    new = replace(V2, definition=definition(columns=(KEY, month, COUNT), key=("carrier", "month")))
    measures = (Measure(Pair("flights", "flights"), How.SUM), Measure(Pair("carrier", "carrier"), How.COUNT))
    contract = Contract(projection=Projection((Pair("carrier", "carrier"),), measures))
    found = plan(V1, new, WITH_NAME, WITH_NAME, contract)
    assert found.projected
    assert dict(found.key) == {"carrier": "text"}
    assert [(one.name, one.old_type, one.new_type) for one in found.columns] == [
        ("flights", "numeric", "numeric"),
        ("carrier", "bigint", "bigint"),
    ]
    assert 'group by "carrier"' in found.relations[0]


def test_a_plan_is_read_as_it_was_written() -> None:
    found = plan(V1, V2, TYPES, TYPES, Contract(tolerances=(Tolerance("flights", 1.0, 0.5),)))
    assert Plan.decode(found.encode()) == found


def test_a_range_is_between_two_keys_which_are_quoted() -> None:
    found = plan(V1, V2, TYPES, TYPES)
    assert "where (t." not in found.totals(None, None)
    text = found.totals(("O'Hare",), ("Z",))
    assert "(t.\"carrier\") > ('O''Hare'::text) and (t.\"carrier\") <= ('Z'::text)" in text
    assert "<=" not in found.last_key(("A",))


# --- totals ---------------------------------------------------------------------------------------------------------


def test_totals_of_ranges_are_added_and_the_largest_is_the_largest() -> None:
    first = Totals(10, 11, 1, 2, 3, (ColumnTotals(3, 5.0, -1.0), ColumnTotals(0)))
    second = Totals(1, 1, 0, 0, 0, (ColumnTotals(0, None, None), ColumnTotals(1)))
    both = together([first, second], 2)
    assert both == Totals(11, 12, 1, 2, 3, (ColumnTotals(3, 5.0, -1.0), ColumnTotals(1)))
    assert (both.rows, both.both, both.differing) == (13, 10, 6)
    assert together([], 1) == Totals(0, 0, 0, 0, 0, (ColumnTotals(0),))


@given(
    parts=st.lists(
        st.builds(
            Totals,
            *[st.integers(0, 1000)] * 5,
            st.tuples(
                st.builds(
                    ColumnTotals,
                    st.integers(0, 9),
                    st.none() | st.integers(0, 99).map(float),
                    st.none() | st.integers(-9, 9).map(float),
                )
            ),
        ),
        max_size=5,
    )
)
def test_it_does_not_matter_in_which_ranges_a_table_was_compared(parts: list[Totals]) -> None:
    stepwise = Totals(0, 0, 0, 0, 0, (ColumnTotals(0),))
    for part in parts:
        stepwise = together([stepwise, part], 1)
    assert stepwise == together(parts, 1)
    assert Totals.decode(stepwise.encode()) == stepwise


def test_infinities_survive_being_stored() -> None:
    found = Totals(1, 1, 0, 0, 1, (ColumnTotals(1, float("inf"), float("-inf")),))
    assert Totals.decode(found.encode()) == found
