"""Who works on what, and when a dead worker is started again."""

from hypothesis import given
from hypothesis import strategies as st

from services.replayer.assignment import (
    BACKOFF_MAX_S,
    DEATHS_IN_A_ROW_MAX,
    LONG_LIFE_S,
    Deaths,
    died,
    rate_shares,
    slots_wanted,
    spread,
)
from services.replayer.protocol import TopicPartition
from services.replayer.run import LogEnds
from services.replayer.states import State
from tests.unit.replayer.made import at, tp

partitions = st.sets(st.builds(TopicPartition, st.sampled_from(["a", "b"]), st.integers(0, 15)), min_size=1)


@given(partitions, st.integers(1, 8))
def test_every_partition_is_in_one_slot(tps: set[TopicPartition], slots: int) -> None:
    hands = spread(tps, slots)
    assert len(hands) == slots
    assert sorted(tp for hand in hands for tp in hand) == sorted(tps)


@given(partitions, st.integers(1, 8))
def test_equal_numbers_of_several_topics_meet(tps: set[TopicPartition], slots: int) -> None:
    slot_of = {tp: number for number, hand in enumerate(spread(tps, slots)) for tp in hand}
    for one in tps:
        for other in tps:
            assert one.partition != other.partition or slot_of[one] == slot_of[other]


@given(st.sampled_from(list(State)), st.integers(1, 8), partitions)
def test_how_many_workers(state: State, workers: int, tps: set[TopicPartition]) -> None:
    wanted = slots_wanted(state, workers, tps)
    if not state.wants_workers:
        assert wanted == 0
    elif state is State.TAILING:
        assert wanted == 1
    else:
        assert wanted == min(workers, len({one.partition for one in tps}))


def test_no_partition_no_worker() -> None:
    assert slots_wanted(State.REPLAYING, 2, ()) == 0


@given(st.integers(1, 10**6), partitions, st.integers(1, 8))
def test_shares_add_up_to_the_limit(limit: int, tps: set[TopicPartition], slots: int) -> None:
    shares = rate_shares(limit, spread(tps, slots))
    assert abs(sum(share or 0.0 for share in shares) - limit) < 1e-6 * limit


def test_no_limit_is_no_share() -> None:
    assert rate_shares(0, spread({tp(0), tp(1)}, 2)) == (None, None)


ENDS = {tp(0): LogEnds(0, 100, 0.0), tp(1): LogEnds(0, 100, 0.0)}


def _die(deaths: Deaths, *offsets: int, lived_s: float = 1.0) -> Deaths:
    positions = {tp(n): at(offset) for n, offset in enumerate(offsets)}
    return died(deaths, list(positions), positions, ENDS, lived_s=lived_s)


def test_the_first_restart_is_at_once() -> None:
    assert _die(Deaths(), 10, 20).backoff_s == 0.0


def test_two_deaths_at_one_offset_make_that_partition_suspect() -> None:
    twice = _die(_die(Deaths(), 10, 20), 10, 30)
    assert twice.record_by_record == {tp(0)}
    assert twice.in_a_row == 2
    assert twice.backoff_s > 0


def test_a_partition_at_its_end_is_no_suspect() -> None:
    assert _die(_die(Deaths(), 100, 20), 100, 30).record_by_record == frozenset()


def test_getting_on_forgives() -> None:
    deaths = _die(_die(_die(Deaths(), 10, 20), 10, 20), 11, 21)
    assert (deaths.in_a_row, deaths.record_by_record, deaths.backoff_s) == (1, frozenset(), 0.0)


def test_a_long_life_forgives() -> None:
    deaths = Deaths()
    for _ in range(DEATHS_IN_A_ROW_MAX * 2):
        deaths = _die(deaths, 100, 100, lived_s=LONG_LIFE_S)
    assert not deaths.hopeless


@given(st.integers(0, 100))
def test_dying_at_one_place_becomes_hopeless(offset: int) -> None:
    deaths = Deaths()
    for _ in range(DEATHS_IN_A_ROW_MAX):
        assert not deaths.hopeless
        deaths = _die(deaths, offset, 5)
        assert deaths.backoff_s <= BACKOFF_MAX_S
    assert deaths.hopeless


def test_a_worker_that_dies_before_it_holds_anything_becomes_hopeless() -> None:
    deaths = Deaths()
    for _ in range(DEATHS_IN_A_ROW_MAX):
        deaths = died(deaths, [], {}, {}, lived_s=0.1)
    assert deaths.hopeless
