"""Units, their hashes, and what a front accepts as a route."""

from dataclasses import replace
from datetime import UTC, date, datetime, timedelta, timezone
from decimal import Decimal
from enum import Enum
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.routing import HASHES, Arm, Interval, Route, owner, resolve, unit_hash, unit_of_key

ROUTE = Route(
    job="flights",
    epoch=2,
    active_version=1,
    arms=(Arm(1, 5000), Arm(2, 5000)),
    salt="s",
    intervals=(Interval(0, HASHES // 2, 1, 1), Interval(HASHES // 2, HASHES, 2, 2)),
)


class Colour(Enum):
    RED = "red"


def murmur3(data: bytes) -> int:
    """MurmurHash3_x86_32 with seed 0 by its published definition, as another SDK would write it."""

    def mix(block: int) -> int:
        block = block * 0xCC9E2D51 & 0xFFFFFFFF
        block = (block << 15 | block >> 17) & 0xFFFFFFFF
        return block * 0x1B873593 & 0xFFFFFFFF

    state, tail = 0, len(data) % 4
    for i in range(0, len(data) - tail, 4):
        state ^= mix(int.from_bytes(data[i : i + 4], "little"))
        state = (state << 13 | state >> 19) & 0xFFFFFFFF
        state = (state * 5 + 0xE6546B64) & 0xFFFFFFFF
    if tail:
        state ^= mix(int.from_bytes(data[-tail:], "little"))
    state ^= len(data)
    state = (state ^ state >> 16) * 0x85EBCA6B & 0xFFFFFFFF
    state = (state ^ state >> 13) * 0xC2B2AE35 & 0xFFFFFFFF
    return state ^ state >> 16


@given(st.text(), st.text())
def test_the_hash_is_what_the_definition_says(salt: str, unit: str) -> None:
    assert unit_hash(salt, unit) == murmur3(f"{salt}\0{unit}".encode())


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (None, "n0:"),
        (True, "b4:true"),
        (False, "b5:false"),
        (0, "i1:0"),
        (-42, "i3:-42"),
        (1.0, "f16:3ff0000000000000"),
        (-0.0, "f16:0000000000000000"),
        (float("nan"), "f16:7ff8000000000000"),
        ("Zürich", "s7:Zürich"),
        (Colour.RED, "s3:red"),
        (b"\x00\xff", "x4:00ff"),
        (date(1969, 12, 31), "d2:-1"),
        (date(2013, 1, 1), "d5:15706"),
        (datetime(1970, 1, 1, 0, 0, 0, 5, tzinfo=UTC), "t1:5"),
        (datetime(1970, 1, 1, 1, tzinfo=timezone(timedelta(hours=1))), "t1:0"),
        (Decimal("2.50"), "m3:2.5"),
        (Decimal("1E+2"), "m3:100"),
        (Decimal("-0.00"), "m1:0"),
        (Decimal("NaN"), "m3:NaN"),
        (Decimal("-Infinity"), "m9:-Infinity"),
        (UUID(int=1), "u36:00000000-0000-0000-0000-000000000001"),
    ],
)
def test_canonical_text_of_a_value(value: object, text: str) -> None:
    assert unit_of_key([value]) == text


def test_canonical_text_of_a_key() -> None:
    assert unit_of_key(("AA", date(2013, 1, 1))) == "s2:AAd5:15706"


keys = st.lists(st.none() | st.booleans() | st.integers() | st.text() | st.binary() | st.dates() | st.uuids())


@given(keys, keys)
def test_two_keys_never_share_a_unit(one: list[object], other: list[object]) -> None:
    typed = [[(type(value), value) for value in key] for key in (one, other)]
    assert (unit_of_key(one) == unit_of_key(other)) == (typed[0] == typed[1])


@given(st.decimals(allow_nan=False, allow_infinity=False), st.integers(0, 5))
def test_equal_numbers_are_one_unit(number: Decimal, zeros: int) -> None:
    scale = Decimal(10) ** -zeros
    written = Decimal(f"{number:f}" + ("." if "." not in f"{number:f}" else "") + "0" * zeros)
    assert scale
    assert unit_of_key([written]) == unit_of_key([number])


def test_a_time_without_zone_is_no_key() -> None:
    with pytest.raises(ValueError, match="no time zone"):
        unit_of_key([datetime(2013, 1, 1)])  # noqa: DTZ001 - the mistake under test


def test_a_document_is_no_key() -> None:
    with pytest.raises(TypeError, match="dict cannot be part of a key"):
        unit_of_key([{}])


@pytest.mark.parametrize(("hashed", "version"), [(0, 1), (HASHES // 2 - 1, 1), (HASHES // 2, 2), (HASHES - 1, 2)])
def test_the_owner_of_a_hash_is_who_holds_its_interval(hashed: int, version: int) -> None:
    assert owner(ROUTE, hashed) == version


@given(st.text())
def test_a_unit_keeps_its_version(unit: str) -> None:
    assert resolve(ROUTE, unit) == owner(ROUTE, unit_hash("s", unit))


def test_a_route_knows_its_versions_and_weights() -> None:
    assert ROUTE.versions == {1, 2}
    assert (ROUTE.weight(1), ROUTE.weight(3)) == (5000, 0)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"arms": (Arm(2, 5000), Arm(1, 5000))}, "not sorted"),
        ({"arms": (Arm(1, 5000), Arm(1, 5000))}, "name one twice"),
        ({"active_version": 3}, "no arm for its active version"),
        ({"arms": (Arm(1, 5000), Arm(2, 4000))}, "sum to 9000"),
        ({"arms": (Arm(1, 10001), Arm(2, -1))}, "weight -1"),
        ({"arms": (Arm(1, 10000), Arm(2, 0))}, "weight 0"),
        ({"intervals": (Interval(0, 5, 1, 1), Interval(6, HASHES, 2, 1))}, "gap or overlap at 5"),
        ({"intervals": (Interval(0, 5, 1, 1), Interval(5, 5, 2, 1))}, "gap or overlap at 5"),
        ({"intervals": (Interval(0, 5, 1, 1),)}, "end at 5"),
        ({"intervals": (Interval(0, HASHES, 1, 1),)}, "do not belong to its arms"),
    ],
)
def test_no_front_can_hold_a_broken_route(fields: dict[str, object], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        replace(ROUTE, **fields)  # type: ignore[arg-type]
