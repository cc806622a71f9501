"""When a batch is taken for new."""

from hypothesis import given
from hypothesis import strategies as st

from services.replayer.engine.novelty import MERGES_MAX, Novelty


def _merges_before_the_next_try(novelty: Novelty) -> int:
    merges = 0
    while not novelty.expected():
        merges += 1
    return merges


def test_a_replay_begins_with_new_keys_and_goes_on_with_them() -> None:
    novelty = Novelty()
    for _ in range(10):
        assert novelty.expected()
        novelty.confirmed()


def test_after_each_refusal_in_a_row_it_waits_twice_as_long_up_to_a_limit() -> None:
    novelty, waits = Novelty(), []
    for _ in range(9):
        assert novelty.expected()
        novelty.refuted()
        waits.append(_merges_before_the_next_try(novelty))
    assert waits == [1, 2, 4, 8, 16, 32, 64, 64, 64]


def test_new_keys_after_a_refusal_are_found_again() -> None:
    novelty = Novelty()
    for _ in range(9):
        novelty.refuted()
    assert _merges_before_the_next_try(novelty) == MERGES_MAX
    novelty.confirmed()
    assert novelty.expected()
    novelty.refuted()
    assert _merges_before_the_next_try(novelty) == 1


@given(st.lists(st.booleans(), max_size=300))
def test_it_never_gives_up(batches: list[bool]) -> None:
    """Whatever the batches are like, at most so many go by unasked."""
    novelty, unasked = Novelty(), 0
    for new in batches:
        if not novelty.expected():
            unasked += 1
            assert unasked <= MERGES_MAX
            continue
        unasked = 0
        if new:
            novelty.confirmed()
        else:
            novelty.refuted()
