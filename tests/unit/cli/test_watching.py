"""When a plain line is due."""

from __future__ import annotations

from turnout.cli.commands.watching import LINE_EVERY_S, LinePace
from turnout.results import RunState


def test_the_first_then_every_few_seconds_then_changes_and_the_end() -> None:
    pace = LinePace()
    asked = [
        (RunState.QUEUED, False, 100.0, True),
        (RunState.QUEUED, False, 100.5, False),
        (RunState.REPLAYING, False, 100.75, True),
        (RunState.REPLAYING, False, 100.75 + LINE_EVERY_S - 0.1, False),
        (RunState.REPLAYING, False, 100.75 + LINE_EVERY_S, True),
        (RunState.REPLAYING, False, 101.0 + LINE_EVERY_S, False),
        (RunState.REPLAYING, True, 101.1 + LINE_EVERY_S, True),
    ]
    assert [pace.due(state, last, now) for state, last, now, _ in asked] == [due for *_, due in asked]
