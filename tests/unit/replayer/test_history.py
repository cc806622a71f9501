"""The history of measurements: without gaps, and no longer than it needs to be."""

import itertools

from hypothesis import given
from hypothesis import strategies as st

from services.replayer.history import GAP_S, KEPT_S, History
from tests.unit.replayer.made import sample


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
