"""Types to columns, and values to what the column holds."""

import enum
from collections.abc import Sequence
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from typing import Any, Literal, Optional
from uuid import UUID

import msgspec
import pytest

from turnout import ApproximateSum, Key, Max, Record, Row, Sum
from turnout.job.columns import MAPPED_TYPES, check_of, fields_of, restore_of
from turnout.job.errors import JobDefinitionError
from turnout.schema import ColumnType, Merge


class Colour(enum.Enum):
    RED = "r"
    GREEN = "g"


class Level(enum.IntEnum):
    LOW = 1
    HIGH = 2


class Word(str):
    __slots__ = ()


class Nested(Record):
    x: int


ID = UUID("00000000-0000-0000-0000-00000000002a")
NOON = datetime(2013, 1, 1, 12, tzinfo=UTC)


def field(hint: Any) -> Any:
    row: Any = type("Made", (Row,), {"__annotations__": {"x": hint}, "__module__": __name__})
    (only,) = fields_of(row)
    return only


MAPPED = [
    (int, ColumnType.INT64),
    (float, ColumnType.FLOAT64),
    (bool, ColumnType.BOOL),
    (str, ColumnType.STRING),
    (bytes, ColumnType.BYTES),
    (date, ColumnType.DATE),
    (datetime, ColumnType.TIMESTAMP),
    (Decimal, ColumnType.DECIMAL),
    (UUID, ColumnType.UUID),
    (Colour, ColumnType.ENUM),
    (Level, ColumnType.ENUM),
    (list, ColumnType.JSON),
    (dict, ColumnType.JSON),
    (list[int], ColumnType.JSON),
    (dict[str, Any], ColumnType.JSON),
]


@pytest.mark.parametrize(("hint", "kind"), MAPPED)
def test_mapped_types(hint: Any, kind: ColumnType) -> None:
    column = field(hint).column
    assert (column.name, column.type, column.nullable, column.merge) == ("x", kind, False, Merge.NONE)
    for optional in (hint | None, Optional[hint]):  # noqa: UP045 - both are written
        assert (field(optional).column.type, field(optional).column.nullable) == (kind, True)


def test_marks() -> None:
    assert field(Key[str]).column.merge is Merge.KEY
    optional = field(Sum[int | None]).column  # type: ignore[misc]  # outside an annotation
    assert optional == msgspec.structs.replace(field(Sum[int]).column, nullable=True)
    assert field(ApproximateSum[float]).column.approximate
    assert not field(Sum[int]).column.approximate
    assert field(Colour).column.enum_values == ("r", "g")
    assert field(Level).column.enum_values == ("LOW", "HIGH")


@pytest.mark.parametrize(
    "hint",
    [complex, set[int], tuple[int, ...], int | str, Literal["a"], Nested, Any, timedelta, object, Sequence[int], None],
)
def test_types_that_map_to_no_column(hint: Any) -> None:
    with pytest.raises(JobDefinitionError) as error:
        field(hint)
    assert "field 'x' of Made has the type" in error.value.reason
    assert "maps to no column" in error.value.reason
    assert MAPPED_TYPES in error.value.remedy
    assert (error.value.subject, error.value.field) == ("Made", "x")


@pytest.mark.parametrize(
    ("hint", "reason", "remedy"),
    [
        (Sum[int] | None, "`| None` outside", "inside the brackets"),
        (Key[Sum[int]], "merges in two ways", "give it one of"),
        (list.__class_getitem__(object()), "which JSON cannot hold", "lists and dicts of plain types"),
        ("Missing", "cannot be read", "define or import each type"),
    ],
)
def test_refused_fields(hint: Any, reason: str, remedy: str) -> None:
    with pytest.raises(JobDefinitionError) as error:
        field(hint)
    assert reason in error.value.reason
    assert remedy in error.value.remedy


def test_a_field_that_is_no_column_name() -> None:
    class Made(Row):
        CamelCase: Key[str]

    with pytest.raises(JobDefinitionError, match="field 'CamelCase' of Made is no column"):
        fields_of(Made)


# --- values -----------------------------------------------------------------------------------------------------------

