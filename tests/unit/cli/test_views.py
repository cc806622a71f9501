"""What a person sees, as text files in `snapshots/`, at 80 columns and without a terminal.

After a wanted change: `TURNOUT_WRITE_SNAPSHOTS=1 pytest tests/unit/cli/test_views.py`, then read the difference in git.
"""

from __future__ import annotations

import os
from dataclasses import replace
from datetime import timedelta
from pathlib import Path

import msgspec
import pytest
from rich.console import RenderableType
from rich.text import Text

from tests.unit.cli import samples
from tests.unit.cli.samples import JOB, rendered
from turnout.cli.commands.check import problems_view
from turnout.cli.exits import CommandError, ExitCode, Reason
from turnout.cli.output import error_text
from turnout.cli.views.capacity import capacity_view
from turnout.cli.views.comparisons import audit_view, comparison_view, comparisons_view
from turnout.cli.views.definitions import definition_view, differences_view
from turnout.cli.views.experiments import (
    decisions_view,
    experiment_view,
    experiments_view,
    over_text,
    served_text,
    standing_line,
)
from turnout.cli.views.jobs import job_view, jobs_view, version_view
from turnout.cli.views.routes import change_view, changes_view, explanation_view, readiness_view, route_view
from turnout.cli.views.runs import estimate_view, run_line, run_view, way_on
from turnout.cli.views.shadows import shadow_view
from turnout.cli.views.tables import read_view, retired_text, rows_view
from turnout.readiness import Staleness
from turnout.results import (
    Audit,
    Cause,
    Command,
    DefinitionProblem,
    RunState,
    Throttle,
    ThrottleReason,
    VersionState,
)
from turnout.schema import Column, ColumnType, Merge, difference
from turnout.shadow import ShadowCounts

