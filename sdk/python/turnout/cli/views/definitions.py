"""A job's definition, and how it differs from another."""

from __future__ import annotations

from collections.abc import Sequence
from datetime import timedelta

from rich.console import Group, RenderableType
from rich.text import Text

from turnout.cli.output import facts, heading, table
from turnout.cli.quantities import span
from turnout.cli.views.phrases import lines
from turnout.schema import Change, Column, ColumnDifference, JobDefinition, Merge, OnMalformed


def definition_view(definition: JobDefinition) -> RenderableType:
    """Kind, topics, and the table as it would be created."""
    return Group(facts(_facts(definition)), Text(), _columns(definition))


def _facts(definition: JobDefinition) -> list[tuple[str, str]]:
    topics = ", ".join(
        source.topic + (f" (event time: {source.event_time})" if source.event_time else "")
        for source in definition.topics
    )
    pairs = [("job", definition.job), ("kind", definition.kind.value), ("topics", topics)]
    set_aside = definition.on_malformed is OnMalformed.SET_ASIDE
    pairs.append(("malformed", "set aside into the dead-letter table" if set_aside else "the run fails"))
    if definition.order_by is not None:
        pairs.append(("order by", definition.order_by))
    if definition.keep is not None:
        pairs.append(("keeps", f"the {definition.keep.value} row of a key"))
    if definition.expiry is not None:
        after = span(timedelta(seconds=definition.expiry.after_s))
        pairs.append(("expiry", f"{after} after {definition.expiry.column}"))
    if definition.requirements:
        pairs.append(("requires", ", ".join(definition.requirements)))
    if definition.python:
        pairs.append(("python", definition.python))
    return pairs


def _columns(definition: JobDefinition) -> RenderableType:
    rows = [
        (column.name, column.type.postgres, "null" if column.nullable else "not null", _merge(column))
        for column in definition.columns
    ]
    rows += [(derived.name, "generated", "", f"as ({derived.expression})") for derived in definition.derived]
    parts: list[RenderableType] = [table(("column", "type", "", "merge"), rows)]
    parts.append(Text(f"primary key ({', '.join(definition.key)})"))
    parts += [Text(f"index ({', '.join(index.columns)})") for index in definition.indexes]
    return Group(*parts)


def _merge(column: Column) -> str:
    if column.merge is Merge.KEY:
        return "key"
    if column.merge is Merge.LAST_BY:
        return f"last by {column.last_by}"
    if column.merge is Merge.NONE:
        return ""
    return f"{column.merge.value} (approximate)" if column.approximate else str(column.merge.value)


def differences_view(differences: Sequence[ColumnDifference], active: int) -> RenderableType:
    """What a reader of the active version finds different."""
    if not differences:
        return Text(f"The columns are those of the active version, v{active}.")
    parts: list[RenderableType] = [heading(f"Columns that differ from the active version, v{active}")]
    parts += [Text(f"  {difference_line(one)}", style="yellow" if one.breaking else "") for one in differences]
    if any(one.breaking for one in differences):
        parts += lines(
            [
                "Readers of the active version may fail on this one: the schema gate will refuse its cutover "
                "unless it is overridden."
            ]
        )
    return Group(*parts)


def difference_line(difference: ColumnDifference) -> str:
    """`+ cancelled: added (int64, not null)`; the mark says added, removed or changed."""
    mark = {Change.ADDED: "+", Change.REMOVED: "-"}.get(difference.change, "~")
    return f"{mark} {difference}"
