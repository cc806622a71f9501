"""What two tables differ in, and whether they should."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from turnout.cli.output import facts, heading, table
from turnout.cli.quantities import count, moment, plural, span
from turnout.cli.views.phrases import value_text
from turnout.cli.views.tables import positions_text
from turnout.results import AppliedPosition, Audit, ColumnDifference, ComparedRange, Comparison, RowDifference


def differs(found: Comparison) -> bool:
    """Whether any row or the columns differ."""
    return bool(
        found.rows_only_old or found.rows_only_new or found.rows_changed or found.columns_added or found.columns_removed
    )


def comparison_view(found: Comparison, *, with_ranges: bool = False) -> RenderableType:
    """How two tables differ."""
    old, new = found.old, found.new
    parts: list[RenderableType] = [heading(f"{found.job}: v{old} compared with v{new}"), _counts(found)]
    if found.columns_added:
        parts.append(Text(f"Columns only in v{new}: {', '.join(found.columns_added)}."))
    if found.columns_removed:
        parts.append(Text(f"Columns only in v{old}: {', '.join(found.columns_removed)}."))
    differing = [one for one in found.columns if one.rows]
    if differing:
        parts += [Text(), _columns(differing, old, new)]
    if found.samples:
        parts += [
            Text(),
            heading(f"{plural(len(found.samples), 'row')} that differ" + ("s" if len(found.samples) == 1 else "")),
            _samples(found.samples, old, new),
        ]
    if with_ranges and found.ranges:
        parts += [Text(), heading("Ranges"), _ranges(found.ranges)]
    parts += [Text(), _exactness(found)]
    if found.finished:
        parts.append(Text(_held(found)))
    parts.append(_verdict(found))
    return Group(*parts)


def audit_view(found: Audit) -> RenderableType:
    """Whether a job's function is deterministic, and where not."""
    compared = found.comparison
    rows = count(compared.rows_old)
    parts: list[RenderableType] = []
    if found.deterministic:
        parts.append(
            Text(f"{found.job} is deterministic: computed twice, it made the same {rows} rows.", style="green")
        )
    else:
        differing = [one for one in compared.columns if one.rows]
        parts.append(
            Text(
                f"{found.job} is not deterministic: computed twice from the same records, it made other rows. A "
                f"function sees its records and nothing else: no clock, no randomness, no state of its own, no order "
                f"of a set.",
                style="red",
            )
        )
        parts.append(_counts(compared))
        if differing:
            parts += [Text(), _columns(differing, compared.old, compared.new)]
        if compared.samples:
            parts += [Text(), _samples(compared.samples, compared.old, compared.new)]
    if found.noise:
        floor = [(name, f"{by:,.6g}") for name, by in sorted(found.noise.items())]
        parts += [Text(), Text("Noise of numbers that count as equal, from the order of addition:"), facts(floor)]
    return Group(*parts)


def comparisons_view(found: Sequence[Comparison]) -> RenderableType:
    """Several comparisons, a line each."""
    if not found:
        return Text("Nothing was compared yet. `turnout compare JOB v1 v2` does.")
    rows = [
        (
            one.id,
            f"v{one.old} v{one.new}",
            moment(one.create_time),
            count(one.rows_only_old + one.rows_only_new + one.rows_changed),
            "yes" if one.aligned else "no",
            _outcome(one),
        )
        for one in found
    ]
    return table(("id", "versions", "begun", "rows differ", "one cut", "outcome"), rows, right=(3,))


def progress_text(found: Comparison) -> str:
    """How far an unfinished comparison is, for a line."""
    done, differ = found.rows_old + found.rows_new, found.rows_only_old + found.rows_only_new + found.rows_changed
    of = f" of about {count(found.rows_expected)}" if found.rows_expected > done else ""
    newest = found.ranges[-1] if found.ranges else None
    held = f", held for {span(newest.held)}" if newest is not None else ""
    return (
        f"{found.job} {found.id}: {plural(found.ranges_done, 'range')}, {count(done)}{of} rows, {count(differ)} differ"
        f"{held}"
    )


def _outcome(found: Comparison) -> str:
    if not found.finished:
        return f"not finished, {plural(found.ranges_done, 'range')} done"
    if found.passed is None:
        return "no contract"
    return "as expected" if found.passed else " ".join(found.findings)


