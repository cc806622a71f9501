"""Contracts of expected differences: as people write them, as they are stored, as they travel."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout import contract_proto
from turnout.contract import (
    Contract,
    ContractError,
    Expected,
    ExpectedColumn,
    How,
    Measure,
    Pair,
    Projection,
    Tolerance,
    decode,
    encode,
    parse,
    share,
)

WHOLE = """
share_max = "10 %"
[columns.on_time]
share_max = 0.2
[columns.on_time_share]
optional = true
[only_old]
[only_new]
share_max = "1%"
optional = true
[tolerances]
on_time_share = {absolute = 0.001, relative = "1%"}
[projection]
key = ["carrier", "month=of_month"]
sum = ["flights"]
max = ["delay=late"]
"""
READ = Contract(
    columns=(ExpectedColumn("on_time", Expected(0.2)), ExpectedColumn("on_time_share", Expected(None, True))),
    only_old=Expected(),
    only_new=Expected(0.01, True),
    share_max=0.1,
    tolerances=(Tolerance("on_time_share", 0.001, 0.01),),
    projection=Projection(
        (Pair("carrier", "carrier"), Pair("month", "of_month")),
        (Measure(Pair("flights", "flights"), How.SUM), Measure(Pair("delay", "late"), How.MAX)),
    ),
)


def test_a_file() -> None:
    assert parse(WHOLE) == READ
    assert parse("") == Contract()


@pytest.mark.parametrize(
    ("text", "says"),
    [
        ("[columns", "no TOML"),
        ("colums = 1", "there is no 'colums' in a contract .did you mean columns"),
        ("[columns.a]\nshare = 1", "no 'share' in `columns` of a contract .did you mean share_max"),
        ("share_max = 2", "a share is 2"),
        ('share_max = "many"', "'many' is no share"),
        ("[tolerances]\na = {}", "allows nothing"),
        ("[tolerances]\na = {absolute = -1}", "give a number of 0 or more"),
        ("[projection]\nsum = ['a']", "needs a key"),
        ("[projection]\nkey = ['a=']", "names no column"),
        ("[projection]\nkey = ['a', 'a']", "a is named twice"),
    ],
)
def test_a_file_that_makes_no_sense(text: str, says: str) -> None:
    with pytest.raises(ContractError, match=says):
        parse(text)


@pytest.mark.parametrize(
    "made",
    [
        lambda: Contract(columns=(ExpectedColumn("a", Expected()), ExpectedColumn("a", Expected(0.5)))),
        lambda: Contract(share_max=-0.1),
        lambda: Expected(1.5),
        lambda: Tolerance("a", float("nan")),
        lambda: Tolerance("a", float("inf")),
        lambda: Projection(()),
    ],
)
def test_what_cannot_be_made(made: Callable[[], object]) -> None:
    with pytest.raises(ContractError):
        made()


def test_shares() -> None:
    assert [share("20%"), share("0.5 %"), share("1"), share(" 0.25 ")] == [0.2, 0.005, 1.0, 0.25]


NAMES = st.text("abc_", min_size=1, max_size=3)
EXPECTED = st.builds(Expected, st.none() | st.floats(0, 1), st.booleans())
POSITIVE = st.floats(1e-9, 1e9)
CONTRACTS = st.builds(
    Contract,
    st.dictionaries(NAMES, EXPECTED).map(lambda found: tuple(ExpectedColumn(*one) for one in found.items())),
    st.none() | EXPECTED,
    st.none() | EXPECTED,
    st.none() | st.floats(0, 1),
    st.dictionaries(NAMES, st.tuples(POSITIVE, POSITIVE)).map(
        lambda found: tuple(Tolerance(name, *one) for name, one in found.items())
    ),
    st.none()
    | st.builds(
        Projection,
        st.lists(NAMES, min_size=1, unique=True).map(lambda names: tuple(Pair(name, name) for name in names)),
        st.dictionaries(NAMES, st.sampled_from(How)).map(
            lambda found: tuple(Measure(Pair("old", name), how) for name, how in found.items())
        ),
    ),
)


@given(contract=CONTRACTS)
def test_what_is_stored_and_sent_is_read_as_it_was(contract: Contract) -> None:
    assert decode(encode(contract)) == contract
    message = contract_proto.to_proto(contract)
    assert message is not None
    assert contract_proto.from_proto(message) == contract


def test_a_message_that_makes_no_sense() -> None:
    assert contract_proto.to_proto(None) is None
    message = contract_proto.to_proto(READ)
    assert message is not None
    message.projection.measures[0].ClearField("how")
    with pytest.raises(ContractError, match="does not say how flights"):
        contract_proto.from_proto(message)
