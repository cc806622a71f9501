"""The history of measurements: without gaps, and no longer than it needs to be."""

import itertools
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replayer.forecast import UNKNOWN
from services.replayer.history import GAP_S, KEPT_S, History
from services.replayer.states import State
from tests.unit.replayer.made import run, sample
from tests.unit.replayer.simulated import Hand, Replay


@given(st.lists(st.sampled_from([0.1, 0.25, 0.5, GAP_S, GAP_S + 0.01, 30.0]), max_size=60))
def test_the_longest_stretch_without_a_gap_within_what_is_kept(pauses: list[float]) -> None:
    history, s, stretch = History(), 0.0, [0.0]
    history.add(sample([], {}, at_s=s))
    for pause in pauses:
        before, s = s, s + pause
        history.add(sample([], {}, at_s=s))
        stretch = [*(stretch if s - before <= GAP_S else []), s]
        kept = [one.monotonic_s for one in history.samples]
        assert kept == [at for at in stretch if s - at <= KEPT_S]
        assert all(b - a <= GAP_S for a, b in itertools.pairwise(kept))


def test_a_gap_ends_the_samples_and_not_what_is_known_of_the_rate() -> None:
    replay = Replay([Hand([100_000], lambda s, share: 1000.0)])
    version, history = replay.run.version, History()
    for one, _ in replay.samples(20.0):
        history.add(one)
    before = history.forecast(version)
    after = sample([], {}, at_s=one.monotonic_s + 60.0)
    history.add(replace(one, monotonic_s=after.monotonic_s, at=after.at))
    assert len(history.samples) == 1
    assert before.eta_s is not None
    assert history.forecast(version).eta_s == pytest.approx(before.eta_s)


def test_a_run_that_is_gone_is_forgotten() -> None:
    replay = Replay([Hand([10_000], lambda s, share: 1000.0)])
    history = History()
    for one, _ in replay.samples(5.0):
        history.add(one)
    history.add(sample([], {}, at_s=one.monotonic_s + 0.25))
    assert history.forecast(replay.run.version) == UNKNOWN
    assert history.forecast(run(9, State.REPLAYING).version) == UNKNOWN
