"""Names of comparisons: what is refused is told in words."""

import pytest

from services.replayer.comparison_convert import parse_comparison
from turnout.errors import InvalidInput


def test_an_id_is_taken() -> None:
    assert parse_comparison("jobs/flights/comparisons/0123456789ab") == ("flights", "0123456789ab")


@pytest.mark.parametrize("one", ["abc", "", "0123456789AB", "0123456789ab/0", "0123456789abc"])
def test_what_is_no_id_is_told_what_one_is(one: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse_comparison(f"jobs/flights/comparisons/{one}")
    assert caught.value.message == (
        f"{one!r} is no id of a comparison: an id is 12 digits and letters from a to f; "
        f"`turnout comparisons flights` lists them."
    )


def test_the_job_is_looked_at_too() -> None:
    with pytest.raises(InvalidInput):
        parse_comparison("flights/comparisons/0123456789ab")
