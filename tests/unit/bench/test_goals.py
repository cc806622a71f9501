"""What counts as reached, and that what was missed is said."""

from __future__ import annotations

import pytest

from bench.goals import Goal, at_most, missed, status

GOALS = {"ratio": Goal(0.85), "late_ms": at_most(150)}


@pytest.mark.parametrize(
    ("answer", "lines"),
    [
        ({"ratio": 0.85, "late_ms": 150.0}, []),
        ({"ratio": 0.84, "late_ms": 10.0}, ["ratio is 0.84, and is to be at least 0.85"]),
        ({"ratio": 1.0, "late_ms": 150.5}, ["late_ms is 150.5, and is to be at most 150"]),
        ({"ratio": None}, []),
    ],
)
def test_what_was_measured_is_judged(
    answer: dict[str, float | None], lines: list[str], capsys: pytest.CaptureFixture[str]
) -> None:
    assert missed(answer, GOALS) == lines
    assert status(answer, GOALS) == (1 if lines else 0)
    assert capsys.readouterr().err.splitlines() == [f"not reached: {line}" for line in lines]