SNAPSHOTS = Path(__file__).parent / "snapshots"
CHANGED = msgspec.structs.replace(
    samples.DEFINITION,
    columns=(
        *samples.DEFINITION.columns[:2],
        Column("flights", ColumnType.DECIMAL, merge=Merge.SUM),
        Column("cancelled", ColumnType.INT64, merge=Merge.SUM),
    ),
)
REFUSED = CommandError(
    ExitCode.REFUSED,
    "GATES_FAILED",
    "The cutover of carrier-punctuality to v2 is refused, because two gates fail.",
    next_step="Mend what the gates name, or pass over them by name: --override-gates catch-up,coverage.",
    reasons=(
        Reason(
            "catch-up", "carrier-punctuality v2", "flights/0 is 12,034 records behind v1, more than the 100 allowed."
        ),
        Reason("coverage", "", "v1 begins on 2011-02-01 and v2 on 2013-01-01: readers would lose 23 months."),
    ),
)
VIEWS: dict[str, RenderableType] = {
    "experiment": experiment_view(samples.EXPERIMENT),
    "experiment-bandit": experiment_view(samples.LEARNING),
    "experiment-ended": experiment_view(samples.ENDED),
    "experiment-cut": experiment_view(samples.ENDED_EARLY),
    "experiment-low": experiment_view(samples.EXPERIMENT, whole=False),
    "experiment-unread": experiment_view(samples.UNREAD),
    "experiment-left-out": experiment_view(samples.LEFT_OUT),
    "experiment-served": Text(served_text(samples.ROUTE)),
    "experiment-promoted": Text(served_text(replace(samples.ROUTE, rollback_version=1), promoted=2)),
    "experiment-line": Text(standing_line(samples.EXPERIMENT)),
    "experiment-over": Text(over_text(samples.ENDED)),
    "experiments": experiments_view([samples.EXPERIMENT, samples.ENDED]),
    "experiments-none": experiments_view([]),
    "decisions": decisions_view(samples.DECISIONS),
    "decisions-none": decisions_view([]),
    "definition": definition_view(samples.DEFINITION),
    "differences": differences_view(difference(samples.DEFINITION, CHANGED), 1),
    "differences-none": differences_view((), 1),
    "run-replaying": run_view(samples.RUN),
    "run-queued": run_view(
        replace(
            samples.RUN,
            state=RunState.QUEUED,
            partitions=(),
            progress=1.0,
            live_workers=0,
            priority=5,
            queue_position=1,
            status_message="2 of 2 copies run; 1st in the queue",
        )
    ),
    "run-line-queued": Text(run_line(replace(samples.RUN, state=RunState.QUEUED, progress=1.0, records_per_s=0.0))),
    "run-begun": run_view(
        replace(
            samples.RUN,
            records_per_s=0.0,
            rate_limit=20_000,
            eta=None,
            eta_min=None,
            eta_max=None,
            partitions=tuple(replace(one, records_per_s=0.0) for one in samples.PARTITIONS),
        )
    ),
    "run-wide": run_view(samples.WIDE, 3),
    "run-at-risk": run_view(samples.AT_RISK),
    "run-line-at-risk": Text(run_line(samples.AT_RISK)),
    "run-never": run_view(replace(samples.RUN, eta=None, eta_min=None, eta_max=None, never_catches_up=True)),
    "run-tailing": run_view(replace(samples.TAILING, live_workers=1)),
    "run-failed": run_view(samples.FAILED),
    "run-completed": run_view(samples.COMPLETED),
    "run-line-completed": Text(run_line(samples.COMPLETED)),
    "run-line-replaying": Text(run_line(samples.RUN)),
    "run-line-failed": Text(run_line(samples.FAILED)),
    "estimate": estimate_view(samples.ESTIMATE, JOB, 2),
    "estimate-at-risk": estimate_view(samples.ESTIMATE_AT_RISK, JOB, 2),
    "estimate-never": estimate_view(replace(samples.ESTIMATE, duration=None, never_catches_up=True), JOB, 2),
    "capacity": capacity_view(samples.CAPACITY),
    "capacity-limits": capacity_view(
        replace(
            samples.CAPACITY,
            copies=2,
            queued=3,
            rows_per_s_max=50_000,
            storage_bytes_max=10_000_000_000,
            read_p99_ratio_max=None,
            storage_bytes_expected=2_100_000_000,
        )
    ),
    "route": route_view(samples.ROUTE),
    "route-way-back": route_view(samples.CUT_OVER.route, samples.READINESS),
    "readiness": readiness_view(samples.READINESS),
    "readiness-none": readiness_view(
        replace(samples.READINESS, possible=False, version=None, problems=("there is no cutover to roll back.",))
    ),
    "readiness-fresh": readiness_view(
        replace(
            samples.READINESS,
            staleness=Staleness(0, timedelta()),
            problems=(),
            warnings=(),
            rows_differing=None,
            fresh_until=None,
            protected_until=None,
        )
    ),
    "change-cutover": change_view(samples.CUT_OVER),
    "change-shadow": change_view(
        replace(samples.CUT_OVER, route=samples.SHADOWED, command=Command.SET_SHADOW, gates=(), warnings=())
    ),
    "change-gates": change_view(
        replace(samples.CUT_OVER, route=samples.DEMANDING, command=Command.REQUIRE_GATES, gates=(), warnings=())
    ),
    "route-gates": route_view(samples.DEMANDING),
    "route-shadow": route_view(samples.SHADOWED),
    "shadow": shadow_view(samples.SHADOW),
    "shadow-none": shadow_view(
        replace(samples.SHADOW, share=None, counts=ShadowCounts(), compared_share=None, update_time=None)
    ),
    "change-traffic": change_view(
        replace(
            samples.CUT_OVER,
            route=samples.ROUTE,
            command=Command.SET_TRAFFIC,
            gates=(),
            adoptions=(),
            fronts_not_counted=(),
            warnings=(),
            adoption_time=None,
        )
    ),
    "change-rollback": change_view(
        replace(samples.CUT_OVER, route=samples.ROUTE, command=Command.ROLL_BACK, gates=(), fronts_not_counted=())
    ),
    "change-nothing": change_view(
        replace(samples.CUT_OVER, changed=False, gates=(), adoptions=(), warnings=(), fronts_not_counted=())
    ),
    "changes": changes_view([samples.CUT_OVER]),
    "changes-none": changes_view([]),
    "explanation": explanation_view(samples.EXPLANATION),
    "jobs": jobs_view([samples.THE_JOB], {JOB: samples.ROUTE}),
    "jobs-none": jobs_view([], {}),
    "job": job_view(samples.THE_JOB, samples.VERSIONS, {2: replace(samples.RUN, records_set_aside=3)}, samples.ROUTE),
    "job-range": job_view(samples.THE_JOB, (samples.BOUNDED, samples.VERSIONS[1]), {2: samples.COMPLETED}, None),
    "job-dropped": job_view(
        samples.THE_JOB,
        (samples.VERSIONS[0], replace(samples.VERSIONS[1], state=VersionState.DROPPED)),
        {1: replace(samples.COMPLETED, version=1, progress=0.0, lag=0), 2: samples.RUN},
        samples.ROUTE,
    ),
    "job-new": job_view(samples.THE_JOB, [], {}, None),
    "version": version_view(samples.VERSIONS[1], None),
    "version-range": version_view(samples.BOUNDED, samples.COMPLETED),
    "read": read_view(samples.READ),
    "read-nothing": read_view(samples.READ.with_rows([None])[0]),
    "rows": rows_view([samples.ROW, samples.ROW]),
    "rows-none": rows_view([]),
    "retired": Text(retired_text(samples.VERSIONS[1])),
    "problems-none": problems_view(()),
    "problems": problems_view(
        (
            DefinitionProblem("TABLE_REFUSED", 'PostgreSQL refuses the table of totals: column "x" does not exist.'),
            DefinitionProblem("TOPIC_NOT_FOUND", "There is no topic orders."),
        )
    ),
    "comparison": comparison_view(samples.COMPARISON),
    "comparison-unaligned": comparison_view(
        replace(
            samples.COMPARISON,
            aligned=False,
            exact=False,
            samples=(),
            columns=(),
            columns_added=(),
            ranges=(
                replace(
                    samples.CUT,
                    aligned=False,
                    unaligned_reason="carrier-punctuality v1 and v2 cannot stand at one cut within 2.0 s: version 2 is "
                    "PAUSED and 100 offsets behind version 1 in flights/1: resume it, or pause the other one where "
                    "both stand.",
                    positions_new=(samples.POSITIONS[0], replace(samples.POSITIONS[1], next_offset=40_000)),
                ),
            ),
        )
    ),
    "comparison-other-starts": comparison_view(
        replace(samples.COMPARISON, exact=False, samples=(), columns=(), columns_added=(), held_max=timedelta(0))
    ),
    "comparison-as-expected": comparison_view(
        replace(
            samples.COMPARISON,
            contract=samples.CONTRACT,
            passed=True,
            findings=(
                "Column on_time differs: 143 of 185, as expected.",
                "Column name differs: 1 of 185, as expected.",
            ),
            samples=(),
            ranges=(replace(samples.CUT, last_key=("UA", "2013-01-01")), samples.CUT),
            ranges_done=2,
        ),
        with_ranges=True,
    ),
    "comparison-not-as-expected": comparison_view(
        replace(
            samples.COMPARISON,
            contract=samples.CONTRACT,
            passed=False,
            findings=("The new table alone has rows: 1 of 186, which the contract does not expect.",),
            samples=(),
        )
    ),
    "comparison-unfinished": comparison_view(
        replace(samples.COMPARISON, finished=False, end_time=None, samples=(), columns=())
    ),
    "comparisons": comparisons_view(
        [
            samples.COMPARISON,
            replace(samples.COMPARISON, id="ba9876543210", finished=False, aligned=False),
            replace(samples.COMPARISON, passed=True, findings=("Nothing differs.",)),
            replace(samples.COMPARISON, passed=False, findings=("on_time differs: 143 of 185, which is not expected",)),
        ]
    ),
    "comparisons-none": comparisons_view([]),
    "audit": audit_view(Audit(JOB, True, samples.COMPARISON, {"on_time_share": 4.4e-16})),
    "audit-differs": audit_view(Audit(JOB, False, samples.COMPARISON, {})),
    "read-control-characters": read_view(
        msgspec.structs.replace(
            samples.READ, row={"key": "\x1b[31mred\x00", "note": "a\r\nb\x9bc\u202ed", "list": ["\x7f"]}
        )
    ),
    "error-control-characters": error_text(
        CommandError(ExitCode.REFUSED, "RECORD", "No \x1b]0;title\x07.", reasons=(Reason("a", "\x1bb", "c\x1bd"),))
    ),
    "error": error_text(REFUSED),
}


