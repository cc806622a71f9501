"""Lengths of time in words."""

import pytest

from services.replayer.spans import span


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(0.44, "0.4 s"), (45, "45 s"), (600, "10 min"), (3 * 3600, "3 h"), (23 * 86400, "23 days")],
)
def test_spans_in_words(seconds: float, text: str) -> None:
    assert span(seconds) == text
