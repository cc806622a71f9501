"""How much a batch sends, roughly, and by whom."""

from hypothesis import given
from hypothesis import strategies as st

from services.replayer.engine.volume import bytes_of, shares


def test_nothing_is_nothing() -> None:
    assert bytes_of([], 3) == 0
    assert shares(0, []) == []


def test_rows_of_one_shape_are_counted_exactly() -> None:
    row = ("key", 1, b"12345", None, "not stored")
    assert bytes_of([row], 4) == 28 + 3 + 8 + 5 + 8
    assert bytes_of([row] * 1000, 4) == 1000 * bytes_of([row], 4)


def test_an_uneven_batch_is_sampled_from_end_to_end() -> None:
    rows = [("x" * 100,)] * 5_000 + [("x" * 300,)] * 5_000
    assert abs(bytes_of(rows, 1) - 10_000 * 228) < 10_000 * 228 / 20


@given(st.integers(0, 10**9), st.lists(st.integers(0, 400_000), min_size=1, max_size=20))
def test_shares_are_fair_and_complete(total: int, weights: list[int]) -> None:
    parts = shares(total, weights)
    assert sum(parts) == (total if sum(weights) else 0)
    for part, weight in zip(parts, weights, strict=True):
        fair = total * weight / sum(weights) if sum(weights) else 0
        assert abs(part - fair) <= 1
