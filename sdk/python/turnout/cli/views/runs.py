"""Runs: one line for logs, a picture for a terminal."""

from __future__ import annotations

import heapq
from collections.abc import Callable

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from turnout.cli.output import Columns, FirstFitting, facts, heading, table
from turnout.cli.quantities import ABSENT, count, moment, plural, rate, share, size, span
from turnout.cli.views.phrases import lines, state
from turnout.results import Estimate, PartitionProgress, Run, RunState, Throttle, VersionState

BAR_COLUMNS = 30
PARTITIONS_MAX = 32  # shown, unless told: those that are furthest behind

_AT_REST = (RunState.PAUSED, RunState.STOPPED, RunState.FAILED)

# The log is not the one any more that the table stands on.
LOG_LOST = frozenset({"TOPIC_RECREATED", "POSITION_BEYOND_END", "LOG_TRUNCATED"})
_TOPIC_GONE = "TOPIC_NOT_FOUND"  # of a run: deleted since it began, and a new topic of that name is another one
_LOG_GONE = LOG_LOST | {_TOPIC_GONE}
# The same code would fail again at the same place.
_CODE_FAILS = frozenset({"MALFORMED_RECORD", "KEY_FROM_ANOTHER_PARTITION", "TRANSFORM_TIMEOUT"})


def run_line(run: Run) -> str:
    """Everything that matters on one line, for logs."""
    parts = [f"{run.job} v{run.version} {run.state}"]
    if _begun(run):
        parts += [share(run.progress), *_speed(run), *_amounts(run)]
    if run.records_set_aside:
        parts.append(f"{count(run.records_set_aside)} set aside")
    if run.throttle is not None:
        parts.append(_throttled(run.throttle))
    return "  ".join([*parts, run.status_message] if run.status_message else parts)


def run_view(run: Run, partitions_max: int = PARTITIONS_MAX) -> RenderableType:
    """The run with a bar, and a line for each of its partitions, at most so many; no figures before it has taken up a
    partition."""
    parts: list[RenderableType] = [
        Text.assemble((f"{run.job} v{run.version}", "bold"), "  ", state(run.state), f"  {_workers(run)}")
    ]
    if _begun(run):
        parts.append(_bar(run.progress, share(run.progress)))
        parts += [Text("   ".join(figures)) for figures in (_speed(run), _amounts(run)) if figures]
    if run.throttle is not None:
        parts.append(Text(f"{_throttled(run.throttle)}: {run.throttle.message}", style="yellow"))
    status = run.status_message
    if run.retention_risk is not None:  # said in the status, too
        parts.append(Text(run.retention_risk.message, style="bold red"))
        status = status.replace(run.retention_risk.message, "").strip("; ")
    if status:
        parts.append(Text(status, style="red" if run.state is RunState.FAILED else "yellow"))
    parts += lines(_remarks(run))
    if _begun(run):
        parts += [Text(), _partitions(run, max(1, partitions_max))]
    return Group(*parts)


def _begun(run: Run) -> bool:
    """Whether there is a way to measure: a queued run has taken up no partition for sure."""
    return bool(run.partitions) and run.state is not RunState.QUEUED


def _bar(fraction: float, label: str) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row(ProgressBar(total=1.0, completed=fraction, width=BAR_COLUMNS), Text(label))
    return grid


def _workers(run: Run) -> str:
    if run.state is RunState.QUEUED:
        return f"priority {run.priority}" if run.priority else ""
    if run.state in (*_AT_REST, RunState.COMPLETED):
        return ""
    if run.state is RunState.TAILING:  # one worker follows the log, however many the replay had
        return f"{plural(run.live_workers, 'worker')}, {run.workers} for replay"
    if run.live_workers > run.workers:
        return f"{plural(run.live_workers, 'worker')}, {run.workers} for each replica"
    return f"{run.live_workers} of {plural(run.workers, 'worker')}"


