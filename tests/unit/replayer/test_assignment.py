"""Who works on what, and when a dead worker is started again."""

from hypothesis import given
from hypothesis import strategies as st

from services.replayer.assignment import (
    BACKOFF_MAX_S,
    DEATHS_IN_A_ROW_MAX,
    LONG_LIFE_S,
    Deaths,
    died,
    hands,
    rate_shares,
)
from services.replayer.protocol import TopicPartition
from services.replayer.run import LogEnds
from services.replayer.states import State
from tests.unit.replayer.made import at, tp
from turnout.names import VersionId

partitions = st.sets(st.builds(TopicPartition, st.sampled_from(["a", "b"]), st.integers(0, 15)), min_size=1)


replicas = st.sets(st.sampled_from([f"replica-{n}" for n in range(5)]), min_size=1).map(
    lambda found: tuple(sorted(found))
)
COPYING = (State.QUEUED, State.REPLAYING)
V2 = VersionId("punctuality", 2)


def _all_hands(
    state: State, workers: int, tps: set[TopicPartition], live: tuple[str, ...]
) -> dict[str, tuple[tuple[TopicPartition, ...], ...]]:
    return {instance: hands(V2, state, workers, tps, live, instance) for instance in live}


@given(st.sampled_from([*COPYING, State.TAILING]), st.integers(1, 8), partitions, replicas)
def test_every_partition_is_in_one_slot_of_one_replica(
    state: State, workers: int, tps: set[TopicPartition], live: tuple[str, ...]
) -> None:
    found = _all_hands(state, workers, tps, live)
    assert sorted(tp for mine in found.values() for hand in mine for tp in hand) == sorted(tps)
    assert all(hand for mine in found.values() for hand in mine)  # no worker without work


@given(st.sampled_from(COPYING), st.integers(1, 8), partitions, replicas)
def test_equal_numbers_of_several_topics_meet(
    state: State, workers: int, tps: set[TopicPartition], live: tuple[str, ...]
) -> None:
    found = _all_hands(state, workers, tps, live)
    place = {tp: (who, n) for who, mine in found.items() for n, hand in enumerate(mine) for tp in hand}
    for one in tps:
        for other in tps:
            assert one.partition != other.partition or place[one] == place[other]


@given(st.sampled_from(COPYING), st.integers(1, 8), partitions, replicas)
def test_a_copy_has_workers_at_every_replica_and_evenly_much_for_each(
    state: State, workers: int, tps: set[TopicPartition], live: tuple[str, ...]
) -> None:
    found = _all_hands(state, workers, tps, live)
    numbers = len({tp.partition for tp in tps})
    assert all(len(mine) <= workers for mine in found.values())
    assert sum(len(mine) for mine in found.values()) == min(numbers, workers * len(live))
    by_replica = [len({tp.partition for hand in mine for tp in hand}) for mine in found.values()]
    assert max(by_replica) - min(by_replica) <= 1
    for mine in found.values():
        by_slot = [len({tp.partition for tp in hand}) for hand in mine]
        assert not by_slot or max(by_slot) - min(by_slot) <= 1


@given(st.integers(1, 8), partitions, replicas)
def test_a_tail_is_one_worker(workers: int, tps: set[TopicPartition], live: tuple[str, ...]) -> None:
    assert sorted(len(mine) for mine in _all_hands(State.TAILING, workers, tps, live).values())[-2:] in ([1], [0, 1])


@given(st.sampled_from(list(State)), partitions)
def test_a_replica_that_is_not_live_has_nothing(state: State, tps: set[TopicPartition]) -> None:
    assert hands(V2, state, 2, tps, ("other",), "this") == ()
    assert hands(V2, state, 2, tps, (), "this") == ()
    assert hands(V2, state, 2, (), ("this",), "this") == ()


@given(st.integers(1, 10**6), st.integers(1, 8), partitions, replicas, st.sets(st.integers(0, 15)))
def test_shares_of_all_replicas_add_up_to_the_limit(
    limit: int, workers: int, tps: set[TopicPartition], live: tuple[str, ...], level: set[int]
) -> None:
    found = _all_hands(State.REPLAYING, workers, tps, live)
    lags = {tp: 0 if tp.partition in level else 1000 for tp in tps}
    shares = [share for mine in found.values() for share in rate_shares(limit, mine, lags)]
    assert all(shares)  # nobody is held still
    assert abs(sum(share or 0.0 for share in shares) - limit) < 1e-6 * limit


def test_no_limit_is_no_share() -> None:
    lags = {tp(0): 5, tp(1): 5}
    assert rate_shares(None, [(tp(0),), (tp(1),)], lags) == (None, None)
    assert rate_shares(0, [(tp(0),), (tp(1),)], lags) == (0, 0)


