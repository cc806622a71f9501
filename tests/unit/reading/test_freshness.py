"""How long routes may be served by without the switcher."""

import pytest

from turnout.reading.freshness import Freshness, Heartbeats, Limits

LIMITS = Limits(active_s=60, experiment_s=15)


@pytest.mark.parametrize(
    ("age_s", "expected"),
    [
        (0, Freshness.FRESH),
        (15, Freshness.FRESH),
        (15.001, Freshness.ACTIVE_ONLY),
        (60, Freshness.ACTIVE_ONLY),
        (60.001, Freshness.STALE),
    ],
)
def test_limits(age_s: float, expected: Freshness) -> None:
    assert LIMITS.judge(age_s) is expected


def test_without_a_shorter_limit_for_splits_the_longer_one_rules() -> None:
    limits = Limits(active_s=10, experiment_s=20)
    assert limits.judge(11) is Freshness.STALE
    assert limits.judge(10) is Freshness.FRESH


def test_an_acknowledgement_gives_the_time_of_the_sending() -> None:
    heartbeats = Heartbeats()
    first, second = heartbeats.send(10.0), heartbeats.send(11.0)
    assert heartbeats.acknowledged(second) == 11.0
    assert heartbeats.acknowledged(first) is None, "an older one says nothing more"
    assert heartbeats.acknowledged(second) is None, "nor does a repeat"
    assert heartbeats.acknowledged(99) is None, "nor one that was never sent"


def test_acknowledgements_in_order() -> None:
    heartbeats = Heartbeats()
    numbers = [heartbeats.send(float(at)) for at in range(5)]
    assert [heartbeats.acknowledged(number) for number in numbers] == [0.0, 1.0, 2.0, 3.0, 4.0]


def test_what_is_never_acknowledged_takes_no_room() -> None:
    heartbeats = Heartbeats()
    numbers = [heartbeats.send(float(at)) for at in range(1000)]
    assert heartbeats.acknowledged(numbers[0]) is None
    assert heartbeats.acknowledged(numbers[-1]) == 999.0