def _speed(run: Run) -> list[str]:
    """When it reaches the end, with the spread, and what that rests on."""
    figures = []
    if run.state in _AT_REST:
        pass
    elif run.never_catches_up:
        figures.append("never at this rate")
    elif run.eta is not None:
        latest = "?" if run.eta_max is None else span(run.eta_max)
        least = latest if run.eta_min is None else span(run.eta_min)
        figures.append(f"ETA {span(run.eta)} ({least} to {latest})" if least != latest else f"ETA {span(run.eta)}")
    if _rate_known(run):
        figures.append(rate(run.records_per_s))
    if run.rate_limit is not None:
        figures.append(f"limit {count(run.rate_limit)}/s")
    if _lag_known(run):
        figures.append(f"lag {count(run.lag)}")
    return figures


def _lag_known(run: Run) -> bool:
    """Until Kafka has told where the log ends there is no lag, and nothing is done either."""
    return run.lag > 0 or run.progress >= 1.0


def _amounts(run: Run) -> list[str]:
    amounts = [plural(run.records, "record")]
    if run.rows_written:
        amounts += [f"{plural(run.rows_written, 'row')} written", size(run.bytes_written)]
    return amounts


def _throttled(throttle: Throttle) -> str:
    if throttle.records_per_s <= 0:
        return f"held still by {throttle.reason}"
    return f"held down to {rate(throttle.records_per_s)} by {throttle.reason}"


def _rate_known(run: Run) -> bool:
    """Nothing is measured yet while a replay just begins: 0/s beside its records would be wrong. What was measured
    before a run came to rest says nothing of it any more."""
    if run.state in _AT_REST:
        return False
    return run.records_per_s > 0 or run.state not in (RunState.QUEUED, RunState.REPLAYING)


def _remarks(run: Run) -> list[str]:
    remarks = []
    if run.records_set_aside:
        remarks.append(f"{plural(run.records_set_aside, 'malformed record')} set aside into the dead-letter table.")
    if run.worker_restarts:
        remarks.append(f"{plural(run.worker_restarts, 'worker')} died and started again.")
    if run.stuck_restarts:
        remarks.append(f"{count(run.stuck_restarts)} of them stood still and had to be ended.")
    return remarks


EMPTY_RANGE = (
    "The range holds no record, and its table is empty; `turnout apply FILE` with another --from or --until reads "
    "another one, as a new version"
)


def range_is_empty(run: Run) -> bool:
    """Whether it has read its whole range, and there was nothing."""
    return run.state is RunState.COMPLETED and not run.records and not run.records_set_aside


def way_on(run: Run, version: VersionState) -> str:
    """What to do about a run that stands still: resume it only where that can help."""
    job, number = run.job, f"v{run.version}"
    if version is VersionState.DROPPED:
        return f"{number} is dropped, its table is gone: `turnout apply FILE` with its file makes a new version."
    if version is not VersionState.REGISTERED:
        goes_on = "" if run.state is RunState.COMPLETED else ", and its run goes on"
        return f"{number} is {version}: `turnout unretire {job} {number}` takes that back{goes_on}."
    if range_is_empty(run):
        return f"{EMPTY_RANGE}."
    if run.state is RunState.COMPLETED:
        return (
            "It has read its whole range, and its table stays as it is. `turnout apply FILE` with another --until, or "
            "none, reads more, as a new version."
        )
    if again := fails_again(run, "To resume it would fail again"):
        return again
    mended = "Once that is mended, " if run.state is RunState.FAILED else ""
    return f"{mended}`turnout run resume {job} {number}` takes it up again."


def fails_again(run: Run, said: str) -> str:
    """That a failed run fails again if it is resumed, as it is `said`, and what to do; empty where that can help."""
    if run.state is not RunState.FAILED:
        return ""
    if run.failure_reason in _LOG_GONE:
        create = "Create the topic; then " if run.failure_reason == _TOPIC_GONE else ""
        return (
            f"{said}. {create}`turnout apply FILE` with any change of the file (a comment will do) replays the log as "
            f"a new version; or `turnout retire {run.job} v{run.version}` first, where nobody reads it, and apply the "
            f"file as it is."
        )
    if run.failure_reason in _CODE_FAILS:
        return f"{said}: mend the job and `turnout apply FILE` it as a new version."
    return ""


