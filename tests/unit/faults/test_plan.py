"""The plan of the fault rounds: the same for the same seed, and with every fault in it."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from bench.faults.plan import FEED_S, ROUNDS_PER_EPISODE, Kind, first_of_episode, plan

seeds = st.integers(0, 2**32)


@given(seeds, st.integers(0, 500))
def test_a_round_follows_from_seed_and_number(seed: int, number: int) -> None:
    assert plan(seed, number) == plan(seed, number)
    assert plan(seed, first_of_episode(number)).replays
    assert plan(seed, number).episode == first_of_episode(number) // ROUNDS_PER_EPISODE


@given(seeds, st.integers(0, 500))
def test_faults_come_in_time(seed: int, number: int) -> None:
    times = [fault.at_s for fault in plan(seed, number).faults]
    assert 1 <= len(times) <= 5
    assert times == sorted(times)
    assert 0 < times[0] <= times[-1] < FEED_S


def test_two_hundred_rounds_have_every_fault() -> None:
    kinds = [fault.kind for number in range(200) for fault in plan(1, number).faults]
    assert set(kinds) == set(Kind)


@given(seeds, st.integers(0, 100))
def test_a_topic_is_widened_once_at_most_and_never_while_it_is_replayed(seed: int, episode: int) -> None:
    rounds = [plan(seed, episode * ROUNDS_PER_EPISODE + n) for n in range(ROUNDS_PER_EPISODE)]
    widened = [one for one in rounds if any(fault.kind is Kind.WIDENED for fault in one.faults)]
    assert len(widened) <= 1
    assert not any(one.replays for one in widened)
