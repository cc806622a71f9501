"""Whether the log is the one that a position belongs to."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from services.replayer.engine.identity import LogFinding, identity_of, judge_position, same_record

BYTES = st.none() | st.binary(max_size=20)


@pytest.mark.parametrize(
    ("next_offset", "finding"),
    [
        (9, LogFinding.TRUNCATED),
        (10, LogFinding.READABLE),
        (15, LogFinding.READABLE),
        (20, LogFinding.READABLE),
        (21, LogFinding.BEYOND_END),
    ],
)
def test_a_position_against_the_ends(next_offset: int, finding: LogFinding) -> None:
    assert judge_position(next_offset, 10, 20) is finding


def test_an_empty_log_is_readable_only_at_its_end() -> None:
    assert judge_position(5, 5, 5) is LogFinding.READABLE
    assert judge_position(4, 5, 5) is LogFinding.TRUNCATED
    assert judge_position(6, 5, 5) is LogFinding.BEYOND_END


@given(BYTES, BYTES, BYTES, BYTES)
def test_equal_content_is_the_same_record(
    k1: bytes | None, v1: bytes | None, k2: bytes | None, v2: bytes | None
) -> None:
    same = same_record(identity_of(3, 1000, k1, v1), identity_of(3, 1000, k2, v2))
    assert same or (k1, v1) != (k2, v2)
    assert same_record(identity_of(3, 1000, k1, v1), identity_of(3, 1000, k1, v1))


@pytest.mark.parametrize(
    "other",
    [
        identity_of(3, 1001, b"k", b"v"),
        identity_of(3, 1000, b"k", b"w"),
        identity_of(3, 1000, None, b"v"),
        identity_of(3, 1000, b"kv", None),
        identity_of(3, 1000, b"", b"kv"),
    ],
)
def test_any_difference_at_the_same_offset_is_another_record(other: object) -> None:
    assert not same_record(identity_of(3, 1000, b"k", b"v"), other)  # type: ignore[arg-type]


def test_a_later_record_says_nothing() -> None:
    assert same_record(identity_of(3, 1000, b"k", b"v"), identity_of(4, 1, b"x", None))