_Cell = Callable[[PartitionProgress], str]


def _partitions(run: Run, most: int) -> RenderableType:
    """Those that are furthest behind, in their order; as many columns as the screen holds."""
    shown = run.partitions
    if len(shown) > most:
        behind = set(heapq.nlargest(most, range(len(shown)), key=lambda at: (shown[at].lag, -at)))
        shown = tuple(one for at, one in enumerate(shown) if at in behind)
    columns: dict[str, _Cell] = {
        "partition": lambda one: f"{one.topic}/{one.partition}",
        "done": lambda one: share(_way(one)),
        "log start": lambda one: count(one.log_start_offset),
        "offset": lambda one: count(one.next_offset),
        "end": lambda one: count(one.target_offset),
        "lag": lambda one: count(one.lag) if _lag_known(run) else ABSENT,
        "rate": lambda one: rate(one.records_per_s) if _rate_known(run) else ABSENT,
        "rows": lambda one: count(one.rows_written),
        "set aside": lambda one: count(one.records_set_aside),
        "event time": lambda one: moment(one.event_time),
    }
    least = [name for name in columns if name not in ("log start", "rows", "set aside")]
    narrow = (least, least[:-1], ["partition", "done", "lag", "rate"], ["partition", "done"])
    told = FirstFitting([_table(shown, columns, names) for names in (list(columns), *narrow)])
    hidden = len(run.partitions) - len(shown)
    if not hidden:
        return told
    lag = run.lag - sum(one.lag for one in shown)
    return Group(told, Text(f"and {plural(hidden, 'more partition')}, lag {count(max(0, lag))}", style="dim"))


def _table(shown: tuple[PartitionProgress, ...], columns: dict[str, _Cell], names: list[str]) -> Columns:
    rows = [[columns[name](one) for name in names] for one in shown]
    return table(names, rows, right=[at for at, name in enumerate(names) if name not in ("partition", "event time")])


def _way(one: PartitionProgress) -> float:
    length = one.target_offset - one.start_offset
    return 1.0 if length <= 0 else min(1.0, max(0.0, (one.next_offset - one.start_offset) / length))


def estimate_view(estimate: Estimate, job: str, version: int) -> RenderableType:
    """What a run would read, write, take and wait for."""
    sampled = f" (from a sample of {plural(estimate.sampled_records, 'record')})" if estimate.sampled_records else ""
    table_size = "unknown" if estimate.table_bytes is None else size(estimate.table_bytes)
    parts: list[RenderableType] = [
        heading(f"A replay of {job} v{version} would take"),
        facts(
            [
                ("records", f"at most {count(estimate.records)} in {plural(estimate.partitions, 'partition')}"),
                ("log", f"{size(estimate.log_bytes)}{sampled}"),
                ("new table", table_size),
                ("all tables", _peak(estimate)),
                ("time", _time_taken(estimate)),
                ("queue", estimate.waits_for or "admitted at once"),
            ]
        ),
    ]
    if estimate.retention_risk is not None:
        parts.append(Text(f"The log loses records first: {estimate.retention_risk.message}", style="bold red"))
    return Group(*parts, *lines(f"  - {remark}" for remark in estimate.remarks))


def _peak(estimate: Estimate) -> str:
    return "unknown" if estimate.peak_storage_bytes is None else f"{size(estimate.peak_storage_bytes)} at the peak"


def _time_taken(estimate: Estimate) -> str:
    if estimate.never_catches_up:
        return "never: the log grows faster than it is read"
    if estimate.duration is None:
        return "unknown"
    most = "never" if estimate.duration_max is None else span(estimate.duration_max)
    return f"about {span(estimate.duration)}, from {span(estimate.duration_min)} to {most}"
