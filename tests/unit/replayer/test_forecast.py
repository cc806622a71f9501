"""When a run reaches its end: within 20 % of the truth from a tenth of the way on, in simulated replays."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from dataclasses import dataclass, replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replayer.forecast import NEVER_AFTER_S, UNKNOWN, Forecast, Line, Track
from services.replayer.run import Sample
from services.replayer.states import State
from tests.unit.replayer.made import at, run, sample
from tests.unit.replayer.simulated import BatchedReplay, Costs, Hand, Replay

SHARE_FROM = 0.1  # of the way
WITHIN = 0.2  # of the time that is left
WITHIN_S = 1.5  # two batches: nothing closer can be told
SEEDS = range(4)


def steady(per_s: float) -> Callable[[float, float], float]:
    return lambda s, share: per_s


@dataclass(frozen=True)
class Told:
    """What was said at one moment, and how long it really took from there."""

    share: float
    forecast: Forecast
    truth_s: float

    @property
    def right(self) -> bool:
        eta_s = self.forecast.eta_s
        return eta_s is not None and abs(eta_s - self.truth_s) <= max(WITHIN_S, WITHIN * self.truth_s)

    @property
    def inside(self) -> bool:
        least_s, most_s = self.forecast.eta_min_s, self.forecast.eta_max_s
        return (
            least_s is not None and least_s - 0.5 <= self.truth_s and (most_s is None or self.truth_s <= most_s + 0.5)
        )


def told(replay: Replay | BatchedReplay) -> list[Told]:
    """Everything said on the way, from a tenth of it on."""
    track, said, s = Track(), [], 0.0
    for one, _ in replay.samples():
        track.add(replay.run, one)
        s = one.monotonic_s
        said.append((s, share_of(one), track.forecast()))
    return [Told(share, forecast, s - then_s) for then_s, share, forecast in said[:-1] if share >= SHARE_FROM]


def share_of(one: Sample) -> float:
    [positions] = one.positions.values()
    done = sum(position.next_offset for position in positions.values())
    return done / sum(max(one.ends[tp].end, position.next_offset) for tp, position in positions.items())


def slowing(to: float) -> Callable[[float, float], float]:
    """A table that is written to more and more slowly: at the end at this share of the rate of the start."""
    return lambda s, share: 10_000 * (1 - (1 - to) * share)


TWO = (1_200_000, 1_200_000)  # offsets of a worker's partitions: four minutes
REPLAYS: dict[str, tuple[list[Hand], dict[str, Any]]] = {
    "steady": ([Hand([*TWO], steady(10_000)), Hand([*TWO], steady(10_000))], {}),
    "slowing database": ([Hand([*TWO], slowing(0.7)), Hand([*TWO], slowing(0.7))], {}),
    "uneven partitions of one worker": ([Hand([300_000, 2_400_000], steady(10_000))], {}),
    "uneven workers": ([Hand([300_000, 300_000], steady(10_000)), Hand([*TWO], steady(10_000))], {}),
    "a slower worker": ([Hand([*TWO], steady(10_000)), Hand([*TWO], steady(6_000))], {}),
    "moving end": ([Hand([*TWO], steady(10_000), arriving=1500), Hand([*TWO], steady(10_000), arriving=1500)], {}),
    "large batches": ([Hand([*TWO], steady(10_000))], {"batch_s": 3.0}),
    "limited to little": ([Hand([6000, 6000], steady(50))], {"batch_s": 0.25, "noise": 0.02}),
}


@functools.cache
def told_of(name: str, seed: int) -> list[Told]:
    hands, changes = REPLAYS[name]
    return told(Replay(hands, seed, **changes))


@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize("name", REPLAYS)
def test_within_a_fifth_of_the_truth_from_a_tenth_of_the_way_on(name: str, seed: int) -> None:
    said = told_of(name, seed)
    wrong = [one for one in said if not one.right]
    assert len(wrong) <= len(said) * 0.03, wrong[:: max(1, len(wrong) // 5)]


@pytest.mark.parametrize("factor", [0.4, 2.5])
@pytest.mark.parametrize("seed", SEEDS)
def test_a_rate_that_changes_is_followed_soon(factor: float, seed: int) -> None:
    """Nobody can know of a change before it; a tenth of the way after it the forecast is right again."""
    changed = 0.4
    hands = [Hand([*TWO], lambda s, share: 10_000 * (factor if share > changed else 1.0))]
    said = [one for one in told(Replay(hands, seed)) if one.share > changed + 0.1]
    assert said
    assert sum(not one.right for one in said) <= len(said) * 0.02


@pytest.mark.parametrize("name", REPLAYS)
def test_the_truth_is_within_the_spread(name: str) -> None:
    said = [one for seed in SEEDS for one in told_of(name, seed)]
    assert sum(one.inside for one in said) >= 0.85 * len(said)


COSTS = {  # of the jobs of `python -m bench replay`, in their order of size
    "append": Costs(260_000, 250_000),
    "aggregate": Costs(220_000, 120_000, keys=100_000),
    "fold": Costs(130_000, 130_000, keys=100_000),
}


@pytest.mark.parametrize("name", COSTS)
def test_a_replay_of_some_seconds_begins_with_small_batches_and_goes_on_with_large_ones(name: str) -> None:
    """Twelve to twenty seconds long, with a batch every two: less can be known than of a long one, and it was off by
    four times what was left while the small batches counted as well as the large ones, and the gathering of a large one
    as a standstill."""
    worst = []
    for seed in SEEDS:
        for phase_s in (0.0, 0.1, 0.2):
            said = told(BatchedReplay(COSTS[name], seed, phase_s=phase_s))
            known = [one for one in said if one.forecast.eta_s is not None]
            assert known[0].share < 0.35
            errors = [abs((one.forecast.eta_s or 0.0) - one.truth_s) / max(one.truth_s, 5.0) for one in known]
            worst.append(max(errors))
    assert sorted(worst)[len(worst) // 2] < 0.35
    assert max(worst) < 1.1


def _apart(seconds: float) -> float:
    """One of two workers has been half as fast for so long: the forecast to that of the slower one alone."""
    length, track, alone = 10_000_000, Track(), Line()
    replaying = run(2, State.REPLAYING)
    for n in range(int(seconds / 0.25) + 1):
        slow, quick = n * 1_000, n * 2_000
        positions = {0: replace(at(slow), owner="replica:0"), 1: replace(at(quick), owner="replica:1")}
        track.add(replaying, sample([(replaying, positions)], {0: length, 1: length}, at_s=n * 0.25))
        alone.add(n * 0.25, slow, length, measured=True)
    own, eta_s = alone.seconds_for(length - slow, slow), track.forecast().eta_s
    assert own is not None
    assert eta_s is not None
    return eta_s / own[0]


def test_that_one_worker_is_slower_is_believed_as_it_lasts() -> None:
    assert _apart(4.0) < 0.9
    assert _apart(4.0) < _apart(20.0) < _apart(200.0) < 1.0
    assert _apart(200.0) > 0.95


def test_a_batch_that_is_being_gathered_is_no_standstill() -> None:
    line = Line()
    for n in range(21):
        line.add(n * 0.25, n * 10_000, 10**6, measured=True)
    known = line.seconds_for(100_000, 0)
    for n in range(1, 9):
        line.add(5.0 + n * 0.25, 200_000, 10**6, measured=True)
        assert line.seconds_for(100_000, 0) == known
    for n in range(9, 40):
        line.add(5.0 + n * 0.25, 200_000, 10**6, measured=True)
    later = line.seconds_for(100_000, 0)
    assert known is not None
    assert later is not None
    assert later[0] > 1.5 * known[0]


def test_what_the_first_small_batches_took_is_left_out_once_there_are_larger_ones() -> None:
    line = Line()
    offset = 0
    for n in range(8):
        offset += 1_000
        line.add(n * 0.25, offset, 10**7, measured=True)
    for n in range(8, 20):
        offset += 50_000
        line.add(n * 0.25, offset, 10**7, measured=True)
    seconds = line.seconds_for(1_000_000, 0)
    assert seconds is not None
    assert seconds[0] == pytest.approx(1_000_000 / 200_000, rel=0.01)


def test_later_a_large_batch_does_not_make_the_line_forget() -> None:
    line, offset = Line(), 0
    for n in range(60):
        offset += 20_000 if n == 58 else 1_000
        line.add(n * 0.25, offset, 10**7, measured=True)
    assert line.known_s > 14.0


def test_the_spread_is_no_wider_than_it_helps() -> None:
    half_way = [one for one in told_of("steady", 1) if 0.4 < one.share < 0.6]
    assert half_way
    for one in half_way:
        forecast = one.forecast
        assert forecast.eta_s is not None
        assert forecast.eta_min_s is not None
        assert forecast.eta_max_s is not None
        assert forecast.eta_min_s <= forecast.eta_s <= forecast.eta_max_s
        assert forecast.eta_max_s - forecast.eta_min_s < 0.5 * forecast.eta_s


def fed(replay: Replay, until_s: float) -> tuple[Track, Sample]:
    track = Track()
    for one, _ in replay.samples(until_s):
        track.add(replay.run, one)
    return track, one


def test_never_is_said_when_the_log_grows_faster() -> None:
    track, _ = fed(Replay([Hand([50_000], steady(1000), arriving=1500)]), 30.0)
    assert track.forecast() == Forecast(never=True)
    track, _ = fed(Replay([Hand([50_000], steady(1000), arriving=1500)]), NEVER_AFTER_S)
    assert not track.forecast().never  # it has just begun


def test_one_worker_that_never_catches_up_is_enough() -> None:
    hands = [Hand([20_000], steady(1000)), Hand([20_000], steady(1000), arriving=1500)]
    assert fed(Replay(hands), 15.0)[0].forecast().never


def test_at_the_end_there_is_nothing_to_forecast() -> None:
    """What has just come is unread at any moment; it makes neither an ETA nor a never."""
    track, last = fed(Replay([Hand([20_000], steady(10_000), arriving=1000)]), 1e9)
    assert share_of(last) < 1.0
    assert track.forecast() == UNKNOWN


def test_nothing_is_known_before_the_second_commit() -> None:
    replay = Replay([Hand([100_000], steady(1000))], batch_s=2.0)
    assert fed(replay, 3.0)[0].forecast() == UNKNOWN
    assert fed(replay, 8.0)[0].forecast().eta_s is not None


def test_a_partition_that_nobody_reads_makes_the_end_unknown() -> None:
    track, last = fed(Replay([Hand([100_000], steady(1000))]), 20.0)
    replaying = run(2, State.REPLAYING)
    [positions] = last.positions.values()
    widened = sample([(replaying, {0: next(iter(positions.values())), 1: at(0)})], {0: 100_000, 1: 50}, at_s=20.0)
    track.add(replaying, widened)
    assert track.forecast() == UNKNOWN


@pytest.mark.parametrize("change", [{"rate_limit": 500}, {"workers": 5}, {"state": State.PAUSED}])
def test_what_is_known_to_change_the_rate_begins_anew(change: dict[str, object]) -> None:
    replay = Replay([Hand([100_000], steady(1000))])
    track, last = fed(replay, 20.0)
    assert track.forecast().eta_s is not None
    track.add(replace(replay.run, **change), last)  # type: ignore[arg-type]  # one field at a time
    assert track.forecast() == UNKNOWN


def test_partitions_that_change_hands_begin_anew_and_a_replaced_worker_does_not() -> None:
    replay = Replay([Hand([100_000, 100_000], steady(1000))])
    track, last = fed(replay, 20.0)
    [positions] = last.positions.values()
    renamed = {tp.partition: replace(position, owner="replica:9") for tp, position in positions.items()}
    ends = {tp.partition: end.end for tp, end in last.ends.items()}
    track.add(replay.run, sample([(replay.run, renamed)], ends, at_s=20.25))
    assert track.forecast().eta_s is not None
    parted = {n: replace(position, owner=f"replica:{n}") for n, position in renamed.items()}
    track.add(replay.run, sample([(replay.run, parted)], ends, at_s=20.5))
    assert track.forecast() == UNKNOWN


def test_time_that_was_not_measured_does_not_count() -> None:
    line = Line()
    for n in range(100):
        line.add(n * 0.25, n * 100, 100_000, measured=True)
    known = line.seconds_for(10_000, 0)
    line.add(1000.0, 20_000, 100_000, measured=False)
    assert line.seconds_for(10_000, 0) == known


def test_a_standstill_makes_the_end_later_and_later() -> None:
    replay = Replay([Hand([100_000], steady(1000))])
    track, last = fed(replay, 20.0)
    before, etas = track.forecast().eta_s, []
    for n in range(1, 200):
        track.add(replay.run, replace(last, monotonic_s=last.monotonic_s + 0.25 * n))
        etas.append(track.forecast().eta_s)
    assert before is not None
    assert all(one is not None for one in etas)
    assert (etas[-1] or 0.0) > before


@given(
    st.lists(st.tuples(st.floats(0.05, 0.9), st.integers(0, 5000), st.integers(0, 3000)), min_size=1, max_size=150),
    st.integers(0, 10**9),
)
def test_whatever_happens_the_figures_are_in_order(moves: Iterable[tuple[float, int, int]], lag: int) -> None:
    track, replaying = Track(), run(2, State.REPLAYING)
    s, offset, end = 0.0, 0, lag
    for later_s, read, grown in moves:
        s, end = s + later_s, end + grown
        offset = min(end, offset + read)
        position = replace(at(offset), owner="replica:0")
        track.add(replaying, sample([(replaying, {0: position})], {0: end}, at_s=s))
        found = track.forecast()
        if found.eta_s is None:
            assert (found.eta_min_s, found.eta_max_s) == (None, None)
            continue
        assert not found.never
        assert found.eta_min_s is not None
        assert 0 <= found.eta_min_s <= found.eta_s
        assert found.eta_max_s is None or found.eta_max_s >= found.eta_s


def test_a_line_stays_small_however_long_it_gets() -> None:
    line = Line()
    for n in range(20_000):
        line.add(n * 0.25, n * 100, 10**9, measured=True)
    assert len(line._points) < 100
    seconds = line.seconds_for(40_000, 2_000_000)
    assert seconds is not None
    assert seconds[0] == pytest.approx(100.0, rel=0.02)
