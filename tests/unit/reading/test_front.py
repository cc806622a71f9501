"""A front: what it may answer by the age of its routes, and what it counts while it does."""

from datetime import UTC, datetime

import pytest

from tests.unit.reading.test_routing import commit, split, whole
from turnout.errors import NotFound, Unavailable
from turnout.reading.freshness import Limits
from turnout.reading.front import Front
from turnout.reading.routing import Cause, RoutingTable


class Clock:
    def __init__(self) -> None:
        self.s = 1000.0

    def now(self) -> datetime:
        return datetime.fromtimestamp(self.s, UTC)

    def monotonic_s(self) -> float:
        return self.s


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def front(clock: Clock) -> Front:
    made = Front("f", clock, Limits(active_s=60, experiment_s=15))
    made.table = RoutingTable().with_commit(commit(split(epoch=2)))
    made.vouched(clock.s)
    return made


def causes(front: Front) -> set[Cause]:
    with front.read("j") as resolver:
        return {resolver.of(str(n)).cause for n in range(50)}


def test_without_a_table(clock: Clock) -> None:
    front = Front("f", clock, Limits(60, 15))
    assert not front.ready
    with pytest.raises(Unavailable) as caught, front.read("j"):
        pass
    assert caught.value.reason == "ROUTES_UNKNOWN"


def test_age_decides(front: Front, clock: Clock) -> None:
    assert causes(front) == {Cause.ROUTED}
    clock.s += 15.1
    assert causes(front) == {Cause.ACTIVE}
    assert front.ready
    clock.s += 45
    assert not front.ready
    with pytest.raises(Unavailable, match="60 s ago and serves without it for at most 60 s") as caught:
        causes(front)
    assert caught.value.reason == "ROUTE_STALE"
    front.vouched(clock.s - 1)
    assert causes(front) == {Cause.ROUTED}


def test_an_older_word_of_the_switcher_makes_nothing_older(front: Front, clock: Clock) -> None:
    front.vouched(clock.s - 50)
    assert front.age_s == 0


def test_a_pinned_read_goes_on_without_the_switcher(front: Front, clock: Clock) -> None:
    clock.s += 1000
    with front.read("j", 9) as resolver:
        resolution = resolver.of(None)
        assert (resolution.version, resolution.epoch) == (9, 2)
        assert resolver.same == resolution
        assert front.in_flight.count("j", 3) == 1, "pinned reads count too: the table must not be dropped under them"


def test_a_read_is_counted_under_the_epoch_that_it_was_resolved_by(front: Front) -> None:
    with front.read("j") as resolver:
        front.table = front.table.with_commit(commit(whole(epoch=3)))
        assert {resolver.of(unit).epoch for unit in ("u", "v", None)} == {2}
        assert (front.in_flight.count("j", 2), front.in_flight.count("j", 3)) == (0, 1)
    assert front.in_flight.count("j", 3) == 0


def test_a_read_that_cannot_be_resolved_is_not_counted(front: Front) -> None:
    with pytest.raises(NotFound), front.read("unrouted"):
        pass
    assert front.in_flight.count("unrouted", 1) == 0
