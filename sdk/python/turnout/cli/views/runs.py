"""Runs: one line for logs, a picture for a terminal."""

from __future__ import annotations

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from turnout.cli.output import facts, heading, table
from turnout.cli.quantities import ABSENT, count, moment, plural, rate, share, size, span
from turnout.cli.views.phrases import lines, state
from turnout.results import Estimate, PartitionProgress, Run, RunState, VersionState

BAR_COLUMNS = 30

# The log is not the one any more that the table stands on.
LOG_LOST = frozenset({"TOPIC_RECREATED", "POSITION_BEYOND_END", "LOG_TRUNCATED"})
# The same code would fail again at the same place.
_CODE_FAILS = frozenset({"MALFORMED_RECORD", "KEY_FROM_ANOTHER_PARTITION", "TRANSFORM_TIMEOUT"})


def run_line(run: Run) -> str:
    """Everything that matters on one line, for logs."""
    parts = [f"{run.job} v{run.version} {run.state}"]
    if _begun(run):
        parts += [share(run.progress), *_figures(run)]
    if run.records_set_aside:
        parts.append(f"{count(run.records_set_aside)} set aside")
    return "  ".join([*parts, run.status_message] if run.status_message else parts)


def run_view(run: Run) -> RenderableType:
    """The run with a bar, and a line for each partition; no figures before it has taken up a partition."""
    parts: list[RenderableType] = [
        Text.assemble((f"{run.job} v{run.version}", "bold"), "  ", state(run.state), f"  {_workers(run)}")
    ]
    if _begun(run):
        parts += [_bar(run.progress, share(run.progress)), Text("   ".join(_figures(run)))]
    if run.status_message:
        parts.append(Text(run.status_message, style="red" if run.state is RunState.FAILED else "yellow"))
    parts += lines(_remarks(run))
    if _begun(run):
        parts += [Text(), _partitions(run)]
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
    if run.state in (RunState.STOPPED, RunState.PAUSED, RunState.FAILED):
        return ""
    if run.state is RunState.TAILING:  # one worker follows the log, however many the replay had
        return f"{plural(run.live_workers, 'worker')}, {run.workers} for replay"
    if run.live_workers > run.workers:
        return f"{plural(run.live_workers, 'worker')}, {run.workers} for each replica"
    return f"{run.live_workers} of {plural(run.workers, 'worker')}"


def _figures(run: Run) -> list[str]:
    figures = [plural(run.records, "record")]
    if _rate_known(run):
        figures.append(rate(run.records_per_s))
    if run.rate_limit is not None:
        figures.append(f"limit {count(run.rate_limit)}/s")
    figures.append(f"lag {count(run.lag)}")
    return figures if run.eta is None else [*figures, f"ETA {span(run.eta)}"]


def _rate_known(run: Run) -> bool:
    """Nothing is measured yet while a replay just begins: 0/s beside its records would be wrong."""
    return run.records_per_s > 0 or run.state not in (RunState.QUEUED, RunState.REPLAYING)


def _remarks(run: Run) -> list[str]:
    remarks = []
    if run.records_set_aside:
        remarks.append(f"{plural(run.records_set_aside, 'malformed record')} set aside into the dead-letter table.")
    if run.worker_restarts:
        remarks.append(f"{plural(run.worker_restarts, 'worker')} died and started again.")
    return remarks


def way_on(run: Run, version: VersionState) -> str:
    """What to do about a run that stands still: resume it only where that can help."""
    job, number = run.job, f"v{run.version}"
    if version is VersionState.DROPPED:
        return f"{number} is dropped, its table is gone: `turnout apply FILE` with its file makes a new version."
    if version is not VersionState.REGISTERED:
        return f"{number} is {version}: `turnout unretire {job} {number}` takes that back, and its run goes on."
    if run.failure_reason in LOG_LOST and run.state is RunState.FAILED:
        return (
            f"To resume it would fail again. `turnout apply FILE` with any change of the file (a comment will do) "
            f"replays the log as a new version; or `turnout retire {job} {number}` first, where nobody reads it, and "
            f"apply the file as it is."
        )
    if run.failure_reason in _CODE_FAILS and run.state is RunState.FAILED:
        return "To resume it would fail again: mend the job and `turnout apply FILE` it as a new version."
    mended = "Once that is mended, " if run.state is RunState.FAILED else ""
    return f"{mended}`turnout run resume {job} {number}` takes it up again."


def _partitions(run: Run) -> RenderableType:
    rows = [
        (
            f"{one.topic}/{one.partition}",
            share(_way(one)),
            count(one.next_offset),
            count(one.end_offset),
            count(one.lag),
            rate(one.records_per_s) if _rate_known(run) else ABSENT,
            moment(one.event_time),
        )
        for one in run.partitions
    ]
    return table(("partition", "done", "offset", "end", "lag", "rate", "event time"), rows, right=(1, 2, 3, 4, 5))


def _way(one: PartitionProgress) -> float:
    length = one.end_offset - one.start_offset
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