def assert_as_written(name: str, text: str) -> None:
    """The text is that of the snapshot, which is written instead where that is asked for."""
    file = SNAPSHOTS / f"{name}.txt"
    if os.environ.get("TURNOUT_WRITE_SNAPSHOTS"):
        file.parent.mkdir(exist_ok=True)
        file.write_text(text)
    assert text == file.read_text()


@pytest.mark.parametrize("name", VIEWS)
def test_text_at_80_columns(name: str) -> None:
    assert_as_written(name, rendered(VIEWS[name]))


@pytest.mark.parametrize("name", VIEWS)
def test_no_colours_without_a_terminal_and_no_blanks_at_the_end(name: str) -> None:
    text = rendered(VIEWS[name])
    assert "\x1b" not in text
    assert all(line == line.rstrip() for line in text.splitlines())


@pytest.mark.parametrize("width", [20, 40, 60, 80, 120, 200])
@pytest.mark.parametrize("name", VIEWS)
def test_nothing_is_cut_off_or_wider_than_the_screen(name: str, width: int) -> None:
    text = rendered(VIEWS[name], width)
    assert all(len(line) <= width for line in text.splitlines())
    assert "…" not in text


def test_every_snapshot_belongs_to_a_view() -> None:
    assert {file.stem for file in SNAPSHOTS.glob("*.txt")} == set(VIEWS)


