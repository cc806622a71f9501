"""Numbers, sizes, times and shares in words."""

from __future__ import annotations

from datetime import datetime, timedelta, timezone

import pytest
from hypothesis import given
from hypothesis import strategies as st

from turnout.cli import quantities


@pytest.mark.parametrize(
    ("seconds", "text"),
    [
        (0, "0 ms"),
        (0.0716, "72 ms"),
        (0.999, "999 ms"),
        (0.9996, "1.0 s"),
        (3.21, "3.2 s"),
        (9.96, "10 s"),
        (59.4, "59 s"),
        (59.6, "1 min"),
        (72, "1 min 12 s"),
        (3600, "1 h"),
        (7500, "2 h 5 min"),
        (276_000, "3 d 4 h"),
        (-5, "0 ms"),
    ],
)
def test_spans(seconds: float, text: str) -> None:
    assert quantities.span(timedelta(seconds=seconds)) == text


@given(st.timedeltas(min_value=timedelta(0), max_value=timedelta(days=10_000)))
def test_every_span_has_words(time: timedelta) -> None:
    assert quantities.span(time)[0].isdigit()


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0, "0 B"),
        (999, "999 B"),
        (1000, "1.0 kB"),
        (45_200_000, "45.2 MB"),
        (999_949, "999.9 kB"),
        (999_999, "1.0 MB"),
        (3 * 10**12, "3.0 TB"),
        (None, "-"),
    ],
)
def test_sizes(number: int | None, text: str) -> None:
    assert quantities.size(number) == text


@pytest.mark.parametrize(
    ("points", "text"), [(9000, "90 %"), (25, "0.25 %"), (1250, "12.5 %"), (10_000, "100 %"), (0, "0 %"), (1, "0.01 %")]
)
def test_percents(points: int, text: str) -> None:
    assert quantities.percent(points) == text


@given(st.integers(0, 10_000))
def test_a_percent_says_its_basis_points_exactly(points: int) -> None:
    assert round(float(quantities.percent(points).removesuffix(" %")) * 100) == points


def test_only_the_whole_is_100_percent() -> None:
    assert quantities.share(0.99999) == "99.9 %"
    assert quantities.share(1.0) == "100.0 %"


def test_the_rest() -> None:
    assert quantities.count(308_641) == "308,641"
    assert quantities.count(None) == "-"
    assert quantities.rate(52_301.7) == "52,302/s"
    assert quantities.rate(0.25) == "0.2/s"
    assert quantities.rate(0) == "0/s"
    assert quantities.plural(1, "row") == "1 row"
    assert quantities.plural(1_234, "row") == "1,234 rows"
    east = datetime(2026, 3, 1, 1, 30, tzinfo=timezone(timedelta(hours=2)))
    assert quantities.moment(east) == "2026-02-28 23:30:00 UTC"
    assert quantities.moment(None) == "-"
    assert quantities.day(east) == "2026-02-28"
