"""Keys of a client in direct mode are read as a front reads them."""

from __future__ import annotations

import enum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from tests.unit.sdk.test_batches import KINDS, VALUES, table
from turnout.client.values import to_key
from turnout.direct.keys import PythonKeys
from turnout.errors import InvalidInput, TurnoutError
from turnout.kinds import Kind
from turnout.reading.values import key_of


def outcome(call: Any) -> Any:
    try:
        return call()
    except TurnoutError as error:
        return error.reason, error.message


@given(st.data(), KINDS, KINDS, st.booleans())
def test_a_key_is_read_or_refused_as_by_a_front(
    data: st.DataObject, kinds: list[Kind], asked_as: list[Kind], named: bool
) -> None:
    values = tuple(data.draw(VALUES[kind]) for kind in asked_as)
    key: Any = values
    if named:
        names = data.draw(st.permutations([f"k{number}" for number in range(len(values))]))
        key = dict(zip(names, values, strict=True))
    of = table(kinds)
    assert outcome(lambda: PythonKeys([key]).of(of)) == outcome(lambda: [key_of(of, to_key(key))])


class Colour(enum.Enum):
    RED = "red"


@pytest.mark.parametrize(
    ("key", "kind", "plain"),
    [(1, Kind.INT64, 1), (True, Kind.BOOL, True), ("a", Kind.STRING, "a"), (Colour.RED, Kind.STRING, "red")],
)
def test_the_one_value_of_a_short_key(key: Any, kind: Kind, plain: Any) -> None:
    assert PythonKeys([key]).of(table([kind])) == [(plain,)]


@pytest.mark.parametrize("key", [True, 1.0, "1", None, 2**63])
def test_a_number_is_exactly_that(key: Any) -> None:
    with pytest.raises(InvalidInput):
        PythonKeys([key]).of(table([Kind.INT64]))


def test_a_text_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="surrogate"):
        PythonKeys(["\ud800"]).of(table([Kind.STRING]))


def test_keys_are_read_again_for_a_table_with_another_key() -> None:
    keys = PythonKeys([("a",)])
    assert keys.of(table([Kind.STRING])) == [("a",)]
    with pytest.raises(InvalidInput):
        keys.of(table([Kind.INT64]))
