"""How long reads take: quantiles from buckets, whatever the latencies are."""

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.reading.latency import ReadLatency

BUCKET = 1.05


@given(st.lists(st.floats(60e-6, 119.0), min_size=1, max_size=400))
def test_quantiles_are_those_of_the_reads_to_a_bucket(latencies: list[float]) -> None:
    measured = ReadLatency(10.0)
    for took_s in latencies:
        measured.add(took_s)
    load = measured.take(12.5)
    assert load is not None
    assert (load.reads, load.window_s) == (len(latencies), 2.5)
    ordered = sorted(latencies)
    for told, share in ((load.p50_s, 0.5), (load.p99_s, 0.99)):
        true = ordered[math.ceil(len(ordered) * share) - 1]
        assert true / BUCKET <= told <= true * BUCKET


def test_what_was_told_is_forgotten() -> None:
    measured = ReadLatency(0.0)
    measured.add(3.0)
    measured.take(1.0)
    assert measured.take(2.0) is None
    measured.add(0.001)
    load = measured.take(5.0)
    assert load is not None
    assert (load.reads, load.window_s) == (1, 3.0)
    assert load.p99_s == pytest.approx(0.001, rel=0.05)


@pytest.mark.parametrize("took_s", [0.0, 1e-9, 1e6])
def test_any_latency_can_be_counted(took_s: float) -> None:
    measured = ReadLatency(0.0)
    measured.add(took_s)
    load = measured.take(1.0)
    assert load is not None
    assert load.reads == 1