def test_data_cannot_send_escape_sequences_to_a_terminal() -> None:
    drawn = rendered(rows_view([{"key": "\x1b[2Jgone", "n": 1}]), terminal=True)
    assert "\x1b[2J" not in drawn
    assert "\\x1b[2Jgone" in drawn
    run = replace(samples.FAILED, status_message="bad \x1b[2J")
    assert "\x1b[2J" not in rendered(run_view(run), terminal=True)


@pytest.mark.parametrize(
    ("reason", "state", "version", "said"),
    [
        ("TOPIC_RECREATED", RunState.FAILED, VersionState.REGISTERED, "any change of the file (a comment will do)"),
        ("LOG_TRUNCATED", RunState.FAILED, VersionState.REGISTERED, "any change of the file (a comment will do)"),
        (
            "TOPIC_NOT_FOUND",
            RunState.FAILED,
            VersionState.REGISTERED,
            "again. Create the topic; then `turnout apply FILE`",
        ),
        ("MALFORMED_RECORD", RunState.FAILED, VersionState.REGISTERED, "mend the job and `turnout apply FILE` it"),
        ("WORKER_KEEPS_DYING", RunState.FAILED, VersionState.REGISTERED, "Once that is mended, `turnout run resume"),
        (
            "",
            RunState.COMPLETED,
            VersionState.REGISTERED,
            "with another --until, or none, reads more, as a new version.",
        ),
        ("", RunState.COMPLETED, VersionState.RETIRED, f"`turnout unretire {JOB} v2` takes that back."),
        ("", RunState.STOPPED, VersionState.REGISTERED, f"`turnout run resume {JOB} v2` takes it up again."),
        ("", RunState.STOPPED, VersionState.RETIRED, f"`turnout unretire {JOB} v2` takes that back"),
        ("", RunState.STOPPED, VersionState.DROPPED, "its table is gone"),
    ],
)
def test_the_way_on_from_a_run_that_stands_still(
    reason: str, state: RunState, version: VersionState, said: str
) -> None:
    advice = way_on(replace(samples.FAILED, failure_reason=reason, state=state), version)
    assert said in advice
    assert ("run resume" in advice) == (said.count("run resume") > 0)


