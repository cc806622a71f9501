"""Whether what differs is what a contract expects: every kind of difference, expected or not, there or not."""

from __future__ import annotations

import itertools
from datetime import timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replayer.compare import ColumnTotals, Compared, Plan, Totals
from services.replayer.verdict import Evidence, Verdict, gate, judge
from turnout.contract import Contract, Expected, ExpectedColumn

PLAN = Plan(
    key={"carrier": "text"},
    columns=(Compared("flights", "bigint", "bigint"), Compared("on_time", "bigint", "bigint")),
    added=(),
    removed=(),
    relations=("a", "b"),
    projected=False,
)


def totals(on_time: int = 0, *, only_old: int = 0, only_new: int = 0, flights: int = 0, both: int = 100) -> Totals:
    return Totals(
        rows_old=both + only_old,
        rows_new=both + only_new,
        only_old=only_old,
        only_new=only_new,
        changed=max(on_time, flights),
        columns=(ColumnTotals(flights), ColumnTotals(on_time)),
    )


def expecting(expected: Expected) -> Contract:
    return Contract(columns=(ExpectedColumn("on_time", expected),))


EXPECTED = [None, Expected(), Expected(optional=True), Expected(0.2), Expected(0.2, optional=True)]


@pytest.mark.parametrize(("expected", "rows"), [*itertools.product(EXPECTED, [0, 1, 20, 21, 100])])
def test_a_column(expected: Expected | None, rows: int) -> None:
    contract = Contract() if expected is None else expecting(expected)
    found = judge(contract, PLAN, totals(rows))
    if expected is None:
        allowed = rows == 0
    else:
        allowed = (rows > 0 or expected.optional) and (expected.share_max is None or rows <= 20)
    assert found.passed is allowed
    assert found.findings
    if not allowed:
        assert all("on_time" in text for text in found.findings)


@pytest.mark.parametrize(("expected", "rows"), [*itertools.product(EXPECTED, [0, 1, 25, 26, 100])])
@pytest.mark.parametrize("side", ["only_old", "only_new"])
def test_rows_of_one_table_alone(side: str, expected: Expected | None, rows: int) -> None:
    contract = Contract(only_old=expected) if side == "only_old" else Contract(only_new=expected)
    found = judge(contract, PLAN, totals(**{side: rows}))
    if expected is None:
        allowed = rows == 0
    else:
        allowed = (rows > 0 or expected.optional) and (expected.share_max is None or rows / (100 + rows) <= 0.2)
    assert found.passed is allowed


@pytest.mark.parametrize(("differing", "passes"), [(10, True), (11, False)])
def test_the_share_of_all_rows(differing: int, passes: bool) -> None:
    contract = Contract(columns=(ExpectedColumn("on_time", Expected()),), share_max=0.1)
    found = judge(contract, PLAN, totals(differing))
    assert found.passed is passes
    assert f"{differing} of 100 rows differ" in " ".join(found.findings)


def test_everything_that_speaks_against_it_is_said() -> None:
    found = judge(expecting(Expected(0.01)), PLAN, totals(50, flights=3, only_old=1, only_new=2))
    assert found == Verdict(
        False,
        (
            "column flights differs: 3 of 100, which the contract does not expect",
            "column on_time differs: 50 of 100 (50.00%), and 1.00% are allowed",
            "the old table alone has rows: 1 of 101, which the contract does not expect",
            "the new table alone has rows: 2 of 102, which the contract does not expect",
        ),
    )


def test_equal_tables_and_an_empty_contract() -> None:
    assert judge(Contract(), PLAN, totals()) == Verdict(
        True, ("nothing differs in 100 rows, and nothing was expected to",)
    )
    assert judge(expecting(Expected()), PLAN, totals(both=0)).passed is False  # nothing there to differ


SHARES = st.none() | st.floats(0, 1)


@given(
    on_time=st.integers(0, 50),
    only_old=st.integers(0, 5),
    share=SHARES,
    whole=SHARES,
    optional=st.booleans(),
    more=st.integers(1, 10),
)
def test_an_unexpected_difference_never_helps(
    on_time: int, only_old: int, share: float | None, whole: float | None, optional: bool, more: int
) -> None:
    contract = Contract(columns=(ExpectedColumn("on_time", Expected(share, optional)),), share_max=whole)
    assert not judge(contract, PLAN, totals(on_time, only_old=only_old, flights=more)).passed
    if judge(contract, PLAN, totals(on_time, only_old=only_old)).passed:
        assert only_old == 0
        assert on_time or optional


# --- the gate -------------------------------------------------------------------------------------------------------

HOUR = timedelta(hours=1)
GOOD = Evidence(
    name="jobs/a/comparisons/0123456789ab",
    passed=True,
    aligned=True,
    exact=True,
    findings=("on_time differs: 3 of 100, as expected",),
    age=timedelta(minutes=5),
    cut="flights/0 to 77,000",
)


def test_the_gate_tells_the_comparison_its_age_and_its_cut() -> None:
    found = gate("version 2", "version 1", GOOD, HOUR)
    assert found.passed
    assert found.evidence == (
        "on_time differs: 3 of 100, as expected",
        "this is told by jobs/a/comparisons/0123456789ab, 5 min old, at flights/0 to 77,000",
    )


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"passed": None}, "not finished"),
        ({"passed": False}, "on_time differs"),
        ({"aligned": False}, "not compared at one cut"),
        ({"age": timedelta(hours=2)}, "old, and 60 min are allowed"),
    ],
)
def test_the_gate_refuses(changes: dict[str, object], says: str) -> None:
    evidence = Evidence(**{**{name: getattr(GOOD, name) for name in Evidence.__slots__}, **changes})
    found = gate("version 2", "version 1", evidence, HOUR)
    assert not found.passed
    assert says in " ".join(found.evidence)


def test_the_gate_without_a_comparison_and_without_a_baseline() -> None:
    none = gate("version 2", "version 1", None, HOUR)
    assert not none.passed
    assert "has not been compared with version 1" in none.evidence[0]
    assert gate("version 1", None, None, HOUR).passed
