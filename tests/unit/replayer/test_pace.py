"""The rate of a worker: never above it for long, and never stuck below it."""

from hypothesis import given
from hypothesis import strategies as st

from services.replayer.engine.pace import BURST_S, Pace

RATES = st.floats(min_value=0.1, max_value=1e6)


def test_without_a_limit_everything_is_allowed() -> None:
    pace = Pace(None, 0.0)
    assert pace.allowed(10_000, 0.0) == 10_000
    pace.spend(10_000)
    assert pace.wait_s(0.0) == 0.0


def test_zero_holds_still_until_changed() -> None:
    pace = Pace(0.0, 0.0)
    assert pace.allowed(10, 1e6) == 0
    assert pace.wait_s(1e6) == float("inf")
    pace.change(10.0, 1e6)
    assert pace.allowed(10, 1e6 + 0.15) == 1
    pace.change(None, 1e6 + 0.2)
    assert pace.allowed(10, 1e6 + 0.2) == 10


@given(rate=RATES, steps=st.lists(st.tuples(st.floats(0, 2), st.integers(1, 10_000)), min_size=1, max_size=60))
def test_never_more_than_the_rate_and_one_burst(rate: float, steps: list[tuple[float, int]]) -> None:
    pace = Pace(rate, 0.0)
    now = spent = 0.0
    for later, wanted in steps:
        now += later
        taken = pace.allowed(wanted, now)
        assert 0 <= taken <= wanted
        pace.spend(taken)
        spent += taken
        assert spent <= rate * now + max(2.0, rate * BURST_S) + 1e-6 * spent


@given(rate=RATES)
def test_after_the_wait_a_record_may_be_read(rate: float) -> None:
    pace = Pace(rate, 0.0)
    now = 0.0
    for _ in range(5):
        now += pace.wait_s(now) * (1 + 1e-9) + 1e-9
        assert pace.allowed(1, now) == 1
        pace.spend(1)


@given(rate=RATES)
def test_whoever_reads_all_the_time_gets_the_rate(rate: float) -> None:
    pace = Pace(rate, 0.0)
    tick_s = min(BURST_S, max(0.01, 1 / rate)) / 2
    ticks = 2_000
    taken = 0
    for tick in range(1, ticks + 1):
        now = tick * tick_s
        one = pace.allowed(1_000_000, now)
        pace.spend(one)
        taken += one
    assert taken >= rate * ticks * tick_s * 0.99 - 2


def test_a_lower_rate_takes_what_was_saved_up() -> None:
    pace = Pace(1_000_000.0, 0.0)
    pace.change(10.0, 100.0)
    assert pace.allowed(1_000, 100.0) <= max(2, 10 * BURST_S)


def test_time_that_goes_back_gives_nothing() -> None:
    pace = Pace(100.0, 10.0)
    pace.spend(0)
    assert pace.allowed(100, 5.0) == 0
