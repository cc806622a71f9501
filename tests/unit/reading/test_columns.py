"""What the catalog says of a table, and keys in its order."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.errors import FailedPrecondition, InvalidInput
from turnout.kinds import Kind
from turnout.names import VersionId
from turnout.reading.columns import Table, table_of_catalog

V1 = VersionId("j", 1)


def catalog(*columns: str) -> list[dict[str, Any]]:
    """Rows of the catalog out of "name type", "name type 0" for the first column of the key, and so on."""
    rows = []
    for column in columns:
        name, kind, place = (*column.split(), None)[:3] if column.count(" ") == 1 else column.split()
        position = None if place is None else int(place)
        described = {"relation": 42, "name": name, "type": kind, "nullable": place is None, "key_position": position}
        rows.append({**described, "role": "reader", "owner": "owner"})
    return rows


def table(*columns: str) -> Table:
    return table_of_catalog(V1, "j__v1", catalog(*columns))


def test_columns_in_the_tables_order_and_key_in_the_keys() -> None:
    made = table("name text", "month date 1", "carrier text 0", "_source integer")
    assert made.column_names == ("name", "month", "carrier")
    assert [column.name for column in made.key] == ["carrier", "month"]
    assert made.relation == 42
    assert [column.nullable for column in made.columns] == [True, False, False]
    assert not made.tombstones


def test_tombstones_need_a_column_that_says_true_or_false() -> None:
    assert table("id bigint 0", "_deleted boolean").tombstones
    assert not table("id bigint 0", "_deleted bigint").tombstones
    assert not table("id bigint 0", "deleted boolean").tombstones


def test_types_without_a_value_of_the_contract_are_sent_as_text() -> None:
    made = table("id bigint 0", "a interval", "b integer[]", "c jsonb")
    assert [made.column(name).kind for name in "abc"] == [Kind.OTHER, Kind.OTHER, Kind.JSON]


@pytest.mark.parametrize("columns", [["id bigint"], ["id jsonb 0"], ["id interval 0"], ["_id bigint 0"]])
def test_a_table_that_cannot_be_asked_by_key(columns: list[str]) -> None:
    with pytest.raises(FailedPrecondition) as caught:
        table(*columns)
    assert caught.value.reason == "TABLE_UNREADABLE"


def test_an_unknown_column_lists_those_that_there_are() -> None:
    with pytest.raises(InvalidInput, match=r"j v1 has no column '_x'; its columns are id, name\."):
        table("id bigint 0", "name text", "_x bigint").column("_x")


@given(st.permutations(["a", "b", "c"]))
def test_named_keys_come_in_any_order(names: list[str]) -> None:
    made = table("c text 2", "b text 1", "a text 0")
    assert made.in_key_order(names, [name.upper() for name in names]) == ["A", "B", "C"]


@pytest.mark.parametrize(
    ("names", "values", "told"),
    [
        ([], [], r"The key of j v1 is a \(text\), b \(bigint\): it needs 2 value\(s\), and 0 came"),
        ([], [1, 2, 3], "3 came"),
        (["a"], [1], "the request names a"),
        (["a", "a"], [1, 2], "the request names a, a"),
        (["a", "x"], [1, 2], "the request names a, x"),
        (["a", "b", "a"], [1, 2, 3], "the request names a, b, a"),
        (["a", "b"], [1], r"names 2 column\(s\) but has 1 value"),
    ],
)
def test_keys_that_are_not_the_tables(names: list[str], values: list[int], told: str) -> None:
    with pytest.raises(InvalidInput, match=told) as caught:
        table("a text 0", "b bigint 1").in_key_order(names, values)
    assert caught.value.reason == "INVALID_KEY"
