"""The ladder of rates: where it goes, that it comes back, and that it always says why."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replayer.ladder import (
    CLEAR,
    DOUBTS,
    PATIENCE_MAX,
    PAUSE_MAX_S,
    RUNGS,
    SEVERE,
    SHARE_RUNG,
    Copy,
    Ladder,
    Pressure,
    Reason,
    Throttle,
    bottom_of,
    budgeted,
    effective,
    most_pressing,
    step,
    throttles,
)
from turnout.names import VersionId

V2, V3 = VersionId("punctuality", 2), VersionId("punctuality", 3)
COPIES = st.lists(
    st.builds(
        Copy,
        st.sampled_from([V2, V3]),
        st.none() | st.floats(1.0, 1e7),
        st.floats(0.0, 1e6),
    ),
    min_size=1,
    max_size=2,
    unique_by=lambda copy: copy.version,
)


def reads(ratio: float) -> Pressure:
    return Pressure(Reason.READ_LATENCY, ratio, f"reads are at {ratio:.2f} of what is allowed")


PRESSURES = st.none() | st.builds(reads, st.floats(0.0, 10.0))
MILD, HURTS, HEALTHY, BETWEEN = reads(1.0), reads(SEVERE), reads(CLEAR), reads((1 + CLEAR) / 2)


def walked(ladder: Ladder, pressures: list[Pressure | None], bottom: int = RUNGS, second_s: float = 1.0) -> Ladder:
    for number, pressure in enumerate(pressures):
        ladder = step(ladder, pressure, bottom, number * second_s)
    return ladder


def test_two_down_one_up_and_nothing_in_between() -> None:
    ladder = step(Ladder(), HURTS, RUNGS, 0.0)
    assert ladder.rung == 2
    assert step(ladder, BETWEEN, RUNGS, 1.0).rung == 2
    assert step(ladder, HEALTHY, RUNGS, 1.0).rung == 1
    assert step(ladder, None, RUNGS, 1.0).rung == 1


def test_a_single_bad_tick_on_the_bottom_is_no_reason_to_pause() -> None:
    ladder = walked(Ladder(), [HURTS, HURTS], bottom=3)
    assert (ladder.rung, ladder.paused) == (3, False)
    ladder = step(ladder, HURTS, 3, 3.0)
    assert (ladder.rung, ladder.paused) == (3, False)
    assert not step(step(ladder, BETWEEN, 3, 4.0), HURTS, 3, 5.0).paused
    assert step(ladder, HURTS, 3, 4.0).paused


def test_reads_that_are_not_severely_slow_leave_copies_a_quarter_and_raise_doubts() -> None:
    ladder = walked(Ladder(), [MILD] * (SHARE_RUNG // 2 + DOUBTS - 1))
    assert (ladder.rung, ladder.paused, ladder.in_doubt) == (SHARE_RUNG, False, False)
    ladder = step(ladder, MILD, RUNGS, 99.0)
    assert (ladder.rung, ladder.in_doubt) == (SHARE_RUNG, True)
    assert not step(ladder, HEALTHY, RUNGS, 100.0).in_doubt
    assert step(ladder, HURTS, RUNGS, 100.0).rung > SHARE_RUNG
    assert (Copy(V2, 1.0, 0.0).rate(SHARE_RUNG) or 0.0) >= 0.25
    late = Pressure(Reason.SERVING_LAG, 1.0, "a version that serves is late")
    assert walked(Ladder(), [late] * 20).paused


def test_a_pause_ends_on_the_floor_and_lasts_longer_each_time() -> None:
    ladder, now_s = Ladder(), 0.0
    lasted: list[float] = []
    for _ in range(7):
        while not ladder.paused:
            now_s += 1
            ladder = step(ladder, HURTS, 3, now_s)
        began_s = now_s
        while ladder.paused:
            now_s += 1
            ladder = step(ladder, HURTS, 3, now_s)
        assert ladder.rung == 3
        lasted.append(now_s - began_s)
    assert lasted == sorted(lasted)
    assert lasted[0] < lasted[-1] == PAUSE_MAX_S


@given(threshold=st.integers(1, RUNGS))
def test_it_settles_below_the_rung_that_hurts(threshold: int) -> None:
    """Every rung faster than the threshold hurts: it stays about there and seldom tries the one above."""
    ladder, stood = Ladder(), []
    for tick in range(200):
        ladder = step(ladder, HURTS if ladder.rung < threshold else HEALTHY, RUNGS, float(tick))
        stood.append(ladder.rung)
        assert not ladder.paused
    settled = stood[40:]
    assert max(settled) <= threshold + 1
    assert sum(rung < threshold for rung in settled) <= len(settled) / 4


@given(pressures=st.lists(PRESSURES, max_size=60), bottom=st.integers(1, RUNGS))
def test_it_comes_back_to_full_speed_within_a_bounded_number_of_healthy_ticks(
    pressures: list[Pressure | None], bottom: int
) -> None:
    ladder = walked(Ladder(), pressures, bottom)
    now_s = float(len(pressures))
    if ladder.paused_until_s is not None:
        now_s = ladder.paused_until_s
    for _ in range(1 + bottom + 2 * PATIENCE_MAX):
        ladder = step(ladder, HEALTHY, bottom, now_s)
        now_s += 1
    assert (ladder.rung, ladder.paused) == (0, False)


@given(copies=COPIES, pressures=st.lists(PRESSURES, max_size=60))
def test_never_below_the_floor_unless_it_says_paused_and_never_without_a_reason(
    copies: list[Copy], pressures: list[Pressure | None]
) -> None:
    ladder, now_s = Ladder(), 0.0
    for pressure in pressures:
        now_s += 1.0
        ladder = step(ladder, pressure, bottom_of(copies), now_s)
        held = throttles(ladder, copies, now_s)
        assert set(held) == (set() if ladder.rung == 0 and not ladder.paused else {copy.version for copy in copies})
        for copy in copies:
            throttle = held.get(copy.version)
            if throttle is None:
                continue
            assert "reads are at" in throttle.message
            if throttle.reason is Reason.PAUSED_BY_GOVERNOR:
                assert throttle.records_per_s == 0
            else:
                assert throttle.records_per_s >= copy.floor_per_s
                assert throttle.records_per_s > 0


@given(copies=COPIES)
def test_rates_fall_from_rung_to_rung_and_end_at_the_floor(copies: list[Copy]) -> None:
    bottom = bottom_of(copies)
    assert 1 <= bottom <= RUNGS
    for copy in copies:
        rates = [rate for rung in range(1, RUNGS + 1) if (rate := copy.rate(rung)) is not None]
        assert rates == sorted(rates, reverse=True)
        assert copy.rate(0) is None
        assert bottom == RUNGS or copy.rate(bottom) == copy.floor_per_s


def test_the_most_pressing_limiter_is_named() -> None:
    lag = Pressure(Reason.SERVING_LAG, 3.0, "version 1 is 6 s behind")
    assert most_pressing([reads(2.0), lag]) is lag
    assert most_pressing([]) is None
    ladder = step(Ladder(), most_pressing([reads(2.0), lag]), RUNGS, 0.0)
    throttle = throttles(ladder, [Copy(V2, 1000.0, 0.0)], 0.0)[V2]
    assert throttle == Throttle(Reason.SERVING_LAG, 562.5, "version 1 is 6 s behind")


@pytest.mark.parametrize(
    ("limit", "held", "reason"),
    [
        (0, None, None),
        (100, None, Reason.RATE_LIMIT),
        (100, 200.0, Reason.RATE_LIMIT),
        (100, 50.0, Reason.READ_LATENCY),
        (100, 0.0, Reason.READ_LATENCY),
        (0, 50.0, Reason.READ_LATENCY),
    ],
)
def test_the_slowest_limit_counts(limit: int, held: float | None, reason: Reason | None) -> None:
    found = effective(limit, None if held is None else Throttle(Reason.READ_LATENCY, held, "why"))
    assert (found and found.reason) == reason
    if found is not None:
        assert found.records_per_s == min(rate for rate in (limit or 1e9, held) if rate is not None)


def test_the_budget_of_rows_counts_where_it_is_slower() -> None:
    governed = {V2: Throttle(Reason.READ_LATENCY, 50.0, "why")}
    held = budgeted(governed, {V2: 80.0, V3: 70.0})
    assert (held[V2], held[V3].reason, held[V3].records_per_s) == (governed[V2], Reason.ROWS_BUDGET, 70.0)
    assert budgeted(governed, {V2: 40.0})[V2].reason is Reason.ROWS_BUDGET
