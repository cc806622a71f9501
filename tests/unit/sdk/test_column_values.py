"""Values of one column, there and back."""

from datetime import UTC, date, datetime
from decimal import Decimal
from typing import Any
from uuid import UUID

import pytest

from turnout.column_values import column_of, rows_of, values_of
from turnout.kinds import Kind

VALUES: dict[Kind, list[Any]] = {
    Kind.INT64: [1, -(2**63), 2**63 - 1],
    Kind.DOUBLE: [0.5, float("inf"), -0.0],
    Kind.BOOL: [True, False],
    Kind.STRING: ["", "ä"],
    Kind.BYTES: [b"", b"\x00\xff"],
    Kind.DATE: [date(1, 1, 1), date(1970, 1, 2), date(9999, 12, 31)],
    Kind.TIMESTAMP: [datetime(1969, 12, 31, 23, 59, 59, 999_999, UTC), datetime(9999, 12, 31, tzinfo=UTC)],
    Kind.DECIMAL: [Decimal("1E+3"), Decimal("-0.50")],
    Kind.UUID: [UUID(int=1)],
}


@pytest.mark.parametrize(("kind", "values"), VALUES.items())
def test_there_and_back(kind: Kind, values: list[Any]) -> None:
    for sent in (values, [None, *values, None], [None]):
        column = column_of(kind, sent)
        assert rows_of(column) == len(sent)
        back = values_of(column)
        assert back == sent
        assert [type(one) for one in back] == [type(one) for one in sent]


def test_json_comes_back_as_what_it_says() -> None:
    column = column_of(Kind.JSON, ['{"a": [1]}', None])
    assert values_of(column) == [{"a": [1]}, None]


def test_what_the_contract_has_no_type_for_is_text() -> None:
    assert values_of(column_of(Kind.OTHER, ["{1,2}", None])) == ["{1,2}", None]


def test_nothing_is_nothing() -> None:
    assert rows_of(column_of(Kind.INT64, [])) == 0
    assert values_of(column_of(Kind.INT64, [])) == []
