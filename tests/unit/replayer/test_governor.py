"""The governor in a simulated world: reads that become slower the faster a copy goes, told once a second."""

from __future__ import annotations

import random
from collections.abc import Callable

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from services.replayer.evidence import Quiet, Window
from services.replayer.governor import PROBE_AGAIN_S, WRITE_S, Decision, Governor, Seen
from services.replayer.history import History
from services.replayer.ladder import Reason
from services.replayer.states import State
from tests.unit.replayer.made import at, run, sample

FULL = 100_000.0
QUIET_S = 0.010
RATIO_MAX = 1.3
SAMPLE_S = 0.25
COPY, TAIL = run(2, State.REPLAYING), run(1, State.TAILING)

Slowdown = Callable[[float], float]
"""How many times its quiet value the reads' p99 is, by the copy's share of full speed."""


class World:
    """Time passes in samples of a quarter second. `slowdown` may be changed on the way, and so may all else."""

    def __init__(self, slowdown: Slowdown, *, quiet: Quiet | None = None, seed: int = 1, noise: float = 0.05) -> None:
        self.slowdown = slowdown
        self.governor = Governor(2.5, quiet=quiet)
        self.noise = noise
        self.reads_per_s = 300
        self.copying = True
        self.ingest_per_s = 0.0
        self.tail_late_s = 0.0
        self.write_s: float | None = None
        self.row_limits: dict[object, float] = {}
        self.now_s = 0.0
        self.rates: list[float] = []
        self.decisions: list[Decision] = []
        self._random = random.Random(seed)
        self._history = History()
        self._offset = self._end = 0.0
        self._latencies: list[float] = []
        self._window: Window | None = None

    @property
    def rate(self) -> float:
        throttle = self.decisions[-1].throttles.get(COPY.version) if self.decisions else None
        return FULL if throttle is None else min(FULL, throttle.records_per_s)

    def go(self, seconds: float) -> World:
        self.rates, self.decisions = [], self.decisions[-1:]
        for _ in range(round(seconds / SAMPLE_S)):
            self._pass()
        return self

    @property
    def mean_share(self) -> float:
        return sum(self.rates) / len(self.rates) / FULL

    @property
    def reasons(self) -> set[Reason]:
        return {throttle.reason for decision in self.decisions for throttle in decision.throttles.values()}

    def _pass(self) -> None:
        rate = self.rate if self.copying else 0.0
        self.now_s += SAMPLE_S
        self._offset += rate * SAMPLE_S
        self._end += self.ingest_per_s * SAMPLE_S
        self.rates.append(rate)
        self._latencies.append(self.slowdown(rate / FULL) * QUIET_S * self._random.lognormvariate(0, self.noise))
        positions = {0: at(int(self._offset))}
        late = int(self.tail_late_s / SAMPLE_S)
        end = int(10_000_000 + self._end) if not late else int(self.now_s / SAMPLE_S)
        tail = {0: at(end - late)}
        runs = [(COPY, positions), (TAIL, tail)] if self.copying else [(TAIL, tail)]
        self._history.add(sample(runs, {0: end}, at_s=self.now_s))
        second = round(self.now_s / SAMPLE_S)
        if second % 4 == 3 and self.reads_per_s:  # not in step with the governor
            self._window = Window(self.now_s - 1.0, self.now_s, self.reads_per_s, max(self._latencies[-4:]))
        if second % 2 == 0:
            self._tick()

    def _tick(self) -> None:
        reads, self._window = self._window, None
        self.decisions.append(
            self.governor.tick(
                Seen(
                    now_s=self.now_s,
                    samples=self._history.samples,
                    reads=reads,
                    serving={TAIL.version},
                    write_s=self.write_s,
                    ratio_max=RATIO_MAX,
                    row_limits=self.row_limits,  # type: ignore[arg-type]  # keys are versions
                )
            )
        )


def linear(times_at_full: float) -> Slowdown:
    return lambda share: 1 + (times_at_full - 1) * share


KNOWN = Quiet(QUIET_S, 3000, 0.0)


def test_a_copy_that_hurts_nobody_goes_at_full_speed() -> None:
    world = World(linear(1.05), quiet=KNOWN).go(60)
    assert world.mean_share == 1.0
    assert not world.reasons


def test_a_copy_beside_live_reads_begins_slowly_and_says_so() -> None:
    world = World(linear(1.05), quiet=KNOWN)
    world.copying = False
    world.go(10)
    world.copying = True
    world.go(1)
    (throttle,) = world.decisions[-1].throttles.values()
    assert (throttle.reason, throttle.message) == (
        Reason.READ_LATENCY,
        "reads are live, and a copy beside them begins slowly",
    )
    assert world.rate < FULL / 2
    assert world.go(30).rate == FULL


@settings(max_examples=20, deadline=None)
@given(times=st.floats(1.6, 5.0), seed=st.integers(0, 1000))
def test_it_settles_about_where_reads_are_as_slow_as_allowed(times: float, seed: int) -> None:
    world = World(linear(times), seed=seed)
    world.copying = False
    world.go(10)
    world.copying = True
    world.go(30).go(90)
    allowed = (RATIO_MAX - 1) / (times - 1)
    assert max(allowed * 0.5, 0.25) <= world.mean_share <= max(allowed * 1.2, 0.33)  # a quarter is always left
    assert world.reasons <= {Reason.READ_LATENCY, Reason.PAUSED_BY_GOVERNOR}
    assert all(throttle.message for one in world.decisions for throttle in one.throttles.values())