def _counts(found: Comparison) -> RenderableType:
    old, new = found.old, found.new
    return facts(
        [
            (f"rows of v{old}", count(found.rows_old)),
            (f"rows of v{new}", count(found.rows_new)),
            (f"only in v{old}", count(found.rows_only_old)),
            (f"only in v{new}", count(found.rows_only_new)),
            ("changed", count(found.rows_changed)),
        ]
    )


def _columns(columns: Sequence[ColumnDifference], old: int, new: int) -> RenderableType:
    rows = [(one.column, count(one.rows), number(one.largest_absolute), number(one.total)) for one in columns]
    return table(("column", "rows", "largest", f"sum of v{new} - v{old}"), rows, right=(1, 2, 3))


def number(value: float | None) -> str:
    """A distance."""
    if value is None:
        return ""
    whole = value in (float("inf"), float("-inf")) or value != value or value != int(value)
    return f"{value:,.6g}" if whole else f"{int(value):,}"


def _samples(samples: Sequence[RowDifference], old: int, new: int) -> RenderableType:
    rows = []
    for sample in samples:
        key = " ".join(value_text(value) for value in sample.key.values())
        if sample.old is None:
            rows.append((key, f"only in v{new}", "", ""))
        elif sample.new is None:
            rows.append((key, f"only in v{old}", "", ""))
        else:
            for at, (column, was) in enumerate(sample.old.items()):
                rows.append(("" if at else key, column, value_text(was), value_text(sample.new[column])))
    return table((" ".join(samples[0].key), "column", f"v{old}", f"v{new}"), rows, right=(2, 3))


def _ranges(ranges: Sequence[ComparedRange]) -> RenderableType:
    rows = [
        (
            str(one.number),
            " ".join(one.last_key) or "the last one",
            count(one.rows_old),
            count(one.rows_new),
            span(one.held),
            span(one.took),
            positions_text(one.positions_new) if one.aligned else one.unaligned_reason,
        )
        for one in ranges
    ]
    return table(("range", "up to key", "old", "new", "held", "took", "cut"), rows, right=(2, 3, 4, 5))


def _held(found: Comparison) -> str:
    if not found.aligned:
        return f"Comparison {found.id}."
    of = f", once for each of {plural(found.ranges_done, 'range')}" if found.ranges_done > 1 else ""
    if not found.held_max:
        return f"Comparison {found.id}; the runs stood at one cut by themselves, nobody was held{of}."
    return f"Comparison {found.id}; the runs were held for {span(found.held_max)} at most{of}."


def _verdict(found: Comparison) -> Text:
    if not found.finished:
        return Text(f"Not finished: `turnout compare {found.job} --resume {found.id}` goes on.", style="yellow")
    if found.passed is None:
        return Text("Not judged: no contract says what may differ.", style="dim")
    if found.passed:
        return Text(f"As expected. {' '.join(found.findings)}", style="green")
    return Text(f"Not as expected. {' '.join(found.findings)}", style="red")


def _exactness(found: Comparison) -> Text:
    old, new = found.old, found.new
    if found.exact:
        return Text("Exact: both tables stand at the same positions, so every difference is the code's.")
    if found.aligned:
        at = positions_text(found.ranges[-1].positions_old)
        return Text(
            f"Not exact: both tables stand at the same positions, but they begin at different ones, because the log "
            f"had lost old records when one of them was begun, or because their ranges of the log begin differently. "
            f"Records that only one of them has read differ too, and comparing again does not change that. Both: {at}.",
            style="yellow",
        )
    if not found.ranges:
        return Text("Nothing is compared yet.", style="yellow")
    newest = next((one for one in reversed(found.ranges) if not one.aligned), found.ranges[-1])
    return Text(
        f"Not exact: the tables stand at different positions, so records still to be applied differ too. "
        f"v{old}: {_at(newest.positions_old)}; v{new}: {_at(newest.positions_new)}. {newest.unaligned_reason}",
        style="yellow",
    )


def _at(positions: Sequence[AppliedPosition]) -> str:
    return positions_text(positions) or "nothing"
