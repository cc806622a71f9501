"""Runs: one line for logs, a picture for a terminal."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.progress_bar import ProgressBar
from rich.table import Table
from rich.text import Text

from turnout.cli.output import facts, heading, table
from turnout.cli.quantities import count, moment, plural, rate, share, size, span
from turnout.cli.views.phrases import lines, state
from turnout.results import Estimate, PartitionProgress, Run, RunState

BAR_COLUMNS = 30


def run_line(run: Run) -> str:
    """Everything that matters on one line, for logs."""
    parts = [f"{run.job} v{run.version} {run.state}"]
    if run.partitions:
        parts += [share(run.progress), *_figures(run)]
    if run.records_set_aside:
        parts.append(f"{count(run.records_set_aside)} set aside")
    return "  ".join([*parts, run.status_message] if run.status_message else parts)


def run_view(run: Run) -> RenderableType:
    """The run with a bar, and a line for each partition; no figures before it has taken up a partition."""
    parts: list[RenderableType] = [
        Text.assemble((f"{run.job} v{run.version}", "bold"), "  ", state(run.state), f"  {_workers(run)}")
    ]
    if run.partitions:
        parts += [_bar(run.progress, share(run.progress)), Text("   ".join(_figures(run)))]
    if run.status_message:
        parts.append(Text(run.status_message, style="red" if run.state is RunState.FAILED else "yellow"))
    parts += lines(_remarks(run))
    if run.partitions:
        parts += [Text(), _partitions(run.partitions)]
    return Group(*parts)


def _bar(fraction: float, label: str) -> RenderableType:
    grid = Table.grid(padding=(0, 2, 0, 0))
    grid.add_row(ProgressBar(total=1.0, completed=fraction, width=BAR_COLUMNS), Text(label))
    return grid


def _workers(run: Run) -> str:
    if run.state in (RunState.STOPPED, RunState.PAUSED, RunState.FAILED):
        return ""
    return f"{run.live_workers} of {plural(run.workers, 'worker')}"


def _figures(run: Run) -> list[str]:
    limit = f" (limit {count(run.rate_limit)}/s)" if run.rate_limit is not None else ""
    figures = [plural(run.records, "record"), rate(run.records_per_s) + limit, f"lag {count(run.lag)}"]
    return figures if run.eta is None else [*figures, f"ETA {span(run.eta)}"]


def _remarks(run: Run) -> list[str]:
    remarks = []
    if run.records_set_aside:
        remarks.append(f"{plural(run.records_set_aside, 'malformed record')} set aside into the dead-letter table.")
    if run.worker_restarts:
        remarks.append(f"{plural(run.worker_restarts, 'worker')} died and started again.")
    return remarks


def _partitions(partitions: Sequence[PartitionProgress]) -> RenderableType:
    rows = [
        (
            f"{one.topic}/{one.partition}",
            share(_way(one)),
            count(one.next_offset),
            count(one.end_offset),
            count(one.lag),
            rate(one.records_per_s),
            moment(one.event_time),
        )
        for one in partitions
    ]
    return table(("partition", "done", "offset", "end", "lag", "rate", "event time"), rows, right=(1, 2, 3, 4, 5))


def _way(one: PartitionProgress) -> float:
    length = one.end_offset - one.start_offset
    return 1.0 if length <= 0 else min(1.0, max(0.0, (one.next_offset - one.start_offset) / length))


def estimate_view(estimate: Estimate, job: str, version: int) -> RenderableType:
    """What a run would read and write."""
    sampled = f" (from a sample of {plural(estimate.sampled_records, 'record')})" if estimate.sampled_records else ""
    table_size = "unknown" if estimate.table_bytes is None else size(estimate.table_bytes)
    parts: list[RenderableType] = [
        heading(f"A replay of {job} v{version} would take"),
        facts(
            [
                ("records", f"at most {count(estimate.records)} in {plural(estimate.partitions, 'partition')}"),
                ("log", f"{size(estimate.log_bytes)}{sampled}"),
                ("new table", table_size),
            ]
        ),
    ]
    return Group(*parts, *lines(f"  - {remark}" for remark in estimate.remarks))
