"""What counts as evidence for slowing copies down: enough reads, of the right moment, beside a value that is known."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replayer.evidence import (
    LIVE_S,
    QUIET_OLD_S,
    READS_MIN,
    SETTLE_S,
    SLACK_S,
    WINDOW_READS_MAX,
    Quiet,
    ReadEvidence,
    Window,
    lag_pressure,
    lag_s,
    learn,
    pooled,
    sink_pressure,
    speed_per_s,
    still_since_s,
)
from services.replayer.ladder import CLEAR, Reason
from services.replayer.run import Sample
from services.replayer.states import State
from tests.unit.replayer.made import at, run, sample

RATIO_MAX = 1.3
COPY = run(state=State.REPLAYING)


def window(began_s: float, p99_s: float, reads: int = 200) -> Window:
    return Window(began_s, began_s + 1.0, reads, p99_s)


def judged(*p99s: float, quiet_s: float = 0.010) -> float | None:
    """The pressure after windows with these values, one after the other."""
    evidence = ReadEvidence(Quiet(quiet_s, 1000, 0.0))
    for number, p99_s in enumerate(p99s):
        evidence.add(window(float(number), p99_s), None)
    pressure = evidence.pressure(RATIO_MAX)
    return None if pressure is None else pressure.ratio


class TestPressure:
    def test_is_the_p99_beside_what_is_allowed_with_its_figures(self) -> None:
        evidence = ReadEvidence(Quiet(0.010, 1000, 0.0))
        evidence.add(window(0.0, 0.030), None)
        pressure = evidence.pressure(RATIO_MAX)
        assert pressure is not None
        assert pressure.reason is Reason.READ_LATENCY
        assert pressure.ratio == pytest.approx(3 / RATIO_MAX)
        assert pressure.figures == (
            "the reads' p99 at the fronts is 30.0 ms beside a quiet value of 10.0 ms, and 13.0 ms is allowed"
        )

    def test_reads_may_always_be_some_milliseconds_slower(self) -> None:
        evidence = ReadEvidence(Quiet(0.001, 1000, 0.0))
        evidence.add(window(0.0, 0.001 + SLACK_S), None)
        evidence.add(window(1.0, 0.001 + SLACK_S), None)
        pressure = evidence.pressure(RATIO_MAX)
        assert pressure is not None
        assert pressure.ratio == pytest.approx(1.0)
        assert "4.0 ms is allowed" in pressure.figures

    def test_in_doubt_the_next_quiet_window_counts_more_than_all_before(self) -> None:
        evidence = ReadEvidence(Quiet(0.010, 3000, 0.0))
        evidence.doubt()
        assert evidence.add(window(0.0, 0.040, reads=WINDOW_READS_MAX), 0.0)
        assert evidence.quiet is not None
        assert evidence.quiet.p99_s == pytest.approx(0.010 * 4**0.75, rel=0.01)

    def test_one_window_that_is_somewhat_slow_is_not_enough(self) -> None:
        one, two = judged(0.018), judged(0.018, 0.018)
        assert one is not None
        assert two is not None
        assert CLEAR < one < 1 <= two

    def test_one_window_is_enough_where_all_is_well(self) -> None:
        ratio = judged(0.010)
        assert ratio is not None
        assert ratio < CLEAR

    def test_each_window_is_judged_once(self) -> None:
        evidence = ReadEvidence(Quiet(0.010, 1000, 0.0))
        evidence.add(window(0.0, 0.030), None)
        assert not evidence.pending(1.0)
        assert evidence.pressure(RATIO_MAX) is not None
        assert evidence.pressure(RATIO_MAX) is None
        assert evidence.pending(1.0)

    def test_what_was_read_before_a_change_says_nothing_about_it(self) -> None:
        evidence = ReadEvidence(Quiet(0.010, 1000, 0.0))
        evidence.add(window(0.0, 0.100), None)
        evidence.changed(1.0)
        evidence.add(window(1.0, 0.100), None)
        assert evidence.pressure(RATIO_MAX) is None
        evidence.add(window(1.0 + SETTLE_S, 0.010), None)
        pressure = evidence.pressure(RATIO_MAX)
        assert pressure is not None
        assert pressure.healthy

    def test_few_reads_are_no_evidence(self) -> None:
        evidence = ReadEvidence(Quiet(0.010, 1000, 0.0))
        evidence.add(window(0.0, 9.0, READS_MIN - 1), None)
        assert evidence.pressure(RATIO_MAX) is None
        assert not evidence.live(1.0)

    def test_without_a_quiet_value_there_is_none(self) -> None:
        evidence = ReadEvidence()
        evidence.add(window(0.0, 9.0), None)
        assert evidence.pressure(RATIO_MAX) is None
        assert evidence.unknown(1.0)


class TestQuietValue:
    def test_is_learnt_from_windows_in_which_no_copy_moved(self) -> None:
        evidence = ReadEvidence()
        assert not evidence.add(window(0.0, 0.050), 0.5)
        assert evidence.quiet is None
        assert evidence.add(window(1.0, 0.010), 0.5)
        assert evidence.quiet == Quiet(0.010, 200, 2.0)

    def test_is_old_after_a_while_and_unknown_only_while_reads_are_live(self) -> None:
        evidence = ReadEvidence(Quiet(0.010, 1000, 0.0))
        evidence.add(window(QUIET_OLD_S, 0.010), None)
        assert evidence.unknown(QUIET_OLD_S + 1.0)
        assert not evidence.unknown(QUIET_OLD_S + 1.0 + LIVE_S + 0.1)

    @given(p99s=st.lists(st.floats(0.001, 0.1), min_size=1, max_size=50))
    def test_lies_within_what_was_seen(self, p99s: list[float]) -> None:
        quiet = None
        for number, p99_s in enumerate(p99s):
            quiet = learn(quiet, window(float(number), p99_s))
        assert quiet is not None
        assert min(p99s) * 0.999 <= quiet.p99_s <= max(p99s) * 1.001

    def test_one_hiccup_moves_it_little_and_a_lasting_change_in_the_end(self) -> None:
        quiet = Quiet(0.010, 3000, 0.0)
        once = learn(quiet, window(1.0, 0.200))
        assert once.p99_s < 0.010 * RATIO_MAX
        for number in range(60):
            quiet = learn(quiet, window(float(number), 0.200))
        assert quiet.p99_s > 0.150

    def test_counts_less_the_older_it_is(self) -> None:
        quiet = Quiet(0.010, 3000, 0.0)
        soon, late = learn(quiet, window(1.0, 0.100)), learn(quiet, window(7200.0, 0.100))
        assert soon.p99_s < 0.013
        assert late.p99_s > 0.080


def test_windows_are_pooled_by_their_reads_in_the_logarithm() -> None:
    both = pooled([Window(1.0, 2.0, 300, 0.010), Window(0.5, 1.8, 100, 0.160)])
    assert both is not None
    assert (both.began_s, both.ended_s, both.reads) == (0.5, 2.0, 400)
    assert both.p99_s == pytest.approx(0.010 * 16 ** (1 / 4))
    assert pooled([]) is None


def moving(offsets: list[int], end: int = 1000, every_s: float = 0.25) -> list[Sample]:
    return [sample([(COPY, {0: at(offset)})], {0: end}, at_s=number * every_s) for number, offset in enumerate(offsets)]


class TestSamples:
    def test_still_since_the_last_commit(self) -> None:
        assert still_since_s(moving([0, 10, 20, 20, 20]), [COPY.version]) == 0.5
        assert still_since_s(moving([0, 10, 20]), [COPY.version]) is None
        assert still_since_s([], [COPY.version]) is None

    def test_speed_begins_where_the_copy_begins_to_move(self) -> None:
        assert speed_per_s(moving([0] * 8 + [100 * n for n in range(1, 6)]), COPY.version) == pytest.approx(400)
        assert speed_per_s(moving([0, 100, 200]), COPY.version) is None
        assert speed_per_s(moving([0] * 20), COPY.version) == 0.0
        assert speed_per_s([], COPY.version) is None

    def test_speed_is_that_of_the_last_seconds(self) -> None:
        slow, fast = [10 * n for n in range(20)], [200 + 100 * n for n in range(20)]
        assert speed_per_s(moving(slow + fast, end=10_000), COPY.version) == pytest.approx(400)

    @pytest.mark.parametrize(("position", "late_s"), [(1000, 0.0), (990, 0.0), (980, 0.25), (955, 1.0), (0, 4.75)])
    def test_lag_is_the_time_since_the_log_ended_there(self, position: int, late_s: float) -> None:
        samples = [sample([(COPY, {0: at(position)})], {0: 810 + 10 * n}, at_s=n * 0.25) for n in range(20)]
        assert lag_s(samples, COPY.version) == pytest.approx(late_s)

    def test_lag_of_nothing(self) -> None:
        assert lag_s([], COPY.version) == 0.0
        assert lag_s(moving([5], end=5), COPY.version) == 0.0


def test_the_version_furthest_behind_counts() -> None:
    one, other = run(1).version, run(3).version
    pressure = lag_pressure([(one, 0.5), (other, 4.0)], 2.0)
    assert pressure is not None
    assert (pressure.reason, pressure.ratio) == (Reason.SERVING_LAG, 2.0)
    assert pressure.figures == f"{other}, which serves reads, is 4.0 s behind the log, and 2 s is allowed"
    assert lag_pressure([], 2.0) is None


def test_a_write_counts_beside_what_it_may_take() -> None:
    pressure = sink_pressure(3.0, 2.5)
    assert pressure is not None
    assert (pressure.reason, pressure.ratio) == (Reason.SINK_LATENCY, 1.2)
    assert pressure.figures == "a write to the database takes 3.0 s, and 2.5 s is allowed"
    assert sink_pressure(None, 2.5) is None


def test_a_quiet_value_in_the_future_is_not_older_than_nothing() -> None:
    assert math.isfinite(learn(Quiet(0.010, 100, 50.0), window(0.0, 0.020)).p99_s)