def test_colours_in_a_terminal() -> None:
    assert "\x1b[" in rendered(run_view(samples.FAILED), terminal=True)


def test_a_row_with_many_columns_is_shown_as_names_and_values() -> None:
    wide = {f"column_{number}": number for number in range(12)}
    lines = rendered(rows_view([wide, wide])).splitlines()
    assert lines[0].split() == ["column_0", "0"]
    assert len(lines) == 12 + 1 + 12


def test_a_wide_screen_shows_more_of_each_partition() -> None:
    assert "log start" not in rendered(run_view(samples.WIDE), 80)
    lines = rendered(run_view(samples.WIDE), 140).splitlines()
    [header] = [line for line in lines if line.startswith("partition")]
    assert header.split()[:4] == ["partition", "done", "log", "start"]
    assert header.endswith("rows  set aside  event time")


@pytest.mark.parametrize("most", [1, 5, 49, 50, 51, -3])
def test_the_partitions_that_are_furthest_behind_are_shown(most: int) -> None:
    lines = rendered(run_view(samples.WIDE, most)).splitlines()
    shown = [int(line.split()[0].removeprefix("flights/")) for line in lines if line.startswith("flights/")]
    assert shown == list(range(50 - min(50, max(1, most)), 50))
    assert any(f"and {50 - len(shown)} more partition" in line for line in lines) is (len(shown) < 50)


def test_an_unknown_latest_end_is_said() -> None:
    assert "ETA 1 min 15 s (1 min 8 s to ?)" in run_line(replace(samples.RUN, eta_max=None))


def test_held_still_is_not_a_rate_of_nothing() -> None:
    still = Throttle(ThrottleReason.PAUSED_BY_GOVERNOR, 0.0, "reads are slow")
    assert "held still by PAUSED_BY_GOVERNOR" in run_line(replace(samples.RUN, throttle=still))


def test_nothing_is_said_of_a_lag_that_is_not_known_yet() -> None:
    begun = replace(samples.RUN, lag=0, progress=0.0)
    assert "lag" not in run_line(begun)
    assert "lag 0" in run_line(replace(begun, progress=1.0))


@pytest.mark.parametrize("state", [RunState.PAUSED, RunState.STOPPED, RunState.FAILED])
def test_a_run_at_rest_has_neither_an_end_in_sight_nor_a_rate(state: RunState) -> None:
    for run in (replace(samples.RUN, state=state), replace(samples.RUN, state=state, never_catches_up=True)):
        for text in (run_line(run), rendered(run_view(run), 120)):
            assert "ETA" not in text
            assert "never" not in text
            assert "/s" not in text
            assert "lag" in text


@pytest.mark.parametrize(("width", "last"), [(80, "event time"), (60, "rate"), (40, "rate")])
def test_a_narrow_screen_keeps_the_figures_and_drops_the_event_time_first(width: int, last: str) -> None:
    lines = rendered(run_view(samples.RUN), width).splitlines()
    [header] = [line for line in lines if line.startswith("partition")]
    assert header.endswith(last)
    assert sum(line.startswith("flights/") for line in lines) == 2


def test_a_range_that_held_nothing_is_told_from_one_that_was_read() -> None:
    assert "holds no record" in way_on(replace(samples.COMPLETED, records=0), VersionState.REGISTERED)
    assert "holds no record" not in way_on(samples.COMPLETED, VersionState.REGISTERED)
    assert "holds no record" not in way_on(
        replace(samples.COMPLETED, records=0, records_set_aside=1), VersionState.REGISTERED
    )


@pytest.mark.parametrize("cause", Cause)
def test_a_read_is_shown_whatever_version_answered_it_for_whatever_cause(cause: Cause) -> None:
    assert "v2 (" in rendered(read_view(msgspec.structs.replace(samples.READ, cause=cause)))
