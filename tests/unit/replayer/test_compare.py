"""Which columns are compared with which, and when a comparison is exact. The SQL itself is run in integration tests."""

from dataclasses import replace

import pytest

from core.domain.errors import FailedPrecondition, InvalidInput
from core.domain.names import VersionId
from services.replayer.compare import Compared, exact, plan
from tests.unit.replayer.made import COUNT, KEY, NOW, at, definition, run, tp
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
    assert "1e-9" in Compared("share", "double precision", "double precision").differs
    assert "1e-9" not in Compared("flights", "bigint", "bigint").differs
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
    with pytest.raises(FailedPrecondition, match=r"\(carrier\).*\(carrier, month\)"):
        plan(V1, replace(V2, definition=keyed), TYPES, TYPES)