COERCED = [
    (int, 3, 3),
    (int, True, 1),
    (int, Level.HIGH, 2),
    (float, 1.5, 1.5),
    (float, 2, 2.0),
    (float, True, 1.0),
    (bool, False, False),
    (str, "a", "a"),
    (str, Word("a"), "a"),
    (bytes, b"a", b"a"),
    (bytes, bytearray(b"a"), b"a"),
    (date, date(2013, 1, 1), date(2013, 1, 1)),
    (datetime, NOON, NOON),
    (datetime, datetime(2013, 1, 1, 14, tzinfo=timezone(timedelta(hours=2))), NOON),
    (Decimal, Decimal("1.50"), Decimal("1.50")),
    (Decimal, 7, Decimal(7)),
    (Decimal, True, Decimal(1)),
    (UUID, ID, ID),
    (Colour, Colour.RED, "r"),
    (Level, Level.LOW, "LOW"),
    (list, [1, "a"], '[1,"a"]'),
    (dict, {"a": None}, '{"a":null}'),
    (list[date], [date(2013, 1, 1)], '["2013-01-01"]'),
    (float, float("inf"), float("inf")),
    (int, 2**63 - 1, 2**63 - 1),
    (int, -(2**63), -(2**63)),
    (list, ["\\u0000"], '["\\\\u0000"]'),
]


@pytest.mark.parametrize(("hint", "value", "stored"), COERCED)
def test_coercion(hint: Any, value: Any, stored: Any) -> None:
    result = check_of(field(hint))(value)
    assert result == stored
    assert type(result) is type(stored)
    if isinstance(stored, datetime):
        assert result.tzinfo is UTC


@pytest.mark.parametrize(
    ("hint", "value", "reason"),
    [
        (int, "1", r"column 'x': expected int, got '1' \(str\)"),
        (int, 1.0, "expected int"),
        (int, None, "None, but the field is not optional"),
        (float, "1", "expected float"),
        (float, 10**400, "expected float"),
        (bool, 1, "expected bool"),
        (str, 1, "expected str"),
        (str, b"a", "expected str"),
        (bytes, "a", "expected bytes"),
        (date, NOON, r"expected date \(use .date\(\)\)"),
        (date, "2013-01-01", "expected date"),
        (datetime, date(2013, 1, 1), "expected datetime"),
        (datetime, NOON.replace(tzinfo=None), r"2013-01-01T12:00:00 has no time zone: give it one"),
        (Decimal, 1.5, "expected Decimal"),
        (Decimal, Decimal("nan"), "not a finite number"),
        (Decimal, Decimal("inf"), "not a finite number"),
        (Decimal, Decimal("1e1001"), "at most 1000 digits"),
        (Decimal, Decimal("1e-1001"), "at most 1000 digits"),
        (UUID, str(ID), "expected UUID"),
        (Colour, "r", "expected a member of Colour"),
        (Colour, Level.LOW, "expected a member of Colour"),
        (Level, 1, "expected a member of Level"),
        (list, "[]", "expected list or dict"),
        (dict, {"a": object()}, "JSON cannot hold it"),
        (str, 10**300, "got 1000.*[.][.][.] [(]int[)]"),
        (int, 2**63, "does not fit into 64 bits"),
        (int, -(2**63) - 1, "does not fit into 64 bits"),
        (str, "a\0b", "holds NUL"),
        (dict, {"a": ["\0"]}, "holds NUL"),
        (list, ["\\\0"], "holds NUL"),
        (ApproximateSum[float], float("nan"), "nan does not merge"),
        (Max[float], float("inf"), "inf does not merge"),
    ],
)
def test_refused_values(hint: Any, value: Any, reason: str) -> None:
    with pytest.raises(ValueError, match=reason):
        check_of(field(hint))(value)


@pytest.mark.parametrize(
    ("hint", "value"),
    [(Colour, Colour.GREEN), (Level, Level.HIGH), (list[date], [date(2013, 1, 1)]), (dict[str, int], {"a": 1})],
)
def test_stored_values_come_back(hint: Any, value: Any) -> None:
    restore = restore_of(field(hint))
    assert restore is not None
    assert restore(check_of(field(hint))(value)) == value


def test_plain_values_are_stored_as_they_are() -> None:
    assert restore_of(field(int)) is None
