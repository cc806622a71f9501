"""Rows of output tables, and the comparison of two tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from turnout.cli.output import facts, heading, table
from turnout.cli.quantities import count, plural
from turnout.cli.views.phrases import value_text
from turnout.results import AppliedPosition, Cause, Comparison, Read, RowDifference

_CAUSES = {
    Cause.ROUTED: "as routed",
    Cause.PINNED: "as named",
    Cause.ACTIVE: "the active version",
    Cause.STAND_IN: "the active version, for one that is behind",
}


def read_view(read: Read) -> RenderableType:
    """One row, and who answered."""
    applied = f", applied {positions_text(read.applied_positions)}" if read.applied_positions else ""
    served = Text(served_text(read) + applied, style="dim")
    if read.row is None:
        return Group(Text("There is no row with that key."), served)
    return Group(facts((name, value_text(value)) for name, value in read.row.items()), served)


def served_text(read: Read) -> str:
    """`v2 (as routed), epoch 5`."""
    return f"v{read.version} ({_CAUSES[read.cause]})" + (f", epoch {read.epoch}" if read.epoch else "")


def positions_text(positions: Sequence[AppliedPosition]) -> str:
    """Every partition with the offset it is applied to."""
    return ", ".join(f"{one.topic}/{one.partition} to {count(one.next_offset)}" for one in positions)


def rows_view(rows: Sequence[Mapping[str, object]]) -> RenderableType:
    """Rows of one table, numbers to the right."""
    if not rows:
        return Text("The table has no rows.")
    columns = list(rows[0])
    right = [position for position, name in enumerate(columns) if _numeric(rows, name)]
    return table(columns, ([value_text(row[name]) for name in columns] for row in rows), right=right)


def _numeric(rows: Sequence[Mapping[str, object]], name: str) -> bool:
    values = [row[name] for row in rows if row[name] is not None]
    return bool(values) and all(isinstance(value, int | float) and not isinstance(value, bool) for value in values)


def comparison_view(found: Comparison, job: str, old: int, new: int) -> RenderableType:
    """How two tables differ."""
    parts: list[RenderableType] = [
        heading(f"{job}: v{old} compared with v{new}"),
        facts(
            [
                (f"rows of v{old}", count(found.rows_old)),
                (f"rows of v{new}", count(found.rows_new)),
                (f"only in v{old}", count(found.rows_only_old)),
                (f"only in v{new}", count(found.rows_only_new)),
                ("changed", count(found.rows_changed)),
            ]
        ),
    ]
    if found.columns_added:
        parts.append(Text(f"Columns only in v{new}: {', '.join(found.columns_added)}."))
    if found.columns_removed:
        parts.append(Text(f"Columns only in v{old}: {', '.join(found.columns_removed)}."))
    if found.columns:
        rows = [
            (one.column, count(one.rows), _number(one.largest_absolute), _number(one.total)) for one in found.columns
        ]
        parts += [Text(), table(("column", "rows", "largest", f"sum of v{new} - v{old}"), rows, right=(1, 2, 3))]
    if found.samples:
        parts += [
            Text(),
            heading(f"{plural(len(found.samples), 'row')} that differ" + ("s" if len(found.samples) == 1 else "")),
            _samples(found.samples, old, new),
        ]
    parts += [Text(), _exactness(found, old, new)]
    return Group(*parts)


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:,.6g}" if value != int(value) else f"{int(value):,}"


def _samples(samples: Sequence[RowDifference], old: int, new: int) -> RenderableType:
    rows = []
    for sample in samples:
        key = " ".join(value_text(value) for value in sample.key.values())
        if sample.old is None:
            rows.append((key, f"only in v{new}", "", ""))
        elif sample.new is None:
            rows.append((key, f"only in v{old}", "", ""))
        else:
            for number, (column, was) in enumerate(sample.old.items()):
                rows.append(("" if number else key, column, value_text(was), value_text(sample.new[column])))
    return table((" ".join(samples[0].key), "column", f"v{old}", f"v{new}"), rows, right=(2, 3))


def _exactness(found: Comparison, old: int, new: int) -> Text:
    if found.exact:
        return Text("Exact: both tables stand at the same positions, so every difference is the code's.")
    if found.positions_old and _stand(found.positions_old) == _stand(found.positions_new):
        return Text(
            f"Not exact: both tables stand at the same positions, but they begin at different ones, because the log "
            f"had lost old records when one of them was begun, or because their ranges of the log begin differently. "
            f"Records that only one of them has read differ too, and comparing again does not change that. "
            f"Both: {positions_text(found.positions_old)}.",
            style="yellow",
        )
    return Text(
        f"Not exact: the tables stand at different positions, so records still to be applied differ too. "
        f"v{old}: {positions_text(found.positions_old)}; v{new}: {positions_text(found.positions_new)}. "
        f"Compare again when both have come to the end of a quiet log; one whose range ends goes no further.",
        style="yellow",
    )


def _stand(positions: Sequence[AppliedPosition]) -> dict[tuple[str, int], int]:
    return {(one.topic, one.partition): one.next_offset for one in positions}


def differs(found: Comparison) -> bool:
    """Whether any row or the columns differ."""
    return bool(
        found.rows_only_old or found.rows_only_new or found.rows_changed or found.columns_added or found.columns_removed
    )
