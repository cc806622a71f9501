"""What the tests' client repeats, and what it does not."""

from __future__ import annotations

import pytest

from services.switcher.adoption import Front, readiness
from services.switcher.store import not_prepared
from tests.acceptance.conftest import only_late
from turnout.errors import Aborted

LATE = Front("front-a", live=True)
REFUSES = Front("front-b", live=True, nack="v2 has no table; nothing to read")


@pytest.mark.parametrize(
    ("fronts", "emergency", "late"),
    [
        ([LATE], False, True),
        ([LATE, Front("front-c", live=True)], False, True),
        ([REFUSES], False, False),
        ([LATE, REFUSES], False, False),
        ([LATE, REFUSES], True, False),
        ([REFUSES], True, False),
    ],
)
def test_a_front_that_refuses_is_not_late(fronts: list[Front], emergency: bool, late: bool) -> None:
    complaint = readiness(fronts, emergency=emergency, overdue=True).complaint
    assert only_late(not_prepared(["alpha", "beta"], complaint)) is late


def test_another_refusal_is_not_late() -> None:
    late = not_prepared(["alpha"], "front-a: has not said that it is prepared")
    assert only_late(late)
    assert not only_late(Aborted("STALE_ETAG", late.message))
