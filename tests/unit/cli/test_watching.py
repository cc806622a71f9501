"""When a plain line is due, and what is said of a run that has caught up."""

from __future__ import annotations

from dataclasses import replace

from tests.unit.cli.samples import JOB, TAILING
from turnout.cli.commands.watching import Standing, caught_up
from turnout.cli.screens import LINE_EVERY_S, LinePace
from turnout.results import Gate, RunState, VersionState

CATCH_UP = Gate("catch-up", 2, True, False, ("all 4 partitions are level",))


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


def test_only_the_catch_up_gate_is_waited_for() -> None:
    level = Gate(
        "catch-up",
        2,
        False,
        False,
        ("Partition flights/0 is 3 offsets behind v1.", "It has stood level for 0.2 s only."),
    )
    coverage = Gate("coverage", 2, False, False, ("readers would lose 23 offsets",))
    waiting = Standing(VersionState.REGISTERED, False, (level, coverage))
    assert waiting.waiting_for == "Partition flights/0 is 3 offsets behind v1. It has stood level for 0.2 s only."
    assert Standing(VersionState.REGISTERED, False, (CATCH_UP, coverage)).waiting_for == ""


def test_a_cutover_is_advised_only_where_it_would_be_accepted() -> None:
    command = f"`turnout cutover {JOB} v2` makes it serve all readers."
    assert caught_up(TAILING, Standing(VersionState.REGISTERED, False, (CATCH_UP,))).endswith(command)
    schema = Gate("schema", 2, False, False, ("Column flights: removed.",))
    refused = caught_up(TAILING, Standing(VersionState.REGISTERED, False, (CATCH_UP, schema)))
    assert refused.endswith("would still be refused by schema: Column flights: removed.")
    assert caught_up(TAILING, Standing(VersionState.REGISTERED, True, ())).endswith("It is the active version.")
    completed = replace(TAILING, state=RunState.COMPLETED)
    assert caught_up(completed, Standing(VersionState.REGISTERED, False, (CATCH_UP,))) == (
        f"Completed after 6.2 s: its range is read, and its table stays as it is. {command}"
    )
    empty = caught_up(replace(completed, records=0), Standing(VersionState.REGISTERED, False, (CATCH_UP,)))
    assert "The range holds no record" in empty
    assert "cutover" not in empty
    never = replace(CATCH_UP, passed=False, evidence=("Its range ends at 5.",))
    assert caught_up(completed, Standing(VersionState.REGISTERED, False, (never,))).endswith(
        "would be refused by catch-up: Its range ends at 5."
    )
    retiring = caught_up(TAILING, Standing(VersionState.RETIRING, False, ()))
    assert "cutover" not in retiring
    assert f"`turnout unretire {JOB} v2`" in retiring
