"""Who is live, and how the live ones share the work."""

from __future__ import annotations

import itertools
import random

from hypothesis import given
from hypothesis import strategies as st

from services.replayer.replicas import (
    LEASE_MIN_S,
    Holder,
    ReplicaLease,
    deal,
    instance_of,
    lead,
    left_over,
    owner_name,
    sharing,
)

numbers = st.sets(st.integers(0, 40)).map(lambda found: tuple(sorted(found)))
names = st.sets(st.text(min_size=1, max_size=8), min_size=1, max_size=6).map(lambda found: tuple(sorted(found)))


@given(st.text(), numbers, names)
def test_every_number_has_one_seat_and_no_seat_two_more_than_another(
    salt: str, dealt: tuple[int, ...], seats: tuple[str, ...]
) -> None:
    hands = deal(salt, dealt, seats)
    assert sorted(hands) == sorted(seats)
    assert sorted(n for hand in hands.values() for n in hand) == list(dealt)
    assert max(map(len, hands.values())) - min(map(len, hands.values())) <= 1
    assert all(list(hand) == sorted(hand) for hand in hands.values())


@given(st.text(), numbers, names, st.randoms())
def test_the_order_in_which_replicas_are_read_does_not_matter(
    salt: str, dealt: tuple[int, ...], seats: tuple[str, ...], order: random.Random
) -> None:
    mixed = list(seats)
    order.shuffle(mixed)
    assert deal(salt, dealt, tuple(mixed)) == deal(salt, dealt, seats)
    assert lead(salt, mixed) == lead(salt, seats)


def test_nobody_there_nothing_dealt() -> None:
    assert deal("", (1, 2), ()) == {}


def test_a_replica_that_comes_moves_little_besides_what_it_gets() -> None:
    """And one that goes the same, backwards. How little depends on the names; these are 4,000 ways to name them."""
    for count, live, beside_max in ((4, 2, 0.5), (8, 2, 0.5), (8, 3, 1.5), (16, 3, 2.0), (64, 4, 5.0)):
        beside = []
        for way in range(800):
            seats = tuple(f"{way}-{n}" for n in range(live + 1))
            before, after = (_seat_of(deal("job", tuple(range(count)), some)) for some in (seats[:live], seats))
            moved = [n for n in before if before[n] != after[n]]
            beside.append(sum(after[n] != seats[live] for n in moved))
        assert sum(beside) / len(beside) < beside_max, (count, live)


def _seat_of(hands: dict[str, tuple[int, ...]]) -> dict[int, str]:
    return {n: seat for seat, hand in hands.items() for n in hand}


def test_the_one_that_leads_is_another_for_each_thing_and_stays_when_others_go() -> None:
    live = ("a", "b", "c")
    things = [f"jobs/job/versions/{n}" for n in range(600)]
    led = {what: lead(what, live) for what in things}
    counts = [list(led.values()).count(one) for one in live]
    assert min(counts) > 150
    for what, leader in led.items():
        assert all(lead(what, some) == leader for some in itertools.combinations(live, 2) if leader in some)


def test_odd_partitions_of_many_runs_fall_to_all_replicas() -> None:
    got = [seat for n in range(600) for seat, hand in deal(f"versions/{n}", (0,), ("a", "b", "c")).items() if hand]
    assert min(got.count(one) for one in "abc") > 150


@given(st.text(min_size=1), st.integers(1, 99), st.integers(0, 63), st.integers(1, 99))
def test_an_owner_names_its_replica(instance: str, number: int, slot: int, born: int) -> None:
    assert instance_of(owner_name(instance, "a-job", number, slot, born)) == instance


@given(st.floats(0.1, 600.0), st.floats(0.0, 1e6))
def test_a_lease_is_renewed_long_before_it_runs_out(length_s: float, at_s: float) -> None:
    lease = ReplicaLease(length_s)
    assert lease.due(at_s)
    assert not lease.holds(at_s)
    lease.renewed(at_s)
    assert lease.length_s == max(length_s, LEASE_MIN_S)
    assert not lease.due(at_s)
    assert lease.due(at_s + lease.length_s * 0.26)
    assert lease.holds(at_s + lease.length_s * 0.75)
    assert not lease.holds(at_s + lease.length_s * 1.01)


def test_among_whom_the_work_is_dealt() -> None:
    assert sharing("b", ["c", "b", "a"], holds=True) == ("a", "b", "c")
    assert sharing("b", ["a"], holds=True) == ("a", "b")  # renewed since the others were read
    assert sharing("b", ["a", "b"], holds=False) == ()  # the other has our share by now
    assert sharing("b", ["b"], holds=False) == ("b",)  # nobody is there who could have
    assert sharing("b", [], holds=False) == ("b",)


def test_what_nobody_looks_after() -> None:
    mine, theirs = owner_name("this", "job", 1, 0, 1), owner_name("other", "job", 1, 0, 1)
    for lasts, attended in itertools.product((False, True), repeat=2):
        assert left_over([Holder(mine, lasts, attended)], "this") == [Holder(mine, lasts, attended)]
        left = left_over([Holder(theirs, lasts, attended)], "this")
        assert bool(left) == (not lasts and not attended)
