"""Which of several fronts is asked."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from turnout.client.places import REST_S, REST_S_MAX, Places

TARGETS = ("a:1", "b:1", "c:1")


def test_the_first_is_asked_for_everything() -> None:
    places = Places(TARGETS)
    places.answered("a:1")
    assert [places.first(now_s) for now_s in (0.0, 1.0, 2.0)] == ["a:1"] * 3


def test_a_target_that_fails_rests_and_is_asked_again() -> None:
    places = Places(TARGETS)
    places.failed("a:1", 10.0)
    assert places.first(10.0) == "b:1"
    assert places.first(10.0 + REST_S) == "a:1"


def test_it_rests_for_longer_with_every_failure_up_to_a_limit() -> None:
    places = Places(TARGETS[:2])
    now_s, rests = 0.0, []
    for _ in range(8):
        places.failed("a:1", now_s)
        rest_s = next(step / 10 for step in range(1000) if places.first(now_s + step / 10) == "a:1")
        rests.append(rest_s)
        now_s += rest_s
    assert rests == [1, 2, 4, 8, 16, REST_S_MAX, REST_S_MAX, REST_S_MAX]
    places.answered("a:1")
    places.failed("a:1", now_s)
    assert places.first(now_s + REST_S) == "a:1"


def test_many_calls_that_fail_together_are_one_failure() -> None:
    places = Places(TARGETS)
    for _ in range(100):
        places.failed("a:1", 10.0)
    assert places.first(10.0 + REST_S) == "a:1"


def test_where_all_rest_the_one_that_is_ready_first_is_asked() -> None:
    places = Places(TARGETS[:2])
    places.failed("b:1", 0.0)
    places.failed("a:1", 0.5)
    assert places.first(0.6) == "b:1"


def test_a_target_without_another_is_asked_again() -> None:
    places = Places(["a:1", "a:1"])
    assert len(places) == 1
    assert places.other("a:1", 0.0) == "a:1"


@given(st.lists(st.tuples(st.sampled_from(TARGETS), st.booleans(), st.floats(0, 5)), max_size=50))
def test_another_one_is_never_the_same(events: list[tuple[str, bool, float]]) -> None:
    places, now_s = Places(TARGETS), 0.0
    for target, fails, later_s in events:
        now_s += later_s
        places.failed(target, now_s) if fails else places.answered(target)
        first = places.first(now_s)
        assert first in TARGETS
        assert places.other(first, now_s) not in (first, None)
