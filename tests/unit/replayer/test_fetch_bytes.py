"""How much of each partition is fetched ahead."""

import pytest

from services.replayer.engine.ingest import fetch_bytes


@pytest.mark.parametrize(
    ("partitions", "expected"), [(1, 4 << 20), (16, 4 << 20), (64, 1 << 20), (256, 256 << 10), (5000, 256 << 10)]
)
def test_all_partitions_together_have_a_total_until_too_little_is_left_for_each(partitions: int, expected: int) -> None:
    assert fetch_bytes(partitions) == expected
