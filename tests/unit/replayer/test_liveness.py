"""When a worker that is still there counts as gone."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from services.replayer.liveness import (
    BEAT_S,
    LOOK_MAX_S,
    LOOK_S,
    SILENCE_MIN_S,
    START_WITHIN_S,
    Silence,
    silence_allowed_s,
)

lengths_s = st.floats(0.1, 600.0)


@given(lengths_s, lengths_s, st.booleans())
def test_a_frozen_worker_is_given_up_after_a_lease(lease_s: float, limit_s: float, spoke: bool) -> None:
    allowed_s = silence_allowed_s(lease_s, limit_s, spoke=True, running=False)
    assert allowed_s == max(lease_s, SILENCE_MIN_S)
    assert silence_allowed_s(lease_s, limit_s, spoke=spoke, running=False) >= allowed_s


@given(lengths_s, lengths_s, st.booleans())
def test_a_running_one_has_the_time_of_the_jobs_function_as_well(lease_s: float, limit_s: float, spoke: bool) -> None:
    assert silence_allowed_s(lease_s, limit_s, spoke=spoke, running=True) > limit_s + lease_s - 1e-6


@given(lengths_s, lengths_s, st.booleans())
def test_one_that_is_being_loaded_has_its_own_time(lease_s: float, limit_s: float, running: bool) -> None:
    assert silence_allowed_s(lease_s, limit_s, spoke=False, running=running) >= START_WITHIN_S


@given(st.lists(st.floats(0.0, BEAT_S), min_size=1, max_size=200))
def test_one_that_speaks_in_time_is_never_silent_for_long(beats_s: list[float]) -> None:
    silence, now_s = Silence(0.0), 0.0
    for beat_s in beats_s:
        now_s += beat_s
        assert silence.look(now_s) < BEAT_S + 1e-6 < SILENCE_MIN_S
        silence.broken()
    assert silence.spoke


@given(st.floats(1.0, 60.0))
def test_silence_adds_up(length_s: float) -> None:
    silence, now_s = Silence(5.0), 5.0
    while now_s - 5.0 <= length_s:
        assert abs(silence.look(now_s) - (now_s - 5.0)) < 1e-6
        now_s += LOOK_S
    silence.broken()
    assert silence.look(now_s) <= LOOK_S + 1e-6


def test_what_a_supervisor_slept_through_is_not_silence() -> None:
    silence = Silence(0.0)
    assert silence.look(3600.0) == LOOK_MAX_S
    assert silence.look(3600.0 + LOOK_S) == LOOK_MAX_S + LOOK_S
