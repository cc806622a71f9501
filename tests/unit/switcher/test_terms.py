"""Which proposal takes the place of which."""

from datetime import timedelta

import pytest

from services.switcher.store import Terms

RANKS = [(False, False), (True, False), (True, True)]  # a usual change, an emergency, a rollback


@pytest.mark.parametrize("rank", RANKS)
@pytest.mark.parametrize("of_open", RANKS)
def test_an_emergency_overtakes_what_is_none_and_a_rollback_all_but_a_rollback(
    rank: tuple[bool, bool], of_open: tuple[bool, bool]
) -> None:
    terms = Terms(timedelta(seconds=3), "", "", *rank)
    row = dict(zip(("emergency", "rolls_back"), of_open, strict=True))
    assert terms.overtakes(row) == (RANKS.index(rank) > RANKS.index(of_open))
