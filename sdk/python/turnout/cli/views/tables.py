"""Rows of output tables."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from rich.console import Group, RenderableType
from rich.text import Text

from turnout.cli.output import facts, table
from turnout.cli.quantities import count, moment
from turnout.cli.views.phrases import value_text
from turnout.results import AppliedPosition, Cause, Read, Version

_CAUSES = {
    Cause.ROUTED: "as routed",
    Cause.PINNED: "as named",
    Cause.ACTIVE: "the active version",
    Cause.STAND_IN: "the active version, for one that is behind",
    Cause.OVERRIDE: "an override of the experiment",
    Cause.HOLDOUT: "held out of the experiment",
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


def retired_text(version: Version) -> str:
    """That a version is no longer kept up to date, and until when its table can be looked at."""
    drop_time = version.retirement.drop_time if version.retirement is not None else None
    until = f" until {moment(drop_time)}, when it is dropped" if drop_time is not None else " until it is dropped"
    return (
        f"{version.job} v{version.number} is {version.state}: no reader is led to it, its table is as its run left it "
        f"and can be read by its number{until}. `turnout unretire {version.job} v{version.number}` takes that back."
    )


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
