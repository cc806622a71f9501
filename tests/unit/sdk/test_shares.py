"""Shares as people write them, in files and on the command line: each text has one reading, to 0.01 %."""

from contextlib import suppress
from decimal import Decimal

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.shares import WHOLE, ShareError, Sign, basis_points


@given(st.integers(0, WHOLE), st.sampled_from(["%", " %", "  %"]), st.sampled_from(list(Sign)))
def test_what_is_written_with_its_sign_is_taken_exactly(points: int, sign: str, needed: Sign) -> None:
    assert basis_points(f"{Decimal(points) / 100}{sign}", needed) == points


@given(st.integers(0, WHOLE))
def test_a_sign_is_needed_where_a_part_of_one_could_be_meant(points: int) -> None:
    text = str(Decimal(points) / 100)
    assert basis_points(text, Sign.NOWHERE) == points
    with pytest.raises(ShareError, match="with its sign, such as 10%"):
        basis_points(text, Sign.ALWAYS)
    if 0 < points < 100:
        with pytest.raises(ShareError, match="may be meant as a part of one"):
            basis_points(text)
    else:
        assert basis_points(text) == points


@pytest.mark.parametrize(
    ("text", "told"),
    [
        ("", "'' is no share: write per cent, such as 10%."),
        ("half", "'half' is no share: write per cent, such as 10%."),
        ("1e1%", "'1e1%' is no share: write per cent, such as 10%."),
        ("-1%", "'-1%' is no share: write per cent, such as 10%."),
        ("nan", "'nan' is no share: write per cent, such as 10%."),
        ("٩%", "'٩%' is no share: write per cent, such as 10%."),
        ("100.01", "'100.01' is too much: a share is at most 100%."),
        ("9" * 5000, f"'{'9' * 5000}' is too much: a share is at most 100%."),
        (
            "99.99999999999999999999999999999999%",
            "'99.99999999999999999999999999999999%' is too fine: shares go by 0.01%.",
        ),
        ("0.99999999999999999999999999999999", "'0.99999999999999999999999999999999' is too fine: shares go by 0.01%."),
        (f"0.{'0' * 5000}1%", f"'0.{'0' * 5000}1%' is too fine: shares go by 0.01%."),
        ("0.005%", "'0.005%' is too fine: shares go by 0.01%."),
        ("0.05", "'0.05' may be meant as a part of one: write 5% or 0.05%."),
        ("0.125", "'0.125' may be meant as a part of one: write 12.5% or 0.125%."),
    ],
)
def test_what_is_no_share_is_said_with_what_to_write(text: str, told: str) -> None:
    with pytest.raises(ShareError) as caught:
        basis_points(text)
    assert str(caught.value) == told


@given(st.text("0123456789.% ", max_size=8), st.sampled_from(list(Sign)))
def test_any_text_is_a_share_or_refused(text: str, sign: Sign) -> None:
    with suppress(ShareError):
        assert 0 <= basis_points(text, sign) <= WHOLE
