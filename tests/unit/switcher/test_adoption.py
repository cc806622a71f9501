"""When the fronts' reports are enough."""

from datetime import UTC, datetime, timedelta

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.switcher.adoption import Front, Verdict, adopted, not_counted, readiness

READY = Front("ready", live=True, prepared=True)
SILENT = Front("silent", live=True)
REFUSING = Front("refusing", live=True, nack="no table")
CHANGED_ITS_MIND = Front("changed", live=True, prepared=True, nack="connection lost")
DEAD = Front("dead", live=False)
NOW = datetime(2026, 1, 1, tzinfo=UTC)


@pytest.mark.parametrize(
    ("fronts", "usual", "usual_overdue", "emergency", "emergency_overdue"),
    [
        ([], "COMMIT", "COMMIT", "COMMIT", "COMMIT"),
        ([DEAD], "COMMIT", "COMMIT", "COMMIT", "COMMIT"),
        ([READY], "COMMIT", "COMMIT", "COMMIT", "COMMIT"),
        ([READY, DEAD], "COMMIT", "COMMIT", "COMMIT", "COMMIT"),
        ([SILENT], "WAIT", "CANCEL", "WAIT", "CANCEL"),
        ([READY, SILENT], "WAIT", "CANCEL", "WAIT", "COMMIT"),
        ([REFUSING], "CANCEL", "CANCEL", "CANCEL", "CANCEL"),
        ([READY, REFUSING], "CANCEL", "CANCEL", "COMMIT", "COMMIT"),
        ([SILENT, REFUSING], "CANCEL", "CANCEL", "WAIT", "CANCEL"),
        ([READY, SILENT, REFUSING], "CANCEL", "CANCEL", "WAIT", "COMMIT"),
        ([CHANGED_ITS_MIND], "CANCEL", "CANCEL", "CANCEL", "CANCEL"),
    ],
)
def test_verdicts(fronts: list[Front], usual: str, usual_overdue: str, emergency: str, emergency_overdue: str) -> None:
    verdicts = [
        readiness(fronts, emergency=in_emergency, overdue=overdue).verdict.value
        for in_emergency in (False, True)
        for overdue in (False, True)
    ]
    assert verdicts == [usual, usual_overdue, emergency, emergency_overdue]


def test_the_complaint_names_each_front_that_is_not_ready() -> None:
    said = readiness([READY, SILENT, REFUSING, DEAD], emergency=True, overdue=True).complaint
    assert said == "silent: has not said that it is prepared; refusing: no table"


def test_the_complaint_after_a_refusal_names_who_refuses() -> None:
    said = readiness([READY, SILENT, REFUSING, DEAD], emergency=False, overdue=False).complaint
    assert said == "refusing: no table"


fronts = st.lists(
    st.builds(
        Front,
        st.text(max_size=3),
        live=st.booleans(),
        prepared=st.booleans(),
        nack=st.none() | st.just("no table"),
    )
)


@given(fronts, st.booleans())
def test_an_overdue_proposal_is_never_waited_for(some: list[Front], emergency: bool) -> None:
    assert readiness(some, emergency=emergency, overdue=True).verdict is not Verdict.WAIT


@given(fronts, st.booleans())
def test_without_an_emergency_every_live_front_is_ready_at_the_commit(some: list[Front], overdue: bool) -> None:
    if readiness(some, emergency=False, overdue=overdue).verdict is Verdict.COMMIT:
        assert all(front.ready for front in some if front.live)


def test_adopted_when_every_live_front_serves() -> None:
    serving = Front("serving", live=True, serving_at=NOW)
    assert adopted([serving, DEAD])
    assert not adopted([serving, READY])


def test_fronts_not_counted_are_those_that_may_still_serve() -> None:
    minute = timedelta(minutes=1)
    gone = Front("gone", live=False, silent_for=minute / 2, may_serve_for=minute)
    assert not_counted([READY, gone]) == ("gone",)
    assert not_counted([Front("long gone", live=False, silent_for=minute, may_serve_for=minute)]) == ()
    assert not_counted([Front("left", live=False, ended=True, may_serve_for=minute)]) == ()
    assert not_counted([Front("adopted", live=False, serving_at=NOW, may_serve_for=minute)]) == ()