def test_the_limit_is_for_what_there_is_to_read() -> None:
    hands = [(tp(0), tp(1)), (tp(2), tp(3))]
    busy, idle = rate_shares(10_000, hands, {tp(0): 10**6, tp(1): 0, tp(2): 0, tp(3): 0})
    assert (busy or 0) > 9_700
    assert 0 < (idle or 0) < 300
    assert rate_shares(10_000, hands, {tp(n): 0 for n in range(4)}) == (5_000, 5_000)
    assert rate_shares(10_000, hands, {tp(n): n + 1 for n in range(5)}) == (4_000, 4_000)  # one is another replica's


ENDS = {tp(0): LogEnds(0, 100, 0.0), tp(1): LogEnds(0, 100, 0.0)}


def _die(deaths: Deaths, *offsets: int, lived_s: float = 1.0) -> Deaths:
    positions = {tp(n): at(offset) for n, offset in enumerate(offsets)}
    return died(deaths, list(positions), positions, ENDS, lived_s=lived_s)


def test_the_first_restart_is_at_once() -> None:
    assert _die(Deaths(), 10, 20).backoff_s == 0.0


def test_two_deaths_at_one_offset_make_that_partition_suspect() -> None:
    twice = _die(_die(Deaths(), 10, 20), 10, 30)
    assert twice.record_by_record == {tp(0): 100}  # until the log's end at that time
    assert twice.in_a_row == 2
    assert twice.backoff_s > 0


def test_what_is_appended_is_not_read_record_by_record_for_deaths_before_it() -> None:
    twice = _die(_die(Deaths(), 10, 20), 10, 30)
    positions = {tp(0): at(10), tp(1): at(40)}
    thrice = died(twice, list(positions), positions, {one: LogEnds(0, 500, 0.0) for one in positions}, lived_s=1.0)
    assert thrice.record_by_record == {tp(0): 100}
    assert _die(thrice, 11, 40).record_by_record == {tp(1): 100}, "the first has got further, the second has not"


def test_a_partition_at_its_end_is_no_suspect() -> None:
    assert _die(_die(Deaths(), 100, 20), 100, 30).record_by_record == {}


def _die_alone(deaths: Deaths, at_offset: int, *offsets: int, how: str = "died") -> Deaths:
    positions = {tp(n): at(offset) for n, offset in enumerate(offsets)}
    return died(deaths, list(positions), positions, ENDS, lived_s=1.0, alone_with=(tp(0), at_offset), how=how)


def test_two_deaths_alone_with_one_record_make_it_deadly() -> None:
    once = _die_alone(_die(_die(Deaths(), 10, 20), 10, 30), 15, 15, 40)
    assert once.record_by_record == {tp(0): 16}  # though it has got on since
    assert (once.in_a_row, once.deadly) == (3, {})
    twice = _die_alone(once, 15, 15, 50, how="it ended with status 9")
    assert twice.deadly == {(tp(0), 15): "it ended with status 9"}
    assert twice.in_a_row == 1


def test_once_the_record_is_known_no_other_partition_is_suspected() -> None:
    both = _die(_die(Deaths(), 10, 20), 10, 20)
    assert set(both.record_by_record) == {tp(0), tp(1)}
    assert _die_alone(both, 10, 10, 20).record_by_record == {tp(0): 11}


def test_deaths_of_other_causes_in_between_change_nothing() -> None:
    deaths = _die_alone(Deaths(), 15, 15, 40)
    for _ in range(3):
        deaths = _die(deaths, 15, 40)
    assert deaths.deadly == {}
    deaths = _die_alone(deaths, 15, 15, 40)
    assert set(deaths.deadly) == {(tp(0), 15)}
    assert not deaths.hopeless


def test_a_record_that_was_committed_is_not_what_the_worker_died_of() -> None:
    committed = _die_alone(Deaths(), 15, 16, 40)
    assert committed.alone_with is None
    assert _die_alone(committed, 15, 16, 40).deadly == {}


def test_a_deadly_record_is_remembered_while_others_are_found() -> None:
    deaths = Deaths()
    for offset in (15, 60):
        deaths = _die_alone(_die_alone(deaths, offset, offset, 40), offset, offset, 40)
    assert set(deaths.deadly) == {(tp(0), 15), (tp(0), 60)}


def test_nor_is_one_at_the_end_of_its_range() -> None:
    deaths = Deaths()
    for offset in (20, 30):
        positions = {tp(0): at(50, until=50), tp(1): at(offset)}
        deaths = died(deaths, list(positions), positions, ENDS, lived_s=1.0)
    assert (dict(deaths.record_by_record), deaths.in_a_row) == ({}, 1)


def test_getting_on_forgives() -> None:
    deaths = _die(_die(_die(Deaths(), 10, 20), 10, 20), 11, 21)
    assert (deaths.in_a_row, deaths.record_by_record, deaths.backoff_s) == (1, {}, 0.0)


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