def test_it_comes_back_to_full_speed_when_the_reads_are_fast_again() -> None:
    world = World(linear(6.0), quiet=KNOWN).go(60)
    assert world.rate < FULL / 2
    world.slowdown = linear(1.0)
    world.go(60)
    assert world.rate == FULL


def test_it_comes_back_to_full_speed_when_nobody_reads_any_more() -> None:
    world = World(linear(6.0), quiet=KNOWN).go(60)
    assert world.rate < FULL / 2
    world.reads_per_s = 0
    world.go(40)
    assert world.rate == FULL


def test_few_reads_limit_nothing() -> None:
    world = World(linear(50.0), quiet=KNOWN)
    world.reads_per_s = 5
    assert world.go(60).mean_share == 1.0


def test_an_unknown_quiet_value_is_learnt_by_a_short_rest() -> None:
    world = World(linear(3.0)).go(12)
    rests = [rate for rate in world.rates if rate == 0]
    assert 0 < len(rests) * SAMPLE_S <= 4
    assert world.governor.evidence.quiet is not None
    assert world.governor.evidence.quiet.p99_s == pytest.approx(QUIET_S, rel=0.2)
    world.go(60)
    assert 0.25 < world.mean_share < 0.33
    assert world.rates.count(0) < len(world.rates) / 8  # rests in which it asks itself whether it is to blame


def test_a_quiet_value_is_learnt_before_there_is_a_copy() -> None:
    world = World(linear(3.0))
    world.copying = False
    world.go(20)
    quiet = world.governor.evidence.quiet
    assert quiet is not None
    assert quiet.p99_s == pytest.approx(QUIET_S, rel=0.2)
    world.copying = True
    assert 0 not in world.go(8).rates


def test_an_old_quiet_value_is_learnt_again() -> None:
    world = World(linear(1.0), quiet=Quiet(QUIET_S, 3000, -1000.0)).go(PROBE_AGAIN_S * 3)
    rests = sum(rate == 0 for rate in world.rates) * SAMPLE_S
    assert 0 < rests <= 4
    assert world.mean_share > 0.9


def test_reads_that_are_slow_for_reasons_of_their_own_hold_a_copy_up_for_a_while_only() -> None:
    world = World(linear(1.0), quiet=KNOWN).go(10)
    world.slowdown = lambda _: 4.0
    world.go(120)
    assert Reason.PAUSED_BY_GOVERNOR in world.reasons
    world.go(60)
    assert world.mean_share > 0.8


def test_where_even_the_floor_hurts_it_stands_still_and_says_so_and_tries_again() -> None:
    world = World(linear(6.0), quiet=KNOWN)
    world.ingest_per_s = FULL / 2
    world.go(20)  # until the rate of arrival is known
    world.go(100)
    assert world.reasons == {Reason.READ_LATENCY, Reason.PAUSED_BY_GOVERNOR}
    moving = {rate for rate in world.rates if rate > 0}
    assert moving
    assert min(moving) >= 1.2 * FULL / 2 * 0.99
    assert world.rates.count(0.0) > len(world.rates) / 2


def test_a_serving_version_that_falls_behind_slows_the_copy_down() -> None:
    world = World(linear(1.0), quiet=KNOWN).go(10)
    world.tail_late_s = 5.0
    world.go(10)
    assert Reason.SERVING_LAG in world.reasons
    assert world.rate < FULL / 4
    world.tail_late_s = 0.0
    world.go(40)
    assert world.rate == FULL


def test_long_writes_slow_the_copy_down_without_any_reads() -> None:
    world = World(linear(1.0))
    world.reads_per_s = 0
    world.write_s = 4.0
    world.go(10)
    assert Reason.SINK_LATENCY in world.reasons
    world.write_s = 0.3
    assert world.go(40).rate == FULL


def test_one_long_write_counts_once() -> None:
    world = World(linear(1.0))
    world.reads_per_s = 0
    world.go(10)
    world.write_s = 4.0
    world.go(0.5)
    world.write_s = None  # the next write takes its time
    world.go(2)
    assert world.rate >= FULL / 2
    assert world.go(10).rate == FULL


def test_writes_are_kept_short_while_reads_are_live() -> None:
    world = World(linear(1.0), quiet=KNOWN).go(10)
    assert world.decisions[-1].write_s_max == WRITE_S
    world.reads_per_s = 0
    world.go(10)
    assert world.decisions[-1].write_s_max is None


def test_the_budget_of_rows_is_named_where_it_is_what_counts() -> None:
    world = World(linear(1.0), quiet=KNOWN)
    world.row_limits = {COPY.version: 20_000.0}
    world.go(20)
    assert world.reasons == {Reason.ROWS_BUDGET}
    assert world.rate == 20_000.0


def test_nothing_is_decided_without_copies() -> None:
    world = World(linear(6.0), quiet=KNOWN).go(30)
    assert world.decisions[-1].throttles
    world.copying = False
    world.go(1)
    assert world.decisions[-1] == Decision()


def test_one_that_takes_over_goes_on_where_the_other_was() -> None:
    world = World(linear(6.0), quiet=KNOWN).go(60)
    before, share = world.governor, world.mean_share
    world.governor = Governor(
        2.5,
        quiet=before.evidence.quiet,
        rung=before.ladder.rung,
        cause=before.ladder.cause,
        full_per_s=before.full_per_s,
    )
    world.go(3)
    assert world.mean_share < 2 * share + 0.05
    assert 0 not in world.rates
